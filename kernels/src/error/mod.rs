//! Why a kernel could not be built.

mod compiler;
mod layout;
mod patch;
mod tree;

use std::io;
use std::path::{Path, PathBuf};

pub use self::compiler::CompilerError;
pub use self::layout::LayoutError;
pub use self::patch::PatchError;
pub use self::tree::TreeError;
use crate::archive::{ArchiveError, Package};
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
    /// The host does not have a program.
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
    /// A source package could not be had from Debian's archive.
    #[error(transparent)]
    Archive(ArchiveError),
    /// The source could not be fetched.
    #[error("cannot fetch {what}")]
    Fetch {
        /// What was being fetched.
        what: String,
        /// Why it failed.
        source: JobError,
    },
    /// The source, or a kernel that was built elsewhere, cannot be used.
    #[error("{}: {problem}", path.display())]
    Source {
        /// The package, tarball, tree or kernel.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// A user's tree cannot be used.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// A patch does not apply, or changes nothing.
    #[error(transparent)]
    Patch(#[from] PatchError),
    /// A fragment cannot be read.
    #[error(transparent)]
    Fragment(#[from] FragmentError),
    /// Symbols of the fragments have other values in the kernel's configuration.
    #[error("the kernel's configuration refuses what was asked for:\n{}", list(unmet))]
    Config {
        /// The symbols, with the reason as far as it is known.
        unmet: Vec<Unmet>,
    },
    /// The configuration of a user's own kernel lacks symbols that cells need, or that the user asked for.
    #[error("{version} cannot be configured as cells need it:\n{}", list_needed(missing))]
    Needs {
        /// The kernel's version.
        version: String,
        /// The symbols, and what each is needed for.
        missing: Vec<(Unmet, String)>,
    },
    /// The kernel does not compile.
    #[error("does not compile: {first}\nThe full log is {}", log.display())]
    Compile {
        /// The first error.
        first: CompilerError,
        /// The log of the build.
        log: PathBuf,
    },
    /// The host does not have a library.
    #[error("{what} not found, needed {why}: install {package} (`cargo xtask setup` does)")]
    MissingLibrary {
        /// The library, or its headers.
        what: &'static str,
        /// What it is needed for.
        why: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// There is no source of vfio selftests for a kernel.
    #[error(
        "the source of {base} has no vfio selftests, and {}",
        other.as_ref().map_or("kernels.toml names no base that has".to_owned(), |other| format!("neither has that of {other}"))
    )]
    NoSelftests {
        /// The base of the kernel.
        base: String,
        /// The base that the manifest names for such kernels.
        other: Option<String>,
    },
    /// The kernel's vfio selftests do not compile.
    #[error("the vfio selftests do not compile: {first}\nThe full log is {}", log.display())]
    Selftests {
        /// The first error.
        first: CompilerError,
        /// The log of the build.
        log: PathBuf,
    },
    /// With the patches, the kernel is the same as without.
    #[error(
        "the patches of {variant} change nothing in the kernel that is built: they touch only comments, or code that \
         this configuration leaves out"
    )]
    NoEffect {
        /// The variant.
        variant: String,
    },
    /// There is not enough room in the cache.
    #[error(
        "not enough disk space for {}: {} MB free, {} MB needed.\n\
         Make room, or set IOV_REGRESS_CACHE to a folder on a larger disk. `cargo xtask gc` removes what was not \
         used for two weeks, `cargo xtask gc --days 1` what was not used for a day. Kernels that are built already stay \
         in the cache.",
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
    /// There is not enough room in the folder for temporary files.
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
    /// It cannot be read how the structs of a kernel are laid out.
    #[error("cannot read from {} how the kernel's structs are laid out", path.display())]
    Layout {
        /// The file that says it.
        path: PathBuf,
        /// Why.
        source: LayoutError,
    },
    /// The cache failed.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The build was cancelled.
    #[error("cancelled")]
    Cancelled,
}

impl BuildError {
    /// Whether the kernel is the cause: its patches, its configuration or its code. If not, the cause is the host, the
    /// manifest or a cancelled build, and the error says nothing about the kernel.
    pub fn is_of_the_kernel(&self) -> bool {
        matches!(
            self,
            BuildError::Patch(_)
                | BuildError::Config { .. }
                | BuildError::Needs { .. }
                | BuildError::Compile { .. }
                | BuildError::Selftests { .. }
                | BuildError::NoEffect { .. }
        )
    }

    /// Whether this host lacks what the vfio selftests are built from: a library, or their source. The kernel can be
    /// tested without them.
    pub fn is_without_selftests(&self) -> bool {
        matches!(
            self,
            BuildError::MissingLibrary { .. }
                | BuildError::NoSelftests { .. }
                | BuildError::NoPackage { .. }
                | BuildError::Fetch { .. }
        )
    }

    /// Whether the patches change nothing in the kernel.
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

    pub(crate) fn layout(path: &Path) -> impl FnOnce(LayoutError) -> BuildError {
        let path = path.to_owned();
        move |source| BuildError::Layout { path, source }
    }

    /// The error for a job that failed while doing `what`. A cancelled job and a missing program have errors of their
    /// own.
    pub(crate) fn job(what: impl Into<String>) -> impl FnOnce(JobError) -> BuildError {
        let what = what.into();
        move |source| BuildError::of_job(source, |source| BuildError::Step { what, source })
    }

    /// The error for a job that failed while fetching `what`.
    pub(crate) fn fetch(what: impl Into<String>) -> impl FnOnce(JobError) -> BuildError {
        let what = what.into();
        move |source| BuildError::of_job(source, |source| BuildError::Fetch { what, source })
    }

    /// The error for a package that could not be had from Debian's archive.
    pub(crate) fn archive(package: &Package) -> impl FnOnce(ArchiveError) -> BuildError {
        let fetch = BuildError::fetch(format!("the package {package}"));
        move |error| match error {
            ArchiveError::Job(error) => fetch(error),
            ArchiveError::Write { path, source } => BuildError::Io { action: "write", path, source },
            other => BuildError::Archive(other),
        }
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

    /// Whether the cause is a full disk, whichever program or system call noticed it.
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
