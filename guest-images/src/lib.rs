//! The initramfs that guests boot: the agent and nothing else.
//!
//! [`build`] has cargo build the agent (crate `guest-agent`) as a static binary and packs it as `/init`. The kernel
//! unpacks it into its root file system and starts it as PID 1 (`Documentation/filesystems/ramfs-rootfs-initramfs.rst`).

mod agent;
mod archive;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use kernels::CancelToken;
use kernels::cache::{self, Cache, CacheError, KeyMaker};

/// Part of an entry's key, next to the agent itself: to be raised when what [`archive`] writes around it changes.
const BUILDER: &str = "1";

/// Where the cache keeps these.
const SHELF: &str = "initramfs";

/// An initramfs that is built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Initramfs {
    /// The file, for QEMU's `-initrd`: an uncompressed cpio archive.
    pub path: PathBuf,
    /// A hash of all that it is made of: equal keys, equal files.
    pub key: String,
}

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
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ImageError {
        let path = path.to_owned();
        move |source| ImageError::Io { action, path, source }
    }
}

/// Builds the initramfs, or finds it in the cache. Cargo decides whether the agent is up to date; it says what it does
/// through `progress`, line by line (nothing when there is nothing to do).
///
/// # Errors
/// Those of [`ImageError`].
pub fn build(cache: &Cache, cancel: &CancelToken, progress: impl FnMut(&str) + Send) -> Result<Initramfs, ImageError> {
    let agent = agent::build(cancel, progress)?;
    let program = fs::read(&agent).map_err(ImageError::io("read", &agent))?;
    agent::check(&agent, &program)?;
    let key = KeyMaker::new().with("builder", BUILDER).with("agent", &program).finish();
    let entry = cache.entry(
        SHELF,
        &key,
        || {},
        |folder| {
            let path = folder.join("initramfs.cpio");
            let bytes = archive::of(&program).map_err(ImageError::io("pack", &path))?;
            fs::write(&path, bytes).map_err(ImageError::io("write", &path))
        },
    )?;
    Ok(Initramfs { path: entry.join("initramfs.cpio"), key: key.as_str().to_owned() })
}

/// An initramfs with modules that the agent is to load, in the order in which they are given; it has to be that of their
/// names.
///
/// # Errors
/// Those of the file system and of the cache.
pub fn with_modules(cache: &Cache, initramfs: &Initramfs, modules: &[PathBuf]) -> Result<Initramfs, ImageError> {
    let mut key = KeyMaker::new().with("initramfs", &initramfs.key);
    let mut files = Vec::new();
    for path in modules {
        let bytes = fs::read(path).map_err(ImageError::io("read", path))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        key = key.with(&name, &bytes);
        files.push((name, bytes));
    }
    let key = key.finish();
    let entry = cache.entry(
        SHELF,
        &key,
        || {},
        |folder| {
            let path = folder.join("initramfs.cpio");
            let mut bytes = fs::read(&initramfs.path).map_err(ImageError::io("read", &initramfs.path))?;
            bytes.extend(archive::of_modules(&files).map_err(ImageError::io("pack", &path))?);
            fs::write(&path, bytes).map_err(ImageError::io("write", &path))
        },
    )?;
    Ok(Initramfs { path: entry.join("initramfs.cpio"), key: key.as_str().to_owned() })
}
