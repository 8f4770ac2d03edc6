//! The events of a build, and the token that cancels it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::config::Unmet;

/// An event of a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BuildEvent {
    /// The build waits for another process or thread that holds a lock.
    Waiting {
        /// What the build waits for.
        what: String,
    },
    /// The next step begins.
    Step {
        /// Which step.
        step: Step,
        /// The variant, base, package or file that the step is about.
        what: String,
    },
    /// The kernel was taken from the shelf that machines share, or put there, or that failed.
    Shelf {
        /// What happened, for people.
        what: String,
    },
    /// Some symbols were left out of the configuration of a user's own kernel.
    Dropped {
        /// The symbols, and why each was left out.
        unmet: Vec<Unmet>,
    },
    /// The compiler has finished another object.
    Objects {
        /// Commands that make has run.
        done: usize,
        /// How many it will probably run: as many as the last time.
        about: usize,
        /// Time since compiling began.
        elapsed: Duration,
    },
    /// This build has built the kernel. It is not sent when another build has done so meanwhile.
    Built {
        /// How long it took, without the time that it waited for locks.
        took: Duration,
    },
}

/// A step of a build, in the order in which they happen. Not every build has every step.
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
    /// The step as a word for progress lines.
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

/// Receives the events of a build, on the thread that builds.
pub trait Observer: Send + Sync {
    /// Receives one event.
    fn event(&self, event: BuildEvent);
}

impl<F: Fn(BuildEvent) + Send + Sync> Observer for F {
    fn event(&self, event: BuildEvent) {
        self(event);
    }
}

/// Cancels a build. Clones share one state.
#[derive(Clone, Debug, Default)]
pub struct CancelToken(Arc<Cancelled>);

#[derive(Debug, Default)]
struct Cancelled {
    flag: AtomicBool,
    /// The token is cancelled as well when this one is.
    parent: Option<CancelToken>,
}

impl CancelToken {
    /// A token that is not cancelled.
    pub fn new() -> CancelToken {
        CancelToken::default()
    }

    /// A new token that can be cancelled by itself, and is cancelled together with this one.
    pub fn child(&self) -> CancelToken {
        CancelToken(Arc::new(Cancelled { flag: AtomicBool::default(), parent: Some(self.clone()) }))
    }

    /// Cancels everything that was given this token. It stops within a fraction of a second.
    pub fn cancel(&self) {
        self.0.flag.store(true, Ordering::SeqCst);
    }

    /// Whether [`CancelToken::cancel`] was called on this token or on one that it is a child of.
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
        let one = parent.child();
        let other = parent.child();
        one.cancel();
        assert!(one.is_cancelled() && !other.is_cancelled() && !parent.is_cancelled());
        parent.cancel();
        assert!(other.is_cancelled());
    }
}
