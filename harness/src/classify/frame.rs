//! Stack frames in a log, and which of them are relevant for the cause.

use std::sync::LazyLock;

use regex::Regex;

use crate::classify::stack;

/// A reliable frame (` vfs_read+0xd6/0x117`); `? ` marks those that the unwinder only guesses
/// (`arch/x86/kernel/dumpstack.c`, `printk_stack_address()`). Older kernels put the address first.
static FRAME: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^\s*(?:\[<[0-9a-fp]+>\] )?(?P<guess>\? )?(?P<name>[A-Za-z_][\w.]*)\+0x[0-9a-f]+/0x[0-9a-f]+")
        .expect("a constant expression")
});

/// The instruction pointer in kernel mode (`show_ip()`; the code segment of user space is 0033).
static RIP: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"^(?:RIP: 0010:|pc : )(?P<name>[A-Za-z_][\w.]*)\+0x").expect("a constant expression"));

/// Functions that report faults. They are on the stacks of splats, and never at fault.
const MACHINERY: &[&str] = &[
    "dump_stack",
    "__dump_stack",
    "dump_stack_lvl",
    "show_stack",
    "show_regs",
    "panic",
    "vpanic",
    // A warning about a freed object may fault while it prints the name of the object.
    "string",
    "vsnprintf",
    "vprintk_store",
    "vprintk_emit",
    "vprintk_default",
    "vprintk",
    "_printk",
    "__warn_printk",
    // mm/slub.c, for an object that is freed twice.
    "object_err",
    "free_to_partial_list",
    "__slab_free",
    "kfree",
    "die",
    "oops_end",
    "__warn",
    "report_bug",
    "handle_bug",
    "page_fault_oops",
    "kernelmode_fixup_or_oops",
    "bad_area_nosemaphore",
    "do_user_addr_fault",
    "print_report",
    "kasan_report",
    "check_noncircular",
    "check_prev_add",
    "validate_chain",
    "lock_acquire",
    "lock_release",
    "lock_is_held_type",
    "mark_lock",
    "mark_usage",
    "lockdep_rcu_suspicious",
    "nmi_cpu_backtrace",
    "nmi_cpu_backtrace_handler",
    "nmi_trigger_cpumask_backtrace",
    "arch_trigger_cpumask_backtrace",
];

/// Prefixes of the names of more such functions.
const MACHINERY_PREFIXES: &[&str] = &[
    "__lock_acquire",
    "print_circular_bug",
    "print_deadlock_bug",
    "print_usage_bug",
    "print_address_description",
    "kasan_check_",
    "kasan_save_",
    "kasan_report_",
    "__asan_",
    "__kasan_",
    "exc_",
    "asm_exc_",
    "sysvec_",
    "asm_sysvec_",
    "__sysvec_",
    "_raw_spin_",
    "_raw_read_",
    "_raw_write_",
    "queued_spin_lock",
    "native_queued_spin_lock",
    "__might_",
];

/// The outermost functions of every system call and every kernel thread. Frames from here on do not distinguish splats.
const ENTRIES: &[&str] = &[
    "x64_sys_call",
    "do_syscall_64",
    "entry_SYSCALL_64_after_hwframe",
    "ret_from_fork",
    "ret_from_fork_asm",
    "kthread",
];

/// A stack frame in a line.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A reliable frame: the function without compiler suffixes.
    Function(&'a str),
    /// A frame that the unwinder marks as a guess (`? `).
    Guess,
}

/// The stack frame in a message, if there is one.
pub fn frame(text: &str) -> Option<Frame<'_>> {
    let captures = FRAME.captures(text)?;
    if captures.name("guess").is_some() {
        return Some(Frame::Guess);
    }
    Some(Frame::Function(stack::base(captures.name("name")?.as_str())))
}

/// The kernel function of the instruction pointer, in a message that shows the registers.
pub fn instruction_pointer(text: &str) -> Option<&str> {
    Some(stack::base(RIP.captures(text)?.name("name")?.as_str()))
}

/// Whether a function only waits, or only reports a fault.
pub fn is_machinery(name: &str) -> bool {
    stack::is_primitive(name)
        || MACHINERY.contains(&name)
        || MACHINERY_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Whether a function is an entry of the kernel.
pub fn is_entry(name: &str) -> bool {
    ENTRIES.contains(&name) || name.starts_with("__x64_sys_") || name.starts_with("__do_sys_")
}
