//! What can be wrong with a kernel, and how one sees it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A bug of the catalogue: variants have it, scenarios detect it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bug {
    /// Its name everywhere.
    pub id: String,
    /// One line for people.
    pub title: String,
    /// Upstream commits, messages and reports.
    #[serde(default)]
    pub references: Vec<String>,
    /// How a kernel that has it fails.
    pub fails: Fails,
}

/// How a kernel that has a bug fails: any other failure is not this bug.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fails {
    /// In what way.
    pub kind: FailureKind,
    /// At which kernel function or, for a stale read, at which attribute.
    pub function: String,
}

/// The ways in which a kernel fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// Tasks wait for each other and will for ever.
    Deadlock,
    /// A task waits for as long as someone else likes.
    Blocked,
    /// A reader woken by an event saw the value from before it.
    StaleRead,
    /// An event that should have been sent was not.
    LostEvent,
    /// The kernel reported an error of its own: oops, BUG, WARNING, lockdep, KASAN, panic.
    KernelSplat,
    /// What the kernel shows is not what was done.
    WrongState,
}

impl FailureKind {
    /// Its name in `kernels.toml` and in reports.
    pub fn name(self) -> &'static str {
        match self {
            FailureKind::Deadlock => "deadlock",
            FailureKind::Blocked => "blocked",
            FailureKind::StaleRead => "stale-read",
            FailureKind::LostEvent => "lost-event",
            FailureKind::KernelSplat => "kernel-splat",
            FailureKind::WrongState => "wrong-state",
        }
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
