//! Why a cell says nothing about its kernel.

use guest_protocol::Errno;

use crate::trigger::Trigger;
use crate::vm::agent::{AgentError, Lost};
use crate::vm::event_log::WaitError;
use crate::vm::qmp::QmpError;

/// Something other than the kernel under test went wrong, as far as can be known.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What was waited for did not come.
    #[error(transparent)]
    Wait(#[from] WaitError),
    /// The agent.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// QEMU.
    #[error(transparent)]
    Qmp(#[from] QmpError),
    /// The kernel refused what a scenario needs before it begins.
    #[error("the kernel refused {path}: {} (errno {})", errno.name, errno.code)]
    Refused {
        /// The attribute.
        path: String,
        /// What the kernel said.
        errno: Errno,
    },
    /// A removal took another way than its trigger claims: the cell would be about something else.
    #[error("the removal did not go the way of {trigger}: {why}")]
    WrongPath {
        /// The trigger.
        trigger: Trigger,
        /// What the log shows, or does not.
        why: String,
    },
    /// The kernel complained in the middle of it. What it said on the console is the verdict.
    #[error("the kernel complained: {0}")]
    Complaint(String),
    /// The guest's messages.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// The kernel has not what the scenario is about: the cell is skipped.
    #[error("this kernel has no {0}")]
    Lacks(String),
    /// The guest is not as the scenario needs it.
    #[error("{0}")]
    Unprepared(String),
}

impl Error {
    /// Whether another try may go better: it was a matter of time, or of how busy the test bed was.
    pub fn may_pass(&self) -> bool {
        self.is_deadline() || matches!(self, Error::Lost(_))
    }

    /// Whether it is a deadline that passed with the guest still there.
    pub fn is_deadline(&self) -> bool {
        match self {
            Error::Wait(error) | Error::Agent(AgentError::Wait(error)) => error.is_deadline(),
            Error::Qmp(QmpError::Silent { .. } | QmpError::Unanswered { .. }) => true,
            _ => false,
        }
    }
}
