//! The events that a run reports while it runs. The receiver decides how to show them.

use std::time::Duration;

use kernels::BuildEvent;

use crate::host::accel::Decision;
use crate::verdict::Verdict;

/// Something happened.
#[derive(Debug)]
pub enum Event<'a> {
    /// The build of a kernel made progress.
    Build {
        /// The variant.
        variant: &'a str,
        /// How far it is.
        event: BuildEvent,
    },
    /// A kernel could not be built.
    BuildFailed {
        /// The variant.
        variant: &'a str,
        /// The reason.
        why: &'a str,
    },
    /// Nobody can look at the guests of a kernel for who waits for whom.
    NoLooks {
        /// The variant.
        variant: &'a str,
        /// The reason.
        why: &'a str,
    },
    /// The guest image is being built: a line of cargo's output.
    Image {
        /// The line.
        line: &'a str,
    },
    /// A guest is booted under KVM to see whether that works.
    TryingKvm,
    /// The accelerator is chosen.
    Accelerator(&'a Decision),
    /// The clock of the guests is chosen.
    Clock {
        /// Whether it is their own.
        is_held: bool,
        /// Why it is the host's although the guest's was asked for.
        why: Option<&'a str>,
    },
    /// Cells begin, each as soon as its kernel is built.
    Cells {
        /// The number of cells in the run.
        count: usize,
        /// How many cells run at a time once all kernels are built.
        jobs: usize,
        /// The folder of their evidence.
        evidence: &'a std::path::Path,
        /// About how long each takes, in seconds, by its name.
        seconds: &'a std::collections::BTreeMap<String, f64>,
    },
    /// The cells that have not ended are not needed any more.
    CellsStopped,
    /// A cell begins.
    CellStarted {
        /// Its name.
        cell: &'a str,
    },
    /// The test bed prevented a verdict. The cell runs again in another guest.
    CellRetried {
        /// Its name.
        cell: &'a str,
        /// What happened.
        why: &'a str,
    },
    /// A cell ended without a guest, because its kernel could not be built. [`Event::BuildFailed`] gave the reason.
    CellWithoutKernel {
        /// Its name.
        cell: &'a str,
        /// The variant.
        variant: &'a str,
    },
    /// A cell ended.
    CellFinished {
        /// Its name.
        cell: &'a str,
        /// Its verdict.
        verdict: &'a Verdict,
        /// Whether another result was expected. This is always false for kernels that are not in the manifest.
        unexpected: bool,
        /// How long it took.
        took: Duration,
    },
}

/// Receives the events of a run.
pub trait Progress: Send + Sync {
    /// Something happened.
    fn event(&self, event: Event<'_>);
}

/// Ignores all events.
pub struct Silence;

impl Progress for Silence {
    fn event(&self, _: Event<'_>) {}
}
