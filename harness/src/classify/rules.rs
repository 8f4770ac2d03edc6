//! The headlines of splats, as data.

use std::sync::LazyLock;

use regex::{Regex, RegexSet};

use super::{SplatKind, frame};

/// One headline.
#[derive(Debug)]
pub struct Rule {
    /// The kind of splat.
    pub kind: SplatKind,
    /// A regular expression that matches the headline from its first character. The optional groups `function` and
    /// `task` match the function at fault and the task.
    pub headline: &'static str,
    /// Strings that the headline must not contain.
    pub ignore: &'static [&'static str],
    /// What follows the headline.
    pub body: Body,
}

/// What follows a headline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// Nothing. The report has one line.
    Line,
    /// A stack or no stack.
    Maybe,
    /// A stack. A report without a stack is incomplete.
    Stack,
}

const fn rule(kind: SplatKind, headline: &'static str, body: Body) -> Rule {
    Rule { kind, headline, ignore: &[], body }
}

/// All headlines. The first rule that matches applies.
pub static RULES: &[Rule] = &[
    // Faults of the test bed. They precede the more general rules, which would attribute them to the kernel.
    rule(SplatKind::TestBed, r"(?:rcu: )?\s*\w+ kthread timer wakeup didn't happen for \d+ jiffies", Body::Maybe),
    rule(SplatKind::TestBed, r"Kernel panic - not syncing: Attempted to kill init!", Body::Maybe),
    rule(SplatKind::TestBed, r"Kernel panic - not syncing: (?:VFS: Unable to mount root|No working init)", Body::Maybe),
    rule(SplatKind::TestBed, r"Kernel panic - not syncing: Requested init \S+ failed", Body::Maybe),
    // arch/x86/kernel/apic/io_apic.c, check_timer(): too few timer interrupts came in time, because the host is busy.
    rule(
        SplatKind::TestBed,
        r"Kernel panic - not syncing: (?:timer doesn't work through|IO-APIC \+ timer doesn't work)",
        Body::Maybe,
    ),
    rule(SplatKind::TestBed, r"Initramfs unpacking failed", Body::Line),
    rule(SplatKind::TestBed, r"BUG: MAX_(?:LOCKDEP|STACK_TRACE|LOCK_DEPTH)\w* too low", Body::Maybe),
    rule(SplatKind::TestBed, r"(?P<task>\S+)\[\d+\]: segfault at ", Body::Line),
    rule(SplatKind::TestBed, r"traps: (?P<task>\S+)\[\d+\] (?:trap|general protection)", Body::Line),
    // kernel/panic.c, and the double fault of arch/x86/kernel/traps.c.
    rule(SplatKind::Panic, r"Kernel panic - not syncing: ", Body::Maybe),
    rule(SplatKind::Panic, r"PANIC: ", Body::Maybe),
    // mm/kasan/report.c, and mm/kfence/report.c: KFENCE reports the same faults for sampled allocations.
    rule(SplatKind::Kasan, r"BUG: K(?:ASAN|FENCE): .* in (?P<function>[\w.]+)", Body::Stack),
    rule(SplatKind::Kasan, r"BUG: K(?:ASAN|FENCE): ", Body::Stack),
    // kernel/watchdog.c, kernel/watchdog_perf.c, kernel/workqueue.c.
    rule(
        SplatKind::SoftLockup,
        r"(?:watchdog: )?BUG: soft lockup - CPU#\d+ stuck for \d+s! \[(?P<task>.+:\d+)\]",
        Body::Stack,
    ),
    rule(SplatKind::SoftLockup, r"(?:watchdog: )?(?:CPU\d+: )?Watchdog detected hard LOCKUP on cpu", Body::Stack),
    rule(SplatKind::SoftLockup, r"BUG: workqueue lockup - pool", Body::Maybe),
    // kernel/hung_task.c.
    rule(
        SplatKind::HungTask,
        r"INFO: task (?P<task>.+:\d+) blocked (?:in I/O wait )?for more than \d+ seconds",
        Body::Stack,
    ),
    // kernel/rcu/tree_stall.h, tree_exp.h.
    rule(SplatKind::RcuStall, r"(?:rcu: )?INFO: \w+ (?:self-)?detected (?:expedited )?stalls?\b", Body::Maybe),
    // kernel/locking/lockdep.c, include/linux/rcupdate.h.
    rule(
        SplatKind::Lockdep,
        r"WARNING: possible (?:circular locking|recursive locking|irq lock inversion)",
        Body::Stack,
    ),
    rule(SplatKind::Lockdep, r"WARNING: \S+-safe -> \S+-unsafe lock order detected", Body::Stack),
    rule(SplatKind::Lockdep, r"WARNING: (?:inconsistent lock state|bad unlock balance detected)", Body::Stack),
    rule(
        SplatKind::Lockdep,
        r"WARNING: (?:suspicious RCU usage|Nested lock was not taken|held lock freed)",
        Body::Stack,
    ),
    rule(SplatKind::Lockdep, r"WARNING: lock held (?:when returning to user space|at task exit)", Body::Stack),
    rule(SplatKind::Lockdep, r"WARNING: (?P<task>\S+/\d+) still has locks held", Body::Stack),
    rule(SplatKind::Lockdep, r"\[ BUG: Invalid wait context \]", Body::Stack),
    rule(SplatKind::Lockdep, r"INFO: trying to register non-static key", Body::Stack),
    // kernel/panic.c, __warn(); the second form is that of 6.18 and later.
    rule(
        SplatKind::Warning,
        r"WARNING: CPU: \d+ PID: \d+ at (?:\S+:\d+ )?(?P<function>[A-Za-z_][\w.]*)\+0x",
        Body::Stack,
    ),
    rule(
        SplatKind::Warning,
        r"WARNING: \S+:\d+ at (?P<function>[A-Za-z_][\w.]*)\+0x\S+, CPU#\d+: (?P<task>.+/\d+)",
        Body::Stack,
    ),
    rule(SplatKind::Warning, r"WARNING: CPU: \d+ PID: \d+ at ", Body::Stack),
    // lib/ubsan.c.
    rule(SplatKind::Warning, r"UBSAN: \S+ in ", Body::Stack),
    // arch/x86/mm/fault.c, arch/x86/kernel/{dumpstack,traps}.c; the last two are arm64's.
    rule(
        SplatKind::Oops,
        r"BUG: (?:kernel NULL pointer dereference|unable to handle|.* stack guard page was hit)",
        Body::Stack,
    ),
    rule(
        SplatKind::Oops,
        r"(?:Oops|general protection fault|divide error|double fault|stack segment)\b.*\[#\d+\]",
        Body::Stack,
    ),
    rule(SplatKind::Oops, r"Unable to handle kernel ", Body::Stack),
    rule(SplatKind::Oops, r"Internal error: ", Body::Stack),
    // lib/bug.c, kernel/sched/core.c, mm/, lib/, and all others that print BUG.
    rule(SplatKind::Bug, r"[kK]ernel BUG at ", Body::Stack),
    rule(SplatKind::Bug, r"BUG: (?:scheduling while atomic|sleeping function called)", Body::Stack),
    // "hogged CPU" is only advice about a long work item. A line with "possible reason" belongs to the report before
    // it.
    Rule { kind: SplatKind::Bug, headline: r"BUG: ", ignore: &["possible reason:", "hogged CPU"], body: Body::Maybe },
];

static SET: LazyLock<RegexSet> = LazyLock::new(|| {
    RegexSet::new(RULES.iter().map(|rule| format!("^(?:{})", rule.headline))).expect("constant expressions")
});

static EACH: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    let each = RULES.iter().map(|rule| Regex::new(&format!("^(?:{})", rule.headline)).expect("a constant expression"));
    each.collect()
});

/// The rule that a message matches.
pub(super) fn matching(text: &str) -> Option<&'static Rule> {
    let matches = SET.matches(text);
    matches.into_iter().map(|index| &RULES[index]).find(|rule| !rule.ignore.iter().any(|word| text.contains(word)))
}

/// The function and the task that a headline names. A function that only reports faults is left out.
pub(super) fn named(rule: &'static Rule, text: &str) -> (Option<String>, Option<String>) {
    let index = RULES.iter().position(|other| std::ptr::eq(other, rule));
    let Some(captures) = index.and_then(|index| EACH[index].captures(text)) else { return (None, None) };
    let group = |name| captures.name(name).map(|group| group.as_str());
    let function = group("function").filter(|name| !frame::is_machinery(name));
    (function.map(str::to_owned), group("task").map(with_colon))
}

/// Converts `comm/pid` and `comm:pid` to `comm:pid`. The name may contain either separator.
fn with_colon(task: &str) -> String {
    match task.rsplit_once(['/', ':']) {
        Some((comm, pid)) if pid.bytes().all(|byte| byte.is_ascii_digit()) => format!("{comm}:{pid}"),
        _ => task.to_owned(),
    }
}
