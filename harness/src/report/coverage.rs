//! What the cells of runs executed of their kernels, by source file, and what none of them did.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::Serialize;

use crate::coverage::{Lines, Source, Sources};
use crate::evidence::{CellCoverage, EvidenceError, Run};
use crate::text::counted;

/// The coverage of one or more runs.
#[derive(Clone, Debug, Serialize)]
pub struct Coverage {
    /// The folders of the runs.
    pub runs: Vec<PathBuf>,
    /// The kernels, by name.
    pub kernels: BTreeSet<String>,
    /// How many cells are counted.
    pub cells: usize,
    /// The cells that are not counted.
    pub unknown: Vec<Unknown>,
    /// The source files, by path.
    pub files: Vec<FileCoverage>,
}

/// A cell of which it is not known what it executed.
#[derive(Clone, Debug, Serialize)]
pub struct Unknown {
    /// Its name.
    pub cell: String,
    /// The reason.
    pub why: String,
}

/// The coverage of a source file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileCoverage {
    /// Its path in the source.
    pub file: String,
    /// What a cell executed.
    pub executed: Part,
    /// What no cell executed.
    pub never: Part,
}

/// A part of a source file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Part {
    /// Functions.
    pub functions: BTreeSet<String>,
    /// Lines. None if there are several kernels: the same line may have another number in each.
    pub lines: Option<Lines>,
}

/// There is no coverage.
#[derive(Debug, thiserror::Error)]
pub enum CoverageError {
    /// A file cannot be read.
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
    /// A run was made without it.
    #[error(
        "{} was made without coverage; `cargo xtask run-matrix --coverage`, with the other options of that run, makes one with it",
        .0.display()
    )]
    Without(PathBuf),
    /// No cell is on the kernel that was asked for.
    #[error("no cell is on kernel `{asked}`; there are cells on {}", has.join(", "))]
    Kernel {
        /// The kernel.
        asked: String,
        /// The kernels of the cells.
        has: Vec<String>,
    },
    /// It is known of no cell.
    #[error("it is not known of any cell what it executed{}", first.as_ref().map(|one| format!(". {}: {}", one.cell, one.why)).unwrap_or_default())]
    Unknown {
        /// The first cell, with the reason.
        first: Option<Unknown>,
    },
}

impl Coverage {
    /// The coverage of these runs, of all kernels or of one.
    ///
    /// # Errors
    /// [`CoverageError`].
    pub fn of(runs: &[Run], kernel: Option<&str>) -> Result<Coverage, CoverageError> {
        let mut sum = Sum::default();
        for run in runs {
            let coverage = run.coverage()?.ok_or_else(|| CoverageError::Without(run.path.clone()))?;
            for (cell, coverage_of_cell) in coverage.cells {
                let id = &cell.record.cell;
                sum.seen.insert(id.variant.clone());
                if kernel.is_some_and(|kernel| kernel != id.variant) {
                    continue;
                }
                let all = cell.kernel.and_then(|key| Some((coverage.kernels.get(&key)?, key)));
                match (coverage_of_cell, all) {
                    (CellCoverage::Executed(executed), Some((all, key))) => {
                        sum.kernels.insert(id.variant.clone());
                        sum.keys.insert(key);
                        sum.cells += 1;
                        sum.executed.add(&executed);
                        sum.all.add(all);
                    }
                    (CellCoverage::Unknown(why), _) => sum.unknown.push(Unknown { cell: id.to_string(), why }),
                    (CellCoverage::Executed(_), None) => {
                        let why = "its kernel is not recorded".to_owned();
                        sum.unknown.push(Unknown { cell: id.to_string(), why });
                    }
                }
            }
        }
        sum.conclude(runs, kernel)
    }

    /// A paragraph for each file: how much of it was executed, and the functions that were not. With `lines`, also the
    /// lines that were not.
    pub fn text(&self, lines: bool) -> String {
        let width = self.files.iter().map(|file| file.file.len()).max().unwrap_or_default();
        let mut text: String = self.files.iter().map(|file| file.text(width, lines)).collect();
        text += &format!("\n{}\n", self.total());
        let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for unknown in &self.unknown {
            reasons.entry(&unknown.why).or_default().push(&unknown.cell);
        }
        for (why, cells) in reasons {
            let (first, more) = (cells[0], cells.len() - 1);
            let others = if more > 0 { format!(" and {more} more") } else { String::new() };
            text += &format!("not counted: {first}{others}: {why}\n");
        }
        text
    }

    /// The sum of all files in one line.
    pub fn total(&self) -> String {
        let sum = |count: fn(&Part) -> usize| -> (usize, usize) {
            self.files.iter().fold((0, 0), |(some, all), file| {
                (some + count(&file.executed), all + count(&file.executed) + count(&file.never))
            })
        };
        let (functions, lines) = (sum(|part| part.functions.len()), sum(Part::line_count));
        let lines = if lines.1 > 0 { format!(" and {} of {} lines", lines.0, lines.1) } else { String::new() };
        let kernels: Vec<_> = self.kernels.iter().map(String::as_str).collect();
        let cells = counted(self.cells, "cell", "cells");
        let (some, all) = functions;
        format!("{cells} on {} executed {some} of {all} functions{lines}", kernels.join(", "))
    }
}

/// The sum of cells so far.
#[derive(Default)]
struct Sum {
    /// The kernels of all cells, also of those that are not counted.
    seen: BTreeSet<String>,
    kernels: BTreeSet<String>,
    keys: BTreeSet<String>,
    cells: usize,
    unknown: Vec<Unknown>,
    executed: Sources,
    all: Sources,
}

impl Sum {
    fn conclude(self, runs: &[Run], kernel: Option<&str>) -> Result<Coverage, CoverageError> {
        if let Some(asked) = kernel.filter(|kernel| !self.seen.contains(*kernel)) {
            return Err(CoverageError::Kernel { asked: asked.to_owned(), has: self.seen.into_iter().collect() });
        }
        if self.cells == 0 {
            return Err(CoverageError::Unknown { first: self.unknown.into_iter().next() });
        }
        let nothing = Source::default();
        let has_lines = self.keys.len() == 1;
        let file = |(path, all): (&String, &Source)| {
            let executed = self.executed.0.get(path).unwrap_or(&nothing);
            let lines = |lines: Lines| has_lines.then_some(lines);
            FileCoverage {
                file: path.clone(),
                executed: Part { functions: executed.functions.clone(), lines: lines(executed.lines.clone()) },
                never: Part {
                    functions: all.functions.difference(&executed.functions).cloned().collect(),
                    lines: lines(all.lines.without(&executed.lines)),
                },
            }
        };
        Ok(Coverage {
            runs: runs.iter().map(|run| run.path.clone()).collect(),
            files: self.all.0.iter().map(file).collect(),
            kernels: self.kernels,
            cells: self.cells,
            unknown: self.unknown,
        })
    }
}

impl Part {
    fn line_count(&self) -> usize {
        self.lines.as_ref().map_or(0, Lines::len)
    }
}

impl FileCoverage {
    fn text(&self, width: usize, with_lines: bool) -> String {
        let (executed, never) = (&self.executed, &self.never);
        let count = |some: usize, rest: usize| format!("{some:>4} of {:>4}", some + rest);
        let functions = count(executed.functions.len(), never.functions.len());
        let lines = match (&executed.lines, &never.lines) {
            (Some(some), Some(rest)) => format!("  {} lines", count(some.len(), rest.len())),
            _ => String::new(),
        };
        let mut text = format!("{:width$}  {functions} functions{lines}\n", self.file);
        if !never.functions.is_empty() {
            let names: Vec<_> = never.functions.iter().map(String::as_str).collect();
            text += &wrapped("never: ", &names.join(", "));
        }
        if let Some(lines) = never.lines.as_ref().filter(|lines| with_lines && !lines.is_empty()) {
            text += &wrapped("never, lines: ", &lines.to_string().replace(',', ", "));
        }
        text
    }
}

/// Words on lines of the width of a terminal.
fn wrapped(title: &str, words: &str) -> String {
    const WIDTH: usize = 100;
    let first = format!("    {title}");
    let options = textwrap::Options::new(WIDTH)
        .initial_indent(&first)
        .subsequent_indent("        ")
        .word_splitter(textwrap::WordSplitter::NoHyphenation)
        .word_separator(textwrap::WordSeparator::AsciiSpace)
        .break_words(false);
    textwrap::fill(words, options) + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::tests::{id, record, start};
    use crate::evidence::{KernelNote, RunDir, RunInfo, read_run};
    use crate::verdict::{Expected, Verdict};

    const IOV: &str = r#"{"drivers/pci/iov.c":{"functions":["sriov_enable","sriov_numvfs_store"],"lines":"10-13"}}"#;
    const KERNEL: &str = r#"{
        "drivers/pci/iov.c":{"functions":["sriov_enable","sriov_numvfs_store","pci_iov_vf_id"],"lines":"10-19"},
        "drivers/vfio/pci/vfio_pci_rdwr.c":{"functions":["vfio_pci_bar_rw"],"lines":"7"}}"#;

    fn sources(json: &str) -> Sources {
        serde_json::from_str(json).unwrap()
    }

    fn executed(json: &str) -> CellCoverage {
        CellCoverage::Executed(sources(json))
    }

    /// A run with these cells, each with its kernel, whose key is the same.
    fn run(cells: &[(&str, &str, CellCoverage)]) -> (tempfile::TempDir, Run) {
        let out = tempfile::tempdir().unwrap();
        let run = RunDir::create(out.path(), RunInfo::default()).unwrap();
        run.begin_coverage().unwrap();
        for (scenario, kernel, coverage) in cells {
            let mut start = start(id(scenario, None, kernel, 1), Expected::Pass);
            start.kernel = Some(KernelNote { key: (*kernel).to_owned(), release: "6.12.117".to_owned() });
            run.write_kernel_coverage(kernel, &sources(KERNEL)).unwrap();
            let cell = run.cell(&start).unwrap();
            cell.write_coverage(coverage).unwrap();
            cell.finish(&record(&start, Verdict::Pass, 1.0)).unwrap();
        }
        let read = read_run(run.path()).unwrap();
        (out, read)
    }

    #[test]
    fn each_file_is_shown_with_what_no_cell_executed() {
        let more = r#"{"drivers/pci/iov.c":{"functions":["sriov_enable"],"lines":"15"}}"#;
        let elsewhere = || CellCoverage::Unknown("the kernel was built elsewhere".to_owned());
        let cells = [
            ("a::one", "stock", executed(IOV)),
            ("a::two", "stock", executed(more)),
            ("a::one", "deb", elsewhere()),
            ("a::two", "deb", elsewhere()),
        ];
        let (_out, run) = run(&cells);
        let coverage = Coverage::of(std::slice::from_ref(&run), None).unwrap();
        insta::assert_snapshot!(coverage.text(true), @r"
        drivers/pci/iov.c                    2 of    3 functions     5 of   10 lines
            never: pci_iov_vf_id
            never, lines: 14, 16-19
        drivers/vfio/pci/vfio_pci_rdwr.c     0 of    1 functions     0 of    1 lines
            never: vfio_pci_bar_rw
            never, lines: 7

        2 cells on stock executed 2 of 4 functions and 5 of 11 lines
        not counted: a::one::igb::none::deb and 1 more: the kernel was built elsewhere
        ");
        let file = &serde_json::to_value(&coverage).unwrap()["files"][0];
        assert_eq!(file["never"], serde_json::json!({"functions": ["pci_iov_vf_id"], "lines": "14,16-19"}));
    }

    #[test]
    fn lines_of_different_kernels_are_not_added_up() {
        let (_out, run) = run(&[("a::one", "stock", executed(IOV)), ("a::one", "fixed", executed("{}"))]);
        let of = |kernel| Coverage::of(std::slice::from_ref(&run), kernel).map(|coverage| coverage.text(true));
        insta::assert_snapshot!(of(None).unwrap(), @r"
        drivers/pci/iov.c                    2 of    3 functions
            never: pci_iov_vf_id
        drivers/vfio/pci/vfio_pci_rdwr.c     0 of    1 functions
            never: vfio_pci_bar_rw

        2 cells on fixed, stock executed 2 of 4 functions
        ");
        insta::assert_snapshot!(of(Some("fixed")).unwrap(), @r"
        drivers/pci/iov.c                    0 of    3 functions     0 of   10 lines
            never: pci_iov_vf_id, sriov_enable, sriov_numvfs_store
            never, lines: 10-19
        drivers/vfio/pci/vfio_pci_rdwr.c     0 of    1 functions     0 of    1 lines
            never: vfio_pci_bar_rw
            never, lines: 7

        1 cell on fixed executed 0 of 4 functions and 0 of 11 lines
        ");
        insta::assert_snapshot!(of(Some("other")).unwrap_err(), @"no cell is on kernel `other`; there are cells on fixed, stock");
    }

    #[test]
    fn a_run_without_coverage_is_refused_with_the_way_to_get_it() {
        let out = tempfile::tempdir().unwrap();
        let plain = RunDir::create(out.path(), RunInfo::default()).unwrap();
        let plain = read_run(plain.path()).unwrap();
        let error = Coverage::of(&[plain], None).unwrap_err().to_string();
        assert!(error.contains(" was made without coverage; `cargo xtask run-matrix --coverage`"), "{error}");
        let (_out, skipped) = run(&[("a::one", "stock", CellCoverage::Unknown("no guest was started".to_owned()))]);
        insta::assert_snapshot!(Coverage::of(&[skipped], None).unwrap_err(), @"it is not known of any cell what it executed. a::one::igb::none::stock: no guest was started");
    }
}
