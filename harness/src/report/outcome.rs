//! What a cell means to a program that counts tests: JUnit, KTAP. A cell passes if its result is as expected, even if the
//! kernel fails as expected. With a reference, it fails only if it is worse than on the reference. In a bisection, it passes
//! if it says whether its commit is bad.

use super::{Against, Change, Report, words};
use crate::evidence::{CellRecord, RunCell};
use crate::verdict::Verdict;

/// The result of a cell, as a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As expected, or no worse than the reference.
    Passed,
    /// It says nothing; why.
    Skipped(String),
    /// Not as expected, or worse than the reference; why.
    Failed(String),
    /// No verdict on the kernel; why.
    Broken(String),
}

/// The result of a cell, and a text that explains it.
pub fn of(report: &Report, cell: &RunCell) -> (Outcome, String) {
    match &report.against {
        _ if report.bisection.is_some() => bisected(&cell.record),
        Some(against) => compared(&cell.record, against),
        None => expected(&cell.record),
    }
}

fn bisected(record: &CellRecord) -> (Outcome, String) {
    let why = words::explanation(record);
    let outcome = match &record.verdict {
        Verdict::Pass | Verdict::Fail(_) => Outcome::Passed,
        Verdict::Skip(_) | Verdict::BuildFailed(_) | Verdict::BootFailed(_) => Outcome::Skipped(why.clone()),
        Verdict::Infra(_) => Outcome::Broken(why.clone()),
    };
    (outcome, why)
}

fn expected(record: &CellRecord) -> (Outcome, String) {
    let why = words::explanation(record);
    let outcome = match &record.verdict {
        Verdict::Skip(reason) => Outcome::Skipped(reason.clone()),
        _ if record.is_as_expected() => Outcome::Passed,
        Verdict::BuildFailed(_) | Verdict::BootFailed(_) | Verdict::Infra(_) => Outcome::Broken(why.clone()),
        Verdict::Pass | Verdict::Fail(_) => Outcome::Failed(why.clone()),
    };
    let text = match &record.verdict {
        _ if record.is_missed() => format!("This kernel has a random bug, which did not reproduce: {why}"),
        Verdict::Fail(_) if record.is_as_expected() => format!("This kernel has the bug and fails as expected: {why}"),
        _ => why,
    };
    (outcome, text)
}

fn compared(record: &CellRecord, against: &Against) -> (Outcome, String) {
    let (change, told) = against.told(&record.cell);
    let text = format!("{told}\n{}", words::explanation(record));
    let outcome = match (&record.verdict, change) {
        (Verdict::Skip(reason), _) => Outcome::Skipped(reason.clone()),
        (Verdict::Pass, _) => Outcome::Passed,
        (Verdict::Fail(_), Change::NotCompared | Change::NoAnswer) => Outcome::Skipped(told),
        (Verdict::Infra(_), Change::Regressed) | (_, Change::NoAnswer) => Outcome::Broken(told),
        (_, Change::Regressed) => Outcome::Failed(told),
        (Verdict::Fail(_), _) => Outcome::Passed,
        (Verdict::BuildFailed(_) | Verdict::BootFailed(_) | Verdict::Infra(_), _) => Outcome::Skipped(told),
    };
    (outcome, text)
}
