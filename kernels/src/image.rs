//! A kernel that has been built.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::BuildError;
use crate::source::Identity;

/// The shelf of the cache on which images stand.
pub(crate) const SHELF: &str = "images";

/// A kernel that has been built, in the cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelImage {
    /// The variant.
    pub variant: String,
    /// Its base.
    pub base: String,
    /// The name of its entry in the cache: a hash of all that it is made of. Variants made of the same share it.
    pub key: String,
    /// What `uname -r` says in it.
    pub release: String,
    /// What the base is, exactly: package and version, or path and commit.
    pub source: String,
    /// What QEMU boots: an ELF file with nothing to decompress, entered at its PVH note
    /// (`arch/x86/platform/pvh/` in the kernel, `hw/i386/x86-common.c` in QEMU); or the bzImage that a user gave.
    pub boot: PathBuf,
    /// Modules that it needs, in the order in which they are to be loaded. None of a kernel that was built here.
    pub modules: Vec<PathBuf>,
    /// ELF, with symbols and line tables; not there for a kernel that was built elsewhere, as the following.
    pub vmlinux: PathBuf,
    /// Addresses of symbols.
    pub system_map: PathBuf,
    /// Its `.config`.
    pub config: PathBuf,
    /// What make said.
    pub build_log: PathBuf,
}

/// What an entry says of itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Note {
    pub release: String,
    pub source: Identity,
    /// File names of the patches.
    pub patches: Vec<String>,
    pub compiler: String,
    /// What was asked of its configuration and left out, and why.
    #[serde(default)]
    pub dropped: Vec<String>,
}

const NOTE: &str = "image.json";

/// What is booted, in an entry.
pub(crate) const BOOT: &str = "vmlinux.boot";

impl KernelImage {
    /// The image in an entry of the cache.
    pub(crate) fn at(entry: &Path, key: &str, variant: &str, base: &str) -> Result<KernelImage, BuildError> {
        let note = entry.join(NOTE);
        let text = fs::read(&note).map_err(BuildError::io("read", &note))?;
        let read: Note = serde_json::from_slice(&text).map_err(|error| BuildError::io("read", &note)(error.into()))?;
        Ok(KernelImage {
            variant: variant.to_owned(),
            base: base.to_owned(),
            key: key.to_owned(),
            release: read.release,
            source: read.source.words(),
            boot: entry.join(BOOT),
            modules: modules(entry),
            vmlinux: entry.join("vmlinux"),
            system_map: entry.join("System.map"),
            config: entry.join("config"),
            build_log: entry.join("build.log"),
        })
    }
}

/// Puts what is kept of an output tree into an entry, but for [`BOOT`].
pub(crate) fn collect(output: &Path, log: &Path, entry: &Path, note: &Note) -> Result<(), BuildError> {
    for (from, to) in [("vmlinux", "vmlinux"), ("System.map", "System.map"), (".config", "config")] {
        let from = output.join(from);
        fs::copy(&from, entry.join(to)).map_err(BuildError::io("keep", &from))?;
    }
    fs::copy(log, entry.join("build.log")).map_err(BuildError::io("keep", log))?;
    note.write(entry)
}

impl Note {
    /// Writes it into an entry.
    pub(crate) fn write(&self, entry: &Path) -> Result<(), BuildError> {
        let path = entry.join(NOTE);
        let text = serde_json::to_vec_pretty(self).map_err(|error| BuildError::io("write", &path)(error.into()))?;
        fs::write(&path, text).map_err(BuildError::io("write", &path))
    }
}

/// The files in the folder of modules of an entry, in the order of their names. Kernels that are built here have none.
fn modules(entry: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(entry.join("modules")).into_iter().flatten().flatten();
    let mut files: Vec<_> = files.map(|entry| entry.path()).collect();
    files.sort();
    files
}
