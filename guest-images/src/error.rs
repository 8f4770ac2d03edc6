//! Why there is no initramfs.

use std::io;
use std::path::{Path, PathBuf};

use kernels::cache::{self, CacheError};

/// Why there is no initramfs.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Cargo could not be started.
    #[error("cannot run {cargo:?} to build the guest agent; a Rust toolchain has to be in PATH")]
    NoCargo {
        /// What was run.
        cargo: PathBuf,
        /// Why it did not.
        source: io::Error,
    },
    /// The agent does not build.
    #[error("the guest agent does not build ({command}):\n{first_error}")]
    Build {
        /// What was run.
        command: String,
        /// The compiler's first error, or what cargo said if it did not come so far.
        first_error: String,
    },
    /// The agent wants a dynamic linker, which the guest does not have.
    #[error(
        "{path} is not a static program: its interpreter is {interpreter}; is there a rustflags setting of cargo's that \
         takes crt-static away?",
        path = path.display()
    )]
    NotStatic {
        /// The agent.
        path: PathBuf,
        /// What it asks for.
        interpreter: String,
    },
    /// What cargo built is not a program for this machine.
    #[error("{path} is not an x86-64 program: {reason}", path = path.display())]
    NotAProgram {
        /// The agent.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// An operation on a file failed.
    #[error("cannot {action} {path}{}", cache::advice(source), path = path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// It was told to stop.
    #[error("cancelled")]
    Cancelled,
    /// The cache failed.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

impl ImageError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ImageError {
        let path = path.to_owned();
        move |source| ImageError::Io { action, path, source }
    }
}
