//! The two ends of a bisection: checks them first in the history, and then by running them.

use super::git::{Revision, are_related, is_ancestor, is_shallow, revision};
use super::ruling::{Mark, Wanted, usual_failure};
use super::{Bench, BisectError, Event, Judged, Observed, Place, Question};

/// Why two commits cannot be the ends.
#[derive(Debug, thiserror::Error)]
pub enum EndsError {
    /// They are the same commit.
    #[error("good and bad are the same commit, {0}: there is nothing between them")]
    Same(Revision),
    /// The good end is newer, without `--reverse`.
    #[error(
        "good ({good}) is newer than bad ({bad}). If it was fixed in between, add --reverse to find the fix; if the two \
         are mixed up, swap --good and --bad"
    )]
    GoodIsNewer {
        /// The good end.
        good: Revision,
        /// The bad end.
        bad: Revision,
    },
    /// The good end is older, with `--reverse`.
    #[error(
        "with --reverse the good end is the newer one, but good ({good}) is older than bad ({bad}). If it was broken in \
         between, omit --reverse; if the two are mixed up, swap --good and --bad"
    )]
    GoodIsOlder {
        /// The good end.
        good: Revision,
        /// The bad end.
        bad: Revision,
    },
    /// Their histories have no common commit.
    #[error(
        "good ({good}) and bad ({bad}) have no commit in common, so there is no commit between them{}",
        if *shallow { ": this clone is shallow, and `git fetch --unshallow` fetches the rest" } else { "" }
    )]
    Unrelated {
        /// The good end.
        good: Revision,
        /// The bad end.
        bad: Revision,
        /// The clone does not have the whole history.
        shallow: bool,
    },
    /// The good end fails, and the bad end passes.
    #[error(
        "good and bad are mixed up: good ({}) fails ({}), and bad ({}) passes. {}",
        good.revision, good.ruling.why, bad.revision, swap(&good.revision, *reverse)
    )]
    Swapped {
        /// The good end.
        good: Box<Judged>,
        /// The bad end.
        bad: Box<Judged>,
        /// `--reverse` was given.
        reverse: bool,
    },
    /// The bad end passes.
    #[error(
        "the bad end ({}) is not bad: it {}. If the bug reproduces only randomly, try more --runs; else choose another \
         {}, scenario or trigger",
        .0.revision, .0.ruling.why, if .0.revision.is_of_series() { "--base" } else { "end" }
    )]
    BadPasses(Box<Judged>),
    /// The good end fails.
    #[error(
        "the good end ({}) is not good: {}. {}",
        good.revision, good.ruling.why, better(&good.revision, *reverse)
    )]
    GoodFails {
        /// The good end.
        good: Box<Judged>,
        /// `--reverse` was given.
        reverse: bool,
    },
    /// An end cannot be judged.
    #[error(
        "the {which} end ({}) cannot be judged: it {}. Choose {}",
        judged.revision, judged.ruling.why,
        if judged.revision.is_of_series() { "another --base, scenario or trigger" } else { "another one nearby" }
    )]
    Unjudged {
        /// `good` or `bad`.
        which: &'static str,
        /// How it was judged.
        judged: Box<Judged>,
    },
}

/// What to do if the good end fails and the bad end passes.
fn swap(end: &Revision, reverse: bool) -> &'static str {
    match (end.is_of_series(), reverse) {
        (false, false) => "Swap --good and --bad, and add --reverse if the passing one is newer",
        (false, true) => "Swap --good and --bad, and omit --reverse if the failing one is newer",
        (true, false) => "The series fixes it: add --reverse to find the patch that fixes it",
        (true, true) => "The series breaks it: omit --reverse to find the patch that breaks it",
    }
}

/// What to do if the good end fails.
fn better(end: &Revision, reverse: bool) -> &'static str {
    match (end.is_of_series(), reverse) {
        (false, false) => "Choose an older one",
        (false, true) => "Choose a newer one",
        (true, false) => "The series does not break it: choose another --base, scenario or trigger",
        (true, true) => "The series does not fix it: choose another --base, scenario or trigger",
    }
}

/// The two ends.
pub(super) struct Ends {
    good: Revision,
    bad: Revision,
}

impl Ends {
    /// The older and the newer end.
    pub(super) fn in_order(&self, reverse: bool) -> (&Revision, &Revision) {
        if reverse { (&self.bad, &self.good) } else { (&self.good, &self.bad) }
    }
}

/// Finds the ends in the history, and checks which is newer. One need not be the ancestor of the other: git requests a
/// verdict on their merge base in that case.
pub(super) async fn find(question: &Question) -> Result<Ends, BisectError> {
    let folder = &question.repository;
    let ends = Ends { good: revision(folder, &question.good).await?, bad: revision(folder, &question.bad).await? };
    let (old, new) = ends.in_order(question.reverse);
    let Ends { good, bad } = &ends;
    let (good, bad) = (good.clone(), bad.clone());
    if old.id == new.id {
        return Err(EndsError::Same(good).into());
    }
    if is_ancestor(folder, new, old).await? {
        let mixed_up = match question.reverse {
            false => EndsError::GoodIsNewer { good, bad },
            true => EndsError::GoodIsOlder { good, bad },
        };
        return Err(mixed_up.into());
    }
    if !are_related(folder, old, new).await? {
        return Err(EndsError::Unrelated { good, bad, shallow: is_shallow(folder).await? }.into());
    }
    Ok(ends)
}

/// Judges the ends: the bad one first, because its failure is the one to look for in all other commits.
pub(super) async fn check<J, T>(
    ends: &Ends,
    question: &Question,
    bench: &mut Bench<'_, J, T>,
) -> Result<Wanted, BisectError>
where
    J: AsyncFnMut(&Revision) -> Observed,
    T: FnMut(Event<'_>),
{
    let reverse = question.reverse;
    let bad = Box::new(bench.judge(Place::BadEnd, &ends.bad, &Wanted::Any).await?);
    let wanted = match (bad.ruling.mark, usual_failure(&bad.observed)) {
        (Mark::Skip, _) => return Err(EndsError::Unjudged { which: "bad", judged: bad }.into()),
        (Mark::Bad, Some(failure)) if !question.any_failure => Wanted::like(failure),
        _ => Wanted::Any,
    };
    let good = Box::new(bench.judge(Place::GoodEnd, &ends.good, &wanted).await?);
    match (good.ruling.mark, bad.ruling.mark) {
        (Mark::Good, Mark::Bad) => Ok(wanted),
        (Mark::Bad, Mark::Good) => Err(EndsError::Swapped { good, bad, reverse }.into()),
        (_, Mark::Good) => Err(EndsError::BadPasses(bad).into()),
        (Mark::Bad, _) => Err(EndsError::GoodFails { good, reverse }.into()),
        (Mark::Skip, _) => Err(EndsError::Unjudged { which: "good", judged: good }.into()),
        (Mark::Good, Mark::Skip) => Err(EndsError::Unjudged { which: "bad", judged: bad }.into()),
    }
}
