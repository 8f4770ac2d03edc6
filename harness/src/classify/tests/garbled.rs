//! Logs that nobody has printed.

use std::fmt::Write as _;
use std::time::Duration;

use proptest::prelude::*;
use rustix::time::{ClockId, clock_gettime};

use super::forms::with_prefix;
use super::{files, fixture};
use crate::classify::{Splat, classify};

/// Logs of typical lines and arbitrary text.
fn log() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("------------[ cut here ]------------".to_owned()),
        Just("WARNING: CPU: 0 PID: 37 at fs/sysfs/dir.c:31 sysfs_warn_dup+0x5f/0x78".to_owned()),
        Just("BUG: KASAN: use-after-free in f+0x1/0x2".to_owned()),
        Just("==================================================================".to_owned()),
        Just("INFO: task a:1 blocked for more than 4 seconds.".to_owned()),
        Just("Linux version 6.12".to_owned()),
        Just("Call Trace:".to_owned()),
        Just(" <TASK>".to_owned()),
        Just(" vfs_read+0x1/0x2".to_owned()),
        Just(" </TASK>".to_owned()),
        Just("---[ end trace 0000000000000000 ]---".to_owned()),
        Just("stack backtrace:".to_owned()),
        ".*",
    ];
    let line = (any::<bool>(), piece, prop_oneof![Just("\n"), Just("\r\n"), Just("")]);
    let line =
        line.prop_map(|(stamp, piece, end)| format!("{}{piece}{end}", if stamp { "[    1.000000] " } else { "" }));
    prop::collection::vec(line, 0..60).prop_map(|lines| lines.concat())
}

/// All fixtures in one, with a part of it changed: cut off, and with bytes that do not belong there.
fn damaged() -> impl Strategy<Value = String> {
    let names: Vec<_> = files("fixtures", ".log").into_iter().collect();
    let byte = (any::<prop::sample::Index>(), any::<u8>());
    let damage = (prop::sample::select(names), any::<prop::sample::Index>(), prop::collection::vec(byte, 0..20));
    damage.prop_map(|(name, end, bytes)| {
        let mut log = fixture(&name).into_bytes();
        for (place, byte) in bytes {
            let place = place.index(log.len());
            log[place] = byte;
        }
        log.truncate(end.index(log.len() + 1));
        String::from_utf8_lossy(&log).into_owned()
    })
}

/// Logs with one writer each, which neither end other reports nor excuse them.
const ALONE: &[&str] = &[
    "oops",
    "kasan",
    "lockdep-circular",
    "soft-lockup",
    "hung-task-with-locks",
    "ubsan",
    "irq-nobody-cared",
    "hard-lockup",
    "bug-list-corruption",
    "sysfs-duplicate",
    "oops-arm64",
    "oops-ppc64",
    "task-named-with-a-line-feed",
];

/// A log as a task with this number prints it.
fn printed_by(log: &str, task: u32) -> String {
    with_prefix(log, |at, text| format!("[{at:>12}][{:>6}] {text}", format!("T{task}")))
}

/// Two logs in one. Each `true` takes the next line of the second.
fn interleaved(one: &str, other: &str, turns: &[bool]) -> String {
    let (mut one, mut other) = (one.lines(), other.lines());
    let mut log = String::new();
    for second in turns {
        if let Some(line) = if *second { other.next() } else { one.next() } {
            writeln!(log, "{line}").unwrap();
        }
    }
    one.chain(other).for_each(|line| writeln!(log, "{line}").unwrap());
    log
}

fn told(splats: Vec<Splat>) -> Vec<(String, String, Option<String>, Option<String>)> {
    let mut told: Vec<_> =
        splats.into_iter().map(|splat| (splat.kind.to_string(), splat.title, splat.function, splat.task)).collect();
    told.sort();
    told
}

fn all_within(log: &str) -> Result<(), TestCaseError> {
    let count = log.lines().count();
    let mut before = 0;
    for splat in classify(log) {
        prop_assert!(splat.lines.start < splat.lines.end && splat.lines.end <= count, "{splat:?} of {count}");
        prop_assert!(splat.lines.start >= before, "{splat:?} after {before}");
        before = splat.lines.start;
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_text_gives_splats_within_it(log in log()) {
        all_within(&log)?;
    }

    #[test]
    fn damaged_logs_give_splats_within_them(log in damaged()) {
        all_within(&log)?;
    }

    #[test]
    fn caller_ids_tell_two_writers_apart(
        one in prop::sample::select(ALONE),
        other in prop::sample::select(ALONE),
        turns in prop::collection::vec(any::<bool>(), 0..200),
    ) {
        let (one, other) = (printed_by(&fixture(one), 7), printed_by(&fixture(other), 8));
        let mut expected = told(classify(&one));
        expected.extend(told(classify(&other)));
        expected.sort();
        prop_assert_eq!(told(classify(&interleaved(&one, &other, &turns))), expected);
    }
}

/// How long the classifier computes. What else the machine does at the same time makes no difference.
fn cost(log: &str) -> Duration {
    let now = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap();
    let run = || {
        let began = now();
        classify(log);
        now() - began
    };
    run().min(run())
}

/// Logs that are as bad as possible, of about so many bytes.
fn worst(bytes: usize) -> Vec<(&'static str, String)> {
    let all: String = files("fixtures", ".log").iter().map(|name| fixture(name)).collect();
    let repeat = |text: &str| text.repeat(bytes.div_ceil(text.len()));
    let count = |line: fn(usize) -> String| (0..bytes / line(1000).len()).map(line).collect::<String>();
    vec![
        ("all fixtures again and again", repeat(&all)),
        ("one line", repeat("a")),
        ("one line of messages", repeat("[    1.000000] BUG: x ")),
        ("one line of brackets", repeat("[ [ <")),
        ("blanks", repeat("  ")),
        ("lines without text", repeat("\n")),
        (
            "headlines by all tasks",
            count(|n| format!("[    1.000000][T{n}] rcu: INFO: rcu_preempt self-detected stall on CPU\n")),
        ),
        ("a report that never ends", repeat("[    1.000000] RAX: 0000000000000000\n") + "BUG: x\n"),
        (
            "reports of a hundred tasks that never end",
            count(|n| {
                format!("[    1.000000][T{}] BUG: KASAN: x\n[    1.000000][T{}]  f+0x1/0x2\n", n % 100, (n * 7) % 100)
            }),
        ),
        ("torn lines", repeat("INFO: task a\nCPU: 0 PID: 1 Comm: a\nWARNING: b\n")),
        ("cut here", repeat("------------[ cut here ]------------\n")),
        (
            "stuck pools",
            count(|n| {
                format!("BUG: workqueue lockup - pool cpus={n} nice=0 stuck for 41s!\n  pwq 2: cpus={n} nice=0\n")
            }),
        ),
        (
            "devices that are pulled out",
            count(|n| {
                let slot = format!("pcieport 0000:00:04.0: pciehp: Slot({n}): Link Down\n");
                format!("{slot}DMAR: [DMA Read] Request device [{n:x}:00.0] fault addr 0\n")
            }),
        ),
    ]
}

/// A log of 100 MB must not take minutes.
#[test]
fn the_cost_grows_no_faster_than_the_log() {
    const SMALL: usize = 40_000;
    for ((what, small), (_, large)) in worst(SMALL).into_iter().zip(worst(8 * SMALL)) {
        let (small, large) = (cost(&small), cost(&large));
        // Eight times as much, and as much again for caches. Less than a few milliseconds cannot be compared.
        let most = small.max(Duration::from_millis(5)) * 20;
        assert!(large < most, "{what}: {small:?} for the small log, {large:?} for the large one");
    }
}
