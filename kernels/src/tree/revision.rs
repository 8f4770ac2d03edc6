//! A commit of a user's tree, and the kernel at it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Tree;

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

/// A revision of a user's tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision {
    /// The tree.
    pub tree: Tree,
    /// The commit.
    pub commit: Commit,
    /// What `git describe` calls it: `v6.12-rc3-42-g0123456789ab`, or the beginning of its hash where there are no tags.
    pub describe: String,
}
