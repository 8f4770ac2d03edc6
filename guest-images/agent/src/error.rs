//! What goes wrong, and how it is told.

use std::io;

use guest_protocol::{Errno, Failure};

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The kernel said no.
    #[error("{action}")]
    Io {
        /// What was being done, as "open /dev/vfio/vfio".
        action: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// What came is not what was asked for.
    #[error("{0}")]
    Refused(String),
}

impl AgentError {
    /// The kernel refused an action.
    pub fn io(action: impl Into<String>, source: impl Into<io::Error>) -> AgentError {
        AgentError::Io { action: action.into(), source: source.into() }
    }

    /// As the host is told.
    pub fn failure(&self) -> Failure {
        let errno = match self {
            AgentError::Io { source, .. } => source.raw_os_error().map(errno),
            AgentError::Refused(_) => None,
        };
        Failure { message: chain(self), errno }
    }
}

/// Does something, with its name in the error.
pub fn doing<T, E: Into<io::Error>>(action: &str, f: impl FnOnce() -> Result<T, E>) -> Result<T, AgentError> {
    f().map_err(|source| AgentError::io(action, source))
}

/// An errno by number, with its name.
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
    fn a_failure_names_action_and_errno() {
        let failure = AgentError::io("write /sys/x", io::Error::from_raw_os_error(16)).failure();
        assert_eq!(failure.message, "write /sys/x: Device or resource busy (os error 16)");
        assert_eq!(failure.errno, Some(Errno { code: 16, name: "EBUSY".to_owned() }));
    }

    #[test]
    fn an_errno_without_a_name_has_a_text() {
        assert_eq!(errno(524).name, "Unknown error 524 (os error 524)");
    }
}
