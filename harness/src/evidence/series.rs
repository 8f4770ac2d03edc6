//! The description of a run of a series (`series.json`). Reports on its patches are made from it and from the cells.

use std::path::Path;

use kernels::series::{Misfit, Version};
use serde::{Deserialize, Serialize};

use super::{EvidenceError, file};

/// The file with the description of a series, in the folder of the run.
const SERIES: &str = "series.json";
/// The folder of the patches that were extracted from the mails, in the folder of the run.
pub const PATCHES: &str = "patches";

/// A series, and how far it applies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeriesNote {
    /// Its title.
    pub subject: String,
    /// Its version.
    pub version: Version,
    /// The name of the kernel without any of its patches.
    pub base: String,
    /// A short description of that kernel.
    pub base_about: String,
    /// Why this base was taken, and what became of the series on the others. A line each. Empty if the user named the
    /// base.
    #[serde(default)]
    pub bases: Vec<String>,
    /// Its patches, in their order.
    pub steps: Vec<SeriesStep>,
    /// Which parts of the mails were left out, and other notes for the reader. A line each.
    pub notes: Vec<String>,
    /// The options of `run` that select these kernels, without the name of one kernel. Scripts that repeat a cell use
    /// them.
    #[serde(default)]
    pub options: Vec<String>,
    /// Whether failures that the base has too count against the series. They do if the user named the scenarios,
    /// because then the series is about these scenarios.
    #[serde(default)]
    pub answers_for_base: bool,
}

/// One patch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeriesStep {
    /// The kernel with this patch and all before it.
    pub variant: String,
    /// Its title.
    pub subject: String,
    /// Its author.
    pub author: String,
    /// The Message-ID of its mail.
    pub message_id: Option<String>,
    /// Whether it applies.
    pub applies: Applies,
}

/// Whether a patch applies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Applies {
    /// It applies.
    Yes,
    /// The base has it already, so no kernel is built for it.
    Already {
        /// The base.
        base: String,
    },
    /// It does not apply.
    No {
        /// Why it does not apply.
        why: String,
        /// The lines that the patch expects, and those that the tree has at that place.
        lines: Vec<String>,
    },
    /// An earlier patch does not apply, so this one was not tried.
    NotTried,
}

impl From<Misfit> for Applies {
    fn from(misfit: Misfit) -> Applies {
        Applies::No { why: misfit.why, lines: misfit.lines }
    }
}

impl SeriesNote {
    /// Writes it into the folder of a run.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write(&self, run: &Path) -> Result<(), EvidenceError> {
        file::write_json(&run.join(SERIES), self)
    }

    /// Reads it from the folder of a run.
    ///
    /// # Errors
    /// Those of the file system. This includes that the run was not a run of a series.
    pub fn read(run: &Path) -> Result<SeriesNote, EvidenceError> {
        let path = run.join(SERIES);
        let missing = || EvidenceError::io("find a run of a series:", &path)(std::io::ErrorKind::NotFound.into());
        SeriesNote::read_if_any(run)?.ok_or_else(missing)
    }

    /// The same; none if the run is not that of a series.
    ///
    /// # Errors
    /// If it is there and cannot be read.
    pub fn read_if_any(run: &Path) -> Result<Option<SeriesNote>, EvidenceError> {
        file::read_json(&run.join(SERIES))
    }

    /// Whether each patch applies, or is in the base already.
    pub fn is_whole(&self) -> bool {
        self.steps.iter().all(|step| matches!(step.applies, Applies::Yes | Applies::Already { .. }))
    }

    /// The patches that apply, with their numbers from 1.
    pub fn tried(&self) -> impl DoubleEndedIterator<Item = (usize, &SeriesStep)> {
        self.steps.iter().enumerate().filter(|(_, step)| step.applies == Applies::Yes).map(|(i, step)| (i + 1, step))
    }
}
