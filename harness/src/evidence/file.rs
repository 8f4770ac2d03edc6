//! Reading and writing evidence, with errors that name the file.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Evidence could not be written or read. The messages contain the causes, before the advice, so there is no
/// [`source`](std::error::Error::source).
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    /// An operation on a file failed.
    #[error("cannot {action} {}: {cause}{}", path.display(), advice(cause))]
    Io {
        /// The operation.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        cause: io::Error,
    },
    /// The content of a file is not in the format that this version writes.
    #[error("{} was not written by this version of the harness: {cause}; run again to get a new one", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The error of the parser.
        cause: serde_json::Error,
    },
    /// The plan in a file does not have the digest that it names.
    #[error("{} was changed after it was written: its cells do not have the digest {digest}; make it again", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
        /// The digest that it names.
        digest: String,
    },
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; free some space, or choose another place with --out"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => "; choose another place with --out",
        _ => "",
    }
}

impl EvidenceError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> EvidenceError {
        let path = path.to_owned();
        move |cause| EvidenceError::Io { action, path, cause }
    }
}

/// Writes a file atomically: to a temporary file, synced to the disk, and then renamed.
pub fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), EvidenceError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut aside =
        tempfile::Builder::new().prefix(".new-").tempfile_in(folder).map_err(EvidenceError::io("write in", folder))?;
    aside.write_all(content).map_err(EvidenceError::io("write", path))?;
    let file = aside.as_file();
    file.set_permissions(fs::Permissions::from_mode(mode)).map_err(EvidenceError::io("set the mode of", path))?;
    file.sync_all().map_err(EvidenceError::io("write", path))?;
    aside.persist(path).map_err(|error| error.error).map_err(EvidenceError::io("move into place", path))?;
    Ok(())
}

/// Writes a file with mode 0644 atomically: to a temporary file, synced to the disk, and then renamed.
///
/// # Errors
/// Those of the file system.
pub fn write_whole(path: &Path, content: &[u8]) -> Result<(), EvidenceError> {
    write(path, content, 0o644)
}

/// Writes a value as indented JSON, atomically.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<(), EvidenceError> {
    let mut json =
        serde_json::to_vec_pretty(value).map_err(|cause| EvidenceError::Malformed { path: path.to_owned(), cause })?;
    json.push(b'\n');
    write(path, &json, 0o644)
}

/// The value in a file. None if the file does not exist.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, EvidenceError> {
    let json = match fs::read(path) {
        Ok(json) => json,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(EvidenceError::io("read", path)(source)),
    };
    let value =
        serde_json::from_slice(&json).map_err(|cause| EvidenceError::Malformed { path: path.to_owned(), cause })?;
    Ok(Some(value))
}
