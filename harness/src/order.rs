//! In which order cells begin: the longest first, so that none is left running alone at the end.

use std::collections::HashMap;
use std::path::Path;

use crate::cell::{CellId, PlannedCell};
use crate::evidence::read_run;

/// How long each cell took when it was last run, as far as a run tells.
#[derive(Clone, Debug, Default)]
pub struct Times(HashMap<CellId, f64>);

impl Times {
    /// From the folder of an earlier run. One that is not there, or cannot be read, tells nothing.
    pub fn of(run: &Path) -> Times {
        let cells = read_run(run).map(|run| run.cells).unwrap_or_default();
        let finished = cells.into_iter().filter(|cell| cell.finished);
        Times(finished.map(|cell| (any_repeat(&cell.record.cell), cell.record.seconds)).collect())
    }

    /// Cells in the order in which to begin them: those of which nothing is known as planned, then the others, the longest
    /// first.
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
    fn the_longest_come_first_after_those_of_which_nothing_is_known() {
        let cells: Vec<_> = [("a", 1), ("b", 1), ("c", 1), ("c", 2), ("d", 1)].map(|(name, n)| cell(name, n)).into();
        let times = [("a", 1.0), ("c", 3.0), ("d", 2.0)].map(|(name, seconds)| (cell(name, 1).id, seconds));
        let order = |times: Times| -> Vec<_> {
            times.order(&cells).iter().map(|cell| format!("{}{}", cell.id.variant, cell.id.repeat)).collect()
        };
        assert_eq!(order(Times(times.into())), ["b1", "c1", "c2", "d1", "a1"]);
        assert_eq!(order(Times::of(Path::new("/nonexistent"))), ["a1", "b1", "c1", "c2", "d1"]);
    }
}
