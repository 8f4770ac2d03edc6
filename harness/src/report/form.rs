//! The forms in which a report is kept in the folder of its run.

use std::path::Path;

use crate::evidence::{EvidenceError, write_whole};

/// A form of a report of type `R`: one file.
#[derive(Clone, Copy, Debug)]
pub struct Form<R> {
    /// Its name on the command line.
    pub name: &'static str,
    /// The name of the file.
    pub file: &'static str,
    /// What it is for: `for programs`.
    pub about: &'static str,
    /// The content of the file.
    pub render: fn(&R) -> String,
}

/// Writes a report in all these forms into the folder of its run.
pub(super) fn write_all<R>(forms: &[Form<R>], report: &R, run: &Path) -> Result<(), EvidenceError> {
    forms.iter().try_for_each(|form| write_whole(&run.join(form.file), (form.render)(report).as_bytes()))
}

/// JSON as it is written to a file.
pub(super) fn json(value: &serde_json::Value) -> String {
    format!("{value:#}\n")
}
