//! What a run tells while it goes on. How it is shown is the business of whoever shows it.

use std::time::Duration;

use kernels::BuildEvent;

use crate::host::accel::Decision;
use crate::verdict::Verdict;

/// Something happened.
#[derive(Debug)]
pub enum Event<'a> {
    /// A kernel's build got somewhere.
    Build {
        /// The variant.
        variant: &'a str,
        /// Where it got.
        event: BuildEvent,
    },
    /// A kernel could not be built.
    BuildFailed {
        /// The variant.
        variant: &'a str,
        /// Why.
        why: &'a str,
    },
    /// The guest image is being built; what cargo says.
    Image {
        /// A line.
        line: &'a str,
    },
    /// A guest is booted under KVM to see whether that works.
    TryingKvm,
    /// The accelerator is known.
    Accelerator(&'a Decision),
    /// Cells can begin, as soon as their kernels are there; this many follow.
    Cells {
        /// How many.
        count: usize,
        /// How many at a time, when no kernel is being built any more.
        jobs: usize,
        /// Where their evidence goes.
        evidence: &'a std::path::Path,
    },
    /// A cell begins.
    CellStarted {
        /// Its name.
        cell: &'a str,
    },
    /// The test bed kept a cell from a verdict; it is tried again.
    CellRetried {
        /// Its name.
        cell: &'a str,
        /// What happened.
        why: &'a str,
    },
    /// A cell is over.
    CellFinished {
        /// Its name.
        cell: &'a str,
        /// Its verdict.
        verdict: &'a Verdict,
        /// Whether something else was expected. Of kernels that the manifest does not know nothing is.
        unexpected: bool,
        /// How long it took.
        took: Duration,
    },
}

/// Is told what happens.
pub trait Progress: Send + Sync {
    /// Something happened.
    fn event(&self, event: Event<'_>);
}

/// Tells nobody.
pub struct Silence;

impl Progress for Silence {
    fn event(&self, _: Event<'_>) {}
}
