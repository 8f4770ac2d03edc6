//! `junit.xml`: a suite for each variant. A cell passes if its result is as expected, even if the kernel fails as
//! expected.

use std::time::Duration;

use quick_junit::{NonSuccessKind, Report as Junit, TestCase, TestCaseStatus, TestSuite};
use regex::Regex;

use super::Report;
use super::outcome::{self, Outcome};
use crate::evidence::RunCell;

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
        suite.add_test_cases(cells.map(|cell| case(report, cell)));
        junit.add_test_suite(suite);
    }
    // The XML is made in memory, from strings without forbidden characters.
    let text = junit.to_string().unwrap_or_default();
    // The schema of Jenkins's xunit plugin (junit-10.xsd) has this attribute for suites only.
    let (top, rest) = text.split_at(text.find("<testsuite ").unwrap_or(text.len()));
    skipped_of_all().replace(top, "").into_owned() + rest
}

/// The number of all skipped tests, as the writer puts it into the root element.
fn skipped_of_all() -> Regex {
    Regex::new(r#" skipped="\d+""#).unwrap_or_else(|error| unreachable!("a fixed pattern is right: {error}"))
}

fn case(report: &Report, cell: &RunCell) -> TestCase {
    let record = &cell.record;
    let (outcome, mut out) = outcome::of(report, cell);
    let not = |kind, why: String| {
        let mut status = TestCaseStatus::non_success(kind);
        status.set_type(record.verdict.outcome()).set_message(why);
        status
    };
    let status = match outcome {
        Outcome::Passed => TestCaseStatus::success(),
        Outcome::Skipped(why) => {
            let mut skipped = TestCaseStatus::skipped();
            skipped.set_message(why);
            skipped
        }
        Outcome::Failed(why) => not(NonSuccessKind::Failure, why),
        Outcome::Broken(why) => not(NonSuccessKind::Error, why),
    };
    let mut case = TestCase::new(record.cell.to_string(), status);
    case.set_classname(record.cell.scenario.clone());
    case.set_time(Duration::try_from_secs_f64(record.seconds).unwrap_or_default());
    if let Some(evidence) = &cell.evidence {
        out += &format!("\nevidence: {}", evidence.display());
    }
    case.set_system_out(out);
    case
}
