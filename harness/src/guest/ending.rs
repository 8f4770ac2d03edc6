//! Whether all operations of a scenario end, or tasks are stuck that wait for each other.

use std::time::Duration;

use super::place::{describe, over};
use super::stuck::Scope;
use super::{Error, Guest, Stuck};
use crate::classify::stack;
use crate::notes::Note;
use crate::verdict::Verdict;
use crate::vm::agent::Operation;

/// How the operations ended.
#[derive(Debug)]
pub enum Ending {
    /// All operations are over.
    Done,
    /// Some are not over, and these tasks are stuck.
    Stuck(Vec<Stuck>),
}

impl Guest {
    /// Waits until these operations are over and all removals are complete, or until tasks are stuck: they sleep
    /// uninterruptibly at the same place in several samples.
    ///
    /// # Errors
    /// Those of the waits. A deadline if the operations do not end and no task is stuck: then there is no verdict.
    pub async fn ending(&self, operations: &[&Operation]) -> Result<Ending, Error> {
        self.ending_with(operations, async |_| Ok(())).await
    }

    /// As [`Guest::ending`], and then also waits for `more`, which gets the deadline.
    ///
    /// # Errors
    /// As [`Guest::ending`], and those of `more`.
    pub async fn ending_with(
        &self,
        operations: &[&Operation],
        more: impl AsyncFnOnce(Duration) -> Result<(), Error>,
    ) -> Result<Ending, Error> {
        let within = self.give_up();
        let all = async {
            for operation in operations {
                over(operation, within).await?;
            }
            self.removed_within(within).await?;
            more(within).await
        };
        let ended = self.or_stuck(operations, Scope::AllTasks, all).await?;
        Ok(ended.map_or_else(Ending::Stuck, |()| Ending::Done))
    }

    /// Waits as [`Guest::ending`]. Passes if all operations end; otherwise the verdict is that of [`Guest::deadlock`].
    ///
    /// # Errors
    /// As [`Guest::ending`].
    pub async fn passes_unless_stuck(&self, operations: &[&Operation], at: &[&str]) -> Result<Verdict, Error> {
        Ok(self.verdict_on(&self.ending(operations).await?, at))
    }

    /// The verdict that follows from an ending.
    pub fn verdict_on(&self, ending: &Ending, at: &[&str]) -> Verdict {
        match ending {
            Ending::Done => Verdict::Pass,
            Ending::Stuck(stuck) => self.deadlock(stuck, at),
        }
    }

    /// The verdict on stuck tasks. It names the first function in `at` that any of the tasks is in. If no task is in
    /// one of them, it names the place of the cycle, or without a cycle the function in which the first task waits.
    pub fn deadlock(&self, stuck: &[Stuck], at: &[&str]) -> Verdict {
        let tasks: Vec<_> = stuck.iter().map(|stuck| stuck.task.clone()).collect();
        self.note_tasks(Note::Stuck, &tasks);
        let named = at.iter().find(|function| tasks.iter().any(|task| stack::is_in(task, function)));
        let who: Vec<_> = tasks.iter().map(describe).collect();
        let (pid, first) = stuck.first().map_or((0, ""), |stuck| (stuck.task.tid, stuck.function.as_str()));
        self.deadlock_of(pid, named.copied(), first, format!("stuck in D state: {}", who.join("; ")))
    }
}
