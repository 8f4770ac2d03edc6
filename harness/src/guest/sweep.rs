//! Trying all attributes of sysfs at once.

use std::time::Duration;

use guest_protocol::{Command, Progress, Sweep, Swept, Waiting};

use super::{Error, Guest};
use crate::vm::agent::Operation;

/// Attributes that are all being read at once, and some written.
pub struct Sweeping {
    operation: Operation,
    /// The accesses that do not end by themselves.
    pub waiting: Vec<Waiting>,
}

/// For how long nothing must have ended, on a machine with KVM, in seconds, until what has not ended is known to wait.
const QUIET: f64 = 0.4;

impl Guest {
    /// Tries every attribute in and below some folders, but for those to `leave_out`, each from a thread of its own, and
    /// writes back the values of some. Returns when each has answered or is known to wait.
    ///
    /// # Errors
    /// The agent's.
    pub async fn sweep(
        &self,
        folders: Vec<String>,
        leave_out: &[&str],
        write_back: &[&str],
    ) -> Result<Sweeping, Error> {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let quiet_ms = self.seconds(QUIET).as_millis() as u64;
        let sweep = Sweep { folders, leave_out: names(leave_out), write_back: names(write_back), quiet_ms };
        let operation = self.agent().start(Command::Sweep(sweep)).await?;
        let pick = |progress: &Progress| match progress {
            Progress::Waiting(waiting) => Some(waiting.clone()),
            _ => None,
        };
        let awaited = "every attribute to answer or to be known to wait";
        let waiting = operation.progress_or_end(self.prompt(), awaited, pick).await?.unwrap_or_default();
        Ok(Sweeping { operation, waiting })
    }
}

impl Sweeping {
    /// Its operation: over when every access is.
    pub fn operation(&self) -> &Operation {
        &self.operation
    }

    /// All accesses, when they are over.
    ///
    /// # Errors
    /// The agent's.
    pub async fn accesses(&self, within: Duration) -> Result<Vec<Swept>, Error> {
        Ok(self.operation.swept(within).await?)
    }
}
