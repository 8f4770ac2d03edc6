//! Which commit broke it, or which one fixed it: `git bisect`, with scenarios for a judge.
//!
//! git chooses what to judge, and keeps the log; here a commit is judged, and what was seen of its content is remembered.
//! That is all the state there is: a bisection that was interrupted asks git the same questions again, and most answers
//! are known.

mod cells;
mod checkout;
mod ends;
pub mod git;
mod history;
mod memory;
mod report;
mod ruling;
mod session;

use std::path::PathBuf;

use kernels::cache::CacheError;

pub use cells::{Cells, Kernels, OfCommits};
pub use checkout::checked_out;
pub use ends::EndsError;
pub use git::{GitError, Revision};
pub use history::History;
pub use memory::{Memory, Page};
pub use report::{Asked, render};
use ruling::ruling;
pub use ruling::{Mark, Observed, Ruling, Wanted};
pub use session::Left;
use session::{Next, Session};

use crate::evidence::EvidenceError;
use crate::verdict::Verdict;

/// How often a run is tried when the test bed keeps it from a verdict.
const TRIES: usize = 3;

/// What is asked.
#[derive(Clone, Debug)]
pub struct Question {
    /// A folder of the repository: of the user's, or of a [`History`].
    pub repository: PathBuf,
    /// A revision that passes.
    pub good: String,
    /// A revision that fails.
    pub bad: String,
    /// The good one is the newer: which commit fixed it?
    pub reverse: bool,
    /// Revisions and ranges that are not to be judged.
    pub skip: Vec<String>,
    /// Only commits that touch one of these; all if there are none.
    pub paths: Vec<String>,
    /// How many runs decide on a commit, by majority.
    pub runs: usize,
    /// Take every failure for the one that is looked for, not only one like that of the bad end.
    pub any_failure: bool,
}

/// Why a bisection has no answer. What was judged is remembered in each case.
#[derive(Debug, thiserror::Error)]
pub enum BisectError {
    /// git.
    #[error(transparent)]
    Git(GitError),
    /// The cache.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// What was seen could not be written down.
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
    /// Another process is at it.
    #[error("the same bisection is under way in another process: wait for it, or end it")]
    UnderWay,
    /// The ends.
    #[error(transparent)]
    Ends(#[from] ends::EndsError),
    /// The ends have parted from a commit that fits neither.
    #[error(
        "good and bad have parted from a commit that does not fit them, so there is no single commit to be found \
         between them; git says:\n{said}"
    )]
    MergeBase {
        /// git's words.
        said: String,
    },
    /// The source of what a series goes on.
    #[error("the source of {0} is not in the cache any more: the same command brings it back")]
    Source(String),
    /// The test bed.
    #[error(
        "trouble with the harness or its host at {revision}, which says nothing about that commit: {why}\n\
         What was judged is remembered. The same command goes on from here{}",
        around(*place, revision)
    )]
    Trouble {
        /// As what it was to be judged.
        place: Place,
        /// At which commit.
        revision: Revision,
        /// What happened, the last time.
        why: String,
    },
}

/// How to do without a commit.
fn around(place: Place, revision: &Revision) -> String {
    match place {
        Place::Step { .. } => format!("; with --skip {} it does without this commit.", revision.short),
        Place::BadEnd | Place::GoodEnd => ".".to_owned(),
    }
}

/// What a bisection tells while it goes on.
#[derive(Debug)]
pub enum Event<'a> {
    /// A commit is about to be judged.
    Judging {
        /// As what.
        place: Place,
        /// Which.
        revision: &'a Revision,
    },
    /// The test bed kept it from a verdict, and it is tried again.
    Again {
        /// As what.
        place: Place,
        /// Which.
        revision: &'a Revision,
        /// What happened.
        why: &'a str,
    },
    /// It is judged.
    Judged {
        /// As what.
        place: Place,
        /// How.
        judged: &'a Judged,
    },
}

/// As what a commit is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The end that must fail.
    BadEnd,
    /// The end that must pass.
    GoodEnd,
    /// A step between them.
    Step {
        /// Which one, from 1.
        number: u32,
        /// What is left, if git says so.
        left: Option<Left>,
    },
}

/// A commit that was judged.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// Which.
    pub revision: Revision,
    /// What git was told.
    pub ruling: Ruling,
    /// What was seen.
    pub observed: Vec<Observed>,
    /// All of it was seen before.
    pub remembered: bool,
}

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// The commit.
    First(Revision),
    /// One of these: the others could not be judged.
    OneOf(Vec<Revision>),
}

/// The answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// What was found.
    pub found: Found,
    /// The failure that was looked for.
    pub wanted: Wanted,
    /// All commits that were judged, the ends first.
    pub judged: Vec<Judged>,
    /// `git bisect log`.
    pub log: String,
    /// It was asked for a fix.
    pub reverse: bool,
}

impl Answer {
    /// What was seen of a commit, if it was judged.
    pub fn judged(&self, id: &str) -> Option<&Judged> {
        self.judged.iter().find(|judged| judged.revision.id == id)
    }
}

/// Bisects. `judge` runs the scenario once on a commit. What says nothing about the commit ([`Verdict::Infra`]) is tried
/// again if there was a guest, and ends the bisection if that does not help; verdicts are remembered. Dropping the future is safe at any time.
///
/// # Errors
/// [`BisectError`].
pub async fn bisect(
    question: &Question,
    memory: &Memory,
    judge: impl AsyncFnMut(&Revision) -> Observed,
    tell: impl FnMut(Event<'_>),
) -> Result<Answer, BisectError> {
    let mut bench = Bench { memory, judge, tell, runs: question.runs, judged: Vec::new() };
    let ends = ends::find(question).await?;
    let mut skip = Vec::new();
    for names in &question.skip {
        skip.extend(git::ids(&question.repository, names).await?);
    }
    let wanted = ends::check(&ends, question, &mut bench).await?;
    let (old, new) = ends.in_order(question.reverse);
    let key = memory.question().with("old", &old.id).with("new", &new.id).finish();
    let mut session = Session::open(memory.cache(), &question.repository, &key, question.reverse, new).await?;
    session.start(old, new, &skip, &question.paths).await?;
    let mut number = 0;
    let found = loop {
        match session.next().await? {
            Next::Found(revision) => break Found::First(revision),
            Next::OneOf(revisions) => break Found::OneOf(revisions),
            Next::Judge(revision) => {
                number += 1;
                let place = Place::Step { number, left: session.left() };
                let mark = bench.judge(place, &revision, &wanted).await?.ruling.mark;
                session.mark(mark, &revision).await?;
            }
        }
    };
    let named = git::names(&question.repository).await?;
    let log = named.iter().fold(session.log().await?, |log, (id, name)| log.replace(id, name));
    Ok(Answer { found, wanted, judged: bench.judged, log, reverse: question.reverse })
}

/// Judges one commit as a step of somebody else's bisection.
///
/// # Errors
/// [`BisectError`].
pub async fn step(
    revision: &Revision,
    runs: usize,
    wanted: &Wanted,
    memory: &Memory,
    judge: impl AsyncFnMut(&Revision) -> Observed,
) -> Result<Judged, BisectError> {
    let mut bench = Bench { memory, judge, tell: |_: Event<'_>| {}, runs, judged: Vec::new() };
    bench.judge(Place::Step { number: 1, left: None }, revision, wanted).await
}

/// Where commits are judged.
struct Bench<'a, J, T> {
    memory: &'a Memory,
    judge: J,
    tell: T,
    runs: usize,
    judged: Vec<Judged>,
}

impl<J: AsyncFnMut(&Revision) -> Observed, T: FnMut(Event<'_>)> Bench<'_, J, T> {
    /// Judges a commit, with as many runs as it still takes.
    async fn judge(&mut self, place: Place, revision: &Revision, wanted: &Wanted) -> Result<Judged, BisectError> {
        (self.tell)(Event::Judging { place, revision });
        let mut page = self.memory.of(revision).await?;
        let mut remembered = true;
        let ruling = loop {
            if let Some(ruling) = ruling(page.observed(), self.runs, wanted) {
                break ruling;
            }
            remembered = false;
            page.add(self.run(place, revision).await?)?;
        };
        let judged = Judged { revision: revision.clone(), ruling, observed: page.observed().to_vec(), remembered };
        (self.tell)(Event::Judged { place, judged: &judged });
        self.judged.push(judged.clone());
        Ok(judged)
    }

    /// One run, repeated as long as the test bed spoils it and there is hope. Without a cell there was no guest: what
    /// keeps a kernel from being built (a full disk, say) does so the next time too.
    async fn run(&mut self, place: Place, revision: &Revision) -> Result<Observed, BisectError> {
        let mut tries = 1;
        loop {
            let observed = (self.judge)(revision).await;
            let Verdict::Infra(why) = observed.verdict else { return Ok(observed) };
            if tries == TRIES || observed.evidence.is_none() {
                return Err(BisectError::Trouble { place, revision: revision.clone(), why });
            }
            (self.tell)(Event::Again { place, revision, why: &why });
            tries += 1;
        }
    }
}

#[cfg(test)]
mod tests;
