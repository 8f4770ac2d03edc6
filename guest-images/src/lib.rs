//! Builds the initramfs that guests boot. It contains the agent and nothing else. For scripts there is one with a shell
//! ([`with_shell`]).
//!
//! [`build`] runs cargo to build the agent (crate `guest-agent`) as a static program, and packs it as `/init`. The
//! kernel unpacks the archive into its root file system and starts `/init` as PID 1
//! (`Documentation/filesystems/ramfs-rootfs-initramfs.rst`).

mod agent;
mod archive;
mod error;
mod shell;

use std::fs;
use std::path::PathBuf;

use kernels::CancelToken;
use kernels::cache::{Cache, Key, KeyMaker};

pub use error::ImageError;
pub use shell::{with_root, with_shell};

/// Part of the key of each entry, together with the agent. To be raised when [`archive`] writes something else around
/// the agent.
const BUILDER: &str = "1";

/// The shelf of the cache with the archives.
const SHELF: &str = "initramfs";

/// An initramfs in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Initramfs {
    /// The file, for QEMU's `-initrd`: an uncompressed cpio archive.
    pub path: PathBuf,
    /// A hash of all its ingredients. Archives with the same key have the same content.
    pub key: String,
}

/// Builds the initramfs, or finds it in the cache. Cargo decides whether the agent must be built. Its output goes to
/// `progress`, line by line. If the agent is up to date, there is none.
///
/// # Errors
/// [`ImageError`].
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

/// Adds modules to an initramfs. The agent loads them in the order of their file names.
///
/// # Errors
/// [`ImageError::Io`] and [`ImageError::Cache`].
pub fn with_modules(cache: &Cache, initramfs: &Initramfs, modules: &[PathBuf]) -> Result<Initramfs, ImageError> {
    let mut key = KeyMaker::new().with("initramfs", &initramfs.key);
    let mut files = Vec::new();
    for path in modules {
        let bytes = fs::read(path).map_err(ImageError::io("read", path))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        key = key.with(&name, &bytes);
        files.push((name, bytes));
    }
    let archive = archive::of_modules(&files).map_err(ImageError::io("pack the modules into", &initramfs.path))?;
    entry_of(cache, initramfs, &key.finish(), &archive)
}

/// An initramfs with another archive behind it, which comes from an ingredient of this name.
fn appended(cache: &Cache, initramfs: &Initramfs, name: &str, archive: &[u8]) -> Result<Initramfs, ImageError> {
    let key = KeyMaker::new().with("initramfs", &initramfs.key).with(name, archive).finish();
    entry_of(cache, initramfs, &key, archive)
}

fn entry_of(cache: &Cache, initramfs: &Initramfs, key: &Key, archive: &[u8]) -> Result<Initramfs, ImageError> {
    let entry = cache.entry(
        SHELF,
        key,
        || {},
        |folder| {
            let path = folder.join("initramfs.cpio");
            let mut bytes = fs::read(&initramfs.path).map_err(ImageError::io("read", &initramfs.path))?;
            bytes.extend(archive);
            fs::write(&path, bytes).map_err(ImageError::io("write", &path))
        },
    )?;
    Ok(Initramfs { path: entry.join("initramfs.cpio"), key: key.as_str().to_owned() })
}
