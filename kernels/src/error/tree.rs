//! Why a user's tree, or a revision of it, cannot be used.

use std::path::PathBuf;

/// Why a user's tree, or a revision of it, cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// There is no folder at the path.
    #[error("there is no folder {}: a kernel tree was expected there", path.display())]
    Missing {
        /// The path.
        path: PathBuf,
    },
    /// The folder is not in a git repository.
    #[error(
        "{} is not in a git repository; for a kernel tree or tarball without git, add a base with `path = ` to \
         kernels.toml",
        path.display()
    )]
    NotGit {
        /// The folder.
        path: PathBuf,
    },
    /// git does not trust the repository.
    #[error(
        "git refuses to read {0}, because it belongs to another user; if you trust it, run\n  \
         git config --global --add safe.directory {0}",
        path.display()
    )]
    NotTrusted {
        /// The folder.
        path: PathBuf,
    },
    /// The repository has no such revision.
    #[error("{} has no revision `{rev}`{}", path.display(), hint(.near.as_deref(), *shallow))]
    Revision {
        /// The tree.
        path: PathBuf,
        /// What was asked for.
        rev: String,
        /// The branch or tag with the most similar name, if one is similar.
        near: Option<String>,
        /// The clone is shallow: older history is missing.
        shallow: bool,
    },
    /// The revision is no Linux kernel.
    #[error("{} at {rev} is no Linux kernel: there is no {missing}", path.display())]
    NotLinux {
        /// The tree.
        path: PathBuf,
        /// The revision.
        rev: String,
        /// A file or folder that every kernel has, and this revision has not.
        missing: &'static str,
    },
    /// No worktree can be added to the repository.
    #[error(
        "cannot add a worktree to {0}, because that writes to its .git folder: {why}\n\
         Make a clone that you can write to, and use that: git clone --shared --bare {0} ~/linux.git",
        path.display()
    )]
    ReadOnly {
        /// The tree.
        path: PathBuf,
        /// The error message of git.
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
