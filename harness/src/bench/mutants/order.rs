//! The order of a mutant's cells: those that most likely kill it come first.

use std::collections::BTreeSet;

use kernels::Mutant;

use super::MutantsError;
use crate::cell::{CellId, PlannedCell};
use crate::evidence::{CellCoverage, EarlierCell, EarlierKernel, Run, RunCoverage};
use crate::verdict::Verdict;

/// What the cells of a base execute.
#[derive(Clone, Debug, Default)]
pub struct Reached(RunCoverage);

impl Reached {
    /// What the cells of a run executed. `base` is the kernel that the run should be of.
    ///
    /// # Errors
    /// The run has no coverage, or its files cannot be read.
    pub fn of(run: &Run, base: &str) -> Result<Reached, MutantsError> {
        let without = || MutantsError::NoCoverage { path: run.path.clone(), base: base.to_owned() };
        Ok(Reached(run.coverage()?.ok_or_else(without)?))
    }

    /// The seconds that a cell took, if it executed the function of a mutant.
    pub fn seconds(&self, id: &CellId, mutant: &Mutant) -> Option<f64> {
        self.cells(mutant).find(|(cell, _)| is_like(cell, id)).map(|(_, seconds)| seconds)
    }

    /// The number of cells that executed the function of a mutant.
    pub fn count(&self, mutant: &Mutant) -> usize {
        self.cells(mutant).count()
    }

    fn cells<'a>(&'a self, mutant: &'a Mutant) -> impl Iterator<Item = (&'a CellId, f64)> {
        let Reached(coverage) = self;
        coverage.cells.iter().filter_map(move |(cell, coverage)| {
            let CellCoverage::Executed(executed) = coverage else { return None };
            let functions = &executed.0.get(&mutant.file)?.functions;
            let is_there = functions.contains(mutant.function.as_ref()?);
            is_there.then_some((&cell.record.cell, cell.record.seconds))
        })
    }
}

/// Cells in the order in which they should begin: first those that execute the function, of these first the ones of
/// scenarios that have killed other mutants, the shortest first; then the others as planned; last those that the base fails
/// too, as they can hardly tell the two apart.
pub fn order(
    cells: &[PlannedCell],
    mutant: &Mutant,
    base: &EarlierKernel,
    reached: Option<&Reached>,
    killers: &BTreeSet<String>,
) -> Vec<PlannedCell> {
    let rank = |cell: &PlannedCell| {
        let fails = |known: &EarlierCell| matches!(known.verdict, Verdict::Fail(_));
        let on_base = base.cells.iter().find(|known| known.is_like(&cell.id));
        let seconds = reached.and_then(|reached| reached.seconds(&cell.id, mutant));
        // With coverage, a cell that does not execute the function can hardly kill.
        let is_new = !killers.contains(&cell.id.scenario) || (reached.is_some() && seconds.is_none());
        ((on_base.is_some_and(fails), is_new), seconds.unwrap_or(f64::INFINITY))
    };
    // Each rank is a search through all cells of the base.
    let mut ranked: Vec<_> = cells.iter().map(|cell| (rank(cell), cell)).collect();
    ranked.sort_by(|((first, seconds), _), ((other, others), _)| first.cmp(other).then(seconds.total_cmp(others)));
    ranked.into_iter().map(|(_, cell)| cell.clone()).collect()
}

/// Whether two cells do the same to their kernels.
fn is_like(one: &CellId, other: &CellId) -> bool {
    one.scenario == other.scenario && one.topology == other.topology && one.trigger == other.trigger
}

#[cfg(test)]
mod tests {
    use kernels::FailureKind;

    use super::*;
    use crate::evidence::RunCell;
    use crate::evidence::tests::{record, start};
    use crate::verdict::Expected;

    fn id(scenario: &str, kernel: &str) -> CellId {
        CellId {
            scenario: scenario.to_owned(),
            topology: "igb".to_owned(),
            trigger: None,
            variant: kernel.to_owned(),
            repeat: 1,
        }
    }

    /// Cells of a base: their scenarios, verdicts and seconds, and whether they execute `f` of `a.c`.
    fn reached(cells: &[(&str, bool, Verdict, f64)]) -> (Run, Reached) {
        let mut coverage = RunCoverage::default();
        for (scenario, executes, verdict, seconds) in cells {
            let start = start(id(scenario, "base"), Expected::Pass);
            let record = record(&start, verdict.clone(), *seconds);
            let cell =
                RunCell { record, evidence: None, finished: true, kernel: Some("key".to_owned()), own: Vec::new() };
            let functions = if *executes { "f" } else { "g" };
            let executed = format!(r#"{{"executed":{{"a.c":{{"functions":["{functions}"],"lines":""}}}}}}"#);
            coverage.cells.push((cell, serde_json::from_str(&executed).unwrap()));
        }
        let cells = coverage.cells.iter().map(|(cell, _)| cell.clone()).collect();
        (Run { path: "run".into(), cells, ..Run::default() }, Reached(coverage))
    }

    #[test]
    fn cells_that_execute_the_function_come_first_and_those_that_the_base_fails_last() {
        let folder = tempfile::tempdir().unwrap();
        let diff = "--- a/a.c\n+++ b/a.c\n@@ -1 +1 @@\n-a\n+b\n";
        std::fs::write(folder.path().join("m.patch"), diff).unwrap();
        std::fs::write(folder.path().join("README.md"), "| `m` | `a.c`: `f` | kind | shows |\n").unwrap();
        let mutant = Mutant::read(folder.path()).unwrap().remove(0);
        let fail = Verdict::fail(FailureKind::Deadlock, "g", String::new());
        let (run, reached) = reached(&[
            ("fails", true, fail, 1.0),
            ("elsewhere", false, Verdict::Pass, 1.0),
            ("slow", true, Verdict::Pass, 9.0),
            ("quick", true, Verdict::Pass, 2.0),
        ]);
        let base = EarlierKernel::of(&run, "base", Some("key"));
        let planned = ["fails", "elsewhere", "slow", "quick"];
        let planned = planned.map(|scenario| PlannedCell { id: id(scenario, "m"), expected: Expected::None });
        let names = |reached: Option<&Reached>, killers: &[&str]| {
            let killers = killers.iter().map(|&killer| killer.to_owned()).collect();
            let cells = order(&planned, &mutant, &base, reached, &killers);
            cells.into_iter().map(|cell| cell.id.scenario).collect::<Vec<_>>()
        };
        assert_eq!(names(Some(&reached), &[]), ["quick", "slow", "elsewhere", "fails"]);
        assert_eq!(names(None, &[]), ["elsewhere", "slow", "quick", "fails"]);
        assert_eq!(names(Some(&reached), &["slow", "elsewhere", "fails"]), ["slow", "quick", "elsewhere", "fails"]);
        assert_eq!(names(None, &["quick", "fails"]), ["quick", "elsewhere", "slow", "fails"]);
        assert_eq!(reached.count(&mutant), 3);
        assert!(EarlierKernel::of(&run, "base", Some("another key")).cells.is_empty());
    }
}
