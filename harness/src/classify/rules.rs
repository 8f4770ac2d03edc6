//! The lines that begin a splat, as data.

use std::sync::LazyLock;

use regex::{Regex, RegexSet};

use super::{SplatKind, frame};

/// One headline.
#[derive(Debug)]
pub struct Rule {
    /// What it begins.
    pub kind: SplatKind,
    /// The headline, from its first character, as a regular expression. The groups `function` and `task`, where they
    /// are, name the function at fault and the task.
    pub headline: &'static str,
    /// What the headline must not contain.
    pub ignore: &'static [&'static str],
    /// How much follows.
    pub body: Body,
}

/// What follows a headline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// Nothing: the line is all.
    Line,
    /// Perhaps a stack.
    Maybe,
    /// A stack; without one the report is not whole.
    Stack,
}

const fn rule(kind: SplatKind, headline: &'static str, body: Body) -> Rule {
    Rule { kind, headline, ignore: &[], body }
}

/// All headlines. The first that matches counts.
pub static RULES: &[Rule] = &[
    // What is the test bed's fault, before the more general rules that would blame the kernel.
    rule(SplatKind::TestBed, r"(?:rcu: )?\s*\w+ kthread timer wakeup didn't happen for \d+ jiffies", Body::Maybe),
    rule(SplatKind::TestBed, r"Kernel panic - not syncing: Attempted to kill init!", Body::Maybe),
    rule(SplatKind::TestBed, r"Kernel panic - not syncing: (?:VFS: Unable to mount root|No working init)", Body::Maybe),
    rule(SplatKind::TestBed, r"Kernel panic - not syncing: Requested init \S+ failed", Body::Maybe),
    // arch/x86/kernel/apic/io_apic.c, check_timer(): too few ticks came in time. Not a matter of PCI, but of a busy host.
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
    // mm/kasan/report.c, and KFENCE's mm/kfence/report.c, which says the same of sampled allocations.
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
    // lib/bug.c, kernel/sched/core.c, mm/, lib/, and all others that say BUG.
    rule(SplatKind::Bug, r"[kK]ernel BUG at ", Body::Stack),
    rule(SplatKind::Bug, r"BUG: (?:scheduling while atomic|sleeping function called)", Body::Stack),
    // A workqueue that runs for long is advice, and an aside of "possible reason" follows a report of its own.
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

/// What a headline names: the function, unless that only reports, and the task.
pub(super) fn named(rule: &'static Rule, text: &str) -> (Option<String>, Option<String>) {
    let index = RULES.iter().position(|other| std::ptr::eq(other, rule));
    let Some(captures) = index.and_then(|index| EACH[index].captures(text)) else { return (None, None) };
    let group = |name| captures.name(name).map(|group| group.as_str());
    let function = group("function").filter(|name| !frame::is_machinery(name));
    (function.map(str::to_owned), group("task").map(with_colon))
}

/// `comm/pid` and `comm:pid` as `comm:pid`; the name may contain either sign.
fn with_colon(task: &str) -> String {
    match task.rsplit_once(['/', ':']) {
        Some((comm, pid)) if pid.bytes().all(|byte| byte.is_ascii_digit()) => format!("{comm}:{pid}"),
        _ => task.to_owned(),
    }
}
