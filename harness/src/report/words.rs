//! The words of a report.

use kernels::FailureKind;

use super::grid::distinct;
use crate::evidence::{CellRecord, MergedNote, RunCell};
use crate::verdict::{Expected, Failure, Signature, Verdict};

/// One word for the result of a cell.
pub fn shown(record: &CellRecord) -> &'static str {
    if record.is_missed() { "missed" } else { outcome(&record.verdict) }
}

/// Which parts of a merged run are missing; none if all are there.
pub fn missing(merged: &MergedNote) -> Option<String> {
    let numbers: Vec<_> = merged.missing.iter().map(ToString::to_string).collect();
    match numbers.as_slice() {
        [] => None,
        [one] => Some(format!("part {one} of {} is missing; its cells have no result", merged.parts)),
        _ => Some(format!("parts {} of {} are missing; their cells have no result", numbers.join(", "), merged.parts)),
    }
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

/// A failure as the object of a sentence: `a deadlock at f`.
fn a_failure(failure: &Failure) -> String {
    let what = match failure.kind {
        FailureKind::Deadlock => "a deadlock",
        FailureKind::Blocked => "a blocked task",
        FailureKind::StaleRead => "a stale read",
        FailureKind::LostEvent => "a lost event",
        FailureKind::KernelSplat => "a report of a fault",
        FailureKind::WrongState => "a wrong state",
    };
    let place = failure.function.as_ref().map(|function| format!(" at {function}")).unwrap_or_default();
    format!("{what}{place}")
}

/// An unexpected cell in a sentence, without its name: `fails with a deadlock at f, and should pass: why`.
pub fn sentence(record: &CellRecord) -> String {
    let ended = match &record.verdict {
        Verdict::Pass => "passes".to_owned(),
        Verdict::Fail(failure) => format!("fails with {}", a_failure(failure)),
        Verdict::Skip(_) => "is skipped".to_owned(),
        Verdict::BuildFailed(_) => "does not build".to_owned(),
        Verdict::BootFailed(_) => "does not boot".to_owned(),
        Verdict::Infra(_) => "has no result".to_owned(),
    };
    let should = match (&record.verdict, &record.expected) {
        (Verdict::Pass | Verdict::Fail(_), Expected::Pass) => ", and should pass".to_owned(),
        (Verdict::Pass | Verdict::Fail(_), Expected::Fail(_)) => {
            format!(", and should fail with {}{}", expected(&record.expected).unwrap_or_default(), cycles_of(record))
        }
        _ => String::new(),
    };
    let why = record.verdict.reason().map(|why| why.split_whitespace().collect::<Vec<_>>().join(" "));
    let why = why.map_or_else(String::new, |why| format!(": {why}"));
    let end = if why.ends_with(['.', '!', '?']) { "" } else { "." };
    format!("{ended}{should}{why}{end}")
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

/// The mark after an unexpected result.
pub const MARK: &str = " !";

/// The results of the repeats of one cell: `pass`, `10/10 DEADLOCK`, or a line for each of several results.
pub fn results(cells: &[&RunCell]) -> String {
    let word = |cell: &RunCell| {
        let mark = if is_unexpected(cell) { MARK } else { "" };
        format!("{}{mark}", shown(&cell.record))
    };
    if let [cell] = cells {
        return word(cell);
    }
    let lines = distinct(cells.iter().map(|cell| word(cell))).into_iter().map(|result| {
        let count = cells.iter().filter(|cell| word(cell) == result).count();
        format!("{count}/{} {result}", cells.len())
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Whether another result was expected. No result is expected of the user's own kernels.
pub fn is_unexpected(cell: &RunCell) -> bool {
    !cell.record.is_as_expected() && !is_own(cell)
}

/// Whether the kernel of a cell is the user's own: no result was expected.
pub fn is_own(cell: &RunCell) -> bool {
    cell.record.expected == Expected::None
}
