//! Finds the commit that broke or fixed something: `git bisect`, in which a scenario judges the commits.
//!
//! git chooses the next commit and keeps the log. This module judges commits, and remembers the verdicts by the content
//! of the commit. There is no other state: a bisection that was interrupted starts again from the beginning, and finds
//! most verdicts remembered.

mod cells;
mod checkout;
mod ends;
pub mod git;
mod history;
mod memory;
mod note;
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
pub use note::note;
pub use report::{Asked, render};
use ruling::ruling;
pub use ruling::{Mark, Observed, Ruling, Wanted};
pub use session::Left;
use session::{Next, Session};

use crate::evidence::EvidenceError;
use crate::verdict::Verdict;

/// The question of a bisection.
#[derive(Clone, Debug)]
pub struct Question {
    /// A folder of the repository: the user's repository, or a [`History`].
    pub repository: PathBuf,
    /// A revision that passes.
    pub good: String,
    /// A revision that fails.
    pub bad: String,
    /// The good revision is newer, and the commit that fixed the bug is wanted.
    pub reverse: bool,
    /// Revisions and ranges that are skipped.
    pub skip: Vec<String>,
    /// Only commits that touch one of these paths are judged. All commits if this is empty.
    pub paths: Vec<String>,
    /// Up to this many runs of a commit decide by majority.
    pub runs: usize,
    /// Count every failure as bad, not only one like that of the bad end.
    pub any_failure: bool,
}

/// Why a bisection has no answer. The verdicts so far are remembered in each case.
#[derive(Debug, thiserror::Error)]
pub enum BisectError {
    /// git failed.
    #[error(transparent)]
    Git(GitError),
    /// The cache failed.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// A verdict could not be written.
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
    /// Another process runs the same bisection.
    #[error("the same bisection is running in another process: wait for it, or end it")]
    UnderWay,
    /// The ends are not usable.
    #[error(transparent)]
    Ends(#[from] ends::EndsError),
    /// The histories of the ends diverge, and their merge base has the wrong verdict.
    #[error(
        "the merge base of good and bad does not have the verdict that a bisection needs, so no single commit between \
         them made the change; git says:\n{said}"
    )]
    MergeBase {
        /// git's message.
        said: String,
    },
    /// The source of the base of a series is missing.
    #[error("the source of {0} is no longer in the cache: run the same command again to fetch it")]
    Source(String),
    /// The test bed failed.
    #[error(
        "error of the harness or its host at {revision}, which says nothing about that commit: {why}\n\
         The verdicts so far are remembered. The same command continues from here{}",
        how_to_skip(*place, revision)
    )]
    Trouble {
        /// Whether the commit is an end or a step.
        place: Place,
        /// The commit.
        revision: Revision,
        /// The last error.
        why: String,
    },
}

/// How to continue without a commit.
fn how_to_skip(place: Place, revision: &Revision) -> String {
    match place {
        Place::Step { .. } => format!("; --skip {} leaves this commit out.", revision.short),
        Place::BadEnd | Place::GoodEnd => ".".to_owned(),
    }
}

/// The progress of a bisection.
#[derive(Debug)]
pub enum Event<'a> {
    /// The judging of a commit begins.
    Judging {
        /// Whether the commit is an end or a step.
        place: Place,
        /// The commit.
        revision: &'a Revision,
    },
    /// A commit was judged.
    Judged {
        /// Whether the commit is an end or a step.
        place: Place,
        /// The commit and its ruling.
        judged: &'a Judged,
    },
}

/// Whether a commit is judged as an end or as a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The end that must fail.
    BadEnd,
    /// The end that must pass.
    GoodEnd,
    /// A step between them.
    Step {
        /// Its number, from 1.
        number: u32,
        /// What is left, if git has reported it.
        left: Option<Left>,
    },
}

/// A commit that was judged.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// The commit.
    pub revision: Revision,
    /// How git marks it, and why.
    pub ruling: Ruling,
    /// Its runs.
    pub observed: Vec<Observed>,
    /// All of its runs are remembered ones.
    pub remembered: bool,
}

/// The commit that a bisection found.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// This commit.
    First(Revision),
    /// One of these commits. Commits among them could not be judged, so git cannot decide.
    OneOf(Vec<Revision>),
}

/// The answer of a bisection.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The commit that was found.
    pub found: Found,
    /// The failure that was looked for.
    pub wanted: Wanted,
    /// All commits that were judged, the ends first.
    pub judged: Vec<Judged>,
    /// `git bisect log`.
    pub log: String,
    /// The fix was wanted.
    pub reverse: bool,
}

impl Answer {
    /// The judgement of a commit, if it was judged.
    pub fn judged(&self, id: &str) -> Option<&Judged> {
        self.judged.iter().find(|judged| judged.revision.id == id)
    }
}

/// Bisects. `judge` runs the scenario on a commit, in as many guests as [`crate::tries`] allows. A verdict that says
/// nothing about the commit even then ([`Verdict::Infra`]) ends the bisection. Other verdicts are remembered. Dropping the
/// future is safe at any time.
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

/// Judges one commit as a step of a bisection that another program runs.
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

/// What is needed to judge commits, and the commits that were judged.
struct Bench<'a, J, T> {
    memory: &'a Memory,
    judge: J,
    tell: T,
    runs: usize,
    judged: Vec<Judged>,
}

impl<J: AsyncFnMut(&Revision) -> Observed, T: FnMut(Event<'_>)> Bench<'_, J, T> {
    /// Judges a commit, with as many new runs as needed.
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

    /// One run. It has tried as many guests as a cell may try.
    async fn run(&mut self, place: Place, revision: &Revision) -> Result<Observed, BisectError> {
        let observed = (self.judge)(revision).await;
        match observed.verdict {
            Verdict::Infra(why) => Err(BisectError::Trouble { place, revision: revision.clone(), why }),
            _ => Ok(observed),
        }
    }
}

#[cfg(test)]
mod tests;
