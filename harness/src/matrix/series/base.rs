//! The base of a series: which bases it is tried on, what became of it there, and which of them is taken.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kernels::Manifest;
use kernels::series::{Fate, Fit, Manner, Series};

use crate::lab::{Lab, LabError};
use crate::progress::Progress;

/// The bases that a series was tried on, and the one that is taken.
#[derive(Clone, Debug)]
pub struct Choice {
    trials: Vec<Trial>,
    taken: usize,
    fit: Fit,
    /// How many patches the series has.
    patches: usize,
}

/// A base, and what became of the series on it.
#[derive(Clone, Debug)]
struct Trial {
    base: String,
    outcome: Outcome,
    /// The patches, as they apply to this base.
    files: Vec<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    /// It was tried.
    Tried(Fit),
    /// It was not tried, for this reason.
    NotTried(String),
}

/// The names of the bases of a manifest, the newest first.
pub fn newest_first(manifest: &Manifest) -> Vec<String> {
    let mut names: Vec<_> = manifest.bases.iter().map(|base| base.name.clone()).collect();
    names.sort_by_key(|name| std::cmp::Reverse(version(name)));
    names
}

/// The numbers in the name of a base.
fn version(name: &str) -> Vec<u32> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

/// Tries a series on bases, the newest first, and takes the best: the newest to which all patches apply as they are;
/// else the newest to which all apply, some with less context; else the newest to which those apply that it does not
/// have already. If there is none, but a base has all of the series already, that one is taken, because there is nothing
/// to test then. Else that to which most patches apply.
///
/// Fetches the source of a base if it is not in the cache. It is not fetched if a newer base takes the whole series. A
/// base that cannot be fetched is left out.
///
/// The patches are written into a folder for each base, below `folder`.
///
/// # Errors
/// [`LabError`], if no base can be fetched. A patch that does not apply is not an error.
pub async fn choose(
    lab: &Lab,
    series: &Series,
    bases: &[String],
    folder: &Path,
    manner: Manner,
    progress: Arc<dyn Progress>,
) -> Result<Choice, LabError> {
    let (mut trials, mut failure) = (Vec::new(), None);
    let patches = series.patches.len();
    for base in bases {
        let place = folder.join(base);
        let written = series.write(&place);
        let files = written
            .map_err(|error| LabError::Source(format!("cannot write the patches into {}: {error}", place.display())))?;
        let outcome = match whole(&trials, patches).filter(|_| !lab.is_at_hand(base)) {
            Some(newer) => {
                Outcome::NotTried(format!("not tried: its source is not in the cache, and {newer} is newer"))
            }
            None => match lab.fit(base, &series.patches, &files, manner, progress.clone()).await {
                Ok(fit) => Outcome::Tried(fit),
                Err(LabError::Source(why)) => {
                    let first = why.lines().next().unwrap_or_default().to_owned();
                    failure.get_or_insert(LabError::Source(why));
                    Outcome::NotTried(format!("cannot be tried: {first}"))
                }
                Err(other) => return Err(other),
            },
        };
        trials.push(Trial { base: base.clone(), outcome, files });
    }
    Choice::of(trials, patches)
        .ok_or_else(|| failure.unwrap_or_else(|| LabError::Source("there is no base".to_owned())))
}

/// The base to which all patches apply as they are, if there is one.
fn whole(trials: &[Trial], patches: usize) -> Option<&str> {
    let is_whole =
        |trial: &&Trial| matches!(&trial.outcome, Outcome::Tried(fit) if rank(fit, patches).0 == Rank::Exact);
    trials.iter().find(is_whole).map(|trial| trial.base.as_str())
}

/// How good a base is for a series. Greater is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// No patch applies.
    Nothing,
    /// Some patches apply.
    Partly,
    /// The base has all patches already.
    Complete,
    /// All patches apply that the base does not have already.
    Rest,
    /// All patches apply, some only with less context.
    Whole,
    /// All patches apply.
    Exact,
}

/// The rank of a base, and the number of patches that apply to it.
fn rank(fit: &Fit, patches: usize) -> (Rank, usize) {
    let applied = fit.applied();
    let is_loose = |fate: &Fate| matches!(fate, Fate::LessContext { .. });
    let rank = match applied {
        0 if fit.already() == patches => Rank::Complete,
        0 => Rank::Nothing,
        _ if applied == patches && !fit.fates.iter().any(is_loose) => Rank::Exact,
        _ if applied == patches => Rank::Whole,
        _ if fit.misfit.is_none() => Rank::Rest,
        _ => Rank::Partly,
    };
    (rank, applied)
}

impl Choice {
    /// None if the series could not be tried on any base.
    fn of(trials: Vec<Trial>, patches: usize) -> Option<Choice> {
        let tried = trials.iter().enumerate().filter_map(|(index, trial)| match &trial.outcome {
            Outcome::Tried(fit) => Some((index, fit)),
            Outcome::NotTried(_) => None,
        });
        let best = |&(index, fit): &(usize, &Fit)| (rank(fit, patches), std::cmp::Reverse(index));
        let (taken, fit) = tried.max_by_key(best).map(|(index, fit)| (index, fit.clone()))?;
        Some(Choice { trials, taken, fit, patches })
    }

    /// The base that is taken.
    pub fn base(&self) -> &str {
        &self.trials[self.taken].base
    }

    /// How the series fits that base.
    pub fn fit(&self) -> &Fit {
        &self.fit
    }

    /// The files of all patches, as they apply to that base.
    pub fn files(&self) -> &[PathBuf] {
        &self.trials[self.taken].files
    }

    /// The bases, in words, that have all patches of the series already, if the base that is taken is one of them.
    pub fn is_in(&self) -> Option<String> {
        (rank(&self.fit, self.patches).0 == Rank::Complete).then(|| list(&self.complete()))
    }

    fn complete(&self) -> Vec<&str> {
        let has_all = |trial: &&Trial| matches!(&trial.outcome, Outcome::Tried(fit) if fit.already() == self.patches);
        self.trials.iter().filter(has_all).map(|trial| trial.base.as_str()).collect()
    }

    /// The newest base to which all patches apply, or all that it does not have already.
    pub fn suitable(&self) -> Option<&str> {
        (rank(&self.fit, self.patches).0 >= Rank::Rest).then(|| self.base())
    }

    /// Which base is taken and why, and what became of the series on each. Empty if there was no choice.
    pub fn words(&self) -> Vec<String> {
        if self.trials.len() < 2 {
            return Vec::new();
        }
        let base = self.base();
        let why = match rank(&self.fit, self.patches).0 {
            Rank::Exact => format!("base {base}: the newest to which the whole series applies"),
            Rank::Whole => format!("base {base}: the newest to which the whole series applies with less context"),
            Rank::Rest => format!("base {base}: the newest to which all patches apply that it does not have already"),
            Rank::Partly => format!("base {base}: the whole series applies to no base; to this one most patches do"),
            Rank::Complete => {
                format!("all of the series is in {} already, and it applies to no base", list(&self.complete()))
            }
            Rank::Nothing => "no patch of the series applies to any base".to_owned(),
        };
        let each = self.trials.iter().map(|trial| match &trial.outcome {
            Outcome::Tried(fit) => format!("{}: {}", trial.base, outcome(fit, self.patches)),
            Outcome::NotTried(why) => format!("{}: {why}", trial.base),
        });
        std::iter::once(why).chain(each).collect()
    }
}

/// `7.3, 6.12 and 6.1`.
fn list(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [others @ .., last] => format!("{} and {last}", others.join(", ")),
    }
}

/// What became of a series on a base, in a few words.
fn outcome(fit: &Fit, patches: usize) -> String {
    let numbers = |is: fn(&Fate) -> bool| {
        let numbers = fit.fates.iter().zip(1..).filter(|(fate, _)| is(fate));
        let numbers: Vec<_> = numbers.map(|(_, number): (&Fate, usize)| number.to_string()).collect();
        let words = match numbers.len() {
            1 if patches == 1 => "it".to_owned(),
            1 => format!("patch {}", numbers[0]),
            _ => format!("patches {}", numbers.join(", ")),
        };
        (!numbers.is_empty()).then_some(words)
    };
    let all = match patches {
        1 => "the patch".to_owned(),
        2 => "both patches".to_owned(),
        more => format!("all {more} patches"),
    };
    let (is, apply) = if patches == 1 { ("is", "applies") } else { ("are", "apply") };
    let mut parts = Vec::new();
    match (fit.applied(), fit.already()) {
        (_, already) if already == patches => return format!("{all} {is} in it already"),
        (0, _) => parts.push("no patch applies".to_owned()),
        (applied, _) if applied == patches => parts.push(format!("{all} {apply}")),
        (1, _) => parts.push(format!("1 of {patches} patches applies")),
        (applied, _) => parts.push(format!("{applied} of {patches} patches apply")),
    }
    let loose = numbers(|fate| matches!(fate, Fate::LessContext { .. }));
    parts.extend(loose.map(|numbers| format!("only with less context: {numbers}")));
    let already = numbers(|fate| *fate == Fate::Already);
    parts.extend(already.map(|numbers| format!("in it already: {numbers}")));
    let misfit = fit.misfit.as_ref().filter(|_| patches > 1);
    parts.extend(misfit.map(|_| format!("patch {} does not fit", fit.fates.len() + 1)));
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use kernels::series::Misfit;

    use super::*;

    const LOOSE: Fate = Fate::LessContext { lines: 2, places: Vec::new() };

    /// A fit with these fates. If they are fewer than the patches, the next one does not fit.
    fn fit<const N: usize>(fates: [Fate; N], patches: usize) -> Outcome {
        let misfit = (N < patches).then(|| Misfit { why: "hunk 1".to_owned(), lines: Vec::new() });
        Outcome::Tried(Fit { fates: fates.into(), misfit })
    }

    fn choice(outcomes: &[(&str, Outcome)], patches: usize) -> Option<Choice> {
        let trial = |(base, outcome): &(&str, Outcome)| Trial {
            base: (*base).to_owned(),
            outcome: outcome.clone(),
            files: Vec::new(),
        };
        Choice::of(outcomes.iter().map(trial).collect(), patches)
    }

    fn words(outcomes: &[(&str, Outcome)], patches: usize) -> String {
        choice(outcomes, patches).unwrap().words().join("\n")
    }

    #[test]
    fn the_newest_base_to_which_all_patches_apply_is_taken() {
        use Fate::{Already, Applies};
        let both = || fit([Applies, Applies], 2);
        insta::assert_snapshot!(words(&[("7.3", fit([Already, Already], 2)), ("6.12", both()), ("6.1", both())], 2), @r"
        base 6.12: the newest to which the whole series applies
        7.3: both patches are in it already
        6.12: both patches apply
        6.1: both patches apply
        ");
        insta::assert_snapshot!(words(&[("7.3", fit([Applies, LOOSE], 2)), ("6.12", both())], 2), @r"
        base 6.12: the newest to which the whole series applies
        7.3: both patches apply; only with less context: patch 2
        6.12: both patches apply
        ");
        insta::assert_snapshot!(words(&[("7.3", fit([Already, Applies], 2)), ("6.12", fit([LOOSE, LOOSE], 2))], 2), @r"
        base 6.12: the newest to which the whole series applies with less context
        7.3: 1 of 2 patches applies; in it already: patch 1
        6.12: both patches apply; only with less context: patches 1, 2
        ");
    }

    #[test]
    fn else_that_to_which_most_patches_apply() {
        use Fate::{Already, Applies};
        let part = |count: usize| match count {
            1 => fit([Applies], 4),
            _ => fit([Applies, Applies], 4),
        };
        insta::assert_snapshot!(words(&[("7.3", part(1)), ("6.12", part(2)), ("6.1", part(2))], 4), @r"
        base 6.12: the whole series applies to no base; to this one most patches do
        7.3: 1 of 4 patches applies; patch 2 does not fit
        6.12: 2 of 4 patches apply; patch 3 does not fit
        6.1: 2 of 4 patches apply; patch 3 does not fit
        ");
        insta::assert_snapshot!(words(&[("7.3", fit([Already, Applies], 2)), ("6.12", fit([Applies], 2))], 2), @r"
        base 7.3: the newest to which all patches apply that it does not have already
        7.3: 1 of 2 patches applies; in it already: patch 1
        6.12: 1 of 2 patches applies; patch 2 does not fit
        ");
        insta::assert_snapshot!(words(&[("7.3", fit([Already], 1)), ("6.12", fit([], 1))], 1), @r"
        all of the series is in 7.3 already, and it applies to no base
        7.3: the patch is in it already
        6.12: no patch applies
        ");
        insta::assert_snapshot!(words(&[("7.3", fit([], 1)), ("6.12", fit([Already], 1)), ("6.1", fit([Already], 1))], 1), @r"
        all of the series is in 6.12 and 6.1 already, and it applies to no base
        7.3: no patch applies
        6.12: the patch is in it already
        6.1: the patch is in it already
        ");
        insta::assert_snapshot!(words(&[("7.3", fit([], 1)), ("6.12", fit([], 1))], 1), @r"
        no patch of the series applies to any base
        7.3: no patch applies
        6.12: no patch applies
        ");
        insta::assert_snapshot!(words(&[("7.3", fit([LOOSE], 1)), ("6.12", fit([], 1))], 1), @r"
        base 7.3: the newest to which the whole series applies with less context
        7.3: the patch applies; only with less context: it
        6.12: no patch applies
        ");
    }

    #[test]
    fn a_base_that_cannot_be_had_does_not_stop_the_others() {
        let lost = || Outcome::NotTried("cannot be tried: no network".to_owned());
        insta::assert_snapshot!(words(&[("7.3", lost()), ("6.12", fit([Fate::Applies], 1))], 1), @r"
        base 6.12: the newest to which the whole series applies
        7.3: cannot be tried: no network
        6.12: the patch applies
        ");
        assert!(choice(&[("7.3", lost())], 1).is_none());
    }

    #[test]
    fn a_base_without_an_alternative_needs_no_words() {
        let only = choice(&[("6.12", fit([Fate::Already], 1))], 1).unwrap();
        assert_eq!((only.words(), only.is_in().as_deref(), only.suitable()), (Vec::new(), Some("6.12"), None));
    }

    #[test]
    fn bases_are_sorted_by_their_numbers() {
        let names = newest_first(&Manifest::of_project().unwrap());
        assert!(
            names.iter().position(|name| name == "6.12") < names.iter().position(|name| name == "6.1"),
            "{names:?}"
        );
        assert!(
            version("7.3") > version("6.12") && version("6.12") > version("6.1") && version("6.1") > version("mine")
        );
    }
}
