//! A posted series: its kernels (the base, and each patch with all before it), its cells, and how far it applies.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kernels::series::{Series, SeriesPatch};
use kernels::{Manifest, Variant};

use super::plan::{PlanError, Selection, plan};
use crate::cell::PlannedCell;
use crate::evidence::{Applies, SeriesNote, SeriesStep};
use crate::lab::{Lab, LabError};
use crate::progress::Progress;
use crate::scenario::Scenario;

/// The kernel without any of the patches.
pub const BASE: &str = "base";

/// The name of the kernel with the first `number` patches.
pub fn with_patches(number: usize) -> String {
    format!("patch-{number}")
}

/// A manifest with only the kernels of a series: `base`, `patch-1`, `patch-2`, ..., on a base of the manifest. Their
/// bugs are unknown. `patches` has the title and the file of each patch.
pub fn kernels(manifest: Manifest, base: &str, about: &str, patches: &[(String, PathBuf)]) -> Manifest {
    let plain = Variant::unknown(BASE, about, base, Vec::new());
    let with = |(index, (title, _)): (usize, &(String, PathBuf))| {
        let files = patches[..=index].iter().map(|(_, file)| file.clone()).collect();
        Variant::unknown(&with_patches(index + 1), title, base, files)
    };
    let variants = std::iter::once(plain).chain(patches.iter().enumerate().map(with)).collect();
    Manifest { variants, ..manifest }
}

/// The options of `run` that select a kernel of a lab made with [`kernels()`], if the patches are in this folder. The
/// name of the kernel must follow them.
pub fn options(lab: &Lab, patches: &Path) -> Vec<String> {
    let manifest = lab.manifest();
    let Some(plain) = manifest.variants.first() else { return Vec::new() };
    let mut words = manifest.own_options(&plain.name);
    if words.is_empty() {
        words.extend(["--base".to_owned(), plain.base.clone()]);
    }
    words.extend(["--series".to_owned(), patches.display().to_string()]);
    words
}

/// Checks how far a series applies to its base, and fetches the source of the base if necessary. The lab has the
/// kernels of [`kernels()`], with the patches in `files`. With `merge`, a patch that does not apply directly is merged
/// (3-way). This needs a base that is a revision of a tree with the files that the patch was made on.
///
/// # Errors
/// [`LabError`]. A patch that does not apply is not an error.
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
        found.merged.iter().map(|number| format!("patch {number} does not apply directly; it was merged (--3way)"));
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
        answers_for_base: false,
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
    // The kernels are named, so that every scenario runs on them.
    let selection = Selection { kernels: vec!["*".to_owned()], ..selection.clone() };
    let cells = plan(manifest, scenarios, &selection, repeats)?;
    let is_there = |name: &str| name == note.base || note.tried().any(|(_, step)| step.variant == name);
    Ok(cells.into_iter().filter(|cell| is_there(&cell.id.variant)).collect())
}

#[cfg(test)]
mod tests {
    use kernels::cache::Cache;
    use kernels::{Bug, Chance, Fails, FailureKind};

    use super::*;
    use crate::evidence::Applies;
    use crate::scenario::Needs;
    use crate::verdict::Verdict;

    fn manifest() -> Manifest {
        let mut manifest = Manifest::of_project().unwrap();
        let bug = |id: &str, chance, by_design| Bug {
            id: id.to_owned(),
            title: String::new(),
            references: Vec::new(),
            fails: vec![Fails { kind: FailureKind::Deadlock, function: "f".to_owned() }],
            under: Default::default(),
            chance,
            by_design,
        };
        manifest.bugs = vec![
            bug("sure", Chance::Certain, false),
            bug("random", Chance::Random, false),
            bug("meant", Chance::Certain, true),
        ];
        let patches =
            [1, 2].map(|number| (format!("title {number}"), format!("/run/patches/000{number}.patch").into()));
        kernels(manifest, "6.12", "the base", &patches)
    }

    fn note() -> SeriesNote {
        let step = |number, applies| SeriesStep {
            variant: with_patches(number),
            subject: String::new(),
            author: String::new(),
            message_id: None,
            applies,
        };
        SeriesNote {
            base: BASE.to_owned(),
            steps: vec![step(1, Applies::Yes), step(2, Applies::NotTried)],
            ..SeriesNote::default()
        }
    }

    fn scenario(name: &'static str, detects: &'static [&'static str]) -> Scenario {
        Scenario {
            name,
            about: "",
            detects,
            topology: "igb",
            also: &[],
            triggers: &[],
            append: &[],
            needs: Needs::NOTHING,
            run: |_| Box::pin(async { Ok(Verdict::Pass) }),
        }
    }

    #[test]
    fn a_series_runs_with_all_relevant_scenarios() {
        let scenarios = [
            scenario("a::sure", &["sure"]),
            scenario("a::chance", &["random"]),
            scenario("a::design", &["meant"]),
            scenario("a::either", &["meant", "sure"]),
        ];
        let names = |selection: &Selection| {
            let cells = cells(&manifest(), &note(), &scenarios, selection, 1).unwrap();
            cells.into_iter().map(|cell| format!("{} {}", cell.id.scenario, cell.id.variant)).collect::<Vec<_>>()
        };
        let default = ["a::sure base", "a::sure patch-1", "a::either base", "a::either patch-1"];
        assert_eq!(names(&Selection::default()), default);
        let named = Selection { scenarios: vec!["chance".to_owned()], ..Selection::default() };
        assert_eq!(names(&named), ["a::chance base", "a::chance patch-1"]);
    }

    #[test]
    fn options_name_the_base_and_the_patches() {
        let cache = tempfile::tempdir().unwrap();
        let lab = |manifest| Lab::of(manifest, Cache::at(cache.path()));
        let options_of = |lab: &Lab| options(lab, Path::new("/run/patches")).join(" ");
        assert_eq!(options_of(&lab(manifest())), "--base 6.12 --series /run/patches");
        assert_eq!(options_of(&lab(manifest().under("debug").unwrap())), "--base 6.12 --series /run/patches");
    }
}
