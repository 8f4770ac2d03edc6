//! Asking the kernel who holds the lock for which a task is stuck.

use guest_protocol::{Command, Message, Sched};

use super::{Error, Guest};
use crate::classify::Holder;

/// The time after which the kernel reports a task as hung (`kernel/hung_task.c`). A write wakes the detector up. It
/// looks at once if its last look was longer ago than the new time.
const TIMEOUT: &str = "/proc/sys/kernel/hung_task_timeout_secs";

/// The shortest such time, in seconds.
const SHORTEST: &str = "1";

/// How long to wait for the report, on a machine with KVM, in seconds. The detector must see the task twice at the same
/// place: it looks each second.
const REPORT: f64 = 4.0;

impl Guest {
    /// Makes the kernel report hung tasks soon, and waits until it names the holder of a lock. The kernel must have
    /// been built with `CONFIG_DETECT_HUNG_TASK_BLOCKER`. It may name nobody: a task may wait for something
    /// else than a lock.
    ///
    /// # Errors
    /// The agent's.
    pub(crate) async fn let_holder_be_named(&self) -> Result<(), Error> {
        let messages = self.agent().messages();
        let named = |message: &Message| match message {
            Message::Kmsg { text, .. } => Holder::of(text),
            _ => None,
        };
        // The detector may have reported already: a scenario may last longer than its time.
        if !messages.collect(0, named).is_empty() {
            return Ok(());
        }
        let write =
            Command::Write { path: TIMEOUT.to_owned(), data: SHORTEST.to_owned(), at: 0, sched: Sched::default() };
        self.agent().call(write, self.prompt()).await?;
        match messages.wait(0, self.seconds(REPORT), "the holder of a lock", named).await {
            Err(error) if !error.is_deadline() => Err(error.into()),
            _ => Ok(()),
        }
    }
}
