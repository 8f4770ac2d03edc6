//! What a build tells while it runs, and how it is told to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::config::Unmet;

/// What a build tells while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BuildEvent {
    /// Another process, or another thread, is at work on what this one needs.
    Waiting {
        /// What is waited for.
        what: String,
    },
    /// The next step begins.
    Step {
        /// Which.
        step: Step,
        /// On what.
        what: String,
    },
    /// The configuration of a user's own kernel does without some of what was asked for.
    Dropped {
        /// What, and why.
        unmet: Vec<Unmet>,
    },
    /// The compiler has finished another object.
    Objects {
        /// Commands that make has run.
        done: usize,
        /// How many there will be, about: as many as last time.
        about: usize,
        /// Since compiling began.
        elapsed: Duration,
    },
    /// The kernel is built, by this build and not by another one that was waited for.
    Built {
        /// How long it took, without the time spent waiting for others.
        took: Duration,
    },
}

/// The steps of a build, in their order. Not every build has every step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// The source is downloaded.
    Fetch,
    /// The source is unpacked.
    Unpack,
    /// The trees to build in are laid out.
    Prepare,
    /// Patches are applied.
    Patch,
    /// The configuration is made and checked.
    Configure,
    /// The kernel is compiled.
    Compile,
    /// The results are put into the cache.
    Collect,
}

impl Step {
    /// What is being done, as one says it.
    pub fn verb(self) -> &'static str {
        match self {
            Step::Fetch => "fetching",
            Step::Unpack => "unpacking",
            Step::Prepare => "preparing",
            Step::Patch => "patching",
            Step::Configure => "configuring",
            Step::Compile => "compiling",
            Step::Collect => "collecting",
        }
    }
}

/// Is told what happens in a build, from the thread that builds.
pub trait Observer: Send + Sync {
    /// Something has happened.
    fn event(&self, event: BuildEvent);
}

impl<F: Fn(BuildEvent) + Send + Sync> Observer for F {
    fn event(&self, event: BuildEvent) {
        self(event);
    }
}

/// Tells a build to stop. Clones belong together.
#[derive(Clone, Debug, Default)]
pub struct CancelToken(Arc<Cancelled>);

#[derive(Debug, Default)]
struct Cancelled {
    flag: AtomicBool,
    /// When this one is cancelled, so is the token.
    parent: Option<CancelToken>,
}

impl CancelToken {
    /// A token that has not been used.
    pub fn new() -> CancelToken {
        CancelToken::default()
    }

    /// A token of its own that is cancelled with this one as well.
    pub fn child(&self) -> CancelToken {
        CancelToken(Arc::new(Cancelled { flag: AtomicBool::default(), parent: Some(self.clone()) }))
    }

    /// Everything that was given this token stops what it does, within a fraction of a second.
    pub fn cancel(&self) {
        self.0.flag.store(true, Ordering::SeqCst);
    }

    /// Whether [`CancelToken::cancel`] was called.
    pub fn is_cancelled(&self) -> bool {
        self.0.flag.load(Ordering::SeqCst) || self.0.parent.as_ref().is_some_and(CancelToken::is_cancelled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_cancelled_with_its_parent_and_not_the_other_way_round() {
        let parent = CancelToken::new();
        let (one, other) = (parent.child(), parent.child());
        one.cancel();
        assert!(one.is_cancelled() && !other.is_cancelled() && !parent.is_cancelled());
        parent.cancel();
        assert!(other.is_cancelled());
    }
}
