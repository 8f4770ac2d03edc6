//! How a QEMU process ended.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;

/// How a QEMU process ended, with the last lines of its stderr. Its text is for people: no code parses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    how: How,
    said: Arc<[String]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum How {
    /// It exited, or a signal that the harness did not send ended it.
    Status(ExitStatus),
    /// The harness killed it.
    Killed,
    /// It has ended, and its status could not be read.
    Unknown(Arc<str>),
}

impl Ended {
    /// From the result of waiting for the process, and the last lines of its stderr.
    pub(super) fn of(status: std::io::Result<ExitStatus>, said: Vec<String>) -> Ended {
        let how = status.map_or_else(|error| How::Unknown(error.to_string().into()), How::Status);
        Ended { how, said: said.into() }
    }

    /// The harness killed it.
    pub(super) fn killed() -> Ended {
        Ended { how: How::Killed, said: Arc::default() }
    }

    /// Whether a signal that the harness did not send ended it: a failed assertion, a fault, the host's OOM killer.
    pub fn is_crash(&self) -> bool {
        matches!(&self.how, How::Status(status) if status.signal().is_some())
    }

    /// Whether it ended with exit status 0, as after `quit` or when its guest shuts down.
    pub fn is_success(&self) -> bool {
        matches!(&self.how, How::Status(status) if status.success())
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.how {
            How::Status(status) => write!(f, "QEMU ended ({status})"),
            How::Killed => f.write_str("QEMU was killed by the harness"),
            How::Unknown(error) => write!(f, "QEMU ended (its status is not known: {error})"),
        }?;
        it_said(f, &self.said)
    }
}

/// Appends the last lines of a stderr to a message.
pub(super) fn it_said(f: &mut impl fmt::Write, lines: &[String]) -> fmt::Result {
    if lines.is_empty() { Ok(()) } else { write!(f, "; it said: {}", lines.join(" | ")) }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The end of a process that exited with this code, after it printed this.
    pub(crate) fn exited(code: i32, said: &str) -> Ended {
        Ended::of(Ok(ExitStatus::from_raw(code << 8)), vec![said.to_owned()])
    }

    /// The end of a process that failed an assertion.
    pub(crate) fn aborted() -> Ended {
        Ended::of(Ok(ExitStatus::from_raw(6)), vec!["Assertion failed.".to_owned()])
    }

    #[test]
    fn a_crash_is_detected_by_the_exit_status_and_not_by_the_text() {
        let misleading = "QEMU ended (signal: 6 (SIGABRT)), exit status: 0";
        for (ended, crash, success) in [
            (aborted(), true, false),
            (Ended::of(Ok(ExitStatus::from_raw(9)), Vec::new()), true, false),
            (exited(0, misleading), false, true),
            (exited(1, misleading), false, false),
            (Ended::killed(), false, false),
            (Ended::of(Err(std::io::Error::other("signal: 6")), Vec::new()), false, false),
        ] {
            assert_eq!((ended.is_crash(), ended.is_success()), (crash, success), "{ended}");
        }
    }

    #[test]
    fn the_text_of_an_end() {
        insta::assert_snapshot!(aborted(), @"QEMU ended (signal: 6 (SIGABRT)); it said: Assertion failed.");
        insta::assert_snapshot!(exited(1, "no such option"), @"QEMU ended (exit status: 1); it said: no such option");
        insta::assert_snapshot!(Ended::of(Ok(ExitStatus::from_raw(0)), Vec::new()), @"QEMU ended (exit status: 0)");
        insta::assert_snapshot!(Ended::killed(), @"QEMU was killed by the harness");
        let lost = Ended::of(Err(std::io::Error::other("no child")), Vec::new());
        insta::assert_snapshot!(lost, @"QEMU ended (its status is not known: no child)");
    }
}
