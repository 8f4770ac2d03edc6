//! Why a look has no result.

use super::memory::Unreadable;

/// A look failed. The guest may have changed its memory meanwhile, or have ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LookError {
    /// Physical memory cannot be read.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// No page is mapped at a virtual address.
    #[error("the guest's kernel maps no page at virtual address {address:#x}")]
    Unmapped {
        /// The address.
        address: u64,
    },
    /// The kernel's layout lacks a member.
    #[error("the layout of this kernel has no {structure}.{member}")]
    NoMember {
        /// The structure.
        structure: &'static str,
        /// The member.
        member: &'static str,
    },
    /// System.map lacks a symbol.
    #[error("System.map of this kernel has no {name}")]
    NoSymbol {
        /// The symbol.
        name: &'static str,
    },
    /// A list in the guest's memory does not end where it should.
    #[error("{list} does not end, or is damaged")]
    Damaged {
        /// The list, in words.
        list: &'static str,
    },
    /// The objects of the kernel cannot be counted.
    #[error("the guest's kernel has {why}, and its objects cannot be counted")]
    Uncounted {
        /// What it has.
        why: &'static str,
    },
    /// The kernel uses five levels of page tables.
    #[error("the guest's kernel uses five levels of page tables, and only four can be read")]
    FiveLevels,
}
