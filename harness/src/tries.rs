//! How often a cell or a snapshot is tried, and why. Cells, snapshots and bisections all use these limits.
//!
//! The first guest that gives a verdict decides on its kernel. No second guest confirms a verdict. The harness tries
//! another guest only after a [`Sign`] that the test bed, and not the kernel, prevented the verdict. A missed deadline
//! alone is not such a sign: if the guest answers and QEMU got enough CPU time, another guest would miss the same
//! deadline a minute later.
//!
//! Only `matrix::Runner::cell` starts the guests of a cell. Its callers use the verdict as it is: a bisection does not
//! run a cell again.

use std::fmt;
use std::time::Duration;

/// A sign that the test bed prevented a verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sign {
    /// QEMU crashed.
    Crash,
    /// QEMU does not answer: it does not connect, sends no greeting, or does not answer a command.
    Mute,
    /// The kernel log shows that a timer was lost, or that the host did not run a virtual CPU for a long time.
    Log,
    /// Messages from the guest were lost.
    Lost,
    /// The guest calibrated the clock of its CPU wrongly.
    Clock,
    /// A deadline passed, and for a large part of that time QEMU waited for the host's CPUs.
    Starved(Duration),
    /// The guest sends nothing, and its agent does not answer. Either the emulated machine lost a timer, or the kernel
    /// hangs.
    Silence,
}

/// A random failure of the test bed is very unlikely in so many guests in a row. A failure that is not random would
/// also occur in another guest.
const GUESTS: usize = 3;

/// After a deadline each further guest is expensive, because the deadline passes again. The sign is also not certain:
/// most often the kernel hangs.
const GUESTS_AFTER_DEADLINE: usize = 2;

/// How many snapshots of a machine are taken if none of them restores. The first failure may be the host's fault.
pub const SNAPSHOTS: usize = 2;

/// QEMU starved if it waited for the host's CPUs for at least 1/`STARVED` of the time to the deadline. The QEMU of an
/// idle guest that hangs needs little CPU time, so it starves only on an overloaded host.
const STARVED: u32 = 4;

/// Whether stalls of a guest's CPUs say nothing about its kernel: QEMU's threads waited for the host's CPUs for as long as its
/// scenario took. By the guest's clock, which went on meanwhile, its CPUs seem to stall. A kernel that spins makes QEMU
/// want a CPU all the time; beside as many guests as run by default it waits for half of it.
pub fn stood_still(took: Duration, starved: Duration) -> bool {
    !starved.is_zero() && starved >= took
}

impl Sign {
    /// The number of guests after which a cell ends without a verdict.
    pub fn guests(&self) -> usize {
        match self {
            Sign::Silence | Sign::Starved(_) => GUESTS_AFTER_DEADLINE,
            Sign::Crash | Sign::Mute | Sign::Log | Sign::Lost | Sign::Clock => GUESTS,
        }
    }

    /// Whether to try another guest after `tried` guests.
    pub fn calls_for_another(&self, tried: usize) -> bool {
        tried < self.guests()
    }

    /// The sign, if there is one, that QEMU waited `starved` for the host's CPUs within the time that something took.
    pub fn of_time(took: Duration, starved: Duration) -> Option<Sign> {
        (!starved.is_zero() && starved * STARVED >= took).then_some(Sign::Starved(starved))
    }
}

impl fmt::Display for Sign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Sign::Crash => "QEMU crashed",
            Sign::Mute => "QEMU does not answer",
            Sign::Log => "the kernel log shows a failure of the test bed",
            Sign::Lost => "messages from the guest were lost",
            Sign::Clock => "the guest's clock is wrong",
            Sign::Starved(time) => {
                return write!(f, "QEMU waited {:.0} s for the host's CPUs", time.as_secs_f64());
            }
            Sign::Silence => "the guest does not answer",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_guests_is_limited() {
        for sign in [Sign::Crash, Sign::Mute, Sign::Log, Sign::Lost, Sign::Clock] {
            assert_eq!([1, 2, 3].map(|tried| sign.calls_for_another(tried)), [true, true, false], "{sign}");
        }
        for sign in [Sign::Silence, Sign::Starved(Duration::from_secs(1))] {
            assert_eq!([1, 2].map(|tried| sign.calls_for_another(tried)), [true, false], "{sign}");
        }
    }

    #[test]
    fn a_missed_deadline_is_a_sign_only_if_qemu_starved() {
        let seconds = Duration::from_secs;
        assert_eq!(Sign::of_time(seconds(60), Duration::ZERO), None);
        assert_eq!(Sign::of_time(seconds(60), seconds(3)), None);
        assert_eq!(Sign::of_time(seconds(80), seconds(20)), Some(Sign::Starved(seconds(20))));
        assert_eq!(Sign::of_time(Duration::ZERO, Duration::ZERO), None);
    }

    #[test]
    fn a_guest_stood_still_if_its_qemu_waited_all_the_time() {
        let seconds = Duration::from_secs;
        assert!(!stood_still(seconds(60), Duration::ZERO) && !stood_still(seconds(60), seconds(30)));
        assert!(stood_still(seconds(60), seconds(60)) && !stood_still(Duration::ZERO, Duration::ZERO));
    }
}
