//! The logs that syzkaller's own classifier is tested with (`pkg/report/testdata/linux/report`). Each begins with the title
//! that syzkaller gives it. The logs are no part of the project:
//!
//! ```sh
//! IOV_REGRESS_SYZKALLER=~/src/syzkaller/pkg/report/testdata/linux/report \
//!     cargo test -p harness --lib syzkaller -- --ignored --nocapture
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use regex::Regex;

use crate::classify::{Splat, SplatKind, classify};

/// Which kinds are right for a title that begins so. The first row applies. None are right if no kernel printed the log.
const KINDS: &[(&str, &[SplatKind])] = &[
    (r"KASAN:|KFENCE:|KMSAN:", &[SplatKind::Kasan]),
    (
        r"general protection fault|BUG: unable to handle|divide error|stack segment|int3|Unhandled fault|Alignment trap|Internal error|BUG: stack guard",
        &[SplatKind::Oops],
    ),
    (r"BUG: workqueue lockup", &[SplatKind::WorkqueueLockup]),
    (r"BUG: soft lockup", &[SplatKind::SoftLockup]),
    (r"BUG: MAX_|kernel panic: (?:Attempted to kill init|VFS: Unable)", &[SplatKind::TestBed]),
    (r"WARNING: locking bug", &[SplatKind::Warning, SplatKind::Lockdep]),
    (
        r"possible deadlock|inconsistent lock state|INFO: trying to reg|(?:WARNING|INFO): (?:suspicious RCU|possible circ)|(?:WARNING|BUG): (?:bad unlock|held lock freed|lock held|still has|nested lock)",
        &[SplatKind::Lockdep],
    ),
    (r"WARNING: (?:ath10k|foo)|SYZFA|go runtime|trusty", &[]),
    (r"WARNING", &[SplatKind::Warning]),
    (r"PANIC: double|kernel panic|kernel stack overflow", &[SplatKind::Panic]),
    (r"INFO: rcu", &[SplatKind::RcuStall]),
    (r"INFO: task", &[SplatKind::HungTask]),
    (r"memory leak", &[SplatKind::MemoryLeak]),
    (r"UBSAN", &[SplatKind::Ubsan]),
    (r"unregister_netdevice", &[SplatKind::NetdevWait]),
    (r"unexpected kernel reboot", &[SplatKind::Reboot]),
    (r"KCSAN:|INFO: (?:Freed|Alloc|corrupted)|kernel BUG|BUG|VFS:|attempt to", &[SplatKind::Bug]),
];

/// What syzkaller leaves out at the beginning of a name.
const PREFIXES: &str =
    r"^(?:SYSC_|SyS_|sys_|_{0,2}(?:x64|ia32|arm64|riscv|se|do)_(?:sys_)?|_+sys_|compat_S[yY]SC?_|ksys_)";

/// What a log begins with.
#[derive(Default)]
struct Head {
    title: Option<String>,
    /// Other titles that are right.
    others: Vec<String>,
}

/// The head of a file, and its log.
fn parse(text: &str) -> (Head, &str) {
    let mut head = Head::default();
    let mut rest = text;
    while let Some((line, after)) = rest.split_once('\n') {
        match line.split_once(':') {
            Some(("TITLE", title)) => head.title = Some(title.trim().to_owned()).filter(|title| !title.is_empty()),
            Some(("ALT", title)) => head.others.push(title.trim().to_owned()),
            Some(("TYPE" | "CORRUPTED" | "PANICKED" | "SUPPRESSED" | "EXECUTOR" | "FRAME" | "START" | "END", _)) => {}
            _ if line.starts_with('#') => {}
            _ => break,
        }
        rest = after;
    }
    (head, rest.split_once("\nREPORT:\n").map_or(rest, |(log, _)| log))
}

/// The function in a title. None if it has none, or only says that the log is too damaged to tell.
fn function(title: &str) -> Option<String> {
    let name = Regex::new(r".* in ([\w.]+)(?:/\w+)?$").unwrap().captures(title)?[1].to_owned();
    (name != "corrupted" && name != "unmount").then(|| plain(&name))
}

fn plain(name: &str) -> String {
    Regex::new(PREFIXES).unwrap().replace(name, "").into_owned()
}

/// How a log was classified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// No kernel printed the log.
    NoKernel,
    /// It has no title, and no report but those of the test bed.
    Silent,
    /// It has no title, and a report.
    FalseAlarm,
    /// No report, or none of the right kind.
    NoKind,
    /// The right kind, and a function that is not that of the title.
    NoFunction,
    /// The right kind. The function of the title is further out on the stack.
    OnStack,
    /// The right kind and function.
    Right,
}

fn outcome(head: &Head, splats: &[Splat]) -> Outcome {
    let Some(title) = &head.title else {
        let is_silent = splats.iter().all(|splat| splat.kind == SplatKind::TestBed);
        return if is_silent { Outcome::Silent } else { Outcome::FalseAlarm };
    };
    let row = KINDS.iter().find(|(titles, _)| Regex::new(&format!("^(?:{titles})")).unwrap().is_match(title));
    let (_, kinds) = row.unwrap_or_else(|| panic!("no kind for {title}"));
    if kinds.is_empty() {
        return Outcome::NoKernel;
    }
    let Some(splat) = splats.iter().find(|splat| kinds.contains(&splat.kind)) else { return Outcome::NoKind };
    let right: Vec<_> = head.others.iter().chain([title]).filter_map(|title| function(title)).collect();
    let is_right = |name: &String| right.contains(&plain(name));
    if right.is_empty() || splat.function.as_ref().is_some_and(is_right) {
        Outcome::Right
    } else if splat.frames.iter().any(is_right) {
        Outcome::OnStack
    } else {
        Outcome::NoFunction
    }
}

#[test]
#[ignore = "needs the logs of syzkaller"]
fn the_logs_of_syzkaller() {
    let folder = std::env::var_os("IOV_REGRESS_SYZKALLER").expect("IOV_REGRESS_SYZKALLER names the folder of the logs");
    let mut outcomes: BTreeMap<Outcome, Vec<String>> = BTreeMap::new();
    let (mut titled, mut told) = (0, 0);
    for entry in std::fs::read_dir(Path::new(&folder)).unwrap() {
        let path = entry.unwrap().path();
        let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
        let (head, log) = parse(&text);
        let splats = classify(log);
        let outcome = outcome(&head, &splats);
        if !matches!(outcome, Outcome::NoKernel | Outcome::Silent | Outcome::FalseAlarm) {
            titled += 1;
            told += usize::from(!splats.is_empty());
        }
        let mut line = format!("{}: {}", path.file_name().unwrap().display(), head.title.unwrap_or_default());
        for splat in splats.iter().take(2) {
            write!(line, " | {}: {}", splat.kind, splat.function.as_deref().unwrap_or("-")).unwrap();
        }
        outcomes.entry(outcome).or_default().push(line);
    }
    for (outcome, lines) in outcomes.iter().filter(|(outcome, _)| **outcome != Outcome::Right) {
        println!("{outcome:?}");
        lines.iter().for_each(|line| println!("  {line}"));
    }
    let count = |outcome| outcomes.get(&outcome).map_or(0, Vec::len);
    let (right, on_stack) = (count(Outcome::Right), count(Outcome::OnStack));
    let kind = right + on_stack + count(Outcome::NoFunction);
    println!("{titled} titles, {told} with a report, {kind} of the right kind, {right} with the right function");
    println!("{on_stack} with the function on the stack, {} false alarms", count(Outcome::FalseAlarm));
    // docs/classify.md has the figures of 2026.
    assert!(right * 100 >= titled * 71 && (right + on_stack) * 100 >= titled * 95 && kind * 100 >= titled * 98);
}

#[test]
fn titles_and_logs_are_told_apart() {
    let text =
        "# a comment\nTITLE: WARNING in sys_open\nALT: x in __x64_sys_openat\nTYPE: WARNING\n\nlog\n\nREPORT:\nx\n";
    let (head, log) = parse(text);
    assert_eq!(log.trim(), "log");
    assert_eq!(function(&head.title.unwrap()).as_deref(), Some("open"));
    assert_eq!(function(&head.others[0]).as_deref(), Some("openat"));
    assert_eq!(function("WARNING in corrupted"), None);
}
