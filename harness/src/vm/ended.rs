//! How a QEMU ended.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;

/// How a QEMU ended, with the last lines of its stderr. It reads as a sentence, and nothing is ever read out of that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    how: How,
    said: Arc<[String]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum How {
    /// By itself, or by somebody else's signal.
    Status(ExitStatus),
    /// The harness killed it.
    Killed,
    /// It has ended, and its status could not be had.
    Unknown(Arc<str>),
}

impl Ended {
    /// As the host's kernel tells of it.
    pub(super) fn of(status: std::io::Result<ExitStatus>, said: Vec<String>) -> Ended {
        let how = status.map_or_else(|error| How::Unknown(error.to_string().into()), How::Status);
        Ended { how, said: said.into() }
    }

    /// The harness killed it.
    pub(super) fn killed() -> Ended {
        Ended { how: How::Killed, said: Arc::default() }
    }

    /// Whether a signal that the harness did not send ended it: an assertion, a fault, the host's OOM killer.
    pub fn is_crash(&self) -> bool {
        matches!(&self.how, How::Status(status) if status.signal().is_some())
    }

    /// Whether it ended as it does when it is told to, or when its guest ends: with exit status 0.
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

/// The last lines of a stderr, after what they explain.
pub(super) fn it_said(f: &mut impl fmt::Write, lines: &[String]) -> fmt::Result {
    if lines.is_empty() { Ok(()) } else { write!(f, "; it said: {}", lines.join(" | ")) }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The end of a process that exited with this code, having said this.
    pub(crate) fn exited(code: i32, said: &str) -> Ended {
        Ended::of(Ok(ExitStatus::from_raw(code << 8)), vec![said.to_owned()])
    }

    /// The end of one that failed an assertion.
    pub(crate) fn aborted() -> Ended {
        Ended::of(Ok(ExitStatus::from_raw(6)), vec!["Assertion failed.".to_owned()])
    }

    #[test]
    fn a_crash_is_told_from_an_exit_by_the_status_and_not_by_words() {
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
    fn an_end_reads_as_a_sentence() {
        insta::assert_snapshot!(aborted(), @"QEMU ended (signal: 6 (SIGABRT)); it said: Assertion failed.");
        insta::assert_snapshot!(exited(1, "no such option"), @"QEMU ended (exit status: 1); it said: no such option");
        insta::assert_snapshot!(Ended::of(Ok(ExitStatus::from_raw(0)), Vec::new()), @"QEMU ended (exit status: 0)");
        insta::assert_snapshot!(Ended::killed(), @"QEMU was killed by the harness");
        let lost = Ended::of(Err(std::io::Error::other("no child")), Vec::new());
        insta::assert_snapshot!(lost, @"QEMU ended (its status is not known: no child)");
    }
}
