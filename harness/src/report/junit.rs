//! `junit.xml`: a suite for each variant. A cell passes if its result is as expected, even if the kernel fails as
//! expected.

use std::time::Duration;

use quick_junit::{NonSuccessKind, Report as Junit, TestCase, TestCaseStatus, TestSuite};

use super::{Against, Change, Report, words};
use crate::evidence::{CellRecord, RunCell};
use crate::verdict::Verdict;

pub fn render(report: &Report) -> String {
    let mut junit = Junit::new("iov-regress");
    let mut variants: Vec<&str> = Vec::new();
    for cell in &report.run.cells {
        let variant = cell.record.cell.variant.as_str();
        if !variants.contains(&variant) {
            variants.push(variant);
        }
    }
    for variant in variants {
        let mut suite = TestSuite::new(variant);
        let cells = report.run.cells.iter().filter(|cell| cell.record.cell.variant == variant);
        suite.add_test_cases(cells.map(|cell| match &report.against {
            Some(against) => compared(cell, against),
            None => case(cell),
        }));
        junit.add_test_suite(suite);
    }
    // The XML is made in memory, from strings without forbidden characters.
    junit.to_string().unwrap_or_default()
}

fn case(cell: &RunCell) -> TestCase {
    let record = &cell.record;
    let mut out = words::explanation(record);
    if record.is_as_expected() && matches!(record.verdict, Verdict::Fail(_)) {
        out = format!("This kernel has the bug and fails as expected: {out}");
    }
    if record.is_missed() {
        out = format!("This kernel has a random bug, which did not reproduce: {out}");
    }
    ended(cell, status(cell), out)
}

/// A cell of a run with a reference. It fails only if it is worse than on the reference.
fn compared(cell: &RunCell, against: &Against) -> TestCase {
    let record = &cell.record;
    let (change, told) = against.told(&record.cell);
    let status = match (&record.verdict, change) {
        (Verdict::Skip(reason), _) => skipped(reason),
        (Verdict::Pass, _) => TestCaseStatus::success(),
        (Verdict::Fail(_), Change::NotCompared | Change::NoAnswer) => skipped(&told),
        (Verdict::Infra(_), Change::Regressed) | (_, Change::NoAnswer) => not(NonSuccessKind::Error, record, &told),
        (_, Change::Regressed) => not(NonSuccessKind::Failure, record, &told),
        (Verdict::Fail(_), _) => TestCaseStatus::success(),
        (Verdict::BuildFailed(_) | Verdict::BootFailed(_) | Verdict::Infra(_), _) => skipped(&told),
    };
    ended(cell, status, format!("{told}\n{}", words::explanation(record)))
}

fn ended(cell: &RunCell, status: TestCaseStatus, mut out: String) -> TestCase {
    let record = &cell.record;
    let mut case = TestCase::new(record.cell.to_string(), status);
    case.set_classname(record.cell.scenario.clone());
    case.set_time(Duration::try_from_secs_f64(record.seconds).unwrap_or_default());
    if let Some(evidence) = &cell.evidence {
        out += &format!("\nevidence: {}", evidence.display());
    }
    case.set_system_out(out);
    case
}

fn status(cell: &RunCell) -> TestCaseStatus {
    let record = &cell.record;
    let kind = match &record.verdict {
        Verdict::Skip(reason) => return skipped(reason),
        _ if record.is_as_expected() => return TestCaseStatus::success(),
        Verdict::BuildFailed(_) | Verdict::BootFailed(_) | Verdict::Infra(_) => NonSuccessKind::Error,
        Verdict::Pass | Verdict::Fail(_) => NonSuccessKind::Failure,
    };
    not(kind, record, &words::explanation(record))
}

fn skipped(why: &str) -> TestCaseStatus {
    let mut skipped = TestCaseStatus::skipped();
    skipped.set_message(why);
    skipped
}

fn not(kind: NonSuccessKind, record: &CellRecord, why: &str) -> TestCaseStatus {
    let mut status = TestCaseStatus::non_success(kind);
    status.set_type(record.verdict.outcome()).set_message(why);
    status
}
