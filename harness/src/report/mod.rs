//! The report of a run, made only from its evidence: for people, for programs and for CI.

mod against;
mod catalogue;
mod change;
mod compare;
mod coverage;
mod determinism;
mod errors;
mod form;
mod junit;
pub(crate) mod mail;
mod results;
mod rows;
mod series;
mod table;
mod terminal;
mod words;

use std::path::Path;

use crate::evidence::{AgainstNote, EvidenceError, Run, RunCell, read_run};
use crate::verdict::{Expected, Verdict};

use against::Against;
pub use against::{CellChange, Earlier, EarlierError};
pub use catalogue::{Entry, Measured, chance, measured_in, measured_of, page, updated};
pub use change::Change;
pub use compare::{Disagreement, disagreements};
pub use coverage::{Coverage, CoverageError, FileCoverage, Part, Unknown};
pub use determinism::{Deviation, deviations};
pub use errors::by_message;
pub use form::Form;
pub use series::{SERIES_FORMS, SeriesReport};
pub use terminal::Terminal;

/// The report of a run.
#[derive(Clone, Debug)]
pub struct Report {
    run: Run,
    against: Option<Against>,
}

/// The number of cells by result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All cells.
    pub cells: usize,
    /// Cells that ended as expected.
    pub as_expected: usize,
    /// Of these, cells whose kernel has a random bug that did not reproduce.
    pub missed: usize,
    /// Cells with an unexpected verdict on their kernel, or whose kernel did not build or boot.
    pub unexpected: usize,
    /// Of the cells as expected, those of the user's own kernels: they passed.
    pub own_passed: usize,
    /// Of the unexpected cells, those of the user's own kernels: they failed.
    pub own_failed: usize,
    /// Cells without a verdict because the harness or the test bed failed.
    pub infra: usize,
}

/// The name of the file with the results for programs.
pub const RESULTS: &str = "results.json";

/// The forms of a report. To add one, write its module and add its row here.
pub const FORMS: &[Form<Report>] = &[
    Form { file: RESULTS, about: "for programs", render: |report| form::json(&results::render(report)) },
    Form { file: "junit.xml", about: "for the display of a CI system", render: junit::render },
];

impl Report {
    /// The report of the run in a folder.
    ///
    /// # Errors
    /// If the folder is not that of a run.
    pub fn of(run: &Path) -> Result<Report, EvidenceError> {
        let note = AgainstNote::read(run)?;
        let run = read_run(run)?;
        let against = note.map(|note| Against::of(&run, note));
        Ok(Report { run, against })
    }

    /// The run.
    pub fn run(&self) -> &Run {
        &self.run
    }

    /// The table for people: a column for each variant, a row for each scenario and trigger. A legend, the cells that
    /// did not end as expected, and a summary follow.
    pub fn table(&self, terminal: Terminal) -> String {
        table::render(self, terminal)
    }

    /// What is worse, better and unchanged, compared with a reference, for people; none without a reference.
    pub fn comparison(&self) -> Option<String> {
        self.against.as_ref().map(|against| against.text(&self.run))
    }

    /// How each cell of a kernel differs from the same cell of the reference. Empty without a reference.
    pub fn changes(&self, variant: &str) -> Vec<CellChange> {
        self.against.as_ref().map(|against| against.changes(variant)).unwrap_or_default()
    }

    /// The results for programs.
    pub fn results(&self) -> serde_json::Value {
        results::render(self)
    }

    /// The results for CI, in JUnit's format.
    pub fn junit(&self) -> String {
        junit::render(self)
    }

    /// Writes all [`FORMS`] into the folder of the run.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write_files(&self) -> Result<(), EvidenceError> {
        form::write_all(FORMS, self, &self.run.path)
    }

    /// The number of cells by result.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts { cells: self.run.cells.len(), ..Counts::default() };
        for cell in &self.run.cells {
            counts.missed += usize::from(cell.record.is_missed());
            match cell.record.verdict {
                Verdict::Infra(_) => counts.infra += 1,
                _ => {
                    let (as_expected, own) = (cell.record.is_as_expected(), cell.record.expected == Expected::None);
                    counts.as_expected += usize::from(as_expected);
                    counts.unexpected += usize::from(!as_expected);
                    counts.own_passed += usize::from(as_expected && own);
                    counts.own_failed += usize::from(!as_expected && own);
                }
            }
        }
        counts
    }

    /// The exit status of a run:
    /// - 0 if all cells ended as expected,
    /// - 1 if a verdict on a kernel is unexpected, or a kernel did not build or boot,
    /// - 2 if only the test bed failed, or if there are no cells.
    ///
    /// With a reference: 0 if no cell is worse than on the reference, 1 if one is, 2 if that is not known.
    pub fn exit_code(&self) -> u8 {
        if let Some(against) = &self.against {
            return against.exit_code();
        }
        match self.counts() {
            Counts { unexpected: 1.., .. } => 1,
            Counts { infra: 1.., .. } | Counts { cells: 0, .. } => 2,
            _ => 0,
        }
    }

    fn unexpected(&self) -> impl Iterator<Item = &RunCell> {
        self.run.cells.iter().filter(|cell| !cell.record.is_as_expected())
    }
}

#[cfg(test)]
mod tests;
