//! Letting time go by. In a held guest that is idle it costs nothing, so "for ever" can be tried.

use std::time::{Duration, Instant};

use guest_protocol::TaskState;

use super::{Error, Guest};
use crate::classify::stack;
use crate::notes::Note;

/// For so long a deadlock is tried. No wait in the kernel that ends by itself is longer.
const LONG: Duration = Duration::from_secs(3600);

/// The first step of the guest's time, and by how much each further one is longer.
const FIRST: Duration = Duration::from_secs(1);
const LONGER: u32 = 4;

/// A step that takes more of the host's time is the last one: something in the guest is not idle.
const CHEAP: Duration = Duration::from_millis(500);

impl Guest {
    /// Lets this time go by in the guest. In a held guest that is idle, it takes next to none of the host's time.
    pub async fn advance(&self, time: Duration) {
        self.vm().time().pause(time).await;
    }

    /// Lets up to an hour go by in a held guest after a deadlock, as long as that takes no time of the host's, and notes for
    /// how long its tasks stayed where they were. On the host's clock this does nothing.
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
        let (mut step, mut passed) = (FIRST, Duration::ZERO);
        while passed < LONG {
            let began = Instant::now();
            self.advance(step).await;
            passed += step;
            step = (step * LONGER).min(LONG - passed);
            if began.elapsed() > CHEAP {
                break;
            }
        }
        let tasks = self.agent().tasks(&[], self.prompt()).await?;
        let stays = |task: &&TaskState| {
            let is_there = |other: &TaskState| {
                other.tid == task.tid && stack::function(&other.stack) == stack::function(&task.stack)
            };
            tasks.iter().any(is_there)
        };
        match stuck.iter().find(stays) {
            Some(_) => self.note(Note::StuckFor(passed.as_secs_f64())),
            None => {
                let seconds = passed.as_secs();
                return Err(Error::Unprepared(format!("tasks that seemed to be stuck went on within {seconds} s")));
            }
        }
        Ok(())
    }
}
