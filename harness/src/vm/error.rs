//! Why a guest did not come up, and why its QEMU did not end as it was told.

use std::time::Duration;

use super::agent::AgentError;
use super::ended::Ended;
use super::qmp::QmpError;
use crate::text::duration;

/// A guest did not come up.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// QEMU could not be run or talked to: nothing is known about the kernel.
    #[error("{0}")]
    Qemu(String),
    /// QEMU ended before it greeted: nothing is known about the kernel.
    #[error("{0}")]
    Gone(Ended),
    /// QEMU runs, and does not do its part: the host may be overloaded.
    #[error("{0}")]
    Mute(String),
    /// QEMU ended while the kernel booted, as it does when the kernel panics.
    #[error("the guest ended before its agent said hello: {0}")]
    Ended(Ended),
    /// The agent did not say hello in time.
    #[error("the guest did not come up: {0}")]
    Silent(AgentError),
    /// Guests on the very same machine did not come up, and this one was not even tried.
    #[error("the guest would not come up: others on this machine did not, {0}")]
    Known(String),
    /// The guest's clock runs fast: on a busy host its kernel may measure the TSC wrongly (`arch/x86/kernel/tsc.c`,
    /// `pit_hpet_ptimer_calibrate_cpu()`), and then takes seconds for minutes.
    #[error(
        "the guest's clock runs fast, it counted {guest:.0} s in {host:.0} s: its kernel mismeasured the CPU's clock"
    )]
    Clock {
        /// What the guest's clock showed when its agent said hello, in seconds.
        guest: f64,
        /// The time since its QEMU was started, in seconds.
        host: f64,
    },
    /// What came over the agent's channel is not from an agent that this harness can talk to.
    #[error("{0}")]
    Foreign(AgentError),
}

impl BootError {
    /// How QEMU ended, if that is why.
    pub fn ended(&self) -> Option<&Ended> {
        match self {
            BootError::Gone(ended) | BootError::Ended(ended) => Some(ended),
            _ => None,
        }
    }
}

impl From<QmpError> for BootError {
    fn from(error: QmpError) -> BootError {
        BootError::Qemu(error.to_string())
    }
}

/// QEMU did not end as it was told.
#[derive(Debug, thiserror::Error)]
pub enum KillError {
    /// It had ended before by itself, or ended in another way than `quit` does.
    #[error("{0}")]
    Ended(Ended),
    /// It did not take the command, and goes on. It was killed.
    #[error("QEMU did not take `quit`, and was killed: {0}")]
    Refused(QmpError),
    /// It did not end in time. It was killed.
    #[error("QEMU did not end within {} of `quit`; it was killed", duration(*.0))]
    Late(Duration),
}

impl KillError {
    /// How QEMU ended, unless the harness killed it.
    pub fn ended(&self) -> Option<&Ended> {
        match self {
            KillError::Ended(ended) => Some(ended),
            KillError::Refused(_) | KillError::Late(_) => None,
        }
    }
}
