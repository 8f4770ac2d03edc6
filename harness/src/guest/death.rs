//! What becomes of a scenario when the kernel dies under it, or a part of the kernel.

use std::future;

use guest_protocol::Message;

use super::{EVER, Error, Guest};
use crate::classify;

/// How long a scenario may go on, in seconds on a machine with KVM, after a task has died. Whoever does not need that task
/// gets on in this time; whoever needs a lock that it had waits for ever, and often interruptibly, so that nothing is stuck.
const GRACE: f64 = 5.0;

impl Guest {
    /// Waits until the kernel says through `/dev/kmsg` that a task has died, and then a little longer. On a kernel on which
    /// none does this never ends.
    pub(crate) async fn death(&self, since: usize) -> Error {
        let died = |message: &Message| match message {
            Message::Kmsg { text, .. } => classify::headline(text).filter(|kind| kind.kills()),
            _ => None,
        };
        // When the agent is lost, whoever asks it for anything is told.
        if self.agent().messages().wait(since, EVER, "the death of a task", died).await.is_ok() {
            self.vm().starved().pause(self.seconds(GRACE)).await;
            // What is known to the profile is nothing to end for.
            if let Some(splat) = self.complaint() {
                return Error::Complaint(splat.title);
            }
        }
        future::pending().await
    }
}
