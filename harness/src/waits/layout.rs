//! Where the members of the kernel's structures are. Stands in for the type of the same name in `kernels`.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// Offsets of members, and sizes of structures, of one kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    members: BTreeMap<String, Member>,
    #[serde(default)]
    absent: BTreeSet<String>,
    #[serde(default)]
    sizes: BTreeMap<String, u32>,
}

/// A member of a structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its distance from the begin of the structure, in bytes.
    pub offset: u32,
    /// Its size in bytes; 0 for a bit-field.
    pub size: u32,
}

impl Layout {
    /// A member. `member` may be a path: `thread.sp`. `None` if the structure of this kernel has no such member.
    pub fn member(&self, structure: &str, member: &str) -> Option<Member> {
        self.members.get(&format!("{structure}.{member}")).copied()
    }

    /// The offset of a member.
    pub fn offset(&self, structure: &str, member: &str) -> Option<u32> {
        self.member(structure, member).map(|member| member.offset)
    }

    /// The size of a structure.
    pub fn size(&self, structure: &str) -> Option<u32> {
        self.sizes.get(structure).copied()
    }
}
