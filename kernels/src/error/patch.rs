//! Why a patch is refused.

use std::path::PathBuf;

/// What is wrong with a patch.
#[derive(Debug, thiserror::Error)]
pub enum PatchError {
    /// One of its hunks does not fit.
    #[error("{} does not apply: {hunk} does not fit {file}", patch.display())]
    Hunk {
        /// The patch.
        patch: PathBuf,
        /// The file of the kernel.
        file: String,
        /// Which hunk, as one says it.
        hunk: String,
        /// The line of the file at which the hunk says it begins, from 1.
        line: usize,
    },
    /// It does not apply for another reason.
    #[error("{} does not apply: {reason}", patch.display())]
    Refused {
        /// The patch.
        patch: PathBuf,
        /// git's words.
        reason: String,
    },
    /// It applies and changes nothing.
    #[error("{} changes nothing", patch.display())]
    Empty {
        /// The patch.
        patch: PathBuf,
    },
    /// A series undoes what it does.
    #[error("the patches together change nothing: {}", patches.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", "))]
    Circle {
        /// The patches.
        patches: Vec<PathBuf>,
    },
}
