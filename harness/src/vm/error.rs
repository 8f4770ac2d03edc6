//! Why a guest did not boot, and why its QEMU did not quit normally.

use std::time::Duration;

use super::agent::AgentError;
use super::ended::Ended;
use super::qmp::QmpError;
use crate::text::duration;

/// A guest did not boot.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// QEMU could not be started, or its connection failed: this is no verdict on the kernel.
    #[error("{0}")]
    Qemu(String),
    /// QEMU ended before its QMP greeting: this is no verdict on the kernel.
    #[error("{0}")]
    Gone(Ended),
    /// QEMU runs but does not connect or greet: the host may be overloaded.
    #[error("{0}")]
    Mute(String),
    /// QEMU ended while the kernel booted, as it does when the kernel panics.
    #[error("the guest ended before its agent said hello: {0}")]
    Ended(Ended),
    /// The agent did not say hello in time.
    #[error("the guest did not boot: {0}")]
    Silent(AgentError),
    /// Other guests with the same machine configuration did not boot, so this one was not started.
    #[error("the guest was not started: other guests with this configuration did not boot: {0}")]
    Known(String),
    /// The guest's clock runs fast. On a busy host its kernel may measure the TSC wrongly (`arch/x86/kernel/tsc.c`,
    /// `pit_hpet_ptimer_calibrate_cpu()`), and then counts minutes within seconds.
    #[error(
        "the guest's clock runs fast: it counted {guest:.0} s in {host:.0} s, as its kernel measured the TSC wrongly"
    )]
    Clock {
        /// What the guest's clock showed when its agent said hello, in seconds.
        guest: f64,
        /// The time since its QEMU was started, in seconds.
        host: f64,
    },
    /// The data on the agent's channel is not from an agent with this harness's protocol.
    #[error("{0}")]
    Foreign(AgentError),
}

impl BootError {
    /// How QEMU ended, if that is the cause.
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

/// QEMU did not quit normally.
#[derive(Debug, thiserror::Error)]
pub enum KillError {
    /// QEMU had ended before, or `quit` ended with another status than 0.
    #[error("{0}")]
    Ended(Ended),
    /// QEMU refused `quit`, and was killed.
    #[error("QEMU did not accept `quit`, and was killed: {0}")]
    Refused(QmpError),
    /// QEMU did not end in time, and was killed.
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
