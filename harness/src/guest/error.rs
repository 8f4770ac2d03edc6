//! Why a scenario has no verdict of its own.

use crate::trigger::Trigger;
use crate::vm::agent::{AgentError, Lost};
use crate::vm::drive::DriveError;
use crate::vm::ended::Ended;
use crate::vm::event_log::WaitError;
use crate::vm::qmp::QmpError;
use crate::vm::starved::Late;

/// A scenario could not be carried out. That is no verdict on the kernel, unless the kernel refused a request that it
/// must grant, or its log shows a failure.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An awaited event did not come.
    #[error(transparent)]
    Wait(#[from] WaitError),
    /// A request to the agent failed.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// A QMP command failed.
    #[error(transparent)]
    Qmp(#[from] QmpError),
    /// A guest whose clock is held could not be driven.
    #[error(transparent)]
    Drive(#[from] DriveError),
    /// The kernel refused a request that it must grant. That is its verdict.
    #[error("the kernel refused to {what}: {why}")]
    Refused {
        /// The attribute, or the part of the kernel.
        at: String,
        /// What was requested.
        what: String,
        /// The errno or the error message.
        why: String,
    },
    /// A removal did not take the kernel path of its trigger, so the cell would test something else.
    #[error("the removal did not take the path of {trigger}: {why}")]
    WrongPath {
        /// The trigger.
        trigger: Trigger,
        /// What the log shows instead, or what is missing from it.
        why: String,
    },
    /// The kernel reported an error during the scenario. The verdict is drawn from the console.
    #[error("the kernel reported: {0}")]
    Complaint(String),
    /// Messages of the guest were lost.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// The kernel lacks a feature that the scenario needs: the cell is skipped.
    #[error("this kernel has no {0}")]
    Lacks(String),
    /// The guest is not in the state that the scenario needs.
    #[error("{0}")]
    Unprepared(String),
}

impl Error {
    /// How QEMU ended, if that is the cause.
    pub fn ended(&self) -> Option<&Ended> {
        match self {
            Error::Wait(error) => error.ended(),
            Error::Agent(error) => error.ended(),
            _ => None,
        }
    }

    /// Whether a deadline passed while QEMU was still running.
    pub fn is_deadline(&self) -> bool {
        self.late().is_some() || self.is_mute_qemu()
    }

    /// The deadline, if a wait for the guest timed out.
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
