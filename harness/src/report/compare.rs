//! Finds the cells on which two runs have different verdicts.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::change::{Change, Seen, State, Ways};
use super::words;
use crate::cell::CellId;
use crate::evidence::{CellRecord, Run};
use crate::verdict::Verdict;

/// A cell on which two runs have different verdicts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disagreement {
    /// Which cell.
    pub cell: CellId,
    /// The verdict of the first run; none if it does not have the cell.
    pub first: Option<String>,
    /// The verdict of the second run; none if it does not have the cell.
    pub second: Option<String>,
}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = |what: &Option<String>| what.clone().unwrap_or_else(|| "not run".to_owned());
        write!(f, "{}: {} in the first run, {} in the second", self.cell, said(&self.first), said(&self.second))
    }
}

/// The cells on which two runs differ: in outcome or, for failures, in kind or function. Values and times may differ.
/// One expected bug may also show at different functions: for example, the kernel may notice a double free at several
/// places. A random bug may show in only one of the runs.
pub fn disagreements(first: &Run, second: &Run) -> Vec<Disagreement> {
    let (first, second) = (records(first), records(second));
    let cells: BTreeSet<&CellId> = first.keys().chain(second.keys()).copied().collect();
    let differ = |cell: &&CellId| match (first.get(*cell), second.get(*cell)) {
        (Some(first), Some(second)) => verdict(first) != verdict(second) && !agree(first, second),
        _ => true,
    };
    let told = |cell: &CellId| Disagreement {
        cell: cell.clone(),
        first: first.get(cell).map(|record| verdict(record)),
        second: second.get(cell).map(|record| verdict(record)),
    };
    cells.into_iter().filter(differ).map(told).collect()
}

fn records(run: &Run) -> BTreeMap<&CellId, &CellRecord> {
    run.cells.iter().map(|cell| (&cell.record.cell, &cell.record)).collect()
}

/// Whether both failed in a way of the same bug, or one shows a random bug that the other missed.
fn agree(first: &CellRecord, second: &CellRecord) -> bool {
    let seen = |record: &CellRecord| {
        let ways = Ways::expected(&record.expected);
        Seen { state: State::of(std::iter::once(&record.verdict), &ways), ways, errors: None }
    };
    matches!(Change::between(&seen(first), &seen(second)), Change::StillBroken | Change::ByChance)
}

fn verdict(record: &CellRecord) -> String {
    match &record.verdict {
        Verdict::Fail(failure) => failure.to_string(),
        verdict => words::outcome(verdict).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use kernels::{Chance, FailureKind};

    use super::*;
    use crate::evidence::RunCell;
    use crate::evidence::tests::{id, record, start};
    use crate::verdict::{Expected, Signature};

    fn run(cells: &[(&str, Verdict)]) -> Run {
        let cell = |(variant, verdict): &(&str, Verdict)| {
            let start = start(id("family::scenario", None, variant, 1), Expected::Pass);
            RunCell {
                record: record(&start, verdict.clone(), 1.0),
                evidence: None,
                finished: true,
                kernel: None,
                own: Vec::new(),
            }
        };
        Run { cells: cells.iter().map(cell).collect(), ..Run::default() }
    }

    fn stale(function: &str, summary: &str) -> Verdict {
        Verdict::fail(FailureKind::StaleRead, function, summary.to_owned())
    }

    fn way(function: &str, chance: Chance) -> Signature {
        Signature {
            bug: "freed-twice".to_owned(),
            kind: FailureKind::StaleRead,
            function: function.to_owned(),
            cycles: Vec::new(),
            chance,
            without_lockdep: false,
        }
    }

    #[test]
    fn a_random_bug_may_show_in_one_run_only() {
        let run = |verdict: Verdict, chance: Chance| {
            let mut run = run(&[("a", verdict)]);
            run.cells[0].record.expected = Expected::Fail(vec![way("f", chance)]);
            run
        };
        for (chance, function, count) in [(Chance::Random, "f", 0), (Chance::Certain, "f", 1), (Chance::Random, "h", 1)]
        {
            let (passed, failed) = (run(Verdict::Pass, chance), run(stale(function, ""), chance));
            assert_eq!(disagreements(&passed, &failed).len(), count, "{chance:?} {function}");
            assert_eq!(disagreements(&failed, &passed).len(), count, "{chance:?} {function}");
        }
    }

    #[test]
    fn one_bug_may_show_at_different_functions() {
        let run = |function: &str| {
            let mut run = run(&[("a", stale(function, ""))]);
            run.cells[0].record.expected = Expected::Fail(vec![way("f", Chance::Certain), way("g", Chance::Certain)]);
            run
        };
        assert_eq!(disagreements(&run("f"), &run("g")), []);
        assert_eq!(disagreements(&run("f"), &run("h")).len(), 1);
    }

    #[test]
    fn kind_and_function_count_and_summaries_do_not() {
        let first = run(&[("a", Verdict::Pass), ("b", stale("f", "one")), ("c", stale("f", ""))]);
        assert_eq!(disagreements(&first, &first), []);
        let other_words = run(&[("a", Verdict::Pass), ("b", stale("f", "two")), ("c", stale("f", ""))]);
        assert_eq!(disagreements(&first, &other_words), []);
        let second = run(&[("a", stale("f", "")), ("b", stale("g", "one")), ("d", Verdict::Pass)]);
        let told: Vec<_> = disagreements(&first, &second).iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "family::scenario::igb::none::a: pass in the first run, stale-read at f in the second",
                "family::scenario::igb::none::b: stale-read at f in the first run, stale-read at g in the second",
                "family::scenario::igb::none::c: stale-read at f in the first run, not run in the second",
                "family::scenario::igb::none::d: not run in the first run, pass in the second",
            ]
        );
    }
}
