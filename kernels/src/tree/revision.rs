//! A commit of a user's tree, and the kernel at it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Tree;

/// A commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// Its hash.
    pub id: String,
    /// The hash of its tree object. Commits with the same files have the same hash, whatever their history.
    pub tree: String,
    /// Its abbreviated hash. For a commit that was made for a kernel of a series, the name of that kernel
    /// ([`NAMES`](super::NAMES)).
    pub short: String,
    /// The first line of its message.
    pub subject: String,
    /// Who wrote it.
    pub author: String,
    /// The day on which it was committed, in the form of ISO 8601.
    pub date: String,
}

impl Commit {
    /// Whether it was made for a kernel of a series, and is not in the user's history.
    pub fn is_of_series(&self) -> bool {
        !self.id.starts_with(&self.short)
    }
}

impl fmt::Display for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.short, self.subject)
    }
}

/// A revision of a user's tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision {
    /// The tree.
    pub tree: Tree,
    /// The commit.
    pub commit: Commit,
    /// The output of `git describe`: `v6.12-rc3-42-g0123456789ab`, or an abbreviated hash if there are no tags.
    pub describe: String,
}
