//! The words of a report.

use kernels::FailureKind;

use crate::evidence::CellRecord;
use crate::verdict::{Expected, Signature, Verdict};

/// One word for what a cell showed.
pub fn shown(record: &CellRecord) -> &'static str {
    if record.is_missed() { "missed" } else { outcome(&record.verdict) }
}

/// One word for how a cell ended.
pub fn outcome(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "pass",
        Verdict::Fail(failure) => kind(failure.kind),
        Verdict::Skip(_) => "skipped",
        Verdict::BuildFailed(_) => "NO BUILD",
        Verdict::BootFailed(_) => "NO BOOT",
        Verdict::Infra(_) => "NO RESULT",
    }
}

/// One word for a kind of failure.
pub fn kind(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::Deadlock => "DEADLOCK",
        FailureKind::Blocked => "BLOCKED",
        FailureKind::StaleRead => "STALE",
        FailureKind::LostEvent => "LOST EVENT",
        FailureKind::KernelSplat => "KERNEL SPLAT",
        FailureKind::WrongState => "WRONG STATE",
    }
}

/// What the word means.
pub fn meaning(word: &str) -> &'static str {
    match word {
        "pass" => "the kernel did what it should",
        "missed" => "the kernel has a bug that shows now and then, and did not this time",
        "DEADLOCK" => "tasks wait for each other, and will for ever",
        "BLOCKED" => "a task waited for as long as someone else liked",
        "STALE" => "a reader woken by the event saw the value from before it",
        "LOST EVENT" => "an event that should have been sent was not",
        "KERNEL SPLAT" => "the kernel reported an error of its own",
        "WRONG STATE" => "what the kernel shows is not what was done",
        "skipped" => "the cell cannot be run here",
        "NO BUILD" => "the kernel did not build: nothing is known about it",
        "NO BOOT" => "the kernel did not come up",
        _ => "the harness or the test bed failed: nothing is known about the kernel",
    }
}

/// How a cell ended, in a few words: `deadlock at sriov_numvfs_show`.
pub fn ended(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Fail(failure) => failure.to_string(),
        other => outcome(other).to_lowercase(),
    }
}

/// What was expected, in a few words; none if nothing was.
pub fn expected(expected: &Expected) -> Option<String> {
    match expected {
        Expected::Pass => Some("pass".to_owned()),
        Expected::Fail(signatures) => {
            let when = |s: &Signature| if s.without_lockdep { ", if lockdep is off" } else { "" };
            let ways = signatures.iter().map(|s| format!("{} at {} ({}{})", s.kind, s.function, s.bug, when(s)));
            Some(ways.collect::<Vec<_>>().join(" or "))
        }
        Expected::None => None,
    }
}

/// How a cell ended, what was expected, and why, on one line.
pub fn explanation(record: &CellRecord) -> String {
    let mut text = ended(&record.verdict);
    if let Some(expected) = expected(&record.expected).filter(|_| !record.is_as_expected()) {
        text += &format!(", expected {expected}");
    }
    if let Some(reason) = record.verdict.reason() {
        text += &format!(": {}", reason.split_whitespace().collect::<Vec<_>>().join(" "));
    }
    text
}
