//! Which functions only wait, so that their caller is the place where a task waits.

use super::task::Task;

/// Functions that wait or switch, beside those with a prefix of [`PREFIXES`].
const NAMES: &[&str] = &[
    "__schedule",
    "schedule",
    "preempt_schedule",
    "preempt_schedule_common",
    "preempt_schedule_irq",
    "preempt_schedule_notrace",
    "preempt_schedule_thunk",
    "__cond_resched",
    "dynamic_cond_resched",
    "irqentry_exit",
    "raw_irqentry_exit_cond_resched",
    "io_schedule",
    "__synchronize_irq",
    "synchronize_irq",
    "wait_for_common",
    "do_wait_for_common",
    "wait_woken",
    "down",
    "__down",
];

const PREFIXES: &[&str] = &[
    "schedule_",
    "io_schedule_",
    "__mutex_lock",
    "mutex_lock",
    "__ww_mutex_lock",
    "ww_mutex_lock",
    "rwsem_down_",
    "__rwsem_",
    "down_",
    "__down_",
    "wait_for_completion",
    "__wait_for_",
    "prepare_to_wait",
    "sysvec_",
    "asm_sysvec_",
    "asm_common_interrupt",
];

/// Whether a function only waits, on behalf of its caller.
pub(super) fn only_waits(function: &str) -> bool {
    NAMES.contains(&function) || PREFIXES.iter().any(|prefix| function.starts_with(prefix))
}

/// Of a task's frames, the number of the innermost ones that only wait.
pub(super) fn waiting_frames(task: &Task) -> usize {
    task.stack.frames.iter().take_while(|frame| only_waits(&frame.function)).count()
}

/// Takes a mutex, and waits for it.
pub(super) fn takes_mutex(function: &str) -> bool {
    ["__mutex_lock", "mutex_lock", "__ww_mutex_lock", "ww_mutex_lock"].iter().any(|name| function.starts_with(name))
}

/// Takes a semaphore, and waits for it (`kernel/locking/semaphore.c`).
pub(super) fn takes_semaphore(function: &str) -> bool {
    function == "down" || function.starts_with("__down")
}

/// Waits for a completion (`kernel/sched/completion.c`).
pub(super) fn waits_for_completion(function: &str) -> bool {
    function.starts_with("wait_for_completion")
        || function.starts_with("__wait_for_common")
        || function == "wait_for_common"
}

/// Takes an rwsem for reading. All are in `kernel/locking/rwsem.c`.
pub(super) const DOWN_READ: &[&str] = &[
    "down_read",
    "down_read_interruptible",
    "down_read_killable",
    "down_read_killable_nested",
    "down_read_nested",
    "down_read_non_owner",
    "down_read_trylock",
];

/// Waits until an interrupt's handlers have ended (`kernel/irq/manage.c`).
pub(super) fn synchronizes_irq(function: &str) -> bool {
    matches!(function, "__synchronize_irq" | "synchronize_irq")
}
