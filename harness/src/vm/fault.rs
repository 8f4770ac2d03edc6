//! Bugs of QEMU versions, and what older versions lack.

use super::version::Version;
use crate::trigger::Trigger;

/// A bug of some QEMU versions that prevents removals, whatever the kernel does.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// The oldest version that was observed to fail. Cells run on older ones.
    pub since: Version,
    /// The oldest version that was observed to work again. Cells run on it and on newer ones. A version in between that
    /// nobody tried counts as one that fails.
    pub mended: Version,
    /// Whether it prevents a removal by this trigger.
    pub hinders: fn(Trigger) -> bool,
    /// What happens, for the reason of a skipped cell.
    pub what: &'static str,
}

impl Fault {
    /// Whether a version has the bug.
    pub fn is_in(&self, version: Version) -> bool {
        (self.since..self.mended).contains(&version)
    }
}

/// A property that a device does not have in older versions of QEMU, although they have the device. `-device help` does
/// not show that.
#[derive(Clone, Copy, Debug)]
pub struct Newer {
    /// The first version that has it.
    pub since: Version,
    /// The property, in words that follow "has no".
    pub what: &'static str,
}
