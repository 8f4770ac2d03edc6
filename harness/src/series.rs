//! A posted series as kernels: the base, and each patch with all before it; which cells they run, and what is known of
//! the series before they do.

use std::path::PathBuf;
use std::sync::Arc;

use kernels::series::{Series, SeriesPatch};
use kernels::{Manifest, Variant};

use crate::cell::PlannedCell;
use crate::evidence::{Applies, SeriesNote, SeriesStep};
use crate::lab::{Lab, LabError};
use crate::plan::{PlanError, Selection, plan};
use crate::progress::Progress;
use crate::scenario::Scenario;

/// The kernel without any of the patches.
pub const BASE: &str = "base";

/// The name of the kernel with a patch and all before it.
fn with_patches(number: usize) -> String {
    format!("patch-{number}")
}

/// A manifest of nothing but the kernels of a series: `base`, `patch-1`, `patch-2`, ..., on a base of the manifest. Of
/// none of them it is known which bugs they have.
pub fn kernels(manifest: Manifest, base: &str, about: &str, series: &Series, files: &[PathBuf]) -> Manifest {
    let plain = Variant::unknown(BASE, about, base, Vec::new());
    let with = |(index, patch): (usize, &SeriesPatch)| {
        Variant::unknown(&with_patches(index + 1), &patch.subject, base, files[..=index].to_vec())
    };
    let variants = std::iter::once(plain).chain(series.patches.iter().enumerate().map(with)).collect();
    Manifest { variants, ..manifest }
}

/// Looks how far a series applies on its base, whose source is fetched if need be. The lab has the kernels of
/// [`kernels()`], with the patches in `files`; with `merge`, one that does not fit is merged, if the base is a revision
/// of a tree that has what it was made on.
///
/// # Errors
/// [`LabError`]; that a patch does not apply is none.
pub async fn look(
    lab: &Lab,
    series: &Series,
    files: &[PathBuf],
    merge: bool,
    progress: Arc<dyn Progress>,
) -> Result<SeriesNote, LabError> {
    let [base, variants @ ..] = lab.manifest().variants.as_slice() else { return Ok(SeriesNote::default()) };
    let found = lab.fit(&base.name, &series.patches, files, merge, progress).await?;
    let misfit = found.misfit.map_or(Applies::Yes, Applies::from);
    let merged =
        found.merged.iter().map(|number| format!("patch {number} does not fit as it is: it was merged (--3way)"));
    let applies = |index: usize| match index.cmp(&found.applied) {
        std::cmp::Ordering::Less => Applies::Yes,
        std::cmp::Ordering::Equal => misfit.clone(),
        std::cmp::Ordering::Greater => Applies::NotTried,
    };
    let step = |(index, (patch, variant)): (usize, (&SeriesPatch, &Variant))| SeriesStep {
        variant: variant.name.clone(),
        subject: patch.subject.clone(),
        author: patch.author.clone(),
        message_id: patch.message_id.clone(),
        applies: applies(index),
    };
    Ok(SeriesNote {
        subject: series.subject.clone(),
        version: series.version,
        base: base.name.clone(),
        base_about: base.about.clone(),
        steps: series.patches.iter().zip(variants).enumerate().map(step).collect(),
        notes: series.notes.iter().cloned().chain(merged).collect(),
        options: Vec::new(),
    })
}

/// The cells of a series: on its base, and with each patch that applies.
///
/// # Errors
/// [`PlanError`].
pub fn cells(
    manifest: &Manifest,
    note: &SeriesNote,
    scenarios: &[Scenario],
    selection: &Selection,
    repeats: u32,
) -> Result<Vec<PlannedCell>, PlanError> {
    // Named, so that a scenario runs on them whatever it detects.
    let selection = Selection { kernels: vec!["*".to_owned()], ..selection.clone() };
    let cells = plan(manifest, scenarios, &selection, repeats)?;
    let is_there = |name: &str| name == note.base || note.tried().any(|(_, step)| step.variant == name);
    Ok(cells.into_iter().filter(|cell| is_there(&cell.id.variant)).collect())
}
