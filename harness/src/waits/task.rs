//! The tasks of a guest.

use std::collections::HashSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::error::LookError;
use super::stack::{self, Stack};
use super::view::View;

/// The most tasks that a look takes. The harness's guests have about 50.
const MOST: usize = 10_000;

/// `TASK_INTERRUPTIBLE` and the other states of `include/linux/sched.h`.
const INTERRUPTIBLE: u32 = 1;
const UNINTERRUPTIBLE: u32 = 2;
const STOPPED_OR_TRACED: u32 = 4 | 8;
const WAKING: u32 = 0x200;
const NO_LOAD: u32 = 0x400;
const NEW: u32 = 0x800;
/// `PF_KTHREAD` of `include/linux/sched.h`.
const KTHREAD: u32 = 0x0020_0000;
/// `PF_WQ_WORKER`.
const WORKER: u32 = 0x20;

/// What a task does, as far as the scheduler knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// Running or runnable, or about to be: it has been woken, or is new.
    #[serde(rename = "R")]
    Runnable,
    /// Interruptible sleep.
    #[serde(rename = "S")]
    Interruptible,
    /// Uninterruptible sleep.
    #[serde(rename = "D")]
    Uninterruptible,
    /// Uninterruptible sleep that does not count as load.
    #[serde(rename = "I")]
    Idle,
    /// Stopped by a signal or a tracer.
    #[serde(rename = "T")]
    Stopped,
    /// Anything else: it ends, or is parked.
    #[serde(rename = "X")]
    Gone,
}

impl State {
    fn of(word: u32) -> State {
        match word {
            0 => State::Runnable,
            _ if word & (WAKING | NEW) != 0 => State::Runnable,
            _ if word & UNINTERRUPTIBLE != 0 && word & NO_LOAD != 0 => State::Idle,
            _ if word & UNINTERRUPTIBLE != 0 => State::Uninterruptible,
            _ if word & INTERRUPTIBLE != 0 => State::Interruptible,
            _ if word & STOPPED_OR_TRACED != 0 => State::Stopped,
            _ => State::Gone,
        }
    }

    /// Whether somebody else must wake it. An idle task waits for work, and for nobody.
    pub(super) fn asleep(self) -> bool {
        matches!(self, State::Interruptible | State::Uninterruptible)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Runnable => "R",
            State::Interruptible => "S",
            State::Uninterruptible => "D",
            State::Idle => "I",
            State::Stopped => "T",
            State::Gone => "X",
        })
    }
}

/// A task, with its stack if it is on no CPU.
#[derive(Debug)]
pub(super) struct Task {
    pub address: u64,
    pub pid: i32,
    pub tgid: i32,
    pub comm: String,
    pub state: State,
    /// Whether it is on a CPU now. Then nothing is known of its stack.
    pub on_cpu: bool,
    pub flags: u32,
    /// How often it was switched out. If two looks find the same number, it has not run between them.
    pub switches: u64,
    /// Where its stack begins.
    pub stack_at: u64,
    pub stack: Stack,
}

impl Task {
    pub fn is_kthread(&self) -> bool {
        self.flags & KTHREAD != 0
    }

    pub fn is_worker(&self) -> bool {
        self.flags & WORKER != 0
    }

    /// Whether it has a frame of a function.
    pub fn is_in(&self, function: &str) -> bool {
        self.stack.frames.iter().any(|frame| frame.function == function)
    }

    /// A kernel thread's `struct kthread`.
    pub fn kthread(&self, view: &View<'_>) -> Option<u64> {
        if !self.is_kthread() {
            return None;
        }
        // Linux 5.17 moved it (e32cf5dfbe22 "kthread: Generalize pf_io_worker so it can point to struct kthread").
        let member = match view.kernel().offset_if_any("task_struct", "worker_private") {
            Some(_) => "worker_private",
            None => "set_child_tid",
        };
        view.member(self.address, "task_struct", member).ok().filter(|kthread| *kthread != 0)
    }
}

/// All tasks but the idle ones: `init_task.tasks` links the leaders, `signal->thread_head` the threads of each.
pub(super) fn all(view: &View<'_>) -> Result<Vec<Task>, LookError> {
    let kernel = view.kernel();
    let damaged = LookError::Damaged { list: "the list of tasks" };
    let next = kernel.offset("task_struct", "tasks")?;
    let thread_node = kernel.offset("task_struct", "thread_node")?;
    let thread_head = kernel.offset("signal_struct", "thread_head")?;
    let idle = kernel.symbol("init_task")?;
    let mut seen = HashSet::from([idle]);
    let mut tasks = Vec::new();
    let mut leader = view.u64(idle.wrapping_add(next))?.wrapping_sub(next);
    while leader != idle {
        let head = view.member(leader, "task_struct", "signal")?.wrapping_add(thread_head);
        let mut node = view.u64(head)?;
        let before = tasks.len();
        while node != head {
            let address = node.wrapping_sub(thread_node);
            if tasks.len() == MOST || !seen.insert(address) {
                return Err(damaged);
            }
            tasks.push(task(view, address)?);
            node = view.u64(node)?;
        }
        // The list of a leader's threads contains the leader. So this also ends a loop of leaders.
        if tasks.len() == before {
            return Err(damaged);
        }
        leader = view.u64(leader.wrapping_add(next))?.wrapping_sub(next);
    }
    Ok(tasks)
}

fn task(view: &View<'_>, address: u64) -> Result<Task, LookError> {
    let kernel = view.kernel();
    let at = |member| Ok::<_, LookError>(address.wrapping_add(kernel.offset("task_struct", member)?));
    // Linux 5.14 renamed the member (2f064a59a11f "sched: Change task_struct::state").
    let state = at("__state").or_else(|_| at("state"))?;
    let mut comm = [0; 16];
    view.read(at("comm")?, &mut comm)?;
    let end = comm.iter().position(|byte| *byte == 0).unwrap_or(comm.len());
    // An int until 6.12, a byte in 7.3: 0 or 1 in both.
    let on_cpu = view.u8(at("on_cpu")?)? != 0;
    let stack_at = view.u64(at("stack")?)?;
    let stack = match on_cpu {
        true => Stack::default(),
        false => stack::of(view, stack_at, view.u64(at("thread.sp")?)?)?,
    };
    Ok(Task {
        address,
        pid: view.i32(at("pid")?)?,
        tgid: view.i32(at("tgid")?)?,
        comm: comm[..end].escape_ascii().to_string(),
        state: State::of(view.u32(state)?),
        on_cpu,
        flags: view.u32(at("flags")?)?,
        switches: view.u64(at("nvcsw")?)?.wrapping_add(view.u64(at("nivcsw")?)?),
        stack_at,
        stack,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The states of `include/linux/sched.h`.
    #[test]
    fn who_was_woken_is_not_asleep() {
        let letters = [(0, "R"), (1, "S"), (2, "D"), (0x102, "D"), (0x402, "I"), (0x200, "R"), (0x802, "R"), (4, "T")];
        for (word, letter) in letters {
            assert_eq!(State::of(word).to_string(), letter, "{word:#x}");
        }
        assert!(!State::of(0x202).asleep(), "TASK_WAKING");
    }
}
