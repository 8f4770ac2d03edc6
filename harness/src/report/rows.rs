//! The cells of a run as rows, with a column for each kernel.

use crate::cell::CellId;
use crate::evidence::{EarlierCell, EarlierKernel, Run, RunCell};
use crate::report::change::{Change, Seen, State, Ways};
use crate::report::errors;
use crate::verdict::Expected;

/// The kernel of a column.
#[derive(Clone, Copy, Debug)]
pub enum Column<'a> {
    /// A kernel of the run.
    Kernel(&'a str),
    /// A kernel of an earlier run, with its name.
    Earlier(&'a str, &'a EarlierKernel),
}

/// A row: the same cell on each kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub scenario: String,
    pub topology: String,
    pub trigger: &'static str,
    /// The result on each kernel, in the order of the columns.
    pub seen: Vec<Seen>,
}

impl Row {
    /// The change at column `step` (from 1), compared to the last column before it with a verdict on its kernel.
    pub fn change(&self, step: usize) -> Change {
        Change::between(self.seen_before(step), &self.seen[step])
    }

    /// The result that a column is compared to.
    pub fn before(&self, step: usize) -> &State {
        &self.seen_before(step).state
    }

    /// The result in a column.
    pub fn state(&self, at: usize) -> &State {
        &self.seen[at].state
    }

    fn seen_before(&self, step: usize) -> &Seen {
        let known = self.seen[..step].iter().rev().find(|seen| seen.state.is_known());
        known.unwrap_or(&self.seen[step - 1])
    }

    /// The error messages of the kernel of column `step` (from 1) that the kernel before it does not have. None if not both
    /// passed.
    pub fn new_errors(&self, step: usize) -> Vec<String> {
        errors::new(self.seen_before(step).errors.as_ref(), self.seen[step].errors.as_ref())
    }

    /// The cell in words: `reset::of_pf (igb, yank)`.
    pub fn name(&self) -> String {
        let trigger = if self.trigger == "none" { String::new() } else { format!(", {}", self.trigger) };
        format!("{} ({}{trigger})", self.scenario, self.topology)
    }

    /// The change from the first column to the last.
    pub fn in_all(&self) -> Change {
        match (self.seen.first(), self.seen.last()) {
            (Some(before), Some(after)) => Change::between(before, after),
            _ => Change::NoAnswer,
        }
    }

    /// Whether a cell belongs to this row.
    pub fn is_of(&self, id: &CellId) -> bool {
        (id.scenario == self.scenario) && (id.topology == self.topology) && (id.trigger_name() == self.trigger)
    }

    /// The cells of the row on one kernel.
    pub fn cells<'a>(&self, run: &'a Run, variant: &str) -> impl Iterator<Item = &'a RunCell> + Clone {
        run.cells.iter().filter(move |cell| self.is_of(&cell.record.cell) && cell.record.cell.variant == variant)
    }

    /// The cells of the row on a kernel of an earlier run.
    pub fn earlier_cells<'a>(&self, kernel: &'a EarlierKernel) -> impl Iterator<Item = &'a EarlierCell> + Clone {
        let is_of_it = move |cell: &&EarlierCell| {
            cell.scenario == self.scenario && cell.topology == self.topology && cell.trigger == self.trigger
        };
        kernel.cells.iter().filter(is_of_it)
    }

    fn see(&self, run: &Run, column: Column<'_>) -> Seen {
        match column {
            Column::Kernel(variant) => {
                let cells = self.cells(run, variant);
                let expected = cells.clone().map(|cell| &cell.record.expected).find(|one| **one != Expected::None);
                let ways = expected.map_or_else(|| self.ways(run, variant, None), Ways::expected);
                let errors = errors::of_all(cells.clone().map(|cell| cell.record.errors.as_ref()));
                Seen { state: State::of(cells.map(|cell| &cell.record.verdict), &ways), ways, errors }
            }
            Column::Earlier(name, kernel) => {
                let ways = self.ways(run, name, kernel.bugs.as_deref());
                let cells = self.earlier_cells(kernel);
                let errors = errors::of_all(cells.clone().map(|cell| cell.errors.as_ref()));
                Seen { state: State::of(cells.map(|cell| &cell.verdict), &ways), ways, errors }
            }
        }
    }

    /// The ways in which bugs may show on a kernel with the bugs `has`. Without `has`, the kernel may have any bug.
    fn ways(&self, run: &Run, kernel: &str, has: Option<&[String]>) -> Ways {
        let scenario = run.info.scenarios.iter().find(|scenario| scenario.name == self.scenario);
        Ways::of(kernel, has, scenario.map_or(&[], |scenario| &scenario.detects), &run.info.bugs)
    }
}

/// The rows of a run, in its order.
pub fn rows(run: &Run, columns: &[Column<'_>]) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for cell in &run.cells {
        let id = &cell.record.cell;
        if rows.iter().any(|row| row.is_of(id)) {
            continue;
        }
        let row = Row {
            scenario: id.scenario.clone(),
            topology: id.topology.clone(),
            trigger: id.trigger_name(),
            seen: Vec::new(),
        };
        let seen = columns.iter().map(|column| row.see(run, *column)).collect();
        rows.push(Row { seen, ..row });
    }
    rows
}
