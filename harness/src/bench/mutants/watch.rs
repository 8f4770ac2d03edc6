//! What the runs of mutants report: passed on, without what each of them would repeat. Also notes what a build and a cell
//! came to.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kernels::BuildEvent;
use tokio::sync::Notify;

use crate::progress::{Event, Progress};
use crate::verdict::Verdict;

/// Watches one run.
pub struct Watch {
    inner: Arc<dyn Progress>,
    /// Whether an earlier run has reported the accelerator and the clock.
    repeats: bool,
    state: Mutex<State>,
    /// A cell has failed.
    failed: Notify,
}

#[derive(Default)]
struct State {
    built: Option<Duration>,
    build_failed: Option<String>,
}

impl Watch {
    /// Passes events on to `inner`.
    pub fn new(inner: Arc<dyn Progress>, repeats: bool) -> Watch {
        Watch { inner, repeats, state: Mutex::default(), failed: Notify::new() }
    }

    /// How long the build took. None if nothing was built.
    pub fn built(&self) -> Option<Duration> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).built
    }

    /// Why the kernel was not built.
    pub fn build_failed(&self) -> Option<String> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).build_failed.clone()
    }

    /// Waits until a cell fails, if none has failed since the last call.
    pub async fn failed(&self) {
        self.failed.notified().await;
    }
}

impl Progress for Watch {
    fn event(&self, event: Event<'_>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match &event {
            Event::Build { event: BuildEvent::Built { took }, .. } => state.built = Some(*took),
            Event::BuildFailed { why, .. } => state.build_failed = Some((*why).to_owned()),
            Event::CellFinished { verdict: Verdict::Fail(_), .. } => self.failed.notify_one(),
            Event::Accelerator(_) | Event::Clock { .. } if self.repeats => return,
            _ => {}
        }
        drop(state);
        self.inner.event(event);
    }
}
