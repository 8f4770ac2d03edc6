//! In which kernel functions the guest's tasks are, and waiting until a task is in a given function.

use std::time::Duration;

use guest_protocol::TaskState;

use super::{Error, Guest};
use crate::classify::stack;
use crate::notes::Place;
use crate::vm::agent::{AgentError, Operation};
use crate::vm::event_log::WaitError;
use crate::vm::starved::Late;

/// Time between two samples of a task's stack. No event reports that a task begins to wait.
pub(super) const POLL: Duration = Duration::from_millis(50);

impl Guest {
    /// Waits until an operation's process waits in one of these functions, or the operation is over. If neither happens
    /// within `patience`, the result is [`Place::Elsewhere`].
    ///
    /// # Errors
    /// The agent's.
    pub async fn waits_in(
        &self,
        operation: &Operation,
        functions: &[&str],
        patience: Duration,
    ) -> Result<Place, Error> {
        let patience = self.vm().time().patience(patience);
        loop {
            match over(operation, POLL).await {
                Ok(()) => return Ok(Place::Over),
                Err(error) if !error.is_deadline() => return Err(error),
                Err(_) => {}
            }
            let tasks = operation.whereabouts(self.prompt()).await?;
            if let Some((_, function)) = tasks.iter().find_map(|task| found_in(task, functions)) {
                return Ok(Place::In(function));
            }
            if patience.is_over().is_some() {
                return Ok(Place::Elsewhere);
            }
        }
    }

    /// Waits until a task of the guest is in one of these functions. Kernel threads count too.
    ///
    /// # Errors
    /// The agent's; a deadline if no task is there in time.
    pub async fn task_in(&self, functions: &[&str], within: Duration) -> Result<TaskState, Error> {
        self.some_task(functions, within, "in", |task| found_in(task, functions).is_some()).await
    }

    /// Waits until at least `count` tasks, and at least one, are in one of these functions.
    ///
    /// # Errors
    /// As [`Guest::task_in`].
    pub async fn tasks_in(&self, functions: &[&str], count: usize, within: Duration) -> Result<Vec<TaskState>, Error> {
        self.some_tasks(functions, count, within, "in", |task| found_in(task, functions).is_some()).await
    }

    /// Waits until a task waits for a lock directly in one of these functions, not in a function that they call. This
    /// excludes tasks that have the function on their stack but wait elsewhere.
    ///
    /// # Errors
    /// As [`Guest::task_in`].
    pub async fn task_at(&self, functions: &[&str], within: Duration) -> Result<TaskState, Error> {
        self.some_task(functions, within, "waiting directly in", |task| is_at(task, functions)).await
    }

    /// Waits until a task meets the condition `is`, among the tasks that are in D state or in one of these functions.
    /// The error text says `how` the task was to be in the functions.
    ///
    /// # Errors
    /// As [`Guest::task_in`].
    pub(crate) async fn some_task(
        &self,
        functions: &[&str],
        within: Duration,
        how: &str,
        is: impl Fn(&TaskState) -> bool,
    ) -> Result<TaskState, Error> {
        Ok(self.some_tasks(functions, 1, within, how, is).await?.swap_remove(0))
    }

    async fn some_tasks(
        &self,
        functions: &[&str],
        count: usize,
        within: Duration,
        how: &str,
        is: impl Fn(&TaskState) -> bool,
    ) -> Result<Vec<TaskState>, Error> {
        let patience = self.vm().time().patience(within);
        loop {
            let tasks = self.agent().tasks(functions, self.prompt()).await?;
            let there: Vec<_> = tasks.iter().filter(|task| is(task)).cloned().collect();
            if there.len() >= count.max(1) {
                return Ok(there);
            }
            if let Some(Late { within, starved }) = patience.is_over() {
                let awaited = format!(
                    "{} {how} {}",
                    if count > 1 { format!("{count} tasks") } else { "a task".to_owned() },
                    functions.join(" or ")
                );
                let last = tasks.iter().map(describe).collect::<Vec<_>>().join("; ");
                let last = if last.is_empty() { "no task in D state".to_owned() } else { last };
                return Err(WaitError::Deadline { awaited, within, starved, last }.into());
            }
            self.vm().time().pause(POLL).await;
        }
    }

    /// Waits until no task of the guest is in this function.
    ///
    /// # Errors
    /// The agent's; a deadline.
    pub async fn none_in(&self, function: &str, within: Duration) -> Result<(), Error> {
        let patience = self.vm().time().patience(within);
        loop {
            let mut tasks = self.agent().tasks(&[function], self.prompt()).await?;
            tasks.retain(|task| stack::is_in(task, function));
            let Some(task) = tasks.first() else { return Ok(()) };
            if let Some(Late { within, starved }) = patience.is_over() {
                let awaited = format!("all tasks to leave {function}");
                return Err(WaitError::Deadline { awaited, within, starved, last: describe(task) }.into());
            }
            self.vm().time().pause(POLL).await;
        }
    }
}

/// Waits until an operation is over, also if it fails.
pub(super) async fn over(operation: &Operation, within: Duration) -> Result<(), Error> {
    match operation.done(within).await {
        Ok(_) | Err(AgentError::Failed { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

pub(crate) fn found_in(task: &TaskState, functions: &[&str]) -> Option<(TaskState, String)> {
    let function = functions.iter().find(|function| stack::is_in(task, function))?;
    Some((task.clone(), (*function).to_owned()))
}

/// Whether a task waits for a lock directly in one of these functions.
pub(crate) fn is_at(task: &TaskState, functions: &[&str]) -> bool {
    task.state == 'D' && stack::function(&task.stack).is_some_and(|function| functions.contains(&function))
}

pub(super) fn describe(task: &TaskState) -> String {
    let function = stack::function(&task.stack).unwrap_or("an unknown function");
    format!("{} (pid {}) in {function}", task.comm, task.pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_that_waits_in_a_function_is_told_from_one_that_waits_in_a_callee() {
        let task = |tid, frames: &[&str]| {
            let stack = frames.iter().map(|&frame| frame.to_owned()).collect();
            TaskState { pid: tid, tid, comm: "t".to_owned(), state: 'D', wchan: String::new(), stack }
        };
        let release = &["device_release_driver_internal"];
        let locked = task(1, &["__mutex_lock", "mutex_lock", release[0], "pci_stop_bus_device"]);
        let below = task(2, &["schedule_timeout", "vfio_unregister_group_dev", "vfio_pci_remove", release[0]]);
        assert!(is_at(&locked, release) && !is_at(&below, release));
        assert!(found_in(&below, release).is_some());
        assert!(!is_at(&TaskState { state: 'S', ..locked }, release));
    }
}
