//! The report of a run, made only from its evidence: for people, for programs and for CI.

mod against;
mod answer;
mod catalogue;
mod change;
mod compare;
mod coverage;
mod determinism;
mod errors;
mod form;
mod grid;
mod junit;
mod ktap;
pub(crate) mod mail;
mod markdown;
mod outcome;
mod page;
mod results;
mod rows;
mod series;
mod table;
mod terminal;
mod timeline;
mod words;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use kernels::Manifest;

use crate::cell::CellId;
use crate::evidence::{AgainstNote, BisectionNote, EvidenceError, Run, RunCell, SeriesNote, read_run};
use crate::scenario::Scenario;
use crate::verdict::{Expected, Verdict};

use against::Against;
pub use against::{CellChange, Earlier, EarlierError};
pub use catalogue::{Entry, Measured, chance, measured_in, measured_of, page as catalogue_page, updated};
pub use change::Change;
pub use compare::{Disagreement, disagreements};
pub use coverage::{Coverage, CoverageError, FileCoverage, Part, Unknown};
pub use determinism::{Deviation, deviations};
pub use errors::by_message;
pub use form::Form;
use rows::{Column, rows};
pub use series::{SERIES_FORMS, SeriesReport};
pub use terminal::Terminal;
pub use words::explanation;

/// The report of a run.
#[derive(Clone, Debug)]
pub struct Report {
    run: Run,
    against: Option<Against>,
    series: Option<SeriesNote>,
    /// The bisection whose steps the runs are.
    bisection: Option<BisectionNote>,
    /// The folder in which the report is read, if it is not that of the run.
    place: Option<PathBuf>,
    /// The run is a part, and the kernels that its own are compared with may be in other parts.
    awaits_merge: bool,
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

/// A cell on a kernel, without its repetition: scenario, topology, trigger, kernel.
type Changed = (String, String, &'static str, String);

/// The name of the file with the results for programs.
pub const RESULTS: &str = "results.json";

/// The forms of a report. To add one, write its module and add its row here.
pub const FORMS: &[Form<Report>] = &[
    Form { name: "json", file: RESULTS, about: "for programs", render: |report| form::json(&results::render(report)) },
    Form { name: "html", file: "report.html", about: "for people: a page with pictures", render: page::render },
    Form { name: "junit", file: "junit.xml", about: "for the display of a CI system", render: junit::render },
    Form {
        name: "ktap",
        file: "results.ktap",
        about: "for tools that read the results of kernel tests",
        render: ktap::render,
    },
    Form {
        name: "markdown",
        file: "summary.md",
        about: "for the page of a CI job, or a comment",
        render: markdown::render,
    },
];

impl Report {
    /// The report of the run in a folder.
    ///
    /// # Errors
    /// If the folder is not that of a run.
    pub fn of(run: &Path) -> Result<Report, EvidenceError> {
        if let Some(note) = BisectionNote::read(run)? {
            return Report::of_bisection(run, note);
        }
        let mut read = read_run(run)?;
        let note = AgainstNote::read(run).unwrap_or_else(|error| {
            read.missing.push(format!("what the kernels were compared with: {error}"));
            None
        });
        let series = SeriesNote::read_if_any(run).unwrap_or_else(|error| {
            read.missing.push(format!("which patches the kernels have: {error}"));
            None
        });
        let is_part = read.info.part.is_some();
        let (here, elsewhere) = note.into_iter().partition::<Vec<_>, _>(|note| !is_part || note.earlier.is_some());
        let awaits_merge = is_part && (!elsewhere.is_empty() || series.is_some());
        let against = here.into_iter().next().map(|note| Against::of(&read, note));
        Ok(Report { against, series, awaits_merge, ..Report::alone(read) })
    }

    /// Whether the run is a part whose kernels can be compared with others only when all parts are merged.
    pub fn awaits_merge(&self) -> bool {
        self.awaits_merge
    }

    /// The report of several runs as one ([`Run::join`]). It compares nothing with a reference.
    ///
    /// # Errors
    /// If a folder is not that of a run.
    pub fn of_runs(runs: &[PathBuf]) -> Result<Report, EvidenceError> {
        let (first, others) = match runs {
            [run] => return Report::of(run),
            [first, others @ ..] => (first, others),
            [] => return Ok(Report::alone(Run::default())),
        };
        let mut run = read_run(first)?;
        for other in others {
            run = run.join(read_run(other)?);
        }
        Ok(Report::alone(run))
    }

    /// The report of a bisection, whose answer is in a folder. It is read in that folder.
    fn of_bisection(folder: &Path, note: BisectionNote) -> Result<Report, EvidenceError> {
        let mut missing = Vec::new();
        let mut read: Option<Run> = None;
        for run in note.runs() {
            read = match (read_run(run), read) {
                (Ok(run), Some(before)) => Some(before.join(run)),
                (Ok(run), None) => Some(run),
                (Err(error), before) => {
                    missing.push(error.to_string());
                    before
                }
            };
        }
        let mut run = read.unwrap_or_else(|| Run { path: folder.to_owned(), ..Run::default() });
        run.missing.extend(missing);
        Ok(Report { bisection: Some(note), place: Some(folder.to_owned()), ..Report::alone(run) })
    }

    /// A report that compares nothing.
    fn alone(run: Run) -> Report {
        Report { run, against: None, series: None, bisection: None, place: None, awaits_merge: false }
    }

    /// The same report, for a file in this folder: links lead from there to the evidence.
    #[must_use]
    pub fn placed_in(self, folder: &Path) -> Report {
        Report { place: Some(folder.to_owned()), ..self }
    }

    /// The same report of some of its cells only.
    #[must_use]
    pub fn only(mut self, is_wanted: impl Fn(&CellId) -> bool) -> Report {
        self.run.cells.retain(|cell| is_wanted(&cell.record.cell));
        let against = self.against.map(|against| against.again(&self.run));
        Report { against, ..self }
    }

    /// The run.
    pub fn run(&self) -> &Run {
        &self.run
    }

    /// The results for people: first the cells that did not end as expected, then the table with a column for each
    /// variant and a row for each scenario and trigger, then a legend and a summary.
    pub fn table(&self, terminal: Terminal) -> String {
        table::render(self, terminal)
    }

    /// Only the cells that did not end as expected, and the summary.
    pub fn brief(&self) -> String {
        table::brief(self)
    }

    /// What is worse, better and unchanged, compared with a reference, for people; none without a reference.
    pub fn comparison(&self) -> Option<String> {
        self.against.as_ref().map(|against| against.text(&self.run))
    }

    /// How each cell of a kernel differs from the same cell of the reference. Empty without a reference.
    pub fn changes(&self, variant: &str) -> Vec<CellChange> {
        self.against.as_ref().map(|against| against.changes(variant)).unwrap_or_default()
    }

    /// How cells change from one kernel to the next: from patch to patch of a series, or from the reference to each other
    /// kernel. Only changes that a reader must know: regressed, fixed, fails otherwise, flaky.
    fn marked_changes(&self) -> HashMap<Changed, Change> {
        let variants = || grid::grid(self).variants;
        let mut changes: Vec<(Changed, Change)> = Vec::new();
        for variant in variants() {
            let of = |cell: CellChange| ((cell.scenario, cell.topology, cell.trigger, variant.to_owned()), cell.change);
            changes.extend(self.changes(variant).into_iter().map(of));
        }
        if let Some(note) = &self.series {
            let tried = note.tried().map(|(_, step)| step.variant.as_str());
            let columns: Vec<&str> = std::iter::once(note.base.as_str()).chain(tried).collect();
            let kernels: Vec<_> = columns.iter().map(|name| Column::Kernel(name)).collect();
            for row in rows(&self.run, &kernels) {
                let of = |step: usize| {
                    let key = (row.scenario.clone(), row.topology.clone(), row.trigger, columns[step].to_owned());
                    (key, row.change(step))
                };
                changes.extend((1..columns.len()).map(of));
            }
        }
        let is_told = |change: &Change| {
            matches!(change, Change::Regressed | Change::Fixed | Change::FailsOtherwise | Change::Flaky)
        };
        changes.into_iter().filter(|(_, change)| is_told(change)).collect()
    }

    /// A page for each bug of a manifest, with the cells that look for it, and a page that lists them: the names of the
    /// files, and their texts.
    pub fn bug_pages(&self, manifest: &Manifest, scenarios: &[Scenario], measured: &Measured) -> Vec<(String, String)> {
        page::of_bugs(self, manifest, scenarios, measured)
    }

    /// The results for programs.
    pub fn results(&self) -> serde_json::Value {
        results::render(self)
    }

    /// The results for CI, in JUnit's format.
    pub fn junit(&self) -> String {
        junit::render(self)
    }

    /// Writes all [`FORMS`] into the folder in which the report is read: that of the run, if no other was named.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write_files(&self) -> Result<(), EvidenceError> {
        form::write_all(FORMS, self, self.place.as_ref().unwrap_or(&self.run.path))
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
    ///
    /// A part of a plan may have no cells. A part that [awaits its merge](Report::awaits_merge) says only whether each of
    /// its cells has a verdict: 0 or 2.
    pub fn exit_code(&self) -> u8 {
        if let Some(against) = &self.against {
            return against.exit_code();
        }
        let is_part = self.run.info.part.is_some();
        match self.counts() {
            Counts { cells: 0, .. } if is_part => 0,
            Counts { infra: 0, .. } if self.awaits_merge => 0,
            _ if self.awaits_merge => 2,
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
