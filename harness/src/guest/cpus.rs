//! Stacks of tasks that are running on a CPU.

use guest_protocol::{Command, TaskState};

use super::{Error, Guest};
use crate::classify;
use crate::vm::agent::Operation;

/// A task's state while it runs (proc_pid_stat(5)).
pub const RUNNING: char = 'R';

/// How many times to sample the stack of a running task.
const STACKS: usize = 20;

impl Guest {
    /// What `find` finds in a task of an operation that keeps running. A single sample may have no stack of a running
    /// task. If none has one, because the task runs on the other CPU all the time, the backtrace of that CPU is requested.
    ///
    /// # Errors
    /// The agent's.
    pub async fn find_running<T>(
        &self,
        operation: &Operation,
        find: impl Fn(&TaskState) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let mut running = None;
        for _ in 0..STACKS {
            let tasks = operation.whereabouts(self.prompt()).await?;
            let found = tasks.iter().find_map(&find);
            if found.is_some() {
                return Ok(found);
            }
            running = tasks.into_iter().find(|task| task.state == RUNNING).or(running);
        }
        match running {
            Some(task) => Ok(self.on_cpu(&task).await?.as_ref().and_then(find)),
            None => Ok(None),
        }
    }

    /// A running task with its kernel stack. Sysrq `l` sends an NMI to each CPU, and the CPU logs the stack of the task
    /// that it runs (`drivers/tty/sysrq.c`). `None` if the task runs on no CPU, or in user space. No other CPU can
    /// unwind the stack of a running task (`arch/x86/kernel/unwind_orc.c`, `__unwind_start()`).
    ///
    /// # Errors
    /// The agent's.
    pub async fn on_cpu(&self, task: &TaskState) -> Result<Option<TaskState>, Error> {
        let from = self.agent().messages().position();
        self.agent().call(Command::Sysrq { key: 'l' }, self.prompt()).await?;
        self.agent().log_complete(self.prompt()).await?;
        let lines = self.said(from, "");
        let stack = classify::backtrace(lines.iter().map(String::as_str), task.tid);
        Ok(stack.map(|stack| TaskState { stack, ..task.clone() }))
    }
}
