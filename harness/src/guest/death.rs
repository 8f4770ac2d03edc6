//! Ending a scenario early when the kernel kills a task.

use std::future;

use guest_protocol::Message;

use super::{Error, FOREVER, Guest};
use crate::classify;

/// How long a scenario may go on after a task has died, in seconds on a machine with KVM. Tasks that do not depend on
/// the dead task finish in this time. Tasks that need a lock that it held wait forever, and often interruptibly, so
/// that they do not count as stuck.
const GRACE: f64 = 5.0;

impl Guest {
    /// Waits until the kernel reports through `/dev/kmsg` that a task has died, and then for [`GRACE`]. Never returns
    /// if no task dies.
    pub(crate) async fn death(&self, since: usize) -> Error {
        let died = |message: &Message| match message {
            Message::Kmsg { text, .. } => classify::headline_of_death(text),
            _ => None,
        };
        // If the agent is lost, the scenario's own requests to it return the error.
        if self.agent().messages().wait(since, FOREVER, "the death of a task", died).await.is_ok() {
            self.vm().time().pause(self.seconds(GRACE)).await;
            // A report that the profile lists as known does not end the scenario.
            if let Some(splat) = self.complaint() {
                return Error::Complaint(splat.title);
            }
        }
        future::pending().await
    }
}
