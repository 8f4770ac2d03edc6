//! `git bisect` in a separate worktree without files. With `--no-checkout`, git only names the next commit in
//! BISECT_HEAD, and the build reads that commit from the repository. The refs and the log of the bisection belong to
//! the worktree, so a user can bisect in the checkout at the same time.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use kernels::cache::{Cache, Key, Lock};
use regex::Regex;

use super::BisectError;
use super::git::{GitError, Revision, git, revision};
use super::ruling::Mark;

/// The folder of the worktrees in the cache.
const SHELF: &str = "bisect";

/// A running bisection.
pub(super) struct Session {
    repository: PathBuf,
    worktree: PathBuf,
    terms: Terms,
    left: Option<Left>,
    _lock: Lock,
}

/// The terms for old and new commits (`git bisect start --term-old --term-new`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Terms {
    pub old: &'static str,
    pub new: &'static str,
}

impl Terms {
    /// The terms to find the commit that breaks something, or, in reverse, the commit that fixes it.
    pub(super) fn of(reverse: bool) -> Terms {
        match reverse {
            false => Terms { old: "good", new: "bad" },
            true => Terms { old: "broken", new: "fixed" },
        }
    }

    /// The subcommand of `git bisect` that marks a commit.
    pub(super) fn word(self, mark: Mark) -> &'static str {
        match (mark, self.new == "fixed") {
            (Mark::Good, false) => "good",
            (Mark::Bad, false) => "bad",
            (Mark::Good, true) => "fixed",
            (Mark::Bad, true) => "broken",
            (Mark::Skip, _) => "skip",
        }
    }
}

/// How much is left to do, as git estimates it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// How many commits are left to test after this one.
    pub revisions: u32,
    /// About how many steps they need.
    pub steps: u32,
}

/// The next step of a bisection.
#[derive(Debug)]
pub(super) enum Next {
    /// Judge this commit.
    Judge(Revision),
    /// This is the commit.
    Found(Revision),
    /// It is one of these commits, and git cannot decide which.
    OneOf(Vec<Revision>),
}

impl Session {
    /// Creates the worktree. Replaces one that a killed run left.
    pub(super) async fn open(
        cache: &Cache,
        repository: &Path,
        key: &Key,
        reverse: bool,
        at: &Revision,
    ) -> Result<Session, BisectError> {
        let name = format!("{SHELF}-{}", key.as_str());
        let lock = cache.try_lock(&name)?.ok_or(BisectError::UnderWay)?;
        let shelf = cache.root().join(SHELF);
        std::fs::create_dir_all(&shelf).map_err(|source| kernels::cache::CacheError::Io {
            action: "create",
            path: shelf.clone(),
            source,
        })?;
        let worktree = shelf.join(key.as_str());
        let session =
            Session { repository: repository.to_owned(), worktree, terms: Terms::of(reverse), left: None, _lock: lock };
        session.remove();
        let add = ["worktree", "add", "--force", "--no-checkout", "--detach"].map(std::ffi::OsStr::new);
        let arguments = add.into_iter().chain([session.worktree.as_os_str(), at.id.as_ref()]);
        git(repository, arguments).await?.ok()?;
        Ok(session)
    }

    /// Starts between two commits. Skips the commits of `skip`, and considers only commits that touch `paths` (all
    /// commits if it is empty).
    pub(super) async fn start(
        &mut self,
        old: &Revision,
        new: &Revision,
        skip: &[String],
        paths: &[String],
    ) -> Result<(), BisectError> {
        let terms = [format!("--term-old={}", self.terms.old), format!("--term-new={}", self.terms.new)];
        let mut words = vec!["start", "--no-checkout"];
        if self.terms != Terms::of(false) {
            words.extend(terms.iter().map(String::as_str));
        }
        words.extend([new.id.as_str(), &old.id, "--"]);
        words.extend(paths.iter().map(String::as_str));
        self.bisect(&words).await?;
        if !skip.is_empty() {
            let words: Vec<_> = ["skip"].into_iter().chain(skip.iter().map(String::as_str)).collect();
            self.bisect(&words).await?;
        }
        Ok(())
    }

    /// Marks a commit.
    pub(super) async fn mark(&mut self, mark: Mark, revision: &Revision) -> Result<(), BisectError> {
        self.bisect(&[self.terms.word(mark), &revision.id]).await
    }

    /// The next commit to judge, or the result. The result is read from the log, whose format is the same in all
    /// versions of git.
    pub(super) async fn next(&self) -> Result<Next, BisectError> {
        let log = self.log().await?;
        let named = |what: &str| -> Vec<String> {
            let prefix = format!("# {what} {} commit: [", self.terms.new);
            log.lines().filter_map(|line| Some(line.strip_prefix(&prefix)?.split_once(']')?.0.to_owned())).collect()
        };
        if let Some(id) = named("first").first() {
            return Ok(Next::Found(revision(&self.worktree, id).await?));
        }
        let possible = named("possible first");
        if possible.is_empty() {
            return Ok(Next::Judge(revision(&self.worktree, "BISECT_HEAD").await?));
        }
        let mut revisions = Vec::new();
        for id in possible {
            revisions.push(revision(&self.worktree, &id).await?);
        }
        Ok(Next::OneOf(revisions))
    }

    /// How much is left, if git has reported it.
    pub(super) fn left(&self) -> Option<Left> {
        self.left
    }

    /// The output of `git bisect log`, as input for `git bisect replay`. A replay checks commits out, as usual.
    pub(super) async fn log(&self) -> Result<String, BisectError> {
        let log = git(&self.worktree, ["bisect", "log"]).await?.ok()?;
        Ok(log.replace(" '--no-checkout'", ""))
    }

    async fn bisect(&mut self, words: &[&str]) -> Result<(), BisectError> {
        let ran = git(&self.worktree, ["bisect"].iter().chain(words)).await?;
        match ran.status.code() {
            Some(0) => {
                self.left = left(&ran.stdout).or(self.left);
                Ok(())
            }
            // Only skipped commits are left. The log names them.
            Some(2) => Ok(()),
            // The verdict on a merge base is not the required one (`builtin/bisect.c`, BISECT_MERGE_BASE_CHECK).
            Some(3) => Err(BisectError::MergeBase { said: ran.stderr.trim().to_owned() }),
            _ => Err(ran.failed().into()),
        }
    }

    /// Removes the worktree from the repository, and its folder. Ignores errors: a worktree that stays does no harm,
    /// and the next bisection of the same question replaces it.
    fn remove(&self) {
        if self.worktree.exists() {
            let mut git = Command::new("git");
            git.arg("-C").arg(&self.repository).args(["worktree", "remove", "--force", "--force"]).arg(&self.worktree);
            let _ = git.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
            let _ = std::fs::remove_dir_all(&self.worktree);
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Parses `Bisecting: 3 revisions left to test after this (roughly 2 steps)`. git does not print it for a merge base.
fn left(said: &str) -> Option<Left> {
    let words = Regex::new(r"Bisecting: (\d+) revisions? left to test after this \(roughly (\d+) steps?\)").ok()?;
    let found = words.captures(said)?;
    Some(Left { revisions: found[1].parse().ok()?, steps: found[2].parse().ok()? })
}

impl From<GitError> for BisectError {
    fn from(error: GitError) -> BisectError {
        BisectError::Git(error)
    }
}
