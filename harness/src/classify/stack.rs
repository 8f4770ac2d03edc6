//! Kernel stacks. The relevant function is the one that called a waiting primitive, not the primitive.

use guest_protocol::TaskState;

/// Functions in which a task waits: the scheduler and the locking and waiting primitives (`kernel/sched`,
/// `kernel/locking`). The task is stuck in the function that called them.
const PRIMITIVES: &[&str] = &[
    "__schedule",
    "schedule",
    "schedule_",
    "__mutex_lock",
    "mutex_lock",
    "rwsem_",
    "__down",
    "down_",
    "down",
    "rt_mutex_",
    "wait_for_completion",
    "__wait_for_common",
    "__wait_for",
    "do_wait_for_common",
    "wait_for_common",
    "wait_woken",
    "io_schedule",
    "preempt_schedule",
    "msleep",
    "ssleep",
];

/// Prefixes of functions on the stack of a running task that do not show what the task does: the interrupt in which the
/// stack was taken (`arch/x86/include/asm/idtentry.h`, `kernel/entry/common.c`), that another task runs instead, and
/// delays (`arch/x86/lib/delay.c`).
const PASSING: &[&str] = &[
    "raw_irqentry_",
    "irqentry_",
    "asm_",
    "sysvec_",
    "common_interrupt",
    "preempt_schedule",
    "__const_udelay",
    "__udelay",
    "__delay",
    "delay_",
];

/// Whether a function is the entry of an interrupt (`arch/x86/include/asm/idtentry.h`).
fn is_entry_of_interrupt(frame: &str) -> bool {
    frame.starts_with("asm_sysvec_") || frame.starts_with("asm_common_interrupt")
}

/// The innermost function of a running task's stack that is neither an interrupt nor a delay.
pub fn busy_in(stack: &[String]) -> Option<&str> {
    // What the interrupt called is on the stack before its entry.
    let interrupted = stack.iter().rposition(|frame| is_entry_of_interrupt(frame)).map_or(0, |entry| entry + 1);
    stack[interrupted..]
        .iter()
        .map(|frame| base(frame))
        .find(|name| !PASSING.iter().any(|passing| name.starts_with(passing)))
}

/// The innermost function of a stack that is not a waiting primitive, without compiler suffixes.
pub fn function(stack: &[String]) -> Option<&str> {
    stack.iter().map(|frame| base(frame)).find(|name| !is_primitive(name))
}

/// Whether a function is anywhere on a task's stack.
pub fn is_in(task: &TaskState, function: &str) -> bool {
    task.stack.iter().any(|frame| base(frame) == function)
}

/// The function of a frame without compiler suffixes (`.isra.0`, `.constprop.0`, `.part.0`).
pub(crate) fn base(frame: &str) -> &str {
    frame.split(['.', '+']).next().unwrap_or(frame)
}

/// Whether a function is a waiting primitive.
pub(crate) fn is_primitive(name: &str) -> bool {
    PRIMITIVES.iter().any(|primitive| match primitive.strip_suffix('_') {
        Some(_) => name.starts_with(primitive),
        None => name == *primitive || name.strip_prefix(primitive).is_some_and(|rest| rest.starts_with('_')),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(frames: &[&str]) -> Option<String> {
        let stack: Vec<_> = frames.iter().map(|&frame| frame.to_owned()).collect();
        function(&stack).map(str::to_owned)
    }

    #[test]
    fn interrupts_and_delays_are_skipped() {
        let seen = "raw_irqentry_exit_cond_resched irqentry_exit sysvec_apic_timer_interrupt \
                    asm_sysvec_apic_timer_interrupt delay_tsc __const_udelay igb_get_hw_semaphore \
                    igb_release_swfw_sync_82575 igb_probe pciehp_ist";
        let stack: Vec<_> = seen.split_whitespace().map(str::to_owned).collect();
        assert_eq!(busy_in(&stack), Some("igb_get_hw_semaphore"));
        assert_eq!(busy_in(&stack[7..]), Some("igb_release_swfw_sync_82575"));
        assert_eq!(busy_in(&stack[..5]), None);
        let in_a_timer = "clockevents_program_event tick_program_event __hrtimer_rearm_deferred irqentry_exit \
                          sysvec_apic_timer_interrupt asm_sysvec_apic_timer_interrupt delay_tsc igb_rd32";
        let stack: Vec<_> = in_a_timer.split_whitespace().map(str::to_owned).collect();
        assert_eq!(busy_in(&stack), Some("igb_rd32"));
        let preempted = ["preempt_schedule_thunk", "delay_tsc", "__const_udelay", "igb_rd32"].map(str::to_owned);
        assert_eq!(busy_in(&preempted), Some("igb_rd32"));
    }

    #[test]
    fn waiting_primitives_are_skipped() {
        for (frames, expected) in [
            (&["__mutex_lock.constprop.0", "sriov_numvfs_show", "dev_attr_show"][..], Some("sriov_numvfs_show")),
            (&["schedule_preempt_disabled", "mutex_lock", "driver_override_show.isra.0"], Some("driver_override_show")),
            (
                &["__wait_for_common", "wait_for_completion_interruptible_timeout", "vfio_unregister_group_dev"],
                Some("vfio_unregister_group_dev"),
            ),
            // Linux 5.10 waits for a vfio user like this.
            (&["wait_woken", "vfio_del_group_dev", "vfio_pci_remove"], Some("vfio_del_group_dev")),
            (&["rwsem_down_write_slowpath", "down_write", "pci_bus_add_device"], Some("pci_bus_add_device")),
            // Names that only have a similar beginning are not primitives.
            (&["downgrade_it"], Some("downgrade_it")),
            (&["scheduled_work"], Some("scheduled_work")),
            (&["__schedule"], None),
            (&[], None),
        ] {
            assert_eq!(named(frames).as_deref(), expected, "{frames:?}");
        }
    }
}
