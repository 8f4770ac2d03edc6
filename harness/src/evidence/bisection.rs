//! The answer of a bisection, in a folder of its own (`bisection.json`). The steps are runs in other folders.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{EvidenceError, file};

/// The file with the answer.
const BISECTION: &str = "bisection.json";

/// What was found, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BisectionNote {
    /// The answer in a sentence, without its full stop.
    pub answer: String,
    /// The failure that was looked for.
    pub wanted: String,
    /// The cell that judged: scenario, topology and trigger.
    pub cell: String,
    /// The commits that were judged, in the order in which they were.
    pub steps: Vec<BisectionStep>,
    /// `git bisect log`.
    pub log: String,
}

/// A commit that was judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BisectionStep {
    /// Its short name.
    pub commit: String,
    /// Its title.
    pub subject: String,
    /// How git marks it.
    pub mark: Mark,
    /// Why.
    pub why: String,
    /// Its runs did not agree.
    pub flaky: bool,
    /// All of its runs are of an earlier bisection.
    pub remembered: bool,
    /// It is the answer, or may be.
    pub found: bool,
    /// The folders of its cells, which may be gone.
    pub cells: Vec<PathBuf>,
}

/// How git marks a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mark {
    /// It passes.
    Good,
    /// It fails with the failure that is looked for.
    Bad,
    /// It cannot be judged.
    Skip,
}

impl Mark {
    /// The exit code for `git bisect run`.
    pub fn exit_code(self) -> u8 {
        match self {
            Mark::Good => 0,
            Mark::Bad => 1,
            Mark::Skip => 125,
        }
    }
}

impl BisectionNote {
    /// Writes it into the folder of the answer.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write(&self, folder: &Path) -> Result<(), EvidenceError> {
        file::write_json(&folder.join(BISECTION), self)
    }

    /// Reads it from the folder of an answer; none if the folder is not one.
    ///
    /// # Errors
    /// If it is there and cannot be read.
    pub fn read(folder: &Path) -> Result<Option<BisectionNote>, EvidenceError> {
        file::read_json(&folder.join(BISECTION))
    }

    /// The folders of the runs that judged, each once.
    pub fn runs(&self) -> Vec<&Path> {
        let mut runs = Vec::new();
        for run in self.steps.iter().flat_map(|step| &step.cells).filter_map(|cell| cell.parent()) {
            if !runs.contains(&run) {
                runs.push(run);
            }
        }
        runs
    }
}
