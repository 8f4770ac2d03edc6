//! What each patch of a series changes, cell by cell.

use kernels::FailureKind;
use serde::Serialize;

use crate::cell::CellId;
use crate::evidence::{Run, RunCell, SeriesNote};
use crate::report::words;
use crate::verdict::{Failure, Verdict};

/// What the repeats of a cell came to on one kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It passed, each time that it came to a verdict.
    Pass,
    /// It failed, each time.
    Fail(Failure),
    /// It passed and failed.
    Flaky {
        /// How it failed.
        failure: Failure,
        /// How often.
        failed: usize,
        /// Of how many times.
        of: usize,
    },
    /// It cannot be run here.
    Skipped,
    /// Nothing is known.
    Unknown(Verdict),
}

/// What a patch does to a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// It passed before and fails now, or fails now for good and did not before.
    Regressed,
    /// It failed before and passes.
    Fixed,
    /// It fails as before, or in another way that is no worse.
    StillBroken,
    /// It passes now and then: nothing can be said of it.
    Flaky,
    /// There is no verdict.
    NoAnswer,
    /// It passes as before, or is skipped.
    Unchanged,
}

/// A row of cells: the same on each kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub scenario: String,
    pub topology: String,
    pub trigger: &'static str,
    /// On the base, then with each patch that applies.
    pub states: Vec<State>,
}

impl State {
    fn of(cells: &[&RunCell]) -> State {
        let verdicts = || cells.iter().map(|cell| &cell.record.verdict);
        let failures: Vec<_> = verdicts().filter_map(failure).collect();
        let passed = verdicts().filter(|verdict| **verdict == Verdict::Pass).count();
        match (failures.first(), passed) {
            (None, 1..) => State::Pass,
            (Some(&failure), 0) => State::Fail(failure.clone()),
            (Some(&failure), _) => {
                let (failed, of) = (failures.len(), failures.len() + passed);
                State::Flaky { failure: failure.clone(), failed, of }
            }
            (None, 0) => match verdicts().find(|verdict| !matches!(verdict, Verdict::Skip(_))) {
                Some(verdict) => State::Unknown(verdict.clone()),
                None if cells.is_empty() => State::Unknown(Verdict::Infra("was not run".to_owned())),
                None => State::Skipped,
            },
        }
    }

    /// How it fails, if it does.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            State::Fail(failure) | State::Flaky { failure, .. } => Some(failure),
            _ => None,
        }
    }

    fn is_known(&self) -> bool {
        matches!(self, State::Pass | State::Fail(_) | State::Flaky { .. })
    }

    /// In a few words.
    pub fn words(&self) -> String {
        match self {
            State::Pass => "pass".to_owned(),
            State::Fail(failure) => failure.to_string(),
            State::Flaky { failure, failed, of } => format!("{failure} in {failed} of {of}"),
            State::Skipped => "skipped".to_owned(),
            State::Unknown(verdict) => words::outcome(verdict).to_lowercase(),
        }
    }
}

pub(super) fn failure(verdict: &Verdict) -> Option<&Failure> {
    match verdict {
        Verdict::Fail(failure) => Some(failure),
        _ => None,
    }
}

impl Change {
    /// From one state to another.
    pub fn between(before: &State, after: &State) -> Change {
        match (before, after) {
            (State::Unknown(_), _) | (_, State::Unknown(_)) => Change::NoAnswer,
            (State::Skipped, _) | (_, State::Skipped) => Change::Unchanged,
            (State::Flaky { .. }, _) | (_, State::Flaky { .. }) => Change::Flaky,
            (State::Fail(_), State::Pass) => Change::Fixed,
            (State::Pass, State::Fail(_)) => Change::Regressed,
            (State::Fail(before), State::Fail(after)) if for_good(after.kind) && !for_good(before.kind) => {
                Change::Regressed
            }
            (State::Fail(_), State::Fail(_)) => Change::StillBroken,
            (State::Pass, State::Pass) => Change::Unchanged,
        }
    }

    /// As a heading.
    pub fn words(self) -> &'static str {
        match self {
            Change::Fixed => "fixed",
            Change::StillBroken => "still broken",
            Change::Regressed => "REGRESSED",
            Change::Flaky => "flaky",
            Change::NoAnswer => "no answer",
            Change::Unchanged => "unchanged",
        }
    }
}

/// Whether nothing goes on after such a failure.
fn for_good(kind: FailureKind) -> bool {
    matches!(kind, FailureKind::Deadlock | FailureKind::KernelSplat)
}

impl Row {
    /// What patch `step` (from 1) does, compared to the last kernel before it of which something is known.
    pub fn change(&self, step: usize) -> Change {
        Change::between(self.before(step), &self.states[step])
    }

    /// What a patch is compared to.
    pub fn before(&self, step: usize) -> &State {
        let known = self.states[..step].iter().rev().find(|state| state.is_known());
        known.unwrap_or(&self.states[step - 1])
    }

    /// What all patches together do.
    pub fn in_all(&self) -> Change {
        match (self.states.first(), self.states.last()) {
            (Some(before), Some(after)) => Change::between(before, after),
            _ => Change::NoAnswer,
        }
    }
}

/// The rows of a run, in its order.
pub fn rows(run: &Run, note: &SeriesNote) -> Vec<Row> {
    let variants: Vec<&str> =
        std::iter::once(note.base.as_str()).chain(note.tried().map(|(_, step)| step.variant.as_str())).collect();
    let mut rows: Vec<Row> = Vec::new();
    for cell in &run.cells {
        let id = &cell.record.cell;
        if rows.iter().any(|row| row.is_of(id)) {
            continue;
        }
        let mut row = Row {
            scenario: id.scenario.clone(),
            topology: id.topology.clone(),
            trigger: id.trigger_name(),
            states: Vec::new(),
        };
        for variant in &variants {
            row.states.push(State::of(&row.cells(run, variant).collect::<Vec<_>>()));
        }
        rows.push(row);
    }
    rows
}

impl Row {
    fn is_of(&self, id: &CellId) -> bool {
        (id.scenario == self.scenario) && (id.topology == self.topology) && (id.trigger_name() == self.trigger)
    }

    /// Its cells on one kernel.
    pub fn cells<'a>(&self, run: &'a Run, variant: &str) -> impl Iterator<Item = &'a RunCell> {
        run.cells.iter().filter(move |cell| self.is_of(&cell.record.cell) && cell.record.cell.variant == variant)
    }
}
