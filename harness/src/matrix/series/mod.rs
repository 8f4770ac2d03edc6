//! A posted series: its base, its kernels (the base, and each patch with all before it), and its cells.

pub mod base;

use std::path::{Path, PathBuf};

use base::Choice;
use kernels::series::{Fate, Fit, Series};
use kernels::{Manifest, Variant, split_profile};

use super::plan::{PlanError, Selection, plan};
use crate::cell::PlannedCell;
use crate::evidence::{Applies, SeriesNote, SeriesStep};
use crate::lab::Lab;
use crate::scenario::Scenario;

/// The kernel without any of the patches.
pub const BASE: &str = "base";

/// The name of the kernel with the first `number` patches.
pub fn with_patches(number: usize) -> String {
    format!("patch-{number}")
}

/// A patch of a series, in its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    /// Its number in the series, from 1.
    pub number: usize,
    /// Its title.
    pub title: String,
    /// The file.
    pub file: PathBuf,
}

/// The patches of a series that the base does not have already.
pub fn patches(series: &Series, choice: &Choice) -> Vec<Patch> {
    let all = series.patches.iter().zip(choice.files());
    let all = all.map(|(one, file)| Patch { number: one.number, title: one.subject.clone(), file: file.clone() });
    all.filter(|patch| choice.fit().fates.get(patch.number - 1) != Some(&Fate::Already)).collect()
}

/// A manifest with only the kernels of a series: `base`, `patch-1`, `patch-2`, ..., on a base of the manifest. Their
/// bugs are unknown.
pub fn kernels(manifest: Manifest, base: &str, about: &str, patches: &[Patch]) -> Manifest {
    let plain = Variant::unknown(BASE, about, base, Vec::new());
    let with = |(index, patch): (usize, &Patch)| {
        let files = patches[..=index].iter().map(|patch| patch.file.clone()).collect();
        Variant::unknown(&with_patches(patch.number), &patch.title, base, files)
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

/// The description of a series on the base that was chosen for it. The lab has the kernels of [`kernels()`].
pub fn note(lab: &Lab, series: &Series, choice: &Choice) -> SeriesNote {
    let variants = &lab.manifest().variants;
    let name = |plain: String| {
        let found = variants.iter().find(|variant| split_profile(&variant.name).0 == plain);
        found.map_or(plain, |variant| variant.name.clone())
    };
    let fit = choice.fit();
    let steps = series.patches.iter().map(|patch| SeriesStep {
        variant: name(with_patches(patch.number)),
        subject: patch.subject.clone(),
        author: patch.author.clone(),
        message_id: patch.message_id.clone(),
        applies: applies(fit, patch.number - 1, choice.base()),
    });
    SeriesNote {
        subject: series.subject.clone(),
        version: series.version,
        base: name(BASE.to_owned()),
        base_about: variants.first().map(|base| base.about.clone()).unwrap_or_default(),
        bases: choice.words(),
        steps: steps.collect(),
        notes: series.notes.iter().cloned().chain(ways(fit)).collect(),
        options: Vec::new(),
        answers_for_base: false,
    }
}

fn applies(fit: &Fit, index: usize, base: &str) -> Applies {
    match (fit.fates.get(index), &fit.misfit) {
        (Some(Fate::Already), _) => Applies::Already { base: base.to_owned() },
        (Some(_), _) => Applies::Yes,
        (None, Some(misfit)) if index == fit.fates.len() => Applies::from(misfit.clone()),
        (None, _) => Applies::NotTried,
    }
}

/// A line for each patch that does not apply as it is.
fn ways(fit: &Fit) -> impl Iterator<Item = String> {
    fit.fates.iter().zip(1..).filter_map(|(fate, number): (&Fate, usize)| match fate {
        Fate::Applies | Fate::Already => None,
        Fate::Merged => Some(format!("patch {number} does not apply directly; it was merged (--3way)")),
        Fate::LessContext { lines, places } => {
            let at = if places.is_empty() { String::new() } else { format!(", at {}", places.join(", ")) };
            Some(format!("patch {number} fits only with less context (git apply -C{lines}){at}: check the place"))
        }
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
            fails: vec![Fails { kind: FailureKind::Deadlock, function: "f".to_owned() }],
            chance,
            by_design,
            ..Bug::default()
        };
        manifest.bugs = vec![
            bug("sure", Chance::Certain, false),
            bug("random", Chance::Random, false),
            bug("meant", Chance::Certain, true),
        ];
        let patches = [1, 2].map(|number| Patch {
            number,
            title: format!("title {number}"),
            file: format!("/run/patches/000{number}.patch").into(),
        });
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
