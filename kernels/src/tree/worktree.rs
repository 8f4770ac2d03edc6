//! A linked worktree of a user's repository, in the cache.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{Commit, Tree, git};
use crate::cache::{Cache, KeyMaker, Lock};
use crate::error::{BuildError, TreeError};
use crate::event::CancelToken;
use crate::files::remove;
use crate::job::{Job, JobError};

/// The shelf of the cache with the worktrees.
pub(crate) const SHELF: &str = "worktrees";

/// A worktree in the cache. It is locked as long as this value exists, and stays in the cache afterwards.
#[derive(Debug)]
pub struct Worktree {
    path: PathBuf,
    _lock: Lock,
}

impl Tree {
    /// The worktree for a purpose (a short word). If there is none, it is made at `commit`, without files: those come
    /// with [`Worktree::checkout`]. If another process has it, calls `waiting` once and waits.
    ///
    /// The worktree is found again if the repository was moved meanwhile, and made again if it was damaged.
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
        // `git worktree list` shows canonical paths, and they are compared with this one.
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
        // `gc` goes by this time.
        let _ = File::open(entry).and_then(|entry| entry.set_modified(SystemTime::now()));
        let worktree = Worktree { path, _lock: lock };
        self.set_up(&worktree, commit, cancel)?;
        Ok(worktree)
    }

    /// The worktrees that the repository has registered, whether their folders exist or not.
    fn worktrees(&self, cancel: &CancelToken) -> Result<Vec<PathBuf>, BuildError> {
        let list = self.git(["worktree", "list", "--porcelain"]).output(cancel);
        let list = list.map_err(BuildError::job(format!("listing the worktrees of {}", self.path.display())))?;
        Ok(list.lines().filter_map(|line| line.strip_prefix("worktree ")).map(PathBuf::from).collect())
    }

    /// Whether a registered worktree belongs to this repository. A copy of a repository has the worktrees of the
    /// original registered as well, so the worktree's own link must point to this repository, or to one that no longer
    /// exists: this repository was moved then.
    fn may_have(&self, worktree: &Path) -> bool {
        link(worktree).is_some_and(|link| link.starts_with(&self.common) || !link.exists())
    }

    /// Repairs or makes a worktree that cannot be used as it is.
    fn set_up(&self, worktree: &Worktree, commit: &Commit, cancel: &CancelToken) -> Result<(), BuildError> {
        let path = worktree.path.to_string_lossy();
        if link(&worktree.path).is_some_and(|link| !link.exists()) {
            // If this fails, the worktree is made again below.
            let _ = self.git(["worktree", "repair", &path]).run(cancel);
        }
        if !self.owns(worktree, cancel) {
            if worktree.path.exists() {
                fs::remove_dir_all(&worktree.path).map_err(BuildError::io("clear", &worktree.path))?;
            }
            // With "force" twice, git also replaces a registered worktree whose folder is missing, and a locked one.
            let add = ["worktree", "add", "--force", "--force", "--detach", "--no-checkout", &path, &commit.id];
            self.git(add).run(cancel).map_err(|error| self.refused(error))?;
        }
        // This process holds the lock of the worktree, so these files are leftovers of a git that was killed.
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

    /// Checks out the files of a commit. All other files in the worktree are removed, and changes are undone. Files
    /// that stay the same keep their times.
    ///
    /// # Errors
    /// Those of running git, among them a full disk, and an object that a partial clone cannot fetch.
    pub fn checkout(&self, commit: &Commit, cancel: &CancelToken) -> Result<(), BuildError> {
        let what = || BuildError::job(format!("checking out {}", commit.short));
        let git = |arguments: &[&str]| git::command(&self.path).args(arguments).run(cancel).map_err(what());
        git(&["checkout", "--quiet", "--force", "--detach", &commit.id])?;
        git(&["clean", "-ffdxq"])
    }

    /// Runs git in the worktree, without hooks and maintenance. Returns its output.
    ///
    /// # Errors
    /// [`JobError`], with the last lines of the output if git failed.
    pub fn git<S: AsRef<std::ffi::OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
        cancel: &CancelToken,
    ) -> Result<String, JobError> {
        git::command(&self.path).args(arguments).output(cancel)
    }
}

/// The folder in the repository that belongs to a worktree (`.git/worktrees/NAME`), from the worktree's `.git` file.
fn link(worktree: &Path) -> Option<PathBuf> {
    let text = fs::read_to_string(worktree.join(".git")).ok()?;
    Some(worktree.join(text.trim().strip_prefix("gitdir: ")?))
}

/// Unregisters the worktrees in an entry of the shelf from their repository, before the entry is removed. If this
/// fails, git prunes the registration some time later.
pub(crate) fn forget(entry: &Path) {
    for worktree in fs::read_dir(entry).into_iter().flatten().flatten().map(|worktree| worktree.path()) {
        let common = link(&worktree).and_then(|link| Some(link.parent()?.parent()?.to_owned()));
        if let Some(common) = common.filter(|common| common.is_dir()) {
            let job: Job = git::command(&common).args(["worktree", "remove", "--force", "--force"]);
            let _ = job.arg(&worktree).run(&CancelToken::new());
        }
    }
}
