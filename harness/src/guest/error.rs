//! Why a scenario came to no verdict of its own.

use crate::trigger::Trigger;
use crate::vm::agent::{AgentError, Lost};
use crate::vm::ended::Ended;
use crate::vm::event_log::WaitError;
use crate::vm::qmp::QmpError;
use crate::vm::starved::Late;

/// A scenario could not be carried out. That says nothing about the kernel, unless the kernel refused what it must grant, or
/// its log says more.
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
    /// The kernel refused what it must grant. That is the verdict on it.
    #[error("the kernel refused to {what}: {why}")]
    Refused {
        /// The attribute, or the part of the kernel.
        at: String,
        /// What it was to do.
        what: String,
        /// What it said, or did.
        why: String,
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
    /// How QEMU ended, if that is why.
    pub fn ended(&self) -> Option<&Ended> {
        match self {
            Error::Wait(error) => error.ended(),
            Error::Agent(error) => error.ended(),
            _ => None,
        }
    }

    /// Whether it is a deadline that passed with the guest still there.
    pub fn is_deadline(&self) -> bool {
        self.late().is_some() || self.is_mute_qemu()
    }

    /// The deadline of something of the guest's, if it was that.
    pub fn late(&self) -> Option<Late> {
        match self {
            Error::Wait(error) | Error::Agent(AgentError::Wait(error)) => error.late(),
            _ => None,
        }
    }

    /// Whether QEMU does not answer on QMP.
    pub fn is_mute_qemu(&self) -> bool {
        matches!(self, Error::Qmp(QmpError::Silent { .. } | QmpError::Unanswered { .. }))
    }
}
