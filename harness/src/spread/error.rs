//! Why parts do not become one run.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::evidence::EvidenceError;
use crate::text::counted;

/// Parts do not become one run.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// A path has no run in it.
    #[error("there is no run in {}: a part is the folder of a run, a folder with runs in it, or an archive of either", .0.display())]
    NoRun(PathBuf),
    /// An archive cannot be unpacked.
    #[error("cannot unpack {}: {cause}; archives are .tar, .tar.gz, .tgz, .tar.zst and .zip", path.display())]
    Archive {
        /// The archive.
        path: PathBuf,
        /// The cause.
        cause: io::Error,
    },
    /// The parts are not those of one plan, each once.
    #[error("these are not the parts of one plan, each once:{}", lines(.0))]
    Faults(Vec<Fault>),
    /// Evidence cannot be read or written.
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
}

fn lines(faults: &[Fault]) -> String {
    faults.iter().map(|fault| format!("\n  {fault}")).collect()
}

/// What is wrong with the parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The run in this folder ran a whole plan.
    Whole(PathBuf),
    /// The plan of a run is not the plan of the first run.
    OtherPlan {
        /// Its folder.
        run: PathBuf,
        /// Its part, as `part 2 of 4`.
        part: String,
        /// The digest of its plan.
        digest: String,
        /// The digest of the plan of the first run.
        first: String,
    },
    /// A part is there several times.
    Twice {
        /// Its number.
        part: u32,
        /// The folders of its runs.
        runs: Vec<PathBuf>,
    },
    /// A cell is there several times, or is not a cell of the part that ran it.
    Cell {
        /// Its name.
        cell: String,
        /// The folder of the run that has it.
        run: PathBuf,
        /// The number of that run's part.
        part: u32,
    },
    /// A part is not there.
    Missing {
        /// Its number.
        part: u32,
        /// How many parts there are.
        parts: u32,
        /// How many cells it has.
        cells: usize,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Whole(run) => write!(f, "{} is no part: it was run without --partition", run.display()),
            Fault::OtherPlan { run, part, digest, first } => {
                write!(f, "{} is {part} of another plan: {digest}, and not {first}", run.display())
            }
            Fault::Twice { part, runs } => {
                let runs: Vec<_> = runs.iter().map(|run| run.display().to_string()).collect();
                write!(f, "part {part} is there {} times, so its cells are: {}", runs.len(), runs.join(", "))
            }
            Fault::Cell { cell, run, part } => {
                write!(f, "{} has {cell}, which is no cell of part {part}", run.display())
            }
            Fault::Missing { part, parts, cells } => {
                let cells = counted(*cells, "cell", "cells");
                write!(f, "part {part} of {parts} is missing: {cells} (--partial merges the others)")
            }
        }
    }
}
