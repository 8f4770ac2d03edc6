//! Why a patch does not apply, or has no effect.

use std::path::PathBuf;

/// What is wrong with a patch.
#[derive(Debug, thiserror::Error)]
pub enum PatchError {
    /// A hunk does not match the file.
    #[error("{} does not apply: {hunk} does not fit {file}", patch.display())]
    Hunk {
        /// The patch.
        patch: PathBuf,
        /// The file of the kernel.
        file: String,
        /// Which hunk, for people: "hunk 2 of 3 (...)".
        hunk: String,
        /// The line of the file that the hunk names as its first, from 1.
        line: usize,
    },
    /// The patch does not apply for another reason.
    #[error("{} does not apply: {reason}", patch.display())]
    Refused {
        /// The patch.
        patch: PathBuf,
        /// The error message of git.
        reason: String,
    },
    /// The patch applies but changes no file.
    #[error("{} changes nothing", patch.display())]
    Empty {
        /// The patch.
        patch: PathBuf,
    },
    /// Later patches undo what earlier ones do.
    #[error("the patches together change nothing: {}", patches.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", "))]
    Circle {
        /// The patches.
        patches: Vec<PathBuf>,
    },
}
