//! Compares each kernel of a run with a reference: another kernel of the run, or a kernel of an earlier run.
//!
//! A failure that the reference has too does not count against a kernel. The exit code, JUnit and the text for people
//! report what is worse than on the reference.

mod earlier;
mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Value, json};

use super::change::{Change, State, failure, is_same};
use super::rows::{Column, Row, rows};
use crate::cell::CellId;
use crate::evidence::{AgainstNote, Run, RunCell};
use crate::verdict::Failure;

pub use earlier::{Earlier, EarlierError};

/// The comparison of a run with its reference.
#[derive(Clone, Debug)]
pub struct Against {
    note: AgainstNote,
    kernels: Vec<OfKernel>,
}

/// The comparison of one kernel with the reference.
#[derive(Clone, Debug)]
struct OfKernel {
    variant: String,
    /// The columns of each row: the reference, then this kernel.
    rows: Vec<Row>,
}

/// How a cell of a kernel differs from the same cell of the reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CellChange {
    /// `family::name` of the scenario.
    pub scenario: String,
    /// Name of the topology.
    pub topology: String,
    /// Name of the trigger, or `none`.
    pub trigger: &'static str,
    /// The change.
    pub change: Change,
    /// How the kernel fails, if it does.
    pub failure: Option<Failure>,
    /// What came of the cell on the kernel, in a few words.
    pub words: String,
    /// The error messages of the kernel that the reference does not have. None if not both passed.
    pub new_errors: Vec<String>,
}

impl CellChange {
    fn of(row: &Row) -> CellChange {
        CellChange {
            scenario: row.scenario.clone(),
            topology: row.topology.clone(),
            trigger: row.trigger,
            change: change(row),
            failure: row.state(KERNEL).failure().cloned(),
            words: row.state(KERNEL).words(),
            new_errors: row.new_errors(KERNEL),
        }
    }
}

/// The columns of a row: the reference, and the kernel that is compared with it.
const REFERENCE: usize = 0;
const KERNEL: usize = 1;

impl Against {
    /// Compares a run with its reference.
    pub fn of(run: &Run, note: AgainstNote) -> Against {
        let reference = match &note.earlier {
            Some(earlier) => Column::Earlier(&note.kernel, earlier),
            None => Column::Kernel(&note.kernel),
        };
        let mut variants: Vec<&str> = Vec::new();
        for cell in &run.cells {
            let variant = cell.record.cell.variant.as_str();
            let is_reference = note.earlier.is_none() && variant == note.kernel;
            if !is_reference && !variants.contains(&variant) {
                variants.push(variant);
            }
        }
        let of_kernel = |variant: &str| {
            let rows = rows(run, &[reference, Column::Kernel(variant)]);
            let rows = rows.into_iter().filter(|row| *row.state(KERNEL) != State::Absent).collect();
            OfKernel { variant: variant.to_owned(), rows }
        };
        let kernels = variants.into_iter().map(of_kernel).collect();
        Against { note, kernels }
    }

    /// The same comparison of other cells.
    pub fn again(self, run: &Run) -> Against {
        Against::of(run, self.note)
    }

    /// The change of each cell of a kernel. Empty if the run has no such kernel.
    pub(super) fn changes(&self, variant: &str) -> Vec<CellChange> {
        let rows = self.kernels.iter().filter(|kernel| kernel.variant == variant).flat_map(|kernel| &kernel.rows);
        rows.map(CellChange::of).collect()
    }

    /// The name of the reference, if it is a kernel of the run.
    pub(super) fn kernel_of_run(&self) -> Option<&str> {
        self.note.earlier.is_none().then_some(self.note.kernel.as_str())
    }

    /// The comparison for people: what is worse, what is better, and how many cells are unchanged.
    pub(super) fn text(&self, run: &Run) -> String {
        text::render(self, run)
    }

    /// The comparison for programs: the key `against` of `results.json`.
    ///
    /// `kernel` is the reference, `asked` its name on the command line, and `earlier` the file and the start of the run
    /// that it was taken from, or null if it is a kernel of this run. `kernels` has for each other kernel its
    /// `variant`, `not_there` ("does not build", "does not boot", or null), `counts` by change, and its `cells`: for
    /// each cell the results `before` (on the reference) and `after`, the `change` (`regressed`, `fixed`,
    /// `fails-otherwise`, `still-broken`, `flaky`, `by-chance`, `no-answer`, `not-compared`, `unchanged`), the
    /// `new_errors` that the kernel says and the reference does not, and the folders of the evidence.
    pub(super) fn results(&self, run: &Run) -> Value {
        let earlier = self.note.earlier.as_ref();
        json!({
            "asked": self.note.asked,
            "kernel": self.note.kernel,
            "earlier": earlier.map(|earlier| json!({"results": earlier.results, "started": earlier.started})),
            "kernels": self.kernels.iter().map(|kernel| self.of_kernel(kernel, run)).collect::<Vec<_>>(),
        })
    }

    fn of_kernel(&self, kernel: &OfKernel, run: &Run) -> Value {
        let cell = |row: &Row| {
            json!({
                "scenario": row.scenario,
                "topology": row.topology,
                "trigger": row.trigger,
                "before": row.state(REFERENCE).words(),
                "after": row.state(KERNEL).words(),
                "change": change(row),
                "new_errors": row.new_errors(KERNEL),
                "evidence_before": self.evidence_before(row, run),
                "evidence": evidence(row, run, KERNEL, &kernel.variant),
            })
        };
        let counts =
            kernel.counts().map(|(change, count)| (json!(change).as_str().unwrap_or_default().to_owned(), count));
        json!({
            "variant": kernel.variant,
            "not_there": kernel.not_there().map(|(what, _)| what),
            "counts": counts.collect::<BTreeMap<_, _>>(),
            "cells": kernel.rows.iter().map(cell).collect::<Vec<_>>(),
        })
    }

    /// How many cells are worse than on the reference, and how many are fixed.
    pub(super) fn worse_and_better(&self) -> (usize, usize) {
        let changes = || self.kernels.iter().flat_map(|kernel| &kernel.rows).map(change);
        let count = |wanted: Change| changes().filter(|change| *change == wanted).count();
        (count(Change::Regressed), count(Change::Fixed))
    }

    /// The exit status: 1 if a cell is worse than on the reference, 2 if that is not known, 0 otherwise. If there are
    /// other cells, cells without a verdict on the reference of an earlier run do not count.
    pub(super) fn exit_code(&self) -> u8 {
        let changes: BTreeSet<_> = self.kernels.iter().flat_map(|kernel| &kernel.rows).map(change).collect();
        if changes.contains(&Change::Regressed) {
            return 1;
        }
        let is_known = !changes.contains(&Change::NoAnswer) && changes.iter().any(|one| *one != Change::NotCompared);
        if is_known { 0 } else { 2 }
    }

    /// The change of a cell of the run, and a text about it. A cell of the reference is unchanged, or has no answer if
    /// another kernel has no answer in this cell.
    pub(super) fn told(&self, id: &CellId) -> (Change, String) {
        let kernel = self.kernels.iter().find(|kernel| kernel.variant == id.variant);
        if let Some((kernel, row)) = kernel.and_then(|kernel| Some((kernel, kernel.row(id)?))) {
            return (change(row), format!("{}: {}", change(row).words(), self.sentence(row, &kernel.variant)));
        }
        let mut others = self.kernels.iter().filter_map(|kernel| kernel.row(id));
        let is_unknown = others.any(|row| change(row) == Change::NoAnswer);
        (if is_unknown { Change::NoAnswer } else { Change::Unchanged }, "the reference".to_owned())
    }

    /// A sentence on what the reference and a kernel do in a cell.
    fn sentence(&self, row: &Row, variant: &str) -> String {
        text::sentence(row, &self.reference(), variant)
    }

    /// The name of the reference in texts. A kernel of this run may have the same name as one of an earlier run.
    pub(super) fn reference(&self) -> String {
        let earlier = if self.note.earlier.is_some() { "the earlier " } else { "" };
        format!("{earlier}{}", self.note.kernel)
    }

    /// The evidence folder of the reference's cell.
    fn evidence_before<'a>(&'a self, row: &Row, run: &'a Run) -> Option<&'a Path> {
        match &self.note.earlier {
            Some(earlier) => row.earlier_cells(earlier).next()?.evidence.as_deref(),
            None => evidence(row, run, REFERENCE, &self.note.kernel),
        }
    }
}

impl OfKernel {
    fn row(&self, id: &CellId) -> Option<&Row> {
        self.rows.iter().find(|row| row.is_of(id))
    }

    /// The number of cells for each change that occurs.
    fn counts(&self) -> impl Iterator<Item = (Change, usize)> {
        let mut changes: Vec<_> = self.rows.iter().map(change).collect();
        changes.sort();
        let mut counts: Vec<(Change, usize)> = Vec::new();
        for change in changes {
            match counts.last_mut() {
                Some((last, count)) if *last == change => *count += 1,
                _ => counts.push((change, 1)),
            }
        }
        counts.into_iter()
    }

    /// `does not build` or `does not boot`, with the reason, if that is the result.
    fn not_there(&self) -> Option<(&'static str, &str)> {
        self.rows.iter().find_map(|row| row.state(KERNEL).not_there())
    }
}

/// The change of a cell. Two more cases count as worse: a kernel that does not build or boot where the reference has a
/// verdict, and a kernel that passes and fails, in a way in which the reference never fails.
fn change(row: &Row) -> Change {
    match row.change(KERNEL) {
        Change::NoAnswer if is_lost(row) => Change::Regressed,
        Change::Flaky if is_new(row) => Change::Regressed,
        other => other,
    }
}

/// Whether the kernel does not build or boot, and the reference has a verdict.
fn is_lost(row: &Row) -> bool {
    row.state(REFERENCE).is_known() && row.state(KERNEL).not_there().is_some()
}

/// Whether a kernel fails, at least sometimes, in a way in which the reference does not fail.
fn is_new(row: &Row) -> bool {
    let [before, after] = row.seen.as_slice() else { return false };
    match (before.state.failure(), after.state.failure()) {
        (Some(one), Some(other)) => !is_same(before, one, after, other),
        (None, Some(_)) => true,
        (_, None) => false,
    }
}

/// The evidence folder of a row's cell on a kernel: of the repeat with the reported failure, if it failed.
fn evidence<'a>(row: &Row, run: &'a Run, at: usize, variant: &'a str) -> Option<&'a Path> {
    let cells = || row.cells(run, variant);
    let told = row.state(at).failure();
    let is_told = |cell: &&RunCell| told.is_some() && failure(&cell.record.verdict) == told;
    cells().find(is_told).or_else(|| cells().next())?.evidence.as_deref()
}

#[cfg(test)]
mod tests;
