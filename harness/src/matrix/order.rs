//! The order in which cells begin: longest first, so that no long cell runs alone at the end.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use crate::cell::{CellId, PlannedCell};
use crate::evidence::{RunCell, read_run};
use crate::trigger::Trigger;
use crate::verdict::Verdict;

/// The time of a cell in seconds if no times are known: typical for two cores under TCG, four cells at a time.
const ROUGHLY: f64 = 10.0;

/// How long each cell took in an earlier run.
#[derive(Clone, Debug, Default)]
pub struct Times(HashMap<CellId, f64>);

impl Times {
    /// The times from the folder of an earlier run; none if it cannot be read. A cell without a verdict on its kernel
    /// gives no time: it may have ended at once.
    pub fn of(run: &Path) -> Times {
        let cells = read_run(run).map(|run| run.cells).unwrap_or_default();
        let judged = |cell: &RunCell| cell.finished && matches!(cell.record.verdict, Verdict::Pass | Verdict::Fail(_));
        let finished = cells.into_iter().filter(judged);
        Times(finished.map(|cell| (any_repeat(&cell.record.cell), cell.record.seconds)).collect())
    }

    /// About how long each of these cells takes, in seconds. A cell without a known time counts as the mean of the known
    /// ones.
    pub fn each<'a>(&self, cells: &'a [PlannedCell]) -> impl Iterator<Item = (&'a CellId, f64)> {
        let mean = if self.0.is_empty() { ROUGHLY } else { self.0.values().sum::<f64>() / self.0.len() as f64 };
        cells.iter().map(move |cell| (&cell.id, self.0.get(&any_repeat(&cell.id)).copied().unwrap_or(mean)))
    }

    /// The times from the `results.json` of an earlier run; none if it cannot be read.
    pub fn of_results(file: &Path) -> Times {
        #[derive(Default, Deserialize)]
        struct Results {
            cells: Vec<Cell>,
        }
        #[derive(Deserialize)]
        struct Cell {
            scenario: String,
            topology: String,
            trigger: String,
            variant: String,
            outcome: String,
            seconds: f64,
        }
        let results: Results =
            std::fs::read(file).ok().and_then(|json| serde_json::from_slice(&json).ok()).unwrap_or_default();
        let judged = results.cells.into_iter().filter(|cell| ["pass", "fail"].contains(&cell.outcome.as_str()));
        Times::known(judged.map(|cell| {
            let trigger = Trigger::ALL.iter().copied().find(|trigger| trigger.name() == cell.trigger);
            let Cell { scenario, topology, variant, seconds, .. } = cell;
            (CellId { scenario, topology, trigger, variant, repeat: 1 }, seconds)
        }))
    }

    /// These times, by cell.
    pub fn known(seconds: impl IntoIterator<Item = (CellId, f64)>) -> Times {
        Times(seconds.into_iter().map(|(id, seconds)| (any_repeat(&id), seconds)).collect())
    }

    /// How many cells have a known time.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// An estimate for these cells, `jobs` at a time. A cell without a known time counts as the mean of the known ones.
    pub fn estimate(&self, cells: &[PlannedCell], jobs: usize) -> Duration {
        let seconds: Vec<_> = self.each(cells).map(|(_, seconds)| seconds).collect();
        let total: f64 = seconds.iter().sum();
        let longest = seconds.iter().copied().fold(0.0, f64::max);
        Duration::from_secs_f64((total / jobs.max(1) as f64).max(longest))
    }

    /// The order in which to begin cells: first those without a known time, as planned, then the others, longest first.
    pub fn order<'a>(&self, cells: &'a [PlannedCell]) -> Vec<&'a PlannedCell> {
        let mut cells: Vec<_> = cells.iter().collect();
        let seconds = |cell: &PlannedCell| self.0.get(&any_repeat(&cell.id)).copied().unwrap_or(f64::INFINITY);
        cells.sort_by(|one, other| seconds(other).total_cmp(&seconds(one)));
        cells
    }
}

/// All repetitions of a cell take the same time.
fn any_repeat(id: &CellId) -> CellId {
    CellId { repeat: 1, ..id.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::tests::{record, start};
    use crate::evidence::{RunDir, RunInfo};
    use crate::verdict::Expected;

    fn cell(variant: &str, repeat: u32) -> PlannedCell {
        let id = CellId {
            scenario: "s".to_owned(),
            topology: "t".to_owned(),
            trigger: None,
            variant: variant.to_owned(),
            repeat,
        };
        PlannedCell { id, expected: Expected::Pass }
    }

    #[test]
    fn cells_without_a_verdict_give_no_times() {
        let out = tempfile::tempdir().unwrap();
        let run = RunDir::create(out.path(), RunInfo::default()).unwrap();
        for (name, verdict) in [("a", Verdict::Pass), ("b", Verdict::BuildFailed(String::new()))] {
            let start = start(cell(name, 1).id, Expected::Pass);
            run.cell(&start).unwrap().finish(&record(&start, verdict, 2.0)).unwrap();
        }
        let only = [(cell("a", 1).id, 2.0)].into();
        assert_eq!(Times::of(run.path()).0, only);
        let results = out.path().join("results.json");
        let of = |variant: &str, outcome: &str| {
            format!(
                r#"{{"scenario": "s", "topology": "t", "trigger": "none", "variant": "{variant}", "repeat": 2, "outcome": "{outcome}", "seconds": 2.0}}"#
            )
        };
        let json = format!(r#"{{"schema": 2, "cells": [{}, {}]}}"#, of("a", "pass"), of("b", "build-failed"));
        std::fs::write(&results, json).unwrap();
        assert_eq!(Times::of_results(&results).0, only);
        assert!(Times::of_results(out.path()).0.is_empty());
    }

    #[test]
    fn an_estimate_is_no_less_than_the_longest_cell() {
        let cells: Vec<_> = ["a", "b", "c"].map(|name| cell(name, 1)).into();
        let times = |known: &[(&str, f64)]| Times(known.iter().map(|(name, s)| (cell(name, 1).id, *s)).collect());
        let estimate = |known: &[(&str, f64)], jobs| times(known).estimate(&cells, jobs).as_secs_f64();
        assert_eq!(estimate(&[("a", 1.0), ("b", 3.0)], 1), 6.0);
        assert_eq!(estimate(&[("a", 1.0), ("b", 3.0)], 2), 3.0);
        assert_eq!(estimate(&[("a", 1.0), ("b", 3.0)], 8), 3.0);
        assert_eq!(estimate(&[], 3), ROUGHLY);
    }

    #[test]
    fn the_longest_come_first_after_those_without_a_known_time() {
        let cells: Vec<_> = [("a", 1), ("b", 1), ("c", 1), ("c", 2), ("d", 1)].map(|(name, n)| cell(name, n)).into();
        let times = [("a", 1.0), ("c", 3.0), ("d", 2.0)].map(|(name, seconds)| (cell(name, 1).id, seconds));
        let order = |times: Times| -> Vec<_> {
            times.order(&cells).iter().map(|cell| format!("{}{}", cell.id.variant, cell.id.repeat)).collect()
        };
        assert_eq!(order(Times(times.into())), ["b1", "c1", "c2", "d1", "a1"]);
        assert_eq!(order(Times::of(Path::new("/nonexistent"))), ["a1", "b1", "c1", "c2", "d1"]);
    }
}
