//! A user's own kernel tree: any git repository. It is read through a worktree in the cache, and never changed.
//!
//! [`Tree::open`] finds the repository, and [`Tree::commit`] a revision in it. [`Tree::worktree`] gives a checkout in
//! the cache. For git it is a linked worktree like any other (`git worktree list` shows it). The user's checkout,
//! index, branches and stash are not touched.

mod git;
mod revision;
mod worktree;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

pub use self::revision::{Commit, Revision};
pub use self::worktree::Worktree;
pub(crate) use self::worktree::{SHELF, forget};
use crate::error::BuildError;
pub use crate::error::TreeError;
use crate::event::CancelToken;
use crate::job::{Job, JobError};
use crate::near::near;

/// A user's git repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// The path by which the user opened it, absolute.
    path: PathBuf,
    /// The `.git` folder that all its worktrees share, canonical.
    common: PathBuf,
}

/// The prefix of the refs in a history that was made for a series. Each ref names the kernel that its commit stands
/// for.
pub const NAMES: &str = "refs/iov-regress/";

impl Tree {
    /// The repository of a folder: a checkout or any folder in it, a linked worktree, or a bare repository.
    ///
    /// # Errors
    /// [`TreeError::Missing`], [`TreeError::NotGit`], [`TreeError::NotTrusted`], and those of running git.
    pub fn open(path: &Path, cancel: &CancelToken) -> Result<Tree, BuildError> {
        let path = std::path::absolute(path).map_err(BuildError::io("find", path))?;
        if !path.is_dir() {
            return Err(TreeError::Missing { path }.into());
        }
        let asking = git::command(&path).args(["rev-parse", "--path-format=absolute", "--git-common-dir"]);
        let output = match asking.output(cancel) {
            Ok(output) => output,
            Err(JobError::Failed { tail, .. }) if tail.contains("dubious ownership") => {
                return Err(TreeError::NotTrusted { path }.into());
            }
            Err(JobError::Failed { tail, .. }) if tail.contains("not a git repository") => {
                return Err(TreeError::NotGit { path }.into());
            }
            Err(error) => {
                return Err(BuildError::job(format!("looking for a repository at {}", path.display()))(error));
            }
        };
        let common = PathBuf::from(output.lines().last().unwrap_or_default());
        let common = fs::canonicalize(&common).map_err(BuildError::io("find", &common))?;
        Ok(Tree { path, common })
    }

    /// The path by which it was opened, absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The commit that a revision names: a hash, a tag, a branch, `HEAD~3`, ...
    ///
    /// # Errors
    /// [`TreeError::Revision`], and those of running git.
    pub fn commit(&self, rev: &str, cancel: &CancelToken) -> Result<Commit, BuildError> {
        let one = format!("{rev}^{{commit}}");
        // In the user's folder, because a linked worktree has a HEAD of its own.
        let verify = git::command(&self.path).args(["rev-parse", "--verify", "--quiet", "--end-of-options", &one]);
        let id = match verify.output(cancel) {
            Ok(output) => output.lines().last().unwrap_or_default().to_owned(),
            Err(JobError::Failed { .. }) => return Err(self.unknown(rev, cancel)),
            Err(error) => return Err(self.looking(rev)(error)),
        };
        // Each field has a mark, because the output may also have warnings of git.
        const FORMAT: &str = "--format=<tree>%T%n<short>%h%n<name>%D%n<subject>%s%n<author>%an <%ae>%n<date>%cs";
        let names = format!("--decorate-refs={NAMES}");
        let log = self.git(["log", "-1", "--no-color", "--abbrev=12", &names, FORMAT, &id]);
        let log = log.output(cancel).map_err(self.looking(rev))?;
        let marked = |mark| log.lines().find_map(|line| line.strip_prefix(mark)).unwrap_or_default().to_owned();
        let short = marked("<name>").strip_prefix(NAMES).map_or_else(|| marked("<short>"), str::to_owned);
        let (tree, subject, author, date) =
            (marked("<tree>"), marked("<subject>"), marked("<author>"), marked("<date>"));
        Ok(Commit { id, tree, short, subject, author, date })
    }

    /// The newest commit with this subject, of those that lead to a revision and touch one of these paths.
    ///
    /// # Errors
    /// Those of [`Tree::commit`].
    pub fn titled(
        &self,
        subject: &str,
        rev: &str,
        paths: &BTreeSet<&str>,
        cancel: &CancelToken,
    ) -> Result<Option<Commit>, BuildError> {
        let grep = format!("--grep={subject}");
        let log = self.git(["log", "--no-color", "--fixed-strings", &grep, "--format=<%H>%s", rev, "--"]).args(paths);
        let log = log.output(cancel).map_err(self.looking(rev))?;
        let found = log.lines().find_map(|line| {
            let (id, title) = line.strip_prefix('<')?.split_once('>')?;
            (title == subject).then_some(id)
        });
        found.map(|id| self.commit(id, cancel)).transpose()
    }

    /// The kernel at a revision.
    ///
    /// # Errors
    /// Those of [`Tree::commit`], and [`TreeError::NotLinux`].
    pub fn revision(&self, rev: &str, cancel: &CancelToken) -> Result<Revision, BuildError> {
        let commit = self.commit(rev, cancel)?;
        let listing = self.git(["ls-tree", "--name-only", &commit.id, "Kbuild", "scripts/kconfig"]);
        let listing = listing.output(cancel).map_err(self.looking(rev))?;
        if let Some(missing) =
            ["Kbuild", "scripts/kconfig"].into_iter().find(|name| !listing.lines().any(|line| line == *name))
        {
            return Err(TreeError::NotLinux { path: self.path.clone(), rev: rev.to_owned(), missing }.into());
        }
        let describe = self.git(["describe", "--always", "--abbrev=12", &commit.id]).output(cancel);
        let describe = describe.map_err(self.looking(rev))?.lines().last().unwrap_or_default().to_owned();
        Ok(Revision { tree: self.clone(), commit, describe })
    }

    fn looking(&self, rev: &str) -> impl FnOnce(JobError) -> BuildError + use<> {
        BuildError::job(format!("looking at `{rev}` in {}", self.path.display()))
    }

    /// The files that changed between two commits, as paths relative to the tree.
    ///
    /// # Errors
    /// Those of running git.
    pub fn changed(&self, from: &str, to: &str, cancel: &CancelToken) -> Result<Vec<PathBuf>, BuildError> {
        let diff = self.git(["diff", "--name-only", "--no-renames", from, to]).output(cancel);
        Ok(diff.map_err(BuildError::job("comparing revisions"))?.lines().map(PathBuf::from).collect())
    }

    /// The folder of its objects.
    pub(crate) fn objects(&self) -> PathBuf {
        self.common.join("objects")
    }

    /// Writes files of a commit into a folder. Paths that the commit does not have are left out.
    ///
    /// # Errors
    /// Those of running git and tar.
    pub(crate) fn export(
        &self,
        commit: &Commit,
        paths: &BTreeSet<&str>,
        to: &Path,
        cancel: &CancelToken,
    ) -> Result<(), BuildError> {
        let reading = || BuildError::job(format!("reading files of {}", commit.short));
        let list = self.git(["ls-tree", "-r", "--full-tree", "--name-only", &commit.id, "--"]).args(paths);
        let found = list.output(cancel).map_err(reading())?;
        let found: Vec<&str> = found.lines().filter(|line| paths.contains(line)).collect();
        if found.is_empty() {
            return Ok(());
        }
        self.archive(commit, found, to, cancel)
    }

    /// Writes files and folders of a commit into a folder. The commit must have all of them.
    ///
    /// # Errors
    /// Those of running git and tar.
    pub(crate) fn archive<S: AsRef<OsStr>>(
        &self,
        commit: &Commit,
        paths: impl IntoIterator<Item = S>,
        to: &Path,
        cancel: &CancelToken,
    ) -> Result<(), BuildError> {
        let reading = || BuildError::job(format!("reading files of {}", commit.short));
        let archive = to.with_extension("tar");
        let pack = self.git(["archive", "--format=tar", "-o"]).arg(&archive).arg(&commit.id).arg("--").args(paths);
        pack.run(cancel).map_err(reading())?;
        let unpack = Job::new("tar").args(["--extract", "--no-same-owner", "--file"]).arg(&archive).arg("--directory");
        unpack.arg(to).run(cancel).map_err(reading())
    }

    /// Whether a commit has a file.
    ///
    /// # Errors
    /// Those of running git.
    pub(crate) fn has(&self, commit: &Commit, file: &str, cancel: &CancelToken) -> Result<bool, BuildError> {
        let list = self.git(["ls-tree", "--full-tree", "--name-only", &commit.id, "--", file]);
        let found = list.output(cancel).map_err(BuildError::job(format!("reading files of {}", commit.short)))?;
        Ok(found.lines().any(|line| line == file))
    }

    fn unknown(&self, rev: &str, cancel: &CancelToken) -> BuildError {
        let names = self.git(["for-each-ref", "--format=%(refname:short)", "refs/tags", "refs/heads", "refs/remotes"]);
        let names = names.output(cancel).unwrap_or_default();
        let near = near(rev, names.lines()).map(str::to_owned);
        let shallow = self.git(["rev-parse", "--is-shallow-repository"]).output(cancel);
        let shallow = shallow.is_ok_and(|said| said.lines().last() == Some("true"));
        TreeError::Revision { path: self.path.clone(), rev: rev.to_owned(), near, shallow }.into()
    }

    fn git<const N: usize>(&self, arguments: [&str; N]) -> Job {
        git::command(&self.common).args(arguments)
    }
}

#[cfg(test)]
mod tests;
