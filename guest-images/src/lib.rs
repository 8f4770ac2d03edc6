//! The initramfs that guests boot: the agent and nothing else.
//!
//! [`build`] has cargo build the agent (crate `guest-agent`) as a static binary and packs it as `/init`. The kernel
//! unpacks it into its root file system and starts it as PID 1 (`Documentation/filesystems/ramfs-rootfs-initramfs.rst`).

mod agent;
mod archive;
mod error;

use std::fs;
use std::path::PathBuf;

use kernels::CancelToken;
use kernels::cache::{Cache, KeyMaker};

pub use error::ImageError;

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
