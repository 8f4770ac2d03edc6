//! A kernel image: an entry of the cache, with what is needed to boot a kernel and to read its stacks.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::BuildError;
use crate::source::Identity;

/// The shelf of the cache with the images.
pub(crate) const SHELF: &str = "images";

/// A kernel in the cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelImage {
    /// Name of the variant.
    pub variant: String,
    /// Name of its base.
    pub base: String,
    /// The name of its entry in the cache: a hash of all its ingredients. Variants with the same ingredients share an
    /// entry.
    pub key: String,
    /// Its release, as `uname -r` prints it.
    pub release: String,
    /// The exact source of the base: package and version, or path and commit.
    pub source: String,
    /// The file that QEMU boots: an uncompressed ELF file, entered at its PVH note (`arch/x86/platform/pvh/` in the
    /// kernel, `hw/i386/x86-common.c` in QEMU), or the bzImage that the user named.
    pub boot: PathBuf,
    /// The modules that the guest must load, in this order. Empty for a kernel that was built here.
    pub modules: Vec<PathBuf>,
    /// The ELF file with symbols and line tables. There is no such file for a kernel that was built elsewhere.
    pub vmlinux: PathBuf,
    /// Addresses of symbols. There is no such file for a kernel that was built elsewhere.
    pub system_map: PathBuf,
    /// Its `.config`. For a kernel that was built elsewhere, the file may be missing.
    pub config: PathBuf,
    /// How its structs are laid out, for [`Layout::of_image`](crate::layout::Layout::of_image). The file may be missing.
    pub layout: PathBuf,
    /// The output of make. There is no such file for a kernel that was built elsewhere.
    pub build_log: PathBuf,
}

/// The note in an entry that describes it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Note {
    pub release: String,
    pub source: Identity,
    /// File names of the patches.
    pub patches: Vec<String>,
    pub compiler: String,
    /// The symbols that were asked for and left out of its configuration, and why.
    #[serde(default)]
    pub dropped: Vec<String>,
}

const NOTE: &str = "image.json";

/// The name of the file that is booted, in an entry.
pub(crate) const BOOT: &str = "vmlinux.boot";

impl KernelImage {
    /// The image in an entry of the cache. `layout` is the file with its layouts, whether it is there or not.
    pub(crate) fn at(
        entry: &Path,
        layout: PathBuf,
        key: &str,
        variant: &str,
        base: &str,
    ) -> Result<KernelImage, BuildError> {
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
            layout,
            build_log: entry.join("build.log"),
        })
    }

    /// Whether a symbol of its configuration, without `CONFIG_`, is `y`. False if the configuration cannot be read.
    pub fn has_built_in(&self, symbol: &str) -> bool {
        let config = fs::read_to_string(&self.config).unwrap_or_default();
        config.lines().any(|line| line == format!("CONFIG_{symbol}=y"))
    }
}

/// Copies the files of an output tree that are kept into an entry, all but [`BOOT`].
pub(crate) fn collect(output: &Path, log: &Path, entry: &Path, note: &Note) -> Result<(), BuildError> {
    for (from, to) in [("vmlinux", "vmlinux"), ("System.map", "System.map"), (".config", "config")] {
        let from = output.join(from);
        fs::copy(&from, entry.join(to)).map_err(BuildError::io("keep", &from))?;
    }
    fs::copy(log, entry.join("build.log")).map_err(BuildError::io("keep", log))?;
    note.write(entry)
}

impl Note {
    /// Writes the note into an entry.
    pub(crate) fn write(&self, entry: &Path) -> Result<(), BuildError> {
        let path = entry.join(NOTE);
        let text = serde_json::to_vec_pretty(self).map_err(|error| BuildError::io("write", &path)(error.into()))?;
        fs::write(&path, text).map_err(BuildError::io("write", &path))
    }
}

/// The modules in an entry, in the order of their names, which is the order in which they are loaded.
fn modules(entry: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(entry.join("modules")).into_iter().flatten().flatten();
    let mut files: Vec<_> = files.map(|entry| entry.path()).collect();
    files.sort();
    files
}
