//! Why it cannot be said how the structs of a kernel are laid out.

use std::io;
use std::path::PathBuf;

/// Why it cannot be said how the structs of a kernel are laid out.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// They are not in the cache.
    #[error("the cache does not say how the structs of {kernel} are laid out")]
    Missing {
        /// The name of the kernel.
        kernel: String,
    },
    /// A file cannot be read or written.
    #[error("cannot use {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of the cache is not what this program writes.
    #[error("{} is damaged: remove it", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A file is no ELF file, or a damaged one.
    #[error("this is no ELF file that can be read")]
    Elf(#[from] object::Error),
    /// The debug information of an object is damaged.
    #[error("its debug information cannot be read")]
    Dwarf(#[from] gimli::Error),
    /// The BTF of a kernel is damaged.
    #[error("its BTF cannot be read: {problem}")]
    Btf {
        /// What is wrong.
        problem: &'static str,
    },
    /// A kernel that was built elsewhere has no BTF.
    #[error("it has no BTF: build it with CONFIG_DEBUG_INFO_BTF=y, or give its source instead")]
    NoBtf,
    /// The compressed kernel in a bzImage cannot be found.
    #[error("the compressed kernel in this bzImage cannot be found: {problem}")]
    Payload {
        /// What is wrong.
        problem: &'static str,
    },
    /// The symbols of a kernel that was built elsewhere cannot be found.
    #[error("its table of symbols cannot be found: it needs CONFIG_KALLSYMS_ALL=y")]
    NoSymbols,
    /// kbuild's record of how it compiles is not as expected.
    #[error("this file does not say how the kernel is compiled: {problem}")]
    Recorded {
        /// What is wrong.
        problem: &'static str,
    },
}
