//! What the kernels of a run are compared with (`against.json`): the comparison is drawn from it and from the cells.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{EvidenceError, Run, RunCell, file};
use crate::cell::CellId;
use crate::verdict::Verdict;

/// Where it is written, in the folder of the run.
const AGAINST: &str = "against.json";

/// The reference of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgainstNote {
    /// As it was asked for on the command line.
    pub asked: String,
    /// The name of its kernel.
    pub kernel: String,
    /// What an earlier run says of it; none if it is a kernel of this run.
    pub earlier: Option<EarlierKernel>,
}

/// What an earlier run says of a kernel. It is kept here, so that the comparison outlives that run's files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EarlierKernel {
    /// The file that it was read from.
    pub results: PathBuf,
    /// When that run began, as it says.
    pub started: String,
    /// The bugs that the kernel was known to have, by id; none if nothing was known of it.
    pub bugs: Option<Vec<String>>,
    /// Its cells, without those that came to no verdict.
    pub cells: Vec<EarlierCell>,
}

/// A cell of an earlier run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EarlierCell {
    /// `family::name` of the scenario.
    pub scenario: String,
    /// Name of the topology.
    pub topology: String,
    /// Name of the trigger, or `none`.
    pub trigger: String,
    /// What it came to.
    pub verdict: Verdict,
    /// The error messages of its kernel ([`crate::evidence::CellRecord::errors`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errors: Option<Vec<String>>,
    /// Its folder, which may be gone.
    pub evidence: Option<PathBuf>,
}

impl EarlierKernel {
    /// What a run says of a kernel, from its evidence. With a `key`, only cells on the kernel with this key count: the
    /// kernel may have another content now.
    pub fn of(run: &Run, kernel: &str, key: Option<&str>) -> EarlierKernel {
        let is_of_it = |cell: &&RunCell| {
            cell.record.cell.variant == kernel && key.is_none_or(|key| cell.kernel.as_deref() == Some(key))
        };
        let has_verdict =
            |cell: &&RunCell| matches!(cell.record.verdict, Verdict::Pass | Verdict::Fail(_) | Verdict::Skip(_));
        let cells = run.cells.iter().filter(is_of_it).filter(has_verdict).map(|cell| EarlierCell {
            scenario: cell.record.cell.scenario.clone(),
            topology: cell.record.cell.topology.clone(),
            trigger: cell.record.cell.trigger_name().to_owned(),
            verdict: cell.record.verdict.clone(),
            errors: cell.record.errors.clone(),
            evidence: cell.evidence.clone(),
        });
        let known = run.info.variants.iter().find(|variant| variant.name == kernel);
        EarlierKernel {
            results: run.path.clone(),
            started: run.info.started.clone(),
            bugs: known.map(|variant| variant.bugs.clone()),
            cells: cells.collect(),
        }
    }

    /// Whether it has a verdict on a cell, whatever that cell's kernel and repetition.
    pub fn has(&self, id: &CellId) -> bool {
        self.cells.iter().any(|cell| cell.is_like(id))
    }
}

impl EarlierCell {
    /// Whether it did what another cell does to its kernel.
    pub fn is_like(&self, id: &CellId) -> bool {
        self.scenario == id.scenario && self.topology == id.topology && self.trigger == id.trigger_name()
    }
}

impl AgainstNote {
    /// Writes it into the folder of a run.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write(&self, run: &Path) -> Result<(), EvidenceError> {
        file::write_json(&run.join(AGAINST), self)
    }

    /// Reads it from the folder of a run; none if that run's kernels are compared with nothing.
    ///
    /// # Errors
    /// If it is there and cannot be read.
    pub fn read(run: &Path) -> Result<Option<AgainstNote>, EvidenceError> {
        file::read_json(&run.join(AGAINST))
    }
}
