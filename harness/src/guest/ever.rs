//! Letting time go by. In a held guest that is idle it costs nothing, so "for ever" can be tried.

use std::time::Duration;

use guest_protocol::TaskState;

use super::{Error, Guest};
use crate::classify::stack;
use crate::notes::Note;
use crate::vm::argv::CPUS;

/// For so long a deadlock is tried. No wait of the kernel for a device that ends by itself is nearly as long. An hour
/// would cost half a second of a CPU.
const LONG: Duration = Duration::from_secs(600);

/// The first step of the guest's time, and by how much each further one is longer. Each step costs a look at the guest.
const FIRST: Duration = Duration::from_secs(1);
const LONGER: u32 = 30;

/// A step in which the guest's CPUs were busy for longer is the last one. What the guest does must not depend on the
/// host, so this is in the guest's time.
const CHEAP: Duration = Duration::from_millis(500);

/// How long the guest has run, and how long its CPUs were idle in sum (proc_uptime(5)).
const UPTIME: &str = "/proc/uptime";

impl Guest {
    /// Lets this time go by in the guest. In a held guest that is idle, it takes next to none of the host's time.
    pub async fn advance(&self, time: Duration) {
        self.vm().time().pause(time).await;
    }

    /// Lets up to ten minutes go by in a held guest after a deadlock, as long as the guest is idle, and notes for how long its
    /// tasks stayed where they were. On the host's clock this does nothing.
    ///
    /// # Errors
    /// [`Error::Unprepared`] if all tasks that were taken for stuck have gone on; the agent's.
    pub(crate) async fn stays_stuck(&self) -> Result<(), Error> {
        let notes = self.notes();
        let stuck = notes.iter().find_map(|note| match note {
            Note::Stuck(tasks) => Some(tasks.as_slice()),
            _ => None,
        });
        let stuck = stuck.unwrap_or_default();
        if self.vm().gate().is_none() || stuck.is_empty() {
            return Ok(());
        }
        let (mut step, mut passed, mut before) = (FIRST, Duration::ZERO, self.busy().await?);
        while passed < LONG {
            self.advance(step).await;
            passed += step;
            step = (step * LONGER).min(LONG - passed);
            let now = self.busy().await?;
            let is_idle = now.zip(before).is_some_and(|(now, before)| now.saturating_sub(before) <= CHEAP);
            if !is_idle {
                break;
            }
            before = now;
        }
        let tasks = self.agent().tasks(&[], self.prompt()).await?;
        let stays = |task: &TaskState| {
            let is_there = |other: &TaskState| {
                other.tid == task.tid && stack::function(&other.stack) == stack::function(&task.stack)
            };
            tasks.iter().any(is_there)
        };
        if !stuck.iter().any(stays) {
            let seconds = passed.as_secs();
            return Err(Error::Unprepared(format!("tasks that seemed to be stuck went on within {seconds} s")));
        }
        self.note(Note::StuckFor(passed.as_secs_f64()));
        Ok(())
    }

    /// For how long the guest's CPUs were busy until now, in sum. None if the guest does not say.
    async fn busy(&self) -> Result<Option<Duration>, Error> {
        Ok(busy(&self.read_now(UPTIME.to_owned()).await?.value.unwrap_or_default()))
    }
}

/// For how long all CPUs were busy, from the text of [`UPTIME`].
fn busy(text: &str) -> Option<Duration> {
    let mut seconds = text.split_ascii_whitespace().map(|word| word.parse::<f64>().ok());
    let (up, idle) = (seconds.next()??, seconds.next()??);
    Duration::try_from_secs_f64((up * f64::from(CPUS) - idle).max(0.0)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_busy_cpus_follows_from_the_idle_time() {
        assert_eq!(busy("10.50 18.00\n"), Some(Duration::from_secs(3)));
        assert_eq!(busy("10.00 20.01\n"), Some(Duration::ZERO));
        for text in ["", "10.50", "a b", "inf 1", "NaN 1"] {
            assert!(busy(text).is_none_or(|busy| busy.is_zero()), "{text}");
        }
    }
}
