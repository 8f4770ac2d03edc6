//! Stacks of tasks that are running on a CPU.

use guest_protocol::{Command, TaskState};

use super::{Error, Guest};
use crate::classify;

impl Guest {
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
