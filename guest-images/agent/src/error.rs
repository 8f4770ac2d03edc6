//! The error type of the agent, and how errors are reported to the host.

use std::io;

use guest_protocol::{Errno, Failure};

/// Why an action failed.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// A system call failed.
    #[error("{action}")]
    Io {
        /// What was tried, as in "open /dev/vfio/vfio".
        action: String,
        /// The error of the system call.
        source: io::Error,
    },
    /// The request, or something that was read, is not as it must be.
    #[error("{0}")]
    Refused(String),
}

impl AgentError {
    /// The error for a failed system call.
    pub fn io(action: impl Into<String>, source: impl Into<io::Error>) -> AgentError {
        AgentError::Io { action: action.into(), source: source.into() }
    }

    /// The failure to report to the host.
    pub fn failure(&self) -> Failure {
        let errno = match self {
            AgentError::Io { source, .. } => source.raw_os_error().map(errno),
            AgentError::Refused(_) => None,
        };
        Failure { message: chain(self), errno }
    }
}

/// Runs a function. If it fails, the error names the action.
pub fn doing<T, E: Into<io::Error>>(action: &str, f: impl FnOnce() -> Result<T, E>) -> Result<T, AgentError> {
    f().map_err(|source| AgentError::io(action, source))
}

/// The errno with this number.
pub fn errno(code: i32) -> Errno {
    let name = match nix::errno::Errno::from_raw(code) {
        nix::errno::Errno::UnknownErrno => io::Error::from_raw_os_error(code).to_string(),
        known => format!("{known:?}"),
    };
    Errno { code, name }
}

/// An error and its causes on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_has_the_action_and_the_errno() {
        let failure = AgentError::io("write /sys/x", io::Error::from_raw_os_error(16)).failure();
        assert_eq!(failure.message, "write /sys/x: Device or resource busy (os error 16)");
        assert_eq!(failure.errno, Some(Errno { code: 16, name: "EBUSY".to_owned() }));
    }

    #[test]
    fn an_unknown_errno_has_the_text_of_the_c_library() {
        assert_eq!(errno(524).name, "Unknown error 524 (os error 524)");
    }
}
