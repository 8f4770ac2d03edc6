//! Removing what may not be there.

use std::fs;
use std::io;
use std::path::Path;

use crate::error::BuildError;

/// Removes a file, or a folder with everything in it. It is no error if there is nothing at the path.
pub(crate) fn remove(path: &Path) -> Result<(), BuildError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Err(BuildError::io("clear", path)(error))
        }
        _ => Ok(()),
    }
}
