//! The lines of reports, other than headlines and frames.

use std::sync::LazyLock;

use regex::Regex;

/// Registers, `CPU: ... Comm: ...`, lists of locks, task headers, details of RCU, KASAN, SLUB and workqueues.
static BODY: LazyLock<Regex> = LazyLock::new(|| {
    let lines = [
        r"\s|$|[Cc]all [Tt]race:|Backtrace:|\[ ?<|CPU: |Hardware name:|Modules linked in:|Tainted: |Workqueue: |Stack:",
        r"Code: |Process |Pid: |task: |task:",
        // Registers of x86.
        r"RIP: |[RE][A-Z0-9]{2}: ?[0-9a-f]|R\d\d: |[FCDEG]S: |CR\d: |DR\d: |PKRU: |ORIG_RAX|PGD |#PF: |Oops: |KASAN: ",
        // Of arm64, arm, riscv, powerpc, s390.
        r"(?:pc|lr|sp|pstate|epc|NIP|LR|MSR|CFAR|GPR\d\d|status|psr) ?:|x\d+ ?: [0-9a-f]|r\d+ ?: ?[0-9a-f]|\[[0-9a-f]+\] ",
        r"E?IP: |[0-9a-f]{4}: {1,20}[0-9a-f]{8}|Register r\d+ information|(?:PC|LR|SP|IP|EIP) is at |NIP \[|LR \[|Mem abort|Data abort|user pgtable|Flags: |Control: |Instruction dump",
        r"Krnl |Last Breaking-Event|Exception stack|Faulting instruction|BE |LE |--- interrupt|REGS: |\[<",
        // Stalls and hung tasks.
        r"NMI backtrace|Sending NMI|rcu: |RCU |Showing |workqueue \S+: |pool \d+: |CPU#\d+ |INFO: task .* blocked on",
        r"\x22echo 0 >|Future hung",
        // Lockdep.
        r"(?:\d+ )?locks? held |no locks held|INFO: lockdep is turned off|Preemption disabled|irq event stamp",
        r"(?:hard|soft)irqs last|stack backtrace:|other info that|-> #\d|but |and |which |the existing|the dependencies",
        r"to a |\.\.\. |Chain exists|Possible unsafe|May be due|lock\(|\*\*\* DEADLOCK|.{1,16}/\d+ (?:\[.*\] )?is ",
        r"ffff[0-9a-f]+ \(|in_atomic|preempt_count|caller is |last function: ",
        // KASAN, SLUB, kmemleak.
        r"(?:Read|Write|Free) (?:of|at) |(?:Allocated|Freed)(?: by task|:)|Last potentially|The buggy address|Memory state",
        r"page: |page dumped|page last |flags: 0x|raw: |head: |>?ffff[0-9a-f]+: |(?:INFO: )?(?:Allocated|Freed) in ",
        r"(?:INFO: )?(?:Slab|Object) 0x|(?:Redzone|Object|Padding|Bytes b4)\s+[0-9a-f]+: |FIX |Disabling lock debugging",
        r"Uninit was |Local variable |comm \x22|hex dump|backtrace",
        // Interrupts, references to network interfaces.
        r"handlers:|Disabling IRQ|ref_tracker: ",
        // Ends.
        r"Kernel Offset|Rebooting in|---\[ end|<[A-Z/]|={20}|-{20}",
    ];
    Regex::new(&format!("^(?:{})", lines.join("|"))).expect("constant expressions")
});

/// The task that a CPU runs. Its name may have blanks. What follows the name is not always there.
static COMM: LazyLock<Regex> = LazyLock::new(|| {
    let cpu = r"^CPU: \d+ (?:UID: \d+ )?PID: (?P<pid>-?\d+) Comm: ";
    Regex::new(&format!(r"(?s){cpu}(?:(?P<comm>.+?)(?: Kdump:.*)? (?:Not tainted|Tainted:)|(?P<word>\S+))"))
        .expect("constant expressions")
});

/// The task that violates a locking rule, that made an invalid access, or that allocated what leaks.
static ACTORS: LazyLock<[Regex; 5]> = LazyLock::new(|| {
    [
        r"^(?P<comm>.{1,16})/(?P<pid>\d+) (?:\[.*\] )?is ",
        r"^.* by task (?P<comm>.{1,16})/(?P<pid>\d+)$",
        r"^Pid: (?P<pid>\d+), comm: (?P<comm>\S+)",
        r#"^\s*comm "(?P<comm>.*)", pid (?P<pid>\d+)"#,
        r"^in_atomic\(\).* pid: (?P<pid>\d+), name: (?P<comm>.+)$",
    ]
    .map(|actor| Regex::new(actor).expect("a constant expression"))
});

/// The functions that a line names as the cause, not as part of a stack.
static CAUSE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^(?:caller is |\s*last function: )(?P<name>[A-Za-z_]\w*)").expect("a constant expression")
});

/// Whether a line belongs to a report.
pub fn is_part(text: &str) -> bool {
    BODY.is_match(text)
}

/// Whether a line is incomplete: the name of the task continues in the next line.
pub fn is_torn(text: &str) -> bool {
    text.starts_with("CPU: ") && COMM.captures(text).is_some_and(|captures| captures.name("comm").is_none())
}

/// The task that a line names.
pub fn task(text: &str) -> Option<String> {
    if let Some(captures) = COMM.captures(text) {
        let comm = captures.name("comm").or(captures.name("word"))?;
        return Some(format!("{}:{}", comm.as_str(), &captures["pid"]));
    }
    let captures = ACTORS.iter().find_map(|actor| actor.captures(text))?;
    Some(format!("{}:{}", &captures["comm"], &captures["pid"]))
}

/// The function that a line names as the cause.
pub fn cause(text: &str) -> Option<&str> {
    Some(CAUSE.captures(text)?.name("name")?.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_tasks() {
        for (line, expected) in [
            (
                "CPU: 8 PID: 145 Comm: irq/43-pciehp Tainted: G           OE      6.1.0-22-2-amd64 #5",
                "irq/43-pciehp:145",
            ),
            ("CPU: 144 PID: 1422 Comm: irq/57-pciehp Kdump: loaded Tainted: G S", "irq/57-pciehp:1422"),
            ("CPU: 0 UID: 0 PID: 37 Comm: my task Not tainted 6.12.117 #2", "my task:37"),
            ("CPU: 0 UID: 0 PID: 37 Comm: two\nlines Not tainted 6.12.117 #2", "two\nlines:37"),
            ("CPU: 1 PID: 1774 Comm: unlink Tainted:", "unlink:1774"),
            ("CPU: 1 PID: 1774 Comm: unlink", "unlink:1774"),
            ("Pid: 1661, comm: modprobe Tainted: P           2.6.32-5-amd64 #1", "modprobe:1661"),
            ("my agent/42 is trying to acquire lock:", "my agent:42"),
            ("Read of size 4 at addr ffff888004c8e0a8 by task my agent/88", "my agent:88"),
            ("  comm \"kworker/u258:14\", pid 2174, jiffies 4294958305", "kworker/u258:14:2174"),
            ("in_atomic(): 1, irqs_disabled(): 0, non_block: 0, pid: 37, name: agent", "agent:37"),
        ] {
            assert_eq!(task(line).as_deref(), Some(expected), "{line}");
        }
        assert_eq!(task("Hardware name: QEMU"), None);
        assert!(is_torn("CPU: 0 UID: 0 PID: 37 Comm: two"));
        assert!(!is_torn("CPU: 0 UID: 0 PID: 37 Comm: one Not tainted 6.12.117 #2"));
    }
}
