//! What mutants need before their cells run: the kernel that each is made from, its build, and the verdicts on the base.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kernels::cache::Cache;
use kernels::series::{Manner, SeriesPatch};
use kernels::{Manifest, Mutant, Variant};
use tempfile::TempDir;

use super::order::Reached;
use super::watch::Watch;
use super::{MutantsError, Outcome, Task, results};
use crate::cell::PlannedCell;
use crate::evidence::{EarlierKernel, EvidenceError, Run, folder_of_runs, read_run};
use crate::lab::{Lab, LabError};
use crate::matrix::plan::{Selection, plan, with_reference};
use crate::matrix::series::with_patches;
use crate::matrix::{MatrixError, Request, Runner};
use crate::progress::Progress;
use crate::report::Report;
use crate::scenario::Scenario;

/// A mutant, and the kernel that it is made from. None if its patch applies to no base.
pub struct Place {
    pub mutant: Mutant,
    pub base: Option<String>,
}

/// A mutant that is built, or its result if nothing of it runs, with the reason.
pub struct Ready<'a> {
    pub place: &'a Place,
    pub run: Result<Prepared<'a>, (Outcome, String)>,
}

/// A kernel that is built, with its cells. What was made only for it is removed when this is dropped.
pub struct Prepared<'a> {
    pub runner: Runner,
    pub cells: Vec<PlannedCell>,
    pub watch: Arc<Watch>,
    _made: Option<(Image<'a>, TempDir)>,
}

/// Removes the image of a mutant when it is dropped.
struct Image<'a>(&'a Lab, String);

impl Drop for Image<'_> {
    fn drop(&mut self) {
        self.0.forget(&self.1);
    }
}

/// Everything that the mutants have in common.
pub struct Stage<'a> {
    pub task: &'a Task,
    pub progress: Arc<dyn Progress>,
    lab: &'a Lab,
    scenarios: &'a [Scenario],
    /// The folder of the results, and of the runs.
    folder: PathBuf,
    earlier: Option<(Run, Reached)>,
    /// A run has reported the accelerator and the clock.
    began: AtomicBool,
}

/// Finds the kernel that each mutant is made from. Returns them, and the manifest with the mutants.
///
/// # Errors
/// There is no such base, or patches cannot be read or tried.
pub async fn place(
    lab: &Lab,
    task: &Task,
    progress: &Arc<dyn Progress>,
) -> Result<(Manifest, Vec<Place>), MutantsError> {
    let (mut manifest, mut places) = (lab.manifest().clone(), Vec::new());
    for mutant in &task.mutants {
        let mut base = None;
        for name in &task.bases {
            let kernel = mutant.on(lab.manifest().variant(name)?);
            if applies(lab, &kernel, progress).await? {
                manifest.variants.push(kernel);
                base = Some(name.clone());
                break;
            }
        }
        places.push(Place { mutant: mutant.clone(), base });
    }
    Ok((manifest, places))
}

/// Whether the patches of a kernel apply as they are.
async fn applies(lab: &Lab, kernel: &Variant, progress: &Arc<dyn Progress>) -> Result<bool, MutantsError> {
    let patches = kernel.patches.iter().map(|file| SeriesPatch::of_file(file)).collect::<Result<Vec<_>, _>>()?;
    let manner = Manner { merge: false, strict: true };
    let fit = lab.fit(&kernel.base, &patches, &kernel.patches, manner, progress.clone()).await?;
    Ok(fit.applied() == kernel.patches.len())
}

impl<'a> Stage<'a> {
    /// Makes the folder of the results.
    ///
    /// # Errors
    /// The folder cannot be made, or the run with coverage cannot be read.
    pub fn new(
        lab: &'a Lab,
        scenarios: &'a [Scenario],
        task: &'a Task,
        progress: Arc<dyn Progress>,
    ) -> Result<Stage<'a>, MutantsError> {
        let base = task.bases.first().map(String::as_str).unwrap_or_default();
        let read = |path: &PathBuf| -> Result<(Run, Reached), MutantsError> {
            let run = read_run(path)?;
            let reached = Reached::of(&run, base)?;
            Ok((run, reached))
        };
        let earlier = task.coverage.as_ref().map(read).transpose()?;
        let folder = folder_of_runs(&task.how.out)?;
        Ok(Stage { task, progress, lab, scenarios, folder, earlier, began: AtomicBool::new(false) })
    }

    /// The folder of the results.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What the cells of the base execute, if that is known.
    pub fn reached(&self) -> Option<&Reached> {
        self.earlier.as_ref().map(|(_, reached)| reached)
    }

    /// The verdicts on each base that a mutant is made from. Runs the cells that no earlier run has a verdict of.
    ///
    /// # Errors
    /// A base does not build, or a run fails.
    pub async fn bases(&self, places: &[Place]) -> Result<BTreeMap<String, EarlierKernel>, MutantsError> {
        let mut bases = BTreeMap::new();
        for place in places {
            if let Some(base) = place.base.as_ref().filter(|base| !bases.contains_key(*base)) {
                bases.insert(base.clone(), self.base(base, &place.mutant).await?);
            }
        }
        Ok(bases)
    }

    async fn base(&self, base: &str, mutant: &Mutant) -> Result<EarlierKernel, MutantsError> {
        let manifest = self.lab.manifest();
        let cells = with_reference(manifest, self.scenarios, &self.cells(mutant)?, manifest.variant(base)?);
        let key = self.lab.key(base);
        let known = self.earlier.as_ref().map(|(run, _)| EarlierKernel::of(run, base, key.as_deref()));
        let mut known = known.unwrap_or_default();
        let is_missing = |cell: &PlannedCell| cell.id.variant == base && !known.has(&cell.id);
        let missing: Vec<_> = cells.into_iter().filter(is_missing).collect();
        if missing.is_empty() {
            return Ok(known);
        }
        let prepared = self.prepare(base, missing, None).await?;
        if let Some(why) = prepared.watch.build_failed() {
            return Err(LabError::NoKernel(vec![why]).into());
        }
        prepared.runner.run(&self.request(base, prepared.cells), &*prepared.watch).await?;
        let report = Report::of(prepared.runner.folder())?;
        report.write_files()?;
        let now = EarlierKernel::of(report.run(), base, None);
        known.cells.extend(now.cells);
        Ok(EarlierKernel { cells: known.cells, ..now })
    }

    /// Builds the next mutant.
    ///
    /// # Errors
    /// This machine cannot run guests, or a file cannot be written. A mutant that does not build is not an error.
    pub async fn next<'b>(
        &'b self,
        places: &mut std::slice::Iter<'b, Place>,
    ) -> Result<Option<Ready<'b>>, MutantsError> {
        let Some(place) = places.next() else { return Ok(None) };
        Ok(Some(Ready { place, run: self.run_of(place).await? }))
    }

    async fn run_of(&self, place: &Place) -> Result<Result<Prepared<'_>, (Outcome, String)>, MutantsError> {
        if place.base.is_none() {
            let why = format!("the patch does not apply to {}", self.task.bases.join(" or "));
            return Ok(Err((Outcome::NoAnswer, why)));
        }
        let cells = self.needed(&place.mutant)?;
        if cells.is_empty() {
            return Ok(Err((Outcome::Survived, results::NOT_REACHED.to_owned())));
        }
        let built = self.build(&place.mutant.name, cells).await?;
        Ok(built.map_err(|why| (Outcome::NoAnswer, why)))
    }

    /// Builds a mutant. If that fails because of the kernel or the host, the result is the reason.
    async fn build(&self, name: &str, cells: Vec<PlannedCell>) -> Result<Result<Prepared<'_>, String>, MutantsError> {
        let made = (Image(self.lab, name.to_owned()), scratch(self.lab.cache())?);
        let prepared = match self.prepare(name, cells, Some(made)).await {
            Err(MutantsError::Matrix(MatrixError::Lab(LabError::NoKernel(why)))) => {
                return Ok(Err(format!("cannot be built here: {}", why.join("; "))));
            }
            prepared => prepared?,
        };
        if let Some(why) = prepared.watch.build_failed() {
            return Ok(Err(format!("does not build: {why}")));
        }
        // Its cells would run on the base.
        if self.lab.find(name).is_none() {
            return Ok(Err("the patch changes nothing".to_owned()));
        }
        let options = self.repeat(name)?;
        Ok(Ok(Prepared { runner: prepared.runner.repeated_by(name, options), ..prepared }))
    }

    /// The cells that run on a mutant.
    fn needed(&self, mutant: &Mutant) -> Result<Vec<PlannedCell>, MutantsError> {
        let mut cells = self.cells(mutant)?;
        // Coverage does not know a function that a macro makes, or that is inlined. Then all cells run.
        let is_known = |reached: &&Reached| self.task.only_reached && reached.count(mutant) > 0;
        if let Some(reached) = self.reached().filter(is_known) {
            cells.retain(|cell| reached.seconds(&cell.id, mutant).is_some());
        }
        Ok(cells)
    }

    /// Builds a kernel. Snapshots of its guests go where `made` says.
    async fn prepare<'b>(
        &'b self,
        kernel: &str,
        cells: Vec<PlannedCell>,
        made: Option<(Image<'b>, TempDir)>,
    ) -> Result<Prepared<'b>, MutantsError> {
        let watch = Arc::new(Watch::new(self.progress.clone(), self.began.swap(true, Ordering::Relaxed)));
        let request = self.request(kernel, cells);
        let runner = Runner::prepare(self.lab, self.scenarios, &request, watch.clone()).await?;
        let runner = match &made {
            Some((_, scratch)) => runner.with_snapshots_in(Cache::at(scratch.path())),
            None => runner,
        };
        Ok(Prepared { runner, cells: request.cells, watch, _made: made })
    }

    /// The request to run cells of a kernel.
    pub fn request(&self, kernel: &str, cells: Vec<PlannedCell>) -> Request {
        Request { cells, out: self.folder.join(kernel), ..self.task.how.clone() }
    }

    /// All cells of a mutant, as planned.
    fn cells(&self, mutant: &Mutant) -> Result<Vec<PlannedCell>, MutantsError> {
        let selection = Selection { kernels: vec![mutant.name.clone()], ..self.task.selection.clone() };
        Ok(plan(self.lab.manifest(), self.scenarios, &selection, 1)?)
    }

    /// Keeps the patches of a mutant. Returns the options of `run` that build it from them.
    fn repeat(&self, name: &str) -> Result<Vec<String>, MutantsError> {
        let variant = self.lab.manifest().variant(name)?;
        let folder = self.folder.join(name).join("patches");
        fs::create_dir_all(&folder).map_err(EvidenceError::io("create", &folder))?;
        for (patch, number) in variant.patches.iter().zip(1..) {
            let file = patch.file_name().unwrap_or_default().to_string_lossy();
            let to = folder.join(format!("{number:04}-{file}"));
            fs::copy(patch, &to).map_err(EvidenceError::io("write", &to))?;
        }
        let words = ["--base".to_owned(), variant.base.clone(), "--series".to_owned(), folder.display().to_string()];
        Ok(words.into_iter().chain(["--kernel".to_owned(), with_patches(variant.patches.len())]).collect())
    }
}

/// A temporary cache for snapshots. It is in the user's cache, so that `gc` finds what a killed run leaves.
fn scratch(cache: &Cache) -> Result<TempDir, MutantsError> {
    let path = cache.root().to_owned();
    let folder = fs::create_dir_all(&path).and_then(|()| tempfile::Builder::new().prefix(".bench-").tempdir_in(&path));
    folder.map_err(|source| MutantsError::Scratch { path, source })
}
