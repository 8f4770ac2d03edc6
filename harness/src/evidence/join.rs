//! Several runs as one.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::{Run, RunCell, RunInfo};
use crate::cell::CellId;

impl Run {
    /// Its folder, and those of the runs that were added.
    pub fn folders(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(self.path.as_path()).chain(self.others.iter().map(PathBuf::as_path))
    }

    /// Adds another run. A cell that both have counts as repeated: the cells of the other run get the next numbers. A
    /// cell that did not begin in one run is left out if it began in the other.
    #[must_use]
    pub fn join(mut self, other: Run) -> Run {
        self.others.push(other.path);
        self.others.extend(other.others);
        self.missing.extend(other.missing);
        self.info = self.info.with(other.info);
        let begun: HashSet<CellId> = begun(&self.cells).chain(begun(&other.cells)).map(once).collect();
        let counts = |cell: &RunCell| cell.evidence.is_some() || !begun.contains(&once(&cell.record.cell));
        self.cells.retain(counts);
        let mut last: HashMap<CellId, u32> = HashMap::new();
        for cell in &self.cells {
            let repeat = last.entry(once(&cell.record.cell)).or_default();
            *repeat = cell.record.cell.repeat.max(*repeat);
        }
        for mut cell in other.cells.into_iter().filter(counts) {
            let repeat = last.entry(once(&cell.record.cell)).or_default();
            if cell.evidence.is_none() && *repeat > 0 {
                continue;
            }
            *repeat = repeat.saturating_add(1);
            cell.record.cell.repeat = *repeat;
            self.cells.push(cell);
        }
        self
    }
}

/// A cell without the number of its repetition.
fn once(id: &CellId) -> CellId {
    CellId { repeat: 1, ..id.clone() }
}

fn begun(cells: &[RunCell]) -> impl Iterator<Item = &CellId> {
    cells.iter().filter(|cell| cell.evidence.is_some()).map(|cell| &cell.record.cell)
}

impl RunInfo {
    /// The descriptions of two runs as one. Words that differ are joined. Each kernel, scenario and bug is there once.
    #[must_use]
    pub fn with(mut self, other: RunInfo) -> RunInfo {
        for (mine, theirs) in [
            (&mut self.started, other.started),
            (&mut self.harness, other.harness),
            (&mut self.qemu, other.qemu),
            (&mut self.accel, other.accel),
            (&mut self.accel_reason, other.accel_reason),
            (&mut self.clock, other.clock),
        ] {
            if !theirs.is_empty() && !mine.split(APART).any(|word| word == theirs) {
                *mine = if mine.is_empty() { theirs } else { format!("{mine}{APART}{theirs}") };
            }
        }
        self.jobs = self.jobs.max(other.jobs);
        if self.command != other.command {
            self.command.extend(std::iter::once(";".to_owned()).chain(other.command));
        }
        add(&mut self.variants, other.variants, |variant| &variant.name);
        add(&mut self.scenarios, other.scenarios, |scenario| &scenario.name);
        add(&mut self.bugs, other.bugs, |bug| &bug.id);
        self.planned.extend(other.planned);
        self
    }
}

/// What is between two texts that differ.
const APART: &str = "; ";

/// Adds the items whose names are not there yet.
fn add<T>(items: &mut Vec<T>, others: Vec<T>, name: impl Fn(&T) -> &String) {
    let known: HashSet<String> = items.iter().map(|item| name(item).clone()).collect();
    items.extend(others.into_iter().filter(|item| !known.contains(name(item))));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::tests::{id, record, start};
    use crate::verdict::{Expected, Verdict};

    fn run(path: &str, cells: &[(&str, bool)]) -> Run {
        let cell = |(variant, begun): &(&str, bool)| {
            let start = start(id("a::b", None, variant, 1), Expected::Pass);
            let record = record(&start, Verdict::Pass, 1.0);
            RunCell { record, evidence: begun.then(|| path.into()), finished: *begun, kernel: None, own: Vec::new() }
        };
        let info = RunInfo { started: path.to_owned(), qemu: "10.0.2".to_owned(), ..RunInfo::default() };
        Run { path: path.into(), info, cells: cells.iter().map(cell).collect(), ..Run::default() }
    }

    #[test]
    fn cells_that_both_have_are_repeats_and_those_that_did_not_begin_give_way() {
        let one = run("/one", &[("stock", true), ("mine", false), ("other", false)]);
        let two = run("/two", &[("stock", true), ("mine", true), ("other", false)]);
        for joined in [one.clone().join(two.clone()), two.join(one)] {
            let mut cells: Vec<_> = joined.cells.iter().map(|cell| cell.record.cell.clone()).collect();
            cells.sort();
            let words: Vec<_> = cells.iter().map(|id| format!("{} {}", id.variant, id.repeat)).collect();
            assert_eq!(words, ["mine 1", "other 1", "stock 1", "stock 2"]);
            assert_eq!((joined.others.len(), joined.info.qemu.as_str()), (1, "10.0.2"));
        }
    }
}
