//! Whether everything that was begun ends, or tasks are left that wait for each other.

use std::time::Duration;

use kernels::FailureKind;

use super::place::{describe, over};
use super::stuck::Whose;
use super::{Error, Guest, Stuck};
use crate::classify::stack;
use crate::notes::Note;
use crate::verdict::Verdict;
use crate::vm::agent::Operation;

/// How what was begun ended.
#[derive(Debug)]
pub enum Ending {
    /// All of it is over.
    Done,
    /// It is not, and these tasks are stuck.
    Stuck(Vec<Stuck>),
}

impl Guest {
    /// Waits until these operations are over and all removals are complete; or until it is sure that they never will be:
    /// tasks sleep uninterruptibly at the same place for look after look.
    ///
    /// # Errors
    /// Those of the waits. If nothing ended and nothing is stuck either, a deadline: no verdict.
    pub async fn ending(&self, operations: &[&Operation]) -> Result<Ending, Error> {
        self.ending_with(operations, async |_| Ok(())).await
    }

    /// The same, and then something more that must come, within the deadline that it is given.
    ///
    /// # Errors
    /// As [`Guest::ending`], and those of what must come.
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
        let ended = self.or_stuck(operations, Whose::Anybodys, all).await?;
        Ok(ended.map_or_else(Ending::Stuck, |()| Ending::Done))
    }

    /// Waits for the same, and passes; or it is a deadlock, as [`Guest::deadlock`] names it.
    ///
    /// # Errors
    /// As [`Guest::ending`].
    pub async fn passes_unless_stuck(&self, operations: &[&Operation], at: &[&str]) -> Result<Verdict, Error> {
        Ok(self.verdict_on(&self.ending(operations).await?, at))
    }

    /// What an ending says of the kernel.
    pub fn verdict_on(&self, ending: &Ending, at: &[&str]) -> Verdict {
        match ending {
            Ending::Done => Verdict::Pass,
            Ending::Stuck(stuck) => self.deadlock(stuck, at),
        }
    }

    /// The verdict on tasks that are stuck for ever. It names the first of these functions that any of them is in; if none
    /// is, what the first task waits in.
    pub fn deadlock(&self, stuck: &[Stuck], at: &[&str]) -> Verdict {
        let tasks: Vec<_> = stuck.iter().map(|stuck| stuck.task.clone()).collect();
        self.note_tasks(Note::Stuck, &tasks);
        let named = at.iter().find(|function| tasks.iter().any(|task| stack::is_in(task, function)));
        let first = || stuck.first().map(|stuck| stuck.function.clone()).unwrap_or_default();
        let function = named.map_or_else(first, |&function| function.to_owned());
        let who: Vec<_> = tasks.iter().map(describe).collect();
        Verdict::fail(FailureKind::Deadlock, &function, format!("for ever in D state: {}", who.join("; ")))
    }
}
