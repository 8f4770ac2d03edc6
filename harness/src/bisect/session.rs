//! `git bisect` in a worktree of ours that has no files: what it would check out it names (`--no-checkout`), and whoever
//! builds takes it from there. Its refs and its log belong to that worktree, so a user may bisect in the own checkout at
//! the same time.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use kernels::cache::{Cache, Key, Lock};
use regex::Regex;

use super::BisectError;
use super::git::{GitError, Revision, git, revision};
use super::ruling::Mark;

/// Where the worktrees lie in the cache.
const SHELF: &str = "bisect";

/// A bisection that is under way.
pub(super) struct Session {
    repository: PathBuf,
    worktree: PathBuf,
    terms: Terms,
    left: Option<Left>,
    _lock: Lock,
}

/// What old and new commits are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Terms {
    pub old: &'static str,
    pub new: &'static str,
}

impl Terms {
    /// For a commit that breaks something, or, in reverse, one that fixes it.
    pub(super) fn of(reverse: bool) -> Terms {
        match reverse {
            false => Terms { old: "good", new: "bad" },
            true => Terms { old: "broken", new: "fixed" },
        }
    }

    /// What git calls a commit of this kind.
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
    /// Commits that may still be judged after this one.
    pub revisions: u32,
    /// About how many of them will be.
    pub steps: u32,
}

/// What comes next.
#[derive(Debug)]
pub(super) enum Next {
    /// This commit is to be judged.
    Judge(Revision),
    /// This is the one.
    Found(Revision),
    /// It is one of these, and no more can be known.
    OneOf(Vec<Revision>),
}

impl Session {
    /// Makes the worktree. One that a killed run left behind is made anew.
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

    /// Begins between two commits, with what is not to be judged, in the history of these paths (all, if there are none).
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

    /// Tells git what a commit is.
    pub(super) async fn mark(&mut self, mark: Mark, revision: &Revision) -> Result<(), BisectError> {
        self.bisect(&[self.terms.word(mark), &revision.id]).await
    }

    /// What git wants to know next, or what it has found. The log says the latter in the same words in all versions.
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

    /// How much is left, if git has said so.
    pub(super) fn left(&self) -> Option<Left> {
        self.left
    }

    /// What `git bisect log` says: what `git bisect replay` takes. A replay is to check commits out, as usual.
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
            // Only skipped commits are left: the log names them.
            Some(2) => Ok(()),
            // A merge base that was judged is not what it has to be (`builtin/bisect.c`, BISECT_MERGE_BASE_CHECK).
            Some(3) => Err(BisectError::MergeBase { said: ran.stderr.trim().to_owned() }),
            _ => Err(ran.failed().into()),
        }
    }

    /// Takes the worktree out of the repository, and its folder away. Without an answer: what stays is in nobody's way, and the
    /// next bisection of the same question makes it anew.
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

/// `Bisecting: 3 revisions left to test after this (roughly 2 steps)`. Not said of a merge base.
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
