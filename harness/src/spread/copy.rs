//! Copies folders of evidence.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::evidence::EvidenceError;

/// Copies a folder with everything in it. The folder may exist; a file that is in both is replaced.
pub(super) fn folder(from: &Path, to: &Path) -> Result<(), EvidenceError> {
    fs::create_dir_all(to).map_err(EvidenceError::io("create", to))?;
    for entry in fs::read_dir(from).map_err(EvidenceError::io("list", from))? {
        let entry = entry.map_err(EvidenceError::io("list", from))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().map_err(EvidenceError::io("look at", &source))?;
        if kind.is_dir() {
            folder(&source, &target)?;
        } else if kind.is_symlink() {
            let points_to = fs::read_link(&source).map_err(EvidenceError::io("read", &source))?;
            symlink(points_to, &target).map_err(EvidenceError::io("make the link", &target))?;
        } else {
            fs::copy(&source, &target).map_err(EvidenceError::io("write", &target))?;
        }
    }
    Ok(())
}
