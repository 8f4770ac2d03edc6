//! Bugs of QEMU versions.

use super::version::Version;
use crate::trigger::Trigger;

/// A bug of some QEMU versions that prevents removals, whatever the kernel does.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// The versions that were observed to fail. Cells run on all others.
    pub versions: &'static [Version],
    /// Whether it prevents a removal by this trigger.
    pub hinders: fn(Trigger) -> bool,
    /// What happens, for the reason of a skipped cell.
    pub what: &'static str,
}
