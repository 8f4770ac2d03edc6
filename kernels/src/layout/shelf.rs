//! Makes the layouts of a kernel, and the shelf of the cache with them.
//!
//! They have entries of their own, and are no part of an image's entry: images that are in the cache already need not be
//! built again for them, and the variants of a base share an entry if no patch touches what the layouts are made from.

use std::fs;
use std::path::{Path, PathBuf};

use object::{Object, ObjectSection};

use super::recorded::{Recorded, Trees};
use super::types::Types;
use super::{Layout, STRUCTS, btf, dwarf, payload};
use crate::cache::{Cache, Key, KeyMaker};
use crate::error::{BuildError, LayoutError};
use crate::event::CancelToken;
use crate::series::Diff;

/// The shelf of the cache with the layouts.
pub(crate) const SHELF: &str = "layouts";

/// The file in an entry.
const FILE: &str = "layout.json";

/// Part of the key of each entry. To be raised when this module reads something else from the same kernel.
const READING: &str = "1";

/// The C file that includes the kernel's headers.
const HEADERS: &str = include_str!("../../layout/types.c");

/// Files of the kernel that have structs of their own in [`STRUCTS`].
const PRIVATE: &[&str] =
    &["kernel/kthread.c", "kernel/locking/rwsem.c", "kernel/locking/semaphore.c", "kernel/workqueue.c", "mm/slub.c"];

/// C files from which the build makes headers, and folders with programs that do.
const GENERATORS: &[&str] =
    &["arch/x86/kernel/asm-offsets", "arch/x86/tools/", "kernel/bounds.c", "scripts/", "tools/"];

/// Adds to a key all that this module contributes to an entry.
pub(crate) fn ingredients(key: KeyMaker) -> KeyMaker {
    let names = STRUCTS.iter().flat_map(|one| one.members.iter().map(|(member, _)| super::key(one.name, member)));
    let names: Vec<_> = names.collect();
    let key = key.with("reading", READING).with("headers", HEADERS).with("private", PRIVATE.join("\n"));
    key.with("members", names.join("\n"))
}

/// Whether the layouts may depend on what a patch changes: on anything but C files that are only compiled by
/// themselves. A patch that cannot be read counts.
pub(crate) fn influences(patch: &[u8]) -> bool {
    let is_read = |path: &str| PRIVATE.contains(&path) || GENERATORS.iter().any(|begin| path.starts_with(begin));
    let counts = |path: &str| !path.starts_with("Documentation/") && (!path.ends_with(".c") || is_read(path));
    Diff::paths_of(patch).is_none_or(|paths| paths.iter().any(|path| counts(path)))
}

/// The file of an entry, whether it is there or not.
pub(crate) fn file(cache: &Cache, key: &Key) -> PathBuf {
    // `find` tells `gc` that the entry is used.
    let entry = cache.find(SHELF, key).unwrap_or_else(|| cache.root().join(SHELF).join(key.as_str()));
    entry.join(FILE)
}

/// Makes the entry of a kernel, if the cache does not have it.
pub(crate) fn keep(
    cache: &Cache,
    key: &Key,
    waiting: impl FnOnce(),
    origin: &Origin,
    cancel: &CancelToken,
) -> Result<(), BuildError> {
    let fill = |aside: &Path| {
        let scratch = tempfile::tempdir_in(aside).map_err(BuildError::io("create a folder in", aside))?;
        let layout = origin.read(scratch.path(), cancel)?;
        let path = aside.join(FILE);
        let text = serde_json::to_vec_pretty(&layout).map_err(|error| BuildError::io("write", &path)(error.into()))?;
        fs::write(&path, text).map_err(BuildError::io("write", &path))
    };
    cache.entry(SHELF, key, waiting, fill).map(drop)
}

/// What the layouts of a kernel are read from.
pub(crate) enum Origin<'a> {
    /// The trees in which it was built, or in which its build was prepared.
    Trees(Trees<'a>),
    /// Its file, and those of its modules.
    Ready(&'a Path, &'a [PathBuf]),
}

impl Origin<'_> {
    fn read(&self, scratch: &Path, cancel: &CancelToken) -> Result<Layout, BuildError> {
        match self {
            Origin::Trees(trees) => of_trees(trees, scratch, cancel),
            Origin::Ready(kernel, modules) => of_ready(kernel, modules, scratch, cancel),
        }
    }
}

fn of_trees(trees: &Trees, scratch: &Path, cancel: &CancelToken) -> Result<Layout, BuildError> {
    let recorded = Recorded::read(trees)?;
    let headers = scratch.join("types.c");
    fs::write(&headers, HEADERS).map_err(BuildError::io("write", &headers))?;
    let private = PRIVATE.iter().map(|name| trees.source.join(name)).filter(|file| file.exists());
    let mut types = Types::default();
    for (number, file) in (0..).zip(std::iter::once(headers).chain(private)) {
        let object = scratch.join("types.o");
        recorded.compile(&file, &object, cancel)?;
        let bytes = fs::read(&object).map_err(BuildError::io("read", &object))?;
        dwarf::add(&mut types, &bytes, number).map_err(BuildError::layout(&file))?;
    }
    Ok(types.layout(STRUCTS))
}

fn of_ready(kernel: &Path, modules: &[PathBuf], scratch: &Path, cancel: &CancelToken) -> Result<Layout, BuildError> {
    let vmlinux = payload::vmlinux(kernel, scratch, cancel)?;
    let mut types = Types::default();
    let base = section(&vmlinux).and_then(|btf| btf.ok_or(LayoutError::NoBtf)).map_err(BuildError::layout(kernel))?;
    let base = btf::add(&mut types, base, 0).map_err(BuildError::layout(kernel))?;
    for (number, module) in (1..).zip(modules) {
        let bytes = fs::read(module).map_err(BuildError::io("read", module))?;
        let add = |btf: Option<&[u8]>| btf.map_or(Ok(()), |btf| btf::add_module(&mut types, btf, number, base));
        section(&bytes).and_then(add).map_err(BuildError::layout(module))?;
    }
    Ok(types.layout(STRUCTS))
}

/// The BTF of a kernel or module.
fn section(file: &[u8]) -> Result<Option<&[u8]>, LayoutError> {
    let file = object::File::parse(file)?;
    Ok(file.section_by_name(".BTF").map(|section| section.data()).transpose()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patch(path: &str) -> Vec<u8> {
        format!("--- a/{path}\n+++ b/{path}\n@@ -1 +1 @@\n-a\n+b\n").into_bytes()
    }

    #[test]
    fn patches_to_headers_and_to_files_with_structs_influence_the_layouts() {
        for path in [
            "drivers/pci/pci.h",
            "kernel/kthread.c",
            "kernel/bounds.c",
            "arch/x86/kernel/asm-offsets_64.c",
            "init/Kconfig",
            "scripts/mod/devicetable-offsets.c",
            "Makefile",
        ] {
            assert!(influences(&patch(path)), "{path}");
        }
        for path in ["drivers/pci/iov.c", "Documentation/PCI/sriov.rst", "kernel/panic.c"] {
            assert!(!influences(&patch(path)), "{path}");
        }
        assert!(influences(b"words"));
        assert!(influences(&[patch("drivers/pci/iov.c"), patch("drivers/pci/pci.h")].concat()));
    }

    #[test]
    fn every_struct_is_in_a_header_or_in_a_private_file_that_is_named() {
        for name in PRIVATE {
            let of = STRUCTS.iter().filter(|one| one.about.contains(&format!("private to `{name}`")));
            assert_eq!(of.count(), 1, "{name}");
        }
    }
}
