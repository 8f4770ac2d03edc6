//! Why a script cannot run.

use std::io;
use std::path::PathBuf;

/// Why a script cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not as a script must be.
    #[error("{}: {why}", path.display())]
    Refused {
        /// The script.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The files for the guest are too large.
    #[error("the files for the guest have {} MiB together, and may have {} MiB", bytes >> 20, most >> 20)]
    Files {
        /// Their size.
        bytes: u64,
        /// The limit.
        most: u64,
    },
}
