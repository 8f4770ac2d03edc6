//! Telling a task that is stuck in the kernel from one that is slow: by what the kernel says of it, never by time alone.

use std::time::Duration;

use guest_protocol::TaskState;

use super::{Error, Guest};
use crate::classify::stack;
use crate::vm::agent::{AgentError, Operation};

/// A task that sleeps uninterruptibly at one place of the kernel.
#[derive(Clone, Debug)]
pub struct Stuck {
    /// The task.
    pub task: TaskState,
    /// The function that wanted to wait.
    pub function: String,
}

/// What became of something awaited.
#[derive(Debug)]
pub enum Came<T> {
    /// It came.
    Yes(T),
    /// It did not: its task is stuck.
    Stuck(Stuck),
}

/// How long something prompt may take before one looks where it is, and how long between two looks; on a machine with
/// KVM, in seconds. A task is stuck if two looks in a row find it in D state with the very same stack.
const LOOK: f64 = 0.7;
/// How many looks to take before giving up without an answer: they take 40 s. They are counted, as on a busy host they
/// are further apart.
const LOOKS: usize = 57;

impl Guest {
    /// Awaits something of an operation that should come promptly; when it does not, finds out whether the operation's
    /// process is stuck in the kernel.
    ///
    /// # Errors
    /// Those of the wait. If nothing came and nothing is stuck either, the deadline that passed: no verdict.
    pub async fn unless_stuck<T>(
        &self,
        operation: &Operation,
        mut wait: impl AsyncFnMut(Duration) -> Result<T, AgentError>,
    ) -> Result<Came<T>, Error> {
        let mut before: Option<TaskState> = None;
        let mut looks = 0;
        loop {
            let error = match wait(self.seconds(LOOK)).await {
                Ok(found) => return Ok(Came::Yes(found)),
                Err(error) => Error::from(error),
            };
            if !error.is_deadline() {
                return Err(error);
            }
            let tasks = operation.whereabouts(self.prompt()).await?;
            let now = tasks.into_iter().find(|task| task.state == 'D' && stack::function(&task.stack).is_some());
            match (&before, now) {
                (Some(before), Some(task)) if task.stack == before.stack => {
                    let function = stack::function(&task.stack).unwrap_or_default().to_owned();
                    return Ok(Came::Stuck(Stuck { task, function }));
                }
                (_, now) => before = now,
            }
            looks += 1;
            if looks > LOOKS {
                return Err(error);
            }
        }
    }

    /// The tasks that wait for some owner to release a vfio device
    /// ([`WAITS_FOR_OWNER`]).
    ///
    /// # Errors
    /// The agent's.
    pub async fn removers_waiting(&self) -> Result<Vec<TaskState>, Error> {
        let mut tasks = self.agent().tasks(WAITS_FOR_OWNER, self.prompt()).await?;
        tasks.retain(|task| WAITS_FOR_OWNER.iter().any(|function| stack::is_in(task, function)));
        Ok(tasks)
    }
}

/// Where the remover of a vfio device waits for its owner: `drivers/vfio/vfio_main.c`, since 5.13 and before.
pub const WAITS_FOR_OWNER: &[&str] = &["vfio_unregister_group_dev", "vfio_del_group_dev"];
