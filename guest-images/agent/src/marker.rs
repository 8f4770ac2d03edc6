//! The marker: an instruction that does nothing, by which a host knows that the agent has come to a certain point.
//!
//! A host that holds the guest's clock has a plugin in QEMU that stops the guest at this instruction, until the host
//! lets it go on (`harness/plugin/gate.c`). Everywhere else, the instruction does nothing at all.

use guest_protocol::MARKER;

/// Executes the marker.
#[cfg(target_arch = "x86_64")]
pub fn mark() {
    // SAFETY: these bytes are one `nopl`, which neither reads memory nor changes registers, flags or the stack. No
    // `nomem`: what was written before must not be moved behind it.
    unsafe {
        core::arch::asm!(
            ".byte {}, {}, {}, {}, {}, {}, {}, {}",
            const MARKER[0], const MARKER[1], const MARKER[2], const MARKER[3],
            const MARKER[4], const MARKER[5], const MARKER[6], const MARKER[7],
            options(nostack, preserves_flags),
        );
    }
}

/// There are no guests of other architectures.
#[cfg(not(target_arch = "x86_64"))]
pub fn mark() {}
