//! How the structs of a kernel are laid out in memory: at which offset a member is, and how large it is.
//!
//! Whoever reads the memory of a guest needs this. It differs from version to version, and with the configuration.
//! [`STRUCTS`] lists what is read. For a kernel that was built here, a C file that includes the kernel's headers is
//! compiled with a recorded command of its build, and the debug information of that object is read: this takes
//! seconds, and the kernel itself needs no debug information. A kernel that was built elsewhere says it in its BTF.

mod btf;
mod dwarf;
mod kallsyms;
mod members;
mod payload;
mod recorded;
mod shelf;
mod types;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde::{Deserialize, Serialize};

pub use self::members::{STRUCTS, Struct};
pub(crate) use self::recorded::{OBJECT, Trees};
pub(crate) use self::shelf::{Origin, SHELF, file, influences, ingredients, keep};
use crate::error::BuildError;
pub use crate::error::LayoutError;
use crate::event::CancelToken;
use crate::image::KernelImage;

/// Where a member is in its struct. Both numbers are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// From the beginning of the struct.
    pub offset: u32,
    /// Of the member. 0 for an array without length.
    pub size: u32,
}

/// The layouts of the structs of one kernel.
///
/// The same as JSON: `{"members": {"task_struct.pid": {"offset": 1064, "size": 4}, ...}, "absent":
/// ["task_struct.state", ...], "sizes": {"task_struct": 3200, ...}}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    members: BTreeMap<String, Member>,
    absent: BTreeSet<String>,
    sizes: BTreeMap<String, u32>,
}

impl Layout {
    /// The layouts of a kernel in the cache, if they are there already. [`Builder::layout`](crate::Builder::layout)
    /// makes them if they are not.
    ///
    /// # Errors
    /// [`LayoutError::Missing`], and [`LayoutError::Io`] and [`LayoutError::Json`] for a file that cannot be read.
    pub fn of_image(image: &KernelImage) -> Result<Layout, LayoutError> {
        let path = &image.layout;
        let text = match fs::read(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(LayoutError::Missing { kernel: image.variant.clone() });
            }
            read => read.map_err(|source| LayoutError::Io { path: path.clone(), source })?,
        };
        serde_json::from_slice(&text).map_err(|source| LayoutError::Json { path: path.clone(), source })
    }

    /// Where a member is. A dot leads into a member that is a struct itself: `thread.sp` in `task_struct`. `None` if
    /// this kernel does not have it.
    ///
    /// # Panics
    /// In a debug build, if [`STRUCTS`] does not have the member: no kernel would have it then.
    pub fn member(&self, name: &str, member: &str) -> Option<Member> {
        let found = self.members.get(&key(name, member)).copied();
        debug_assert!(found.is_some() || members::has(name, member), "layout::STRUCTS has no {name}.{member}");
        found
    }

    /// The offset of a member in bytes, as [`Layout::member`] says.
    ///
    /// # Panics
    /// As [`Layout::member`].
    pub fn offset(&self, name: &str, member: &str) -> Option<u32> {
        Some(self.member(name, member)?.offset)
    }

    /// The size of a struct in bytes. `None` if this kernel does not have it.
    ///
    /// # Panics
    /// In a debug build, if [`STRUCTS`] does not have the struct.
    pub fn size(&self, name: &str) -> Option<u32> {
        let found = self.sizes.get(name).copied();
        debug_assert!(found.is_some() || members::struct_of(name).is_some(), "layout::STRUCTS has no {name}");
        found
    }

    /// The members of [`STRUCTS`] that this kernel does not have, as `task_struct.state`.
    pub fn absent(&self) -> impl Iterator<Item = &str> {
        self.absent.iter().map(String::as_str)
    }
}

/// The name of a member of a struct.
fn key(name: &str, member: &str) -> String {
    format!("{name}.{member}")
}

/// The symbols of a kernel as the text of a `System.map`. Those of a kernel that was built elsewhere are in its image.
pub(crate) fn symbols(image: &KernelImage, cancel: &CancelToken) -> Result<String, BuildError> {
    let (map, boot) = (&image.system_map, &image.boot);
    if map.exists() {
        return fs::read_to_string(map).map_err(BuildError::io("read", map));
    }
    let scratch = tempfile::tempdir().map_err(BuildError::io("create a folder for", boot))?;
    let vmlinux = payload::vmlinux(boot, scratch.path(), cancel)?;
    kallsyms::system_map(&vmlinux).ok_or_else(|| BuildError::layout(boot)(LayoutError::NoSymbols))
}
