//! How often anything is tried, and why. This is decided here; cells, snapshots and bisections rely on it.
//!
//! A kernel is judged by the first guest that brings a verdict, and no verdict is asked for twice. Another guest is tried only
//! if there is a [`Sign`] that the test bed, and not the kernel, kept the first from a verdict. That a deadline passed is no
//! such sign: in a guest that answers, of a QEMU that had its share of the host's CPUs, it would pass again, a minute later.
//!
//! A cell has all its guests in one place, `matrix::Runner::cell`. What runs cells takes their verdicts as they are: a
//! bisection does not run a cell again.

use std::fmt;
use std::time::Duration;

/// What shows that the test bed kept a cell from a verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sign {
    /// QEMU crashed.
    Crash,
    /// QEMU does not answer: it does not connect, or does not greet, or leaves a command without an answer.
    Mute,
    /// The kernel's log tells of a timer that was lost, or of a CPU that the host kept from running.
    Log,
    /// Messages of the guest were lost on the way.
    Lost,
    /// The guest mismeasured the clock of its CPU.
    Clock,
    /// While a deadline passed, QEMU waited for the host's CPUs for a good part of it.
    Starved(Duration),
    /// Nothing comes from the guest, not even an answer of its agent. The emulated machine may have lost a timer; or the
    /// kernel hangs.
    Silence,
}

/// Trouble that comes now and then is most unlikely to spoil so many guests in a row. What comes every time another guest
/// would not change.
const GUESTS: usize = 3;

/// A sign that comes with a deadline is dear, as that passes with each guest, and not sure: most often the kernel hangs.
const GUESTS_AFTER_DEADLINE: usize = 2;

/// How many snapshots of a machine are made that do not restore. One may be the host's fault.
pub const SNAPSHOTS: usize = 2;

/// QEMU starved if it waited for the host's CPUs for one part in so many of the time in which something of its guest was
/// awaited. The QEMU of a guest that hangs and is idle wants little, and starves on an overloaded host alone.
const STARVED: u32 = 4;

/// Whether stalls of a guest's CPUs say nothing about its kernel: QEMU's threads waited for the host's CPUs for as long as its
/// scenario took. By the guest's clock, which went on meanwhile, its CPUs seem to stall. A kernel that spins makes QEMU
/// want a CPU all the time; beside as many guests as run by default it waits for half of it.
pub fn stood_still(took: Duration, starved: Duration) -> bool {
    !starved.is_zero() && starved >= took
}

impl Sign {
    /// How many guests are tried in all before a cell goes without a verdict.
    pub fn guests(&self) -> usize {
        match self {
            Sign::Silence | Sign::Starved(_) => GUESTS_AFTER_DEADLINE,
            Sign::Crash | Sign::Mute | Sign::Log | Sign::Lost | Sign::Clock => GUESTS,
        }
    }

    /// Whether another guest is to be tried after so many.
    pub fn calls_for_another(&self, tried: usize) -> bool {
        tried < self.guests()
    }

    /// What it shows of the test bed that QEMU waited so long for the host's CPUs, of the time that something took.
    pub fn of_time(took: Duration, starved: Duration) -> Option<Sign> {
        (!starved.is_zero() && starved * STARVED >= took).then_some(Sign::Starved(starved))
    }
}

impl fmt::Display for Sign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Sign::Crash => "QEMU crashed",
            Sign::Mute => "QEMU does not answer",
            Sign::Log => "the kernel's log tells of trouble of the test bed",
            Sign::Lost => "messages of the guest were lost",
            Sign::Clock => "the guest's clock is wrong",
            Sign::Starved(time) => {
                return write!(f, "QEMU waited {:.0} s for the host's CPUs", time.as_secs_f64());
            }
            Sign::Silence => "the guest is silent",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_an_end_to_trying() {
        for sign in [Sign::Crash, Sign::Mute, Sign::Log, Sign::Lost, Sign::Clock] {
            assert_eq!([1, 2, 3].map(|tried| sign.calls_for_another(tried)), [true, true, false], "{sign}");
        }
        for sign in [Sign::Silence, Sign::Starved(Duration::from_secs(1))] {
            assert_eq!([1, 2].map(|tried| sign.calls_for_another(tried)), [true, false], "{sign}");
        }
    }

    #[test]
    fn a_deadline_is_a_sign_only_of_a_qemu_that_starved() {
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
