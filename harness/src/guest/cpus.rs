//! Where tasks are that run all the time.

use guest_protocol::{Command, TaskState};

use super::{Error, Guest};
use crate::classify;

impl Guest {
    /// A task with its stack as the CPU tells it that the task runs on, which is made to by an NMI (sysrq `l`,
    /// `drivers/tty/sysrq.c`); none if it runs on none, or in user space. Nobody else can look at the stack of a task that
    /// is running (`arch/x86/kernel/unwind_orc.c`, `__unwind_start()`).
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
