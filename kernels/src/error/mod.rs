//! Why a kernel could not be built.

mod compiler;
mod patch;
mod tree;

use std::io;
use std::path::{Path, PathBuf};

pub use self::compiler::CompilerError;
pub use self::patch::PatchError;
pub use self::tree::TreeError;
use crate::cache::CacheError;
use crate::config::{FragmentError, Unmet};
use crate::job::{JobError, says_disk_full};
use crate::near::Unknown;

/// Why a kernel could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The manifest has no such kernel.
    #[error(transparent)]
    Unknown(#[from] Unknown),
    /// The host lacks a program.
    #[error("{program} is not installed: run `cargo xtask setup`")]
    MissingTool {
        /// The program.
        program: String,
    },
    /// apt does not offer the source package.
    #[error(
        "apt does not know the package {package}\n\
         Run `cargo xtask setup` (or `apt-get update`) if it has no package lists yet. If this release of the \
         distribution has no such package, give the base a `path = ` to a kernel tarball or tree in kernels.toml."
    )]
    NoPackage {
        /// The package.
        package: String,
    },
    /// The source could not be fetched.
    #[error("cannot fetch {what}")]
    Fetch {
        /// What was being fetched.
        what: String,
        /// Why it failed.
        source: JobError,
    },
    /// The source is not what it should be.
    #[error("{}: {problem}", path.display())]
    Source {
        /// The package, tarball or tree.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// A user's tree is not what was asked for.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// A patch does not do what a patch should.
    #[error(transparent)]
    Patch(#[from] PatchError),
    /// A fragment cannot be read.
    #[error(transparent)]
    Fragment(#[from] FragmentError),
    /// Symbols of the fragments that the kernel's configuration did not take.
    #[error("the kernel's configuration refuses what was asked for:\n{}", list(unmet))]
    Config {
        /// One by one, with the reason as far as it is known.
        unmet: Vec<Unmet>,
    },
    /// A user's own kernel has not what cells need, or refuses what the user asked for.
    #[error("{version} cannot be configured as cells need it:\n{}", list_needed(missing))]
    Needs {
        /// The kernel's version.
        version: String,
        /// One by one, with what it is needed for.
        missing: Vec<(Unmet, String)>,
    },
    /// It does not compile.
    #[error("does not compile: {first}\nThe full log is {}", log.display())]
    Compile {
        /// The first error.
        first: CompilerError,
        /// The log of the build.
        log: PathBuf,
    },
    /// The patches changed nothing that ends up in the kernel.
    #[error(
        "the patches of {variant} change nothing in the kernel that is built: they touch only comments, or code that \
         this configuration leaves out"
    )]
    NoEffect {
        /// The variant.
        variant: String,
    },
    /// The disk is too full, or has become so.
    #[error(
        "not enough disk space for {}: {} MB free, {} MB needed.\n\
         Make room, or set IOV_REGRESS_CACHE to a folder on a larger disk. `cargo xtask gc` removes from there what was not \
         used for two weeks, `cargo xtask gc --days 1` what was not used for a day; what is built stays built.",
        path.display(), available >> 20, needed >> 20
    )]
    DiskSpace {
        /// The folder of the cache.
        path: PathBuf,
        /// Bytes that are free.
        available: u64,
        /// Bytes that are needed.
        needed: u64,
    },
    /// The same of the folder for temporary files.
    #[error(
        "not enough disk space for the compiler's temporary files in {}: {} MB free, {} MB needed.\n\
         Make room there, or set TMPDIR to a folder on a larger disk.",
        path.display(), available >> 20, needed >> 20
    )]
    TemporarySpace {
        /// The folder.
        path: PathBuf,
        /// Bytes that are free.
        available: u64,
        /// Bytes that are needed.
        needed: u64,
    },
    /// A step other than compiling failed.
    #[error("{what} failed")]
    Step {
        /// The step.
        what: String,
        /// Why.
        source: JobError,
    },
    /// An operation on a file failed.
    #[error("{action} {}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The cache failed.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// It was told to stop.
    #[error("cancelled")]
    Cancelled,
}

impl BuildError {
    /// Whether the kernel is to blame: its patches, its configuration or its code. If not, it is the host, the manifest
    /// or whoever cancelled it, and nothing is known about the kernel.
    pub fn is_of_the_kernel(&self) -> bool {
        matches!(
            self,
            BuildError::Patch(_)
                | BuildError::Config { .. }
                | BuildError::Needs { .. }
                | BuildError::Compile { .. }
                | BuildError::NoEffect { .. }
        )
    }

    /// Whether the patches are at fault for changing nothing of what is built.
    pub fn is_without_effect(&self) -> bool {
        matches!(
            self,
            BuildError::NoEffect { .. } | BuildError::Patch(PatchError::Circle { .. } | PatchError::Empty { .. })
        )
    }

    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BuildError {
        let path = path.to_owned();
        move |source| BuildError::Io { action, path, source }
    }

    /// A job that failed while doing `what`, unless there is more to say about it than that.
    pub(crate) fn job(what: impl Into<String>) -> impl FnOnce(JobError) -> BuildError {
        let what = what.into();
        move |source| BuildError::of_job(source, |source| BuildError::Step { what, source })
    }

    /// The same for fetching.
    pub(crate) fn fetch(what: impl Into<String>) -> impl FnOnce(JobError) -> BuildError {
        let what = what.into();
        move |source| BuildError::of_job(source, |source| BuildError::Fetch { what, source })
    }

    fn of_job(error: JobError, otherwise: impl FnOnce(JobError) -> BuildError) -> BuildError {
        match error {
            JobError::Cancelled => BuildError::Cancelled,
            JobError::Start { program, source } if source.kind() == io::ErrorKind::NotFound => {
                BuildError::MissingTool { program }
            }
            other => otherwise(other),
        }
    }

    /// Whether this is the disk being full, in whatever way it came out.
    pub(crate) fn is_disk_full(&self) -> bool {
        let full =
            |error: &io::Error| matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        match self {
            BuildError::DiskSpace { .. } | BuildError::TemporarySpace { .. } => true,
            BuildError::Io { source, .. } | BuildError::Cache(CacheError::Io { source, .. }) => full(source),
            BuildError::Step { source: JobError::Failed { tail, .. }, .. }
            | BuildError::Fetch { source: JobError::Failed { tail, .. }, .. } => says_disk_full(tail),
            BuildError::Compile { first, .. } => says_disk_full(&first.message),
            _ => false,
        }
    }
}

fn list(unmet: &[Unmet]) -> String {
    unmet.iter().map(|one| format!("  {one}")).collect::<Vec<_>>().join("\n")
}

fn list_needed(missing: &[(Unmet, String)]) -> String {
    missing.iter().map(|(one, why)| format!("  {one}\n    ({why})")).collect::<Vec<_>>().join("\n")
}
