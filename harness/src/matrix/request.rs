//! What is asked of a run, and how a run fails as a whole.

use std::path::PathBuf;

use super::care::Care;
use crate::cell::PlannedCell;
use crate::evidence::{EvidenceError, Share};
use crate::host::accel::Choice;
use crate::host::plugin::PluginError;
use crate::host::{Check, clock};
use crate::lab::LabError;

/// What to run, and how.
#[derive(Clone, Debug)]
pub struct Request {
    /// The cells.
    pub cells: Vec<PlannedCell>,
    /// The part of a plan that these cells are. None if they are all.
    pub share: Option<Share>,
    /// How many cells run at a time; none for as many as cores and memory allow.
    pub jobs: Option<usize>,
    /// Stop at the first unexpected cell.
    pub fail_fast: bool,
    /// The accelerator.
    pub accel: Choice,
    /// The clock of the guests.
    pub clock: clock::Choice,
    /// Start cells from snapshots of booted guests.
    pub snapshots: bool,
    /// What is done with each guest beside its scenario.
    pub care: Care,
    /// Run cells with which the version of QEMU is known to fail.
    pub despite_qemu: bool,
    /// The folder for the folders of runs.
    pub out: PathBuf,
    /// The command line, for the record.
    pub command: Vec<String>,
}

/// A run failed.
#[derive(Debug, thiserror::Error)]
pub enum MatrixError {
    /// This machine cannot run guests.
    #[error("this machine cannot run guests; `cargo xtask doctor` checks everything\n{}", lines(.0))]
    Machine(Vec<Check>),
    /// Its kernels, its guest image or another part could not be made.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// QEMU does not take the plugin that the run needs.
    #[error(transparent)]
    Plugin(#[from] PluginError),
    /// Its evidence could not be written.
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
}

fn lines(checks: &[Check]) -> String {
    checks.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
