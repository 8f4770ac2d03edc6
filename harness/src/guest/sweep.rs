//! Reading all attributes of sysfs folders at once, and writing some.

use std::time::Duration;

use guest_protocol::{Command, Progress, Sweep, Swept, Waiting};

use super::{Error, Guest};
use crate::vm::agent::Operation;

/// Attributes that are all read at once, and of which some are written.
pub struct Sweeping {
    operation: Operation,
    /// The accesses that wait for an event.
    pub waiting: Vec<Waiting>,
}

/// If no access ends for this long, the remaining accesses count as waiting. On a machine with KVM, in seconds.
const QUIET: f64 = 0.4;

impl Guest {
    /// Reads every attribute in and below these folders, except those to `leave_out`, each in a separate thread, and
    /// writes back the values of some. Returns when each access has ended or counts as waiting.
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
        let awaited = "every access to an attribute to end or to count as waiting";
        let waiting = operation.progress_or_end(self.prompt(), awaited, pick).await?.unwrap_or_default();
        Ok(Sweeping { operation, waiting })
    }
}

impl Sweeping {
    /// Its operation. It is over when every access is over.
    pub fn operation(&self) -> &Operation {
        &self.operation
    }

    /// Waits until all accesses are over, and returns them.
    ///
    /// # Errors
    /// The agent's.
    pub async fn accesses(&self, within: Duration) -> Result<Vec<Swept>, Error> {
        Ok(self.operation.swept(within).await?)
    }
}
