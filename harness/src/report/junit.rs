//! `junit.xml`: a suite per variant. What ended as expected passes, also where the kernel was to fail.

use std::time::Duration;

use quick_junit::{NonSuccessKind, Report as Junit, TestCase, TestCaseStatus, TestSuite};

use super::{Report, words};
use crate::evidence::RunCell;
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
        suite.add_test_cases(report.run.cells.iter().filter(|cell| cell.record.cell.variant == variant).map(case));
        junit.add_test_suite(suite);
    }
    // The XML is made in memory, from strings whose forbidden characters are left out.
    junit.to_string().unwrap_or_default()
}

fn case(cell: &RunCell) -> TestCase {
    let record = &cell.record;
    let mut case = TestCase::new(record.cell.to_string(), status(cell));
    case.set_classname(record.cell.scenario.clone());
    case.set_time(Duration::try_from_secs_f64(record.seconds).unwrap_or_default());
    let mut out = words::explanation(record);
    if record.is_as_expected() && matches!(record.verdict, Verdict::Fail(_)) {
        out = format!("This kernel has the bug and fails as expected: {out}");
    }
    if record.is_missed() {
        out = format!("This kernel has a bug that shows now and then, and it did not this time: {out}");
    }
    if let Some(evidence) = &cell.evidence {
        out += &format!("\nevidence: {}", evidence.display());
    }
    case.set_system_out(out);
    case
}

fn status(cell: &RunCell) -> TestCaseStatus {
    let record = &cell.record;
    let kind = match &record.verdict {
        Verdict::Skip(reason) => {
            let mut skipped = TestCaseStatus::skipped();
            skipped.set_message(reason.clone());
            return skipped;
        }
        _ if record.is_as_expected() => return TestCaseStatus::success(),
        Verdict::BuildFailed(_) | Verdict::BootFailed(_) | Verdict::Infra(_) => NonSuccessKind::Error,
        Verdict::Pass | Verdict::Fail(_) => NonSuccessKind::Failure,
    };
    let mut status = TestCaseStatus::non_success(kind);
    status.set_type(record.verdict.outcome()).set_message(words::explanation(record));
    status
}
