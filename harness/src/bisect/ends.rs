//! The two ends of a bisection: whether they can be ends at all, first by history and then by what they do.

use super::git::{Revision, are_related, is_ancestor, is_shallow, revision};
use super::ruling::{Mark, Wanted, usual_failure};
use super::{Bench, BisectError, Event, Judged, Observed, Place, Question};

/// Why two commits cannot be the ends.
#[derive(Debug, thiserror::Error)]
pub enum EndsError {
    /// They are one.
    #[error("good and bad are the same commit, {0}: there is nothing between them")]
    Same(Revision),
    /// The good one is the newer, and no fix is asked for.
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
    /// The good one is the older, and a fix is asked for.
    #[error(
        "with --reverse the good end is the newer one, but good ({good}) is older than bad ({bad}). If it was broken in \
         between, leave --reverse out; if the two are mixed up, swap --good and --bad"
    )]
    GoodIsOlder {
        /// The good end.
        good: Revision,
        /// The bad end.
        bad: Revision,
    },
    /// They have nothing to do with each other.
    #[error(
        "good ({good}) and bad ({bad}) have no commit in common, so nothing lies between them{}",
        if *shallow { ": this clone is shallow, and `git fetch --unshallow` fetches the rest" } else { "" }
    )]
    Unrelated {
        /// The good end.
        good: Revision,
        /// The bad end.
        bad: Revision,
        /// The clone has not all of the history.
        shallow: bool,
    },
    /// Each is what the other should be.
    #[error(
        "good and bad are mixed up: good ({}) fails ({}), and bad ({}) passes. {}",
        good.revision, good.ruling.why, bad.revision, swap(&good.revision, *reverse)
    )]
    Swapped {
        /// The good end.
        good: Box<Judged>,
        /// The bad end.
        bad: Box<Judged>,
        /// A fix is asked for.
        reverse: bool,
    },
    /// The bad end passes.
    #[error(
        "the bad end ({}) is not bad: it {}. If the bug shows only now and then, try more --runs; else choose another \
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
        /// A fix is asked for.
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
        /// What was seen of it.
        judged: Box<Judged>,
    },
}

/// What to do about ends of which each is what the other should be.
fn swap(end: &Revision, reverse: bool) -> &'static str {
    match (end.is_of_series(), reverse) {
        (false, false) => "Swap --good and --bad, and add --reverse if the passing one is newer",
        (false, true) => "Swap --good and --bad, and leave --reverse out if the failing one is newer",
        (true, false) => "The series fixes it: add --reverse to find the patch that does",
        (true, true) => "The series breaks it: leave --reverse out to find the patch that does",
    }
}

/// What to do about a good end that fails.
fn better(end: &Revision, reverse: bool) -> &'static str {
    match (end.is_of_series(), reverse) {
        (false, false) => "Choose an older one",
        (false, true) => "Choose a newer one",
        (true, false) => "It is not the series that breaks it: choose another --base, scenario or trigger",
        (true, true) => "The series does not fix it: choose another --base, scenario or trigger",
    }
}

/// The ends.
pub(super) struct Ends {
    good: Revision,
    bad: Revision,
}

impl Ends {
    /// The older and the newer one.
    pub(super) fn in_order(&self, reverse: bool) -> (&Revision, &Revision) {
        if reverse { (&self.bad, &self.good) } else { (&self.good, &self.bad) }
    }
}

/// Finds them in the history, and looks whether they lie there as they should. That one need not be the other's ancestor
/// is git's business: it has their merge base judged.
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

/// Judges them: the bad one first, as its failure is the one that is looked for everywhere else.
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
