//! The words of a report.

use kernels::FailureKind;

use crate::evidence::CellRecord;
use crate::verdict::{Expected, Signature, Verdict};

/// One word for the result of a cell.
pub fn shown(record: &CellRecord) -> &'static str {
    if record.is_missed() { "missed" } else { outcome(&record.verdict) }
}

/// One word for a verdict.
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

/// What such a word means.
pub fn meaning(word: &str) -> &'static str {
    match word {
        "pass" => "the kernel did what it should",
        "missed" => "the kernel has a random bug, which did not reproduce",
        "DEADLOCK" => "tasks wait for each other and never stop",
        "BLOCKED" => "a task waited until another process released what it waited for",
        "STALE" => "a reader that the event woke saw the value from before the event",
        "LOST EVENT" => "the kernel did not send an event that it should have sent",
        "KERNEL SPLAT" => "the kernel reported an error of its own",
        "WRONG STATE" => "the kernel shows something other than what was done, or refuses what it must grant",
        "skipped" => "the cell cannot run here",
        "NO BUILD" => "the kernel did not build, so it was not tested",
        "NO BOOT" => "the kernel did not boot",
        _ => "the harness or the test bed failed; the cell says nothing about the kernel",
    }
}

/// A verdict in a few words: `deadlock at sriov_numvfs_show`.
pub fn ended(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Fail(failure) => failure.to_string(),
        other => outcome(other).to_lowercase(),
    }
}

/// The expected result in a few words; none if no result is expected.
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

/// The verdict of a cell, the expected result if it differs, and the reason, on one line.
pub fn explanation(record: &CellRecord) -> String {
    let mut text = ended(&record.verdict);
    if let Some(expected) = expected(&record.expected).filter(|_| !record.is_as_expected()) {
        text += &format!(", expected {expected}");
        text += &cycles_of(record);
    }
    if let Some(reason) = record.verdict.reason() {
        text += &format!(": {}", reason.split_whitespace().collect::<Vec<_>>().join(" "));
    }
    text
}

/// The cycles that were expected, if a deadlock shows at the right function in another one.
fn cycles_of(record: &CellRecord) -> String {
    let Verdict::Fail(failure) = &record.verdict else { return String::new() };
    let of = |signature: &Signature| {
        let cycles: Vec<_> = signature.cycles.iter().map(|waits| format!("\"{}\"", waits.join("; "))).collect();
        format!(", by the cycle {}", cycles.join(" or "))
    };
    record.expected.closed_otherwise(failure).map(of).collect()
}
