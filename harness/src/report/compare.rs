//! Whether two runs of the same cells came to the same verdicts.

use std::collections::BTreeMap;
use std::fmt;

use super::words;
use crate::cell::CellId;
use crate::evidence::{CellRecord, Run};
use crate::verdict::Verdict;

/// A cell on which two runs do not agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disagreement {
    /// Which cell.
    pub cell: CellId,
    /// What the first run says; none if it does not have the cell.
    pub first: Option<String>,
    /// What the second run says.
    pub second: Option<String>,
}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = |what: &Option<String>| what.clone().unwrap_or_else(|| "nothing".to_owned());
        write!(f, "{}: {}, but {}", self.cell, said(&self.first), said(&self.second))
    }
}

/// The cells on which two runs differ: in outcome or, of failures, in kind or function. Values and times may differ.
pub fn disagreements(first: &Run, second: &Run) -> Vec<Disagreement> {
    let (first, second) = (verdicts(first), verdicts(second));
    let cells: std::collections::BTreeSet<_> = first.keys().chain(second.keys()).collect();
    cells
        .into_iter()
        .filter(|cell| first.get(*cell) != second.get(*cell))
        .map(|cell| Disagreement {
            cell: cell.clone(),
            first: first.get(cell).cloned(),
            second: second.get(cell).cloned(),
        })
        .collect()
}

fn verdicts(run: &Run) -> BTreeMap<CellId, String> {
    run.cells.iter().map(|cell| (cell.record.cell.clone(), verdict(&cell.record))).collect()
}

fn verdict(record: &CellRecord) -> String {
    match &record.verdict {
        Verdict::Fail(failure) => failure.to_string(),
        verdict => words::outcome(verdict).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use kernels::FailureKind;

    use super::*;
    use crate::evidence::tests::{id, record, start};
    use crate::evidence::{RunCell, RunInfo};
    use crate::verdict::Expected;

    fn run(cells: &[(&str, Verdict)]) -> Run {
        let cell = |(variant, verdict): &(&str, Verdict)| {
            let start = start(id("family::scenario", None, variant, 1), Expected::Pass);
            RunCell { record: record(&start, verdict.clone(), 1.0), evidence: None, finished: true, kernel: None }
        };
        Run { path: PathBuf::new(), info: RunInfo::default(), cells: cells.iter().map(cell).collect() }
    }

    fn stale(function: &str, summary: &str) -> Verdict {
        Verdict::fail(FailureKind::StaleRead, function, summary.to_owned())
    }

    #[test]
    fn kind_and_function_count_and_words_do_not() {
        let first = run(&[("a", Verdict::Pass), ("b", stale("f", "one")), ("c", stale("f", ""))]);
        assert_eq!(disagreements(&first, &first), []);
        let other_words = run(&[("a", Verdict::Pass), ("b", stale("f", "two")), ("c", stale("f", ""))]);
        assert_eq!(disagreements(&first, &other_words), []);
        let second = run(&[("a", stale("f", "")), ("b", stale("g", "one")), ("d", Verdict::Pass)]);
        let told: Vec<_> = disagreements(&first, &second).iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "family::scenario::igb::none::a: pass, but stale-read at f",
                "family::scenario::igb::none::b: stale-read at f, but stale-read at g",
                "family::scenario::igb::none::c: stale-read at f, but nothing",
                "family::scenario::igb::none::d: nothing, but pass",
            ]
        );
    }
}
