//! git at work on a user's repository, of which it changes nothing but what `git worktree` notes of a worktree of ours.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

pub use kernels::tree::Commit as Revision;
use kernels::tree::{NAMES, Tree};
use kernels::{BuildError, CancelToken};
use tokio::process::Command;

use crate::text::duration;

/// How long git may take. Walking all of the kernel's history takes seconds; a partial clone may fetch meanwhile.
const DEADLINE: Duration = Duration::from_secs(600);

/// What tells git of another repository than the one it is started in (`git rev-parse --local-env-vars`). `git bisect run`
/// and hooks set some of it.
const OF_ANOTHER: [&str; 8] = [
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_COMMON_DIR",
    "GIT_PREFIX",
    "GIT_NAMESPACE",
    "GIT_GRAFT_FILE",
];

/// git did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// It could not be started.
    #[error("cannot run git: install it")]
    Start(#[source] std::io::Error),
    /// There is no place for what is made on the way.
    #[error("cannot copy the index to a temporary folder")]
    Scratch(#[source] std::io::Error),
    /// It did not end.
    #[error("`git {command}` did not end within {}", duration(DEADLINE))]
    Deadline {
        /// The command.
        command: String,
    },
    /// It failed.
    #[error("`git {command}` failed in {} ({status}): {said}", folder.display())]
    Failed {
        /// The command.
        command: String,
        /// Where.
        folder: PathBuf,
        /// How it ended.
        status: ExitStatus,
        /// What it said, and where there is more to it, what to do.
        said: String,
    },
    /// There is no such revision, or no repository.
    #[error(transparent)]
    Revision(Box<BuildError>),
}

/// What git printed, and how it ended.
#[derive(Debug)]
pub struct Ran {
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// What it said about it.
    pub stderr: String,
    command: String,
    folder: PathBuf,
}

impl Ran {
    /// What it printed, if it succeeded.
    pub fn ok(self) -> Result<String, GitError> {
        if self.status.success() { Ok(self.stdout) } else { Err(self.failed()) }
    }

    /// The error that it is.
    pub fn failed(self) -> GitError {
        let said = [self.stderr.trim(), self.stdout.trim()].into_iter().find(|said| !said.is_empty());
        let said = said.unwrap_or("without a word").to_owned();
        GitError::Failed { command: self.command, folder: self.folder, status: self.status, said }
    }
}

/// Runs git in a folder. Its words stay English, and hooks of the user's stay out of it.
pub async fn git<S: AsRef<OsStr>>(folder: &Path, arguments: impl IntoIterator<Item = S>) -> Result<Ran, GitError> {
    git_with(folder, &[], arguments).await
}

/// The same, with these variables in its environment.
pub async fn git_with<S: AsRef<OsStr>>(
    folder: &Path,
    environment: &[(&str, &OsStr)],
    arguments: impl IntoIterator<Item = S>,
) -> Result<Ran, GitError> {
    let mut command = Command::new("git");
    command.args(["-c", "core.hooksPath=/dev/null", "-c", "color.ui=false", "-c", "log.showSignature=false"]);
    command.arg("-C").arg(folder).args(arguments);
    for name in OF_ANOTHER {
        command.env_remove(name);
    }
    command.envs(environment.iter().copied());
    command.env("LC_ALL", "C").env("GIT_OPTIONAL_LOCKS", "0").stdin(Stdio::null()).kill_on_drop(true);
    let words = command.as_std().get_args().skip(8).map(|word| word.to_string_lossy().into_owned());
    let said = words.collect::<Vec<_>>().join(" ");
    let ended = tokio::time::timeout(DEADLINE, command.output()).await;
    let output = ended.map_err(|_| GitError::Deadline { command: said.clone() })?.map_err(GitError::Start)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Ran {
        status: output.status,
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
        command: said,
        folder: folder.to_owned(),
    })
}

/// The commit that a name stands for.
pub async fn revision(folder: &Path, name: &str) -> Result<Revision, GitError> {
    let (folder, name) = (folder.to_owned(), name.to_owned());
    let look = move || {
        let cancel = CancelToken::new();
        Tree::open(&folder, &cancel)?.commit(&name, &cancel)
    };
    match tokio::task::spawn_blocking(look).await {
        Ok(found) => found.map_err(|error| GitError::Revision(Box::new(error))),
        Err(died) => Err(GitError::Start(std::io::Error::other(died))),
    }
}

/// The ids of the commits that a name or a range (`A..B`) stands for.
pub async fn ids(folder: &Path, names: &str) -> Result<Vec<String>, GitError> {
    if !names.contains("..") {
        return Ok(vec![revision(folder, names).await?.id]);
    }
    let listed = git(folder, ["rev-list", "--end-of-options", names]).await?.ok()?;
    Ok(listed.lines().map(str::to_owned).collect())
}

/// A commit that is to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct NewCommit<'a> {
    /// The id of its tree.
    pub tree: &'a str,
    /// The id of the commit before it.
    pub parent: Option<&'a str>,
    /// Name and address.
    pub author: (&'a str, &'a str),
    /// As ISO 8601 has it. The same commit at the same time has the same id.
    pub date: &'a str,
    /// Its message.
    pub message: &'a str,
}

/// Who commits what nobody has committed.
pub(super) const NOBODY: (&str, &str) = ("iov-regress", "iov-regress@localhost");

/// Makes a commit, which is in no branch, and returns its id.
pub(super) async fn commit(folder: &Path, new: NewCommit<'_>) -> Result<String, GitError> {
    let NewCommit { tree, parent, author, date, message } = new;
    let environment = [
        ("GIT_AUTHOR_NAME", author.0),
        ("GIT_AUTHOR_EMAIL", author.1),
        ("GIT_AUTHOR_DATE", date),
        ("GIT_COMMITTER_NAME", NOBODY.0),
        ("GIT_COMMITTER_EMAIL", NOBODY.1),
        ("GIT_COMMITTER_DATE", date),
    ];
    let environment = environment.map(|(name, value)| (name, OsStr::new(value)));
    let mut words = vec!["commit-tree", tree, "-m", message];
    words.extend(parent.into_iter().flat_map(|parent| ["-p", parent]));
    Ok(git_with(folder, &environment, words).await?.ok()?.trim().to_owned())
}

/// The ids and names of the commits that stand for kernels of a series. A repository of a user's has none.
pub(super) async fn names(folder: &Path) -> Result<Vec<(String, String)>, GitError> {
    let listed = git(folder, ["for-each-ref", "--format=%(objectname) %(refname)", NAMES]).await?.ok()?;
    let split = |line: &str| line.split_once(' ').map(|(id, name)| (id.to_owned(), name.replacen(NAMES, "", 1)));
    Ok(listed.lines().filter_map(split).collect())
}

/// Whether older history than this repository has exists elsewhere.
pub async fn is_shallow(folder: &Path) -> Result<bool, GitError> {
    Ok(git(folder, ["rev-parse", "--is-shallow-repository"]).await?.ok()?.trim() == "true")
}

/// Whether one commit is in the history of another.
pub async fn is_ancestor(folder: &Path, older: &Revision, newer: &Revision) -> Result<bool, GitError> {
    yes_or_no(git(folder, ["merge-base", "--is-ancestor", &older.id, &newer.id]).await?)
}

/// Whether two commits have any history in common.
pub async fn are_related(folder: &Path, one: &Revision, other: &Revision) -> Result<bool, GitError> {
    yes_or_no(git(folder, ["merge-base", &one.id, &other.id]).await?)
}

fn yes_or_no(ran: Ran) -> Result<bool, GitError> {
    match ran.status.code() {
        Some(0) => Ok(true),
        Some(1) => Ok(false),
        _ => Err(ran.failed()),
    }
}
