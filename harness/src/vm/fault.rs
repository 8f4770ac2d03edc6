//! What versions of QEMU do wrong.

use super::version::Version;
use crate::trigger::Trigger;

/// Removals that some versions of QEMU do not bring about, whatever the kernel does.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// The versions that were seen to fail. Others are tried.
    pub versions: &'static [Version],
    /// Whether it is in the way of a removal by this trigger.
    pub hinders: fn(Trigger) -> bool,
    /// What happens.
    pub what: &'static str,
}
