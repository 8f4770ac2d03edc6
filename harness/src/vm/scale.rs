//! One factor for all deadlines.

use std::time::Duration;

use crate::vm::argv::Accel;

/// The factor by which deadlines are longer than on a machine with KVM.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale(f64);

impl Scale {
    /// The factor for waits in the guest's own time, which does not depend on how fast the host is.
    pub const GUEST: Scale = Scale(1.0);

    /// The factor of an accelerator, for waits in the host's time. syzkaller uses 3 for emulation too.
    pub fn of(accel: Accel) -> Scale {
        match accel {
            Accel::Kvm => Scale(1.0),
            Accel::Tcg => Scale(3.0),
        }
    }

    /// The factor for guests that are this many times slower.
    pub fn slower(self, times: u32) -> Scale {
        Scale(self.0 * f64::from(times))
    }

    /// Any other factor.
    pub fn times(factor: f64) -> Scale {
        Scale(factor)
    }

    /// A deadline that is `seconds` on a machine with KVM.
    pub fn seconds(self, seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds * self.0)
    }
}
