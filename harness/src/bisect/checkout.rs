//! What a user's checkout holds, as a commit: HEAD, or HEAD with what was changed on top, as people do who apply a fix-up at
//! each step of a bisection. The checkout and its index are only read; a commit that is made here is in no branch, and git
//! clears it away in time.

use std::ffi::OsStr;
use std::path::Path;

use super::git::{GitError, Revision, git, git_with, revision};

/// A name for commits that nobody made.
const NOBODY: [(&str, &str); 4] = [
    ("GIT_AUTHOR_NAME", "iov-regress"),
    ("GIT_AUTHOR_EMAIL", "iov-regress@localhost"),
    ("GIT_COMMITTER_NAME", "iov-regress"),
    ("GIT_COMMITTER_EMAIL", "iov-regress@localhost"),
];

/// The commit that is checked out, with the changes to tracked files that are not committed, if there are any: whether
/// there are comes with it. Files that git does not track are left out.
///
/// # Errors
/// Those of git, among them that there is no commit yet.
pub async fn checked_out(folder: &Path) -> Result<(Revision, bool), GitError> {
    let head = revision(folder, "HEAD").await?;
    let bare = git(folder, ["rev-parse", "--is-bare-repository"]).await?.ok()?;
    if bare.trim() == "true" {
        return Ok((head, false));
    }
    let top = git(folder, ["rev-parse", "--show-toplevel"]).await?.ok()?;
    let top = Path::new(top.trim_end_matches('\n'));
    let status = git(top, ["status", "--porcelain", "--untracked-files=no", "--ignore-submodules=all"]).await?.ok()?;
    if status.is_empty() {
        return Ok((head, false));
    }
    let scratch = tempfile::tempdir().map_err(GitError::Scratch)?;
    let index = scratch.path().join("index");
    let of_user = git(top, ["rev-parse", "--path-format=absolute", "--git-path", "index"]).await?.ok()?;
    std::fs::copy(of_user.trim_end_matches('\n'), &index).map_err(GitError::Scratch)?;
    let ours: &[(&str, &OsStr)] = &[("GIT_INDEX_FILE", index.as_os_str())];
    git_with(top, ours, ["add", "--update"]).await?.ok()?;
    let tree = git_with(top, ours, ["write-tree"]).await?.ok()?;
    // The same content on the same commit is the same commit every time.
    let date = git(top, ["log", "-1", "--format=%cI", &head.id]).await?.ok()?;
    let mut named: Vec<(&str, &OsStr)> = NOBODY.iter().map(|(name, value)| (*name, OsStr::new(value))).collect();
    named.extend([("GIT_AUTHOR_DATE", OsStr::new(date.trim())), ("GIT_COMMITTER_DATE", OsStr::new(date.trim()))]);
    let message = format!("{}, with changes that are not committed", head.subject);
    let commit = git_with(top, &named, ["commit-tree", tree.trim(), "-p", &head.id, "-m", &message]).await?.ok()?;
    Ok((revision(top, commit.trim()).await?, true))
}
