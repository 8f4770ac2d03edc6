//! Why a user's tree, or a revision of it, can't be used.

use std::path::PathBuf;

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
