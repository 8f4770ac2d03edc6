//! Why an initramfs cannot be built.

use std::io;
use std::path::{Path, PathBuf};

use kernels::cache::{self, CacheError};

/// Why an initramfs cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Cargo could not be started.
    #[error("cannot run {cargo:?} to build the guest agent: is a Rust toolchain in PATH?")]
    NoCargo {
        /// The program.
        cargo: PathBuf,
        /// Why it could not be started.
        source: io::Error,
    },
    /// The agent cannot be compiled.
    #[error("the guest agent does not build ({command}):\n{first_error}")]
    Build {
        /// The command line of cargo.
        command: String,
        /// The first error of the compiler. If the compiler was not started, the output of cargo.
        first_error: String,
    },
    /// The agent needs a dynamic linker, which the guest does not have.
    #[error(
        "{path} is not a static program: its interpreter is {interpreter}; does a `rustflags` setting of cargo turn \
         off crt-static?",
        path = path.display()
    )]
    NotStatic {
        /// The agent.
        path: PathBuf,
        /// The dynamic linker that it needs.
        interpreter: String,
    },
    /// The file that cargo built is not a program for x86-64.
    #[error("{path} is not an x86-64 program: {reason}", path = path.display())]
    NotAProgram {
        /// The agent.
        path: PathBuf,
        /// Why it is not.
        reason: String,
    },
    /// The image with a shell cannot be made.
    #[error(
        "the guest image with a shell needs programs and libraries that are not on this machine: {}.{} Install them, and try \
         again", missing.join(", "), why(unfetched.as_deref())
    )]
    NoTools {
        /// Their names.
        missing: Vec<String>,
        /// Why they could not be taken from packages.
        unfetched: Option<Box<kernels::ArchiveError>>,
    },
    /// An operation on a file failed.
    #[error("cannot {action} {path}{}", cache::advice(source), path = path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The build was cancelled.
    #[error("cancelled")]
    Cancelled,
    /// The cache failed.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

/// Why apt gave no packages.
fn why(unfetched: Option<&kernels::ArchiveError>) -> String {
    unfetched.map(|error| format!(" They could not be downloaded with apt either: {error}.")).unwrap_or_default()
}

impl ImageError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ImageError {
        let path = path.to_owned();
        move |source| ImageError::Io { action, path, source }
    }
}
