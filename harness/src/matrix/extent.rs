//! What a run covers and about how long it takes. The estimate is printed before the run begins.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use crate::cell::PlannedCell;
use crate::evidence::LATEST;
use crate::matrix::Request;
use crate::matrix::order::Times;
use crate::matrix::schedule::Budget;
use crate::text::counted;

/// What a run covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The number of cells, with repetitions.
    pub cells: usize,
    /// The number of scenarios.
    pub scenarios: usize,
    /// The number of kernels.
    pub kernels: usize,
    /// The number of cells of these scenarios and triggers if every kernel is selected.
    pub every: usize,
    /// The number of kernels that must be built first.
    pub unbuilt: usize,
    /// About how long the cells take, without the builds.
    pub takes: Duration,
}

impl Extent {
    /// The extent of a request, out of `every` cells. The estimate of the time uses the last run in the same folder.
    pub fn of(request: &Request, every: usize, is_built: impl Fn(&str) -> bool) -> Extent {
        let jobs = Budget::of_host(request.jobs).cells();
        Extent::of_cells(&request.cells, every, jobs, &request.out, is_built)
    }

    fn of_cells(
        cells: &[PlannedCell],
        every: usize,
        jobs: usize,
        out: &Path,
        is_built: impl Fn(&str) -> bool,
    ) -> Extent {
        let kernels: BTreeSet<_> = cells.iter().map(|cell| cell.id.variant.as_str()).collect();
        let scenarios: BTreeSet<_> = cells.iter().map(|cell| cell.id.scenario.as_str()).collect();
        Extent {
            cells: cells.len(),
            scenarios: scenarios.len(),
            kernels: kernels.len(),
            every,
            unbuilt: kernels.iter().filter(|kernel| !is_built(kernel)).count(),
            takes: Times::of(&out.join(LATEST)).estimate(cells, jobs),
        }
    }
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scenarios = counted(self.scenarios, "scenario", "scenarios");
        write!(f, "{scenarios} on {}: ", counted(self.kernels, "kernel", "kernels"))?;
        if self.every > self.cells {
            write!(f, "{} of {} (--all runs them all)", self.cells, counted(self.every, "cell", "cells"))?;
        } else {
            write!(f, "{}", counted(self.cells, "cell", "cells"))?;
        }
        let seconds = self.takes.as_secs().max(1);
        match seconds {
            ..100 => write!(f, ", about {seconds} s")?,
            _ => write!(f, ", about {} min", seconds.div_ceil(60))?,
        }
        match self.unbuilt {
            0 => Ok(()),
            more => write!(f, ", after building {}", counted(more, "kernel", "kernels")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cell::CellId;
    use crate::verdict::Expected;

    fn cell(scenario: &str, variant: &str) -> PlannedCell {
        let id = CellId {
            scenario: scenario.to_owned(),
            topology: "igb".to_owned(),
            trigger: None,
            variant: variant.to_owned(),
            repeat: 1,
        };
        PlannedCell { id, expected: Expected::Pass }
    }

    #[test]
    fn the_extent_is_one_line() {
        let cells = [cell("a", "stock"), cell("b", "stock"), cell("b", "fixed")];
        let said = |cells: &[PlannedCell], every, jobs, built: fn(&str) -> bool| {
            Extent::of_cells(cells, every, jobs, Path::new("/nonexistent"), built).to_string()
        };
        insta::assert_snapshot!(said(&cells, 3, 1, |_| true), @"2 scenarios on 2 kernels: 3 cells, about 30 s");
        insta::assert_snapshot!(said(&cells, 9, 3, |name| name == "stock"), @"2 scenarios on 2 kernels: 3 of 9 cells (--all runs them all), about 10 s, after building 1 kernel");
        insta::assert_snapshot!(said(&vec![cell("a", "stock"); 12], 12, 1, |_| false), @"1 scenario on 1 kernel: 12 cells, about 2 min, after building 1 kernel");
    }
}
