//! How much the scenarios notice: kernels with one mistake each (mutants) are built, and each is judged against the kernel
//! that it was made from, as `--against` judges a tree.
//!
//! While the cells of one mutant run, the next one is built. Each mutant has a run of its own, and what a mutant needs
//! (its image, the snapshots of its guests) is removed when it is judged.

mod judge;
mod order;
mod results;
mod stage;
mod watch;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::future::join;
use kernels::cache::CacheError;
use kernels::series::SeriesError;
use kernels::{Mutant, Unknown};

pub use results::{Comparison, Judged, Kill, Outcome, Results};

use crate::evidence::EvidenceError;
use crate::lab::{Lab, LabError};
use crate::matrix::plan::{PlanError, Selection};
use crate::matrix::{MatrixError, Request};
use crate::progress::Progress;
use crate::scenario::Scenario;
use stage::Stage;

/// Which mutants to judge, and how.
#[derive(Clone, Debug)]
pub struct Task {
    /// The mutants.
    pub mutants: Vec<Mutant>,
    /// The kernels that a mutant may be made from. The first to which its patch applies is taken.
    pub bases: Vec<String>,
    /// Which scenarios and triggers run.
    pub selection: Selection,
    /// A run with coverage of a base. Cells that execute the function of a mutant come first, and what this run says
    /// of the base is not run again.
    pub coverage: Option<PathBuf>,
    /// Run only cells that execute the function of the mutant, as the run with coverage says. All, if none does.
    pub only_reached: bool,
    /// Scenarios that have killed mutants before. Their cells come first.
    pub killers: BTreeSet<String>,
    /// Run all cells of a mutant, and do not stop at the first that kills it.
    pub all_cells: bool,
    /// How cells are run. Its own cells are not used.
    pub how: Request,
}

/// Why mutants cannot be judged.
#[derive(Debug, thiserror::Error)]
pub enum MutantsError {
    /// A run failed.
    #[error(transparent)]
    Matrix(#[from] MatrixError),
    /// A patch could not be tried.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// Files of a run cannot be read or written.
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
    /// There are no such cells.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// There is no such base.
    #[error(transparent)]
    Unknown(#[from] Unknown),
    /// A patch of a base or of a mutant cannot be read.
    #[error(transparent)]
    Patch(#[from] SeriesError),
    /// There is no room for snapshots.
    #[error("cannot create a temporary cache in {}", path.display())]
    Scratch {
        /// The cache.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The cache failed.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// A run has no coverage.
    #[error(
        "{} was made without coverage; `cargo xtask run-matrix --kernels {base} --coverage` makes a run with it",
        path.display()
    )]
    NoCoverage {
        /// The run.
        path: PathBuf,
        /// The kernel that it should be of.
        base: String,
    },
    /// A file is not the results of mutants.
    #[error("{} has no results of `cargo xtask bench mutants`: {why}", path.display())]
    Results {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// Builds and judges mutants, one after the other. After each, writes the results so far and calls `tell` with them.
///
/// Dropping the future ends all guests, cancels builds, and removes the images of mutants.
///
/// # Errors
/// [`MutantsError`]. A mutant that does not build or boot is not an error.
pub async fn measure(
    lab: &Lab,
    scenarios: &[Scenario],
    task: &Task,
    progress: Arc<dyn Progress>,
    tell: &dyn Fn(&Judged, &Results),
) -> Result<Results, MutantsError> {
    let (manifest, places) = stage::place(lab, task, &progress).await?;
    let lab = lab.with(manifest);
    let stage = Stage::new(&lab, scenarios, task, progress)?;
    let mut results = Results::begin(task, stage.folder());
    let mut coming = places.iter();
    // The cells of the bases run while the first mutant is built.
    let (bases, first) = join(stage.bases(&places), stage.next(&mut coming)).await;
    let (bases, mut next) = (bases?, first?);
    while let Some(ready) = next {
        let killers = results.killers().chain(task.killers.iter().cloned()).collect();
        let (judged, after) = join(stage.judge(ready, &bases, &killers), stage.next(&mut coming)).await;
        next = after?;
        let judged = judged?;
        results.add(judged.clone());
        results.write()?;
        tell(&judged, &results);
    }
    Ok(results)
}
