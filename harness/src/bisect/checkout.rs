//! The content of a user's checkout as a commit: HEAD, or HEAD with the uncommitted changes. Users have such changes if
//! they apply a fix-up at each step of a bisection. The checkout and its index are only read. A commit that is made
//! here is in no branch, so git's garbage collection deletes it later.

use std::ffi::OsStr;
use std::path::Path;

use super::git::{COMMITTER, GitError, NewCommit, Revision, commit, git, git_with, revision};

/// The commit that is checked out, with the uncommitted changes to tracked files, and whether there are such changes.
/// Untracked files are left out.
///
/// # Errors
/// Those of git. This includes that there is no commit yet.
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
    // With the date of HEAD, the same content on the same HEAD always has the same commit id.
    let date = git(top, ["log", "-1", "--format=%cI", &head.id]).await?.ok()?;
    let message = format!("{}, with changes that are not committed", head.subject);
    let new = NewCommit {
        tree: tree.trim(),
        parent: Some(&head.id),
        author: COMMITTER,
        date: date.trim(),
        message: &message,
    };
    let id = commit(top, new).await?;
    Ok((revision(top, &id).await?, true))
}
