//! What a run of a series was about (`series.json`): the reports of its patches are drawn from it and from the cells.

use std::path::Path;

use kernels::series::Misfit;
use serde::{Deserialize, Serialize};

use super::{EvidenceError, file};

/// Where it is written, in the folder of the run.
const SERIES: &str = "series.json";
/// The folder of the patches as they were taken from the mails, in that of the run.
pub const PATCHES: &str = "patches";

/// A series, and how far it applies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeriesNote {
    /// Its title.
    pub subject: String,
    /// Its version, from 1.
    pub version: u32,
    /// The kernel without any of its patches.
    pub base: String,
    /// What that is, in a few words.
    pub base_about: String,
    /// Its patches, in their order.
    pub steps: Vec<SeriesStep>,
    /// What was left out of the mails, and what else is to be known. A line each.
    pub notes: Vec<String>,
    /// The options of `run` that stand for these kernels, but for the name of one: for the scripts that repeat a cell.
    #[serde(default)]
    pub options: Vec<String>,
    /// Whether it is to answer for what is broken without it, too: its scenarios were named, so they are what it is about.
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
    /// Who wrote it.
    pub author: String,
    /// The id of its mail.
    pub message_id: Option<String>,
    /// Whether it applies.
    pub applies: Applies,
}

/// Whether a patch applies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Applies {
    /// It does.
    Yes,
    /// It does not.
    No {
        /// What does not fit what.
        why: String,
        /// The lines that it wants, and those that are there.
        lines: Vec<String>,
    },
    /// One before it does not: it was not tried.
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
    /// Those of the file system; among them that the run was not one of a series.
    pub fn read(run: &Path) -> Result<SeriesNote, EvidenceError> {
        let path = run.join(SERIES);
        let missing = || EvidenceError::io("find a run of a series:", &path)(std::io::ErrorKind::NotFound.into());
        file::read_json(&path)?.ok_or_else(missing)
    }

    /// The patches that were tried, with their numbers from 1.
    pub fn tried(&self) -> impl DoubleEndedIterator<Item = (usize, &SeriesStep)> {
        self.steps.iter().enumerate().filter(|(_, step)| step.applies == Applies::Yes).map(|(i, step)| (i + 1, step))
    }
}
