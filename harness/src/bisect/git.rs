//! Runs git in a user's repository. Nothing in the repository changes except the entry of `git worktree` for the
//! worktree of this bisection, and unreferenced objects.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

pub use kernels::tree::Commit as Revision;
use kernels::tree::{NAMES, Tree};
use kernels::{BuildError, CancelToken};
use tokio::process::Command;

use crate::text::duration;

/// How long git may take. Walking the whole history of the kernel takes seconds, and a partial clone may fetch objects.
const DEADLINE: Duration = Duration::from_secs(600);

/// Variables that make git use another repository than that of its working directory (`git rev-parse
/// --local-env-vars`). `git bisect run` and hooks set some of them.
const REPOSITORY_VARIABLES: [&str; 8] = [
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_COMMON_DIR",
    "GIT_PREFIX",
    "GIT_NAMESPACE",
    "GIT_GRAFT_FILE",
];

/// An operation of git failed.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// It could not be started.
    #[error("cannot run git: install it")]
    Start(#[source] std::io::Error),
    /// A temporary folder could not be created or written.
    #[error("cannot write to a temporary folder")]
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
        /// The folder in which it ran.
        folder: PathBuf,
        /// Its exit status.
        status: ExitStatus,
        /// Its stderr, or else its stdout.
        said: String,
    },
    /// There is no such revision, or no repository.
    #[error(transparent)]
    Revision(Box<BuildError>),
}

/// The output and the exit status of git.
#[derive(Debug)]
pub struct Ran {
    /// Its exit status.
    pub status: ExitStatus,
    /// Its stdout.
    pub stdout: String,
    /// Its stderr.
    pub stderr: String,
    command: String,
    folder: PathBuf,
}

impl Ran {
    /// Its stdout, if it succeeded.
    pub fn ok(self) -> Result<String, GitError> {
        if self.status.success() { Ok(self.stdout) } else { Err(self.failed()) }
    }

    /// Turns a failed command into an error.
    pub fn failed(self) -> GitError {
        let said = [self.stderr.trim(), self.stdout.trim()].into_iter().find(|said| !said.is_empty());
        let said = said.unwrap_or("it printed nothing").to_owned();
        GitError::Failed { command: self.command, folder: self.folder, status: self.status, said }
    }
}

/// Runs git in a folder, in the C locale and without the user's hooks.
pub async fn git<S: AsRef<OsStr>>(folder: &Path, arguments: impl IntoIterator<Item = S>) -> Result<Ran, GitError> {
    git_with(folder, &[], arguments).await
}

/// As [`git`], with additional environment variables.
pub async fn git_with<S: AsRef<OsStr>>(
    folder: &Path,
    environment: &[(&str, &OsStr)],
    arguments: impl IntoIterator<Item = S>,
) -> Result<Ran, GitError> {
    let mut command = Command::new("git");
    command.args(["-c", "core.hooksPath=/dev/null", "-c", "color.ui=false", "-c", "log.showSignature=false"]);
    command.arg("-C").arg(folder).args(arguments);
    for name in REPOSITORY_VARIABLES {
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

/// The commit that a name resolves to.
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

/// The ids of the commits that a name or a range (`A..B`) resolves to.
pub async fn ids(folder: &Path, names: &str) -> Result<Vec<String>, GitError> {
    if !names.contains("..") {
        return Ok(vec![revision(folder, names).await?.id]);
    }
    let listed = git(folder, ["rev-list", "--end-of-options", names]).await?.ok()?;
    Ok(listed.lines().map(str::to_owned).collect())
}

/// The content of a commit to be created.
#[derive(Clone, Copy, Debug)]
pub(super) struct NewCommit<'a> {
    /// The id of its tree.
    pub tree: &'a str,
    /// The id of its parent.
    pub parent: Option<&'a str>,
    /// Name and address of the author.
    pub author: (&'a str, &'a str),
    /// Its date, in the format of ISO 8601. The same content with the same date has the same commit id.
    pub date: &'a str,
    /// Its message.
    pub message: &'a str,
}

/// The committer of commits that the harness creates.
pub(super) const COMMITTER: (&str, &str) = ("iov-regress", "iov-regress@localhost");

/// Creates a commit that is in no branch, and returns its id.
pub(super) async fn commit(folder: &Path, new: NewCommit<'_>) -> Result<String, GitError> {
    let NewCommit { tree, parent, author, date, message } = new;
    let environment = [
        ("GIT_AUTHOR_NAME", author.0),
        ("GIT_AUTHOR_EMAIL", author.1),
        ("GIT_AUTHOR_DATE", date),
        ("GIT_COMMITTER_NAME", COMMITTER.0),
        ("GIT_COMMITTER_EMAIL", COMMITTER.1),
        ("GIT_COMMITTER_DATE", date),
    ];
    let environment = environment.map(|(name, value)| (name, OsStr::new(value)));
    let mut words = vec!["commit-tree", tree, "-m", message];
    words.extend(parent.into_iter().flat_map(|parent| ["-p", parent]));
    Ok(git_with(folder, &environment, words).await?.ok()?.trim().to_owned())
}

/// The ids and names of the commits of a series' [`History`](super::History). Empty for a user's repository.
pub(super) async fn names(folder: &Path) -> Result<Vec<(String, String)>, GitError> {
    let listed = git(folder, ["for-each-ref", "--format=%(objectname) %(refname)", NAMES]).await?.ok()?;
    let split = |line: &str| line.split_once(' ').map(|(id, name)| (id.to_owned(), name.replacen(NAMES, "", 1)));
    Ok(listed.lines().filter_map(split).collect())
}

/// Whether the clone is shallow: the repository does not have the whole history.
pub async fn is_shallow(folder: &Path) -> Result<bool, GitError> {
    Ok(git(folder, ["rev-parse", "--is-shallow-repository"]).await?.ok()?.trim() == "true")
}

/// Whether one commit is in the history of another.
pub async fn is_ancestor(folder: &Path, older: &Revision, newer: &Revision) -> Result<bool, GitError> {
    yes_or_no(git(folder, ["merge-base", "--is-ancestor", &older.id, &newer.id]).await?)
}

/// Whether two commits have a common ancestor.
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
