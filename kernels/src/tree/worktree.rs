//! A worktree of ours of a user's repository, in the cache.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{Commit, Tree, git};
use crate::cache::{Cache, KeyMaker, Lock};
use crate::error::{BuildError, TreeError};
use crate::event::CancelToken;
use crate::files::remove;
use crate::job::{Job, JobError};

/// The shelf of the cache on which worktrees stand.
pub(crate) const SHELF: &str = "worktrees";

/// A worktree of ours. It is locked for as long as this value lives, and stays in the cache afterwards.
#[derive(Debug)]
pub struct Worktree {
    path: PathBuf,
    _lock: Lock,
}

impl Tree {
    /// Our worktree for a purpose (a short word), made if there is none yet, at `commit` but without files: those come
    /// with [`Worktree::checkout`]. Waits while another process has it; `waiting` is called once then.
    ///
    /// It is found again even if the repository was moved meanwhile, and made anew if it was damaged.
    ///
    /// # Errors
    /// [`TreeError::ReadOnly`], and those of running git and of the file system.
    pub fn worktree(
        &self,
        cache: &Cache,
        purpose: &str,
        commit: &Commit,
        waiting: impl FnOnce(),
        cancel: &CancelToken,
    ) -> Result<Worktree, BuildError> {
        let shelf = cache.root().join(SHELF);
        fs::create_dir_all(&shelf).map_err(BuildError::io("create", &shelf))?;
        // git writes canonical paths into its notes; ours must look the same to be found in them.
        let shelf = fs::canonicalize(&shelf).map_err(BuildError::io("find", &shelf))?;
        let name = format!("iov-regress-{purpose}");
        let moved = self.worktrees(cancel)?.into_iter().find(|path| {
            path.ends_with(&name) && path.parent().and_then(Path::parent) == Some(&shelf) && self.may_have(path)
        });
        let path = moved.unwrap_or_else(|| {
            let key = KeyMaker::new().with("repository", self.common.as_os_str().as_encoded_bytes());
            shelf.join(key.with("purpose", purpose).finish().as_str()).join(&name)
        });
        let entry = path.parent().unwrap_or(&shelf);
        let key = entry.file_name().unwrap_or_default().to_string_lossy();
        let lock = cache.lock(&format!("{SHELF}-{key}"), waiting)?;
        fs::create_dir_all(entry).map_err(BuildError::io("create", entry))?;
        // When it was last used decides how long it stays.
        let _ = File::open(entry).and_then(|entry| entry.set_modified(SystemTime::now()));
        let worktree = Worktree { path, _lock: lock };
        self.set_up(&worktree, commit, cancel)?;
        Ok(worktree)
    }

    /// The worktrees that the repository knows of, whether they are there or not.
    fn worktrees(&self, cancel: &CancelToken) -> Result<Vec<PathBuf>, BuildError> {
        let list = self.git(["worktree", "list", "--porcelain"]).output(cancel);
        let list = list.map_err(BuildError::job(format!("listing the worktrees of {}", self.path.display())))?;
        Ok(list.lines().filter_map(|line| line.strip_prefix("worktree ")).map(PathBuf::from).collect())
    }

    /// Whether a worktree that the repository knows of is its own, or was that of a repository which is not there any
    /// more: this one, before it was moved. A copy of a repository knows of its original's worktrees, too.
    fn may_have(&self, worktree: &Path) -> bool {
        link(worktree).is_some_and(|link| link.starts_with(&self.common) || !link.exists())
    }

    /// Makes a worktree usable, if it is not.
    fn set_up(&self, worktree: &Worktree, commit: &Commit, cancel: &CancelToken) -> Result<(), BuildError> {
        let path = worktree.path.to_string_lossy();
        if link(&worktree.path).is_some_and(|link| !link.exists()) {
            // If it cannot be repaired it is made anew.
            let _ = self.git(["worktree", "repair", &path]).run(cancel);
        }
        if !self.owns(worktree, cancel) {
            if worktree.path.exists() {
                fs::remove_dir_all(&worktree.path).map_err(BuildError::io("clear", &worktree.path))?;
            }
            // Twice "force": also over a note of a worktree that is not there any more, and even if someone locked it.
            let add = ["worktree", "add", "--force", "--force", "--detach", "--no-checkout", &path, &commit.id];
            self.git(add).run(cancel).map_err(|error| self.refused(error))?;
        }
        // Nobody but us works in it, and we have its lock: what lies here was left by a git that was killed.
        for left in ["index.lock", "HEAD.lock"] {
            if let Some(link) = link(&worktree.path) {
                remove(&link.join(left))?;
            }
        }
        Ok(())
    }

    fn owns(&self, worktree: &Worktree, cancel: &CancelToken) -> bool {
        let ours = link(&worktree.path).is_some_and(|link| link.starts_with(&self.common));
        ours && git::command(&worktree.path).args(["rev-parse", "--verify", "--quiet", "HEAD"]).run(cancel).is_ok()
    }

    fn refused(&self, error: JobError) -> BuildError {
        match error {
            JobError::Failed { tail, .. } if tail.contains("Permission denied") || tail.contains("Read-only file") => {
                TreeError::ReadOnly { path: self.path.clone(), why: tail }.into()
            }
            error => BuildError::job(format!("adding a worktree to {}", self.path.display()))(error),
        }
    }
}

impl Worktree {
    /// Its folder: the top of the kernel's source.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes it hold the files of a commit, and none else: what was changed or made in it is gone. Files that are the
    /// same as before keep their times.
    ///
    /// # Errors
    /// Those of running git; a full disk, and what a partial clone cannot fetch, are among them.
    pub fn checkout(&self, commit: &Commit, cancel: &CancelToken) -> Result<(), BuildError> {
        let what = || BuildError::job(format!("checking out {}", commit.short));
        let git = |arguments: &[&str]| git::command(&self.path).args(arguments).run(cancel).map_err(what());
        git(&["checkout", "--quiet", "--force", "--detach", &commit.id])?;
        git(&["clean", "-ffdxq"])
    }

    /// Runs git in it, as carefully as everything here is done: no hooks, no housekeeping. Returns what it wrote.
    ///
    /// # Errors
    /// [`JobError`]; if git said no, with the last lines that it wrote.
    pub fn git<S: AsRef<std::ffi::OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
        cancel: &CancelToken,
    ) -> Result<String, JobError> {
        git::command(&self.path).args(arguments).output(cancel)
    }
}

/// Where the repository keeps its notes of a worktree, as the worktree says.
fn link(worktree: &Path) -> Option<PathBuf> {
    let text = fs::read_to_string(worktree.join(".git")).ok()?;
    Some(worktree.join(text.trim().strip_prefix("gitdir: ")?))
}

/// Takes the repository's notes of the worktrees in an entry of the shelf out of it, before the entry is removed. What
/// cannot be taken out is harmless, and git itself forgets it some day.
pub(crate) fn forget(entry: &Path) {
    for worktree in fs::read_dir(entry).into_iter().flatten().flatten().map(|worktree| worktree.path()) {
        let common = link(&worktree).and_then(|link| Some(link.parent()?.parent()?.to_owned()));
        if let Some(common) = common.filter(|common| common.is_dir()) {
            let job: Job = git::command(&common).args(["worktree", "remove", "--force", "--force"]);
            let _ = job.arg(&worktree).run(&CancelToken::new());
        }
    }
}
