//! A user's own kernel tree: any git repository, read through a worktree of ours and never changed.
//!
//! [`Tree::open`] finds the repository, [`Tree::commit`] a revision in it, and [`Tree::worktree`] gives a checkout that
//! is ours alone: it lies in the cache, git knows of it as of any linked worktree (`git worktree list` shows it), and
//! the user's checkout, index, branches and stash have nothing to do with it.

mod git;
mod worktree;

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use self::worktree::Worktree;
pub(crate) use self::worktree::{SHELF, forget};
use crate::job::Job;
use crate::{BuildError, CancelToken, JobError, Revision, near};

/// What is wrong with a user's tree, or with what was asked of it.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// There is nothing at the path.
    #[error("there is no folder {}: a kernel tree was expected there", path.display())]
    Missing {
        /// The path.
        path: PathBuf,
    },
    /// It is a folder, and no git repository.
    #[error(
        "{} is not a git tree, nor in one; for a tree or tarball without git, give a base in kernels.toml a `path = ` to it",
        path.display()
    )]
    NotGit {
        /// The folder.
        path: PathBuf,
    },
    /// git does not trust it.
    #[error(
        "git refuses to read {0}, because it belongs to another user; if you trust it, run\n  \
         git config --global --add safe.directory {0}",
        path.display()
    )]
    NotTrusted {
        /// The folder.
        path: PathBuf,
    },
    /// It has no such revision.
    #[error("{} has no revision `{rev}`{}", path.display(), hint(.near.as_deref(), *shallow))]
    Revision {
        /// The tree.
        path: PathBuf,
        /// What was asked for.
        rev: String,
        /// The branch or tag whose name is nearest to it, if any is near.
        near: Option<String>,
        /// The clone has not all of the history.
        shallow: bool,
    },
    /// What it has at a revision is no Linux kernel.
    #[error("{} at {rev} is no Linux kernel: there is no {missing}", path.display())]
    NotLinux {
        /// The tree.
        path: PathBuf,
        /// The revision.
        rev: String,
        /// What every kernel has.
        missing: &'static str,
    },
    /// No worktree can be added to it.
    #[error(
        "cannot add a worktree to {0}, which takes a note in its .git folder: {why}\n\
         Make a clone that is yours: git clone --shared --bare {0} ~/linux.git, and use that",
        path.display()
    )]
    ReadOnly {
        /// The tree.
        path: PathBuf,
        /// git's words.
        why: String,
    },
}

fn hint(near: Option<&str>, shallow: bool) -> String {
    match near {
        Some(near) => format!("; did you mean `{near}`?"),
        None if shallow => "; this clone is shallow, and `git fetch --unshallow` fetches what is older".to_owned(),
        None => "; a tag, a branch or a commit of it was expected (has it been fetched?)".to_owned(),
    }
}

/// A user's git repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// What the user calls it, absolute.
    path: PathBuf,
    /// What all its worktrees share, canonical: `.git` of the first.
    common: PathBuf,
}

/// Where a history that was made for a series names the kernels that its commits stand for.
pub const NAMES: &str = "refs/iov-regress/";

/// A commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// Its hash.
    pub id: String,
    /// The hash of its tree: equal for commits with the same content, whatever their history.
    pub tree: String,
    /// Enough of its hash to be told from others; of one that stands for a kernel of a series, the name of that kernel
    /// ([`NAMES`]).
    pub short: String,
    /// The first line of its message.
    pub subject: String,
    /// Who wrote it.
    pub author: String,
    /// The day on which it was committed, as ISO 8601 has it.
    pub date: String,
}

impl Commit {
    /// Whether it stands for a kernel of a series, and is in no history but ours.
    pub fn is_of_series(&self) -> bool {
        !self.id.starts_with(&self.short)
    }
}

impl fmt::Display for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.short, self.subject)
    }
}

impl Tree {
    /// The repository that a folder belongs to: a checkout or any folder within it, a linked worktree, a bare repository.
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

    /// What it is called: the path by which it was opened, absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The commit that a revision names: a hash, a tag, a branch, `HEAD~3`, ...
    ///
    /// # Errors
    /// [`TreeError::Revision`], and those of running git.
    pub fn commit(&self, rev: &str, cancel: &CancelToken) -> Result<Commit, BuildError> {
        let one = format!("{rev}^{{commit}}");
        // Where the user is: a linked worktree has a HEAD of its own.
        let verify = git::command(&self.path).args(["rev-parse", "--verify", "--quiet", "--end-of-options", &one]);
        let id = match verify.output(cancel) {
            Ok(output) => output.lines().last().unwrap_or_default().to_owned(),
            Err(JobError::Failed { .. }) => return Err(self.unknown(rev, cancel)),
            Err(error) => return Err(self.looking(rev)(error)),
        };
        // Marked, as git's warnings are among the output.
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

    /// What changed between two commits: paths, relative to the tree.
    ///
    /// # Errors
    /// Those of running git.
    pub fn changed(&self, from: &str, to: &str, cancel: &CancelToken) -> Result<Vec<PathBuf>, BuildError> {
        let diff = self.git(["diff", "--name-only", "--no-renames", from, to]).output(cancel);
        Ok(diff.map_err(BuildError::job("comparing revisions"))?.lines().map(PathBuf::from).collect())
    }

    /// Where its objects are.
    pub(crate) fn objects(&self) -> PathBuf {
        self.common.join("objects")
    }

    /// Writes files of a commit into a folder. Those that it does not have are left out.
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
        let archive = to.with_extension("tar");
        let pack = self.git(["archive", "--format=tar", "-o"]).arg(&archive).arg(&commit.id).arg("--").args(found);
        pack.run(cancel).map_err(reading())?;
        let unpack = Job::new("tar").args(["--extract", "--no-same-owner", "--file"]).arg(&archive).arg("--directory");
        unpack.arg(to).run(cancel).map_err(reading())
    }

    fn unknown(&self, rev: &str, cancel: &CancelToken) -> BuildError {
        let names = self.git(["for-each-ref", "--format=%(refname:short)", "refs/tags", "refs/heads", "refs/remotes"]);
        let names = names.output(cancel).unwrap_or_default();
        let near = near(rev, names.lines()).map(str::to_owned);
        let shallow = self.git(["rev-parse", "--is-shallow-repository"]).output(cancel);
        let shallow = shallow.is_ok_and(|said| said.lines().last() == Some("true"));
        TreeError::Revision { path: self.path.clone(), rev: rev.to_owned(), near, shallow }.into()
    }

    fn git<const N: usize>(&self, arguments: [&str; N]) -> crate::job::Job {
        git::command(&self.common).args(arguments)
    }
}

#[cfg(test)]
mod tests;
