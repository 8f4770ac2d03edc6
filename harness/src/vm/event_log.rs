//! Everything that a channel said, in order, and waiting for what it will say.
//!
//! A waiter names a position and looks at everything from there on, so that nothing said between two waits is missed:
//! take the position before causing something, then wait from it.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::ended::Ended;
use super::starved::{Late, Starved};
use crate::text::duration;

/// An append-only list of messages that can be waited on. Clones share it.
#[derive(Debug)]
pub struct EventLog<T> {
    inner: Arc<Inner<T>>,
}

#[derive(Debug)]
struct Inner<T> {
    items: Mutex<Vec<T>>,
    state: watch::Sender<State>,
    /// Whoever should say something may be kept from it.
    starved: Starved,
}

#[derive(Clone, Debug, Default)]
struct State {
    length: usize,
    closed: Option<Closed>,
}

/// Why a channel ended.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Closed {
    /// QEMU ended, and with it all its channels.
    #[error("{0}")]
    Ended(Ended),
    /// What came over it does not belong there.
    #[error("{0}")]
    Nonsense(Arc<str>),
}

/// What was waited for did not come.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WaitError {
    /// Not within the deadline.
    #[error("waited {} for {awaited}; it did not come (last heard: {last})", duration(*within))]
    Deadline {
        /// What was waited for.
        awaited: String,
        /// How long, in the end: time in which QEMU waited for the host does not count.
        within: Duration,
        /// How much of that QEMU waited for the host's CPUs.
        starved: Duration,
        /// The last message that came instead, or `nothing`.
        last: String,
    },
    /// The channel ended first.
    #[error("while waiting for {awaited}: {why}")]
    Closed {
        /// What was waited for.
        awaited: String,
        /// Why the channel ended.
        why: Closed,
    },
}

impl WaitError {
    /// Whether it was the deadline, so that the other side may still be there.
    pub fn is_deadline(&self) -> bool {
        matches!(self, WaitError::Deadline { .. })
    }

    /// The deadline, if it was that.
    pub fn late(&self) -> Option<Late> {
        match self {
            WaitError::Deadline { within, starved, .. } => Some(Late { within: *within, starved: *starved }),
            WaitError::Closed { .. } => None,
        }
    }

    /// How QEMU ended, if that is why.
    pub fn ended(&self) -> Option<&Ended> {
        match self {
            WaitError::Closed { why: Closed::Ended(ended), .. } => Some(ended),
            _ => None,
        }
    }
}

/// Most characters of the last message that an error repeats.
const SHOWN: usize = 160;

impl<T> Clone for EventLog<T> {
    fn clone(&self) -> Self {
        EventLog { inner: self.inner.clone() }
    }
}

impl<T> Default for EventLog<T> {
    fn default() -> Self {
        EventLog::of(Starved::never())
    }
}

impl<T> EventLog<T> {
    /// A log of what a QEMU says, directly or for its guest.
    pub fn of(starved: Starved) -> Self {
        let (state, _) = watch::channel(State::default());
        EventLog { inner: Arc::new(Inner { items: Mutex::new(Vec::new()), state, starved }) }
    }
}

impl<T: fmt::Display> EventLog<T> {
    fn items(&self) -> MutexGuard<'_, Vec<T>> {
        // A panic elsewhere cannot leave a Vec::push half done.
        self.inner.items.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a message.
    pub fn push(&self, item: T) {
        let length = {
            let mut items = self.items();
            items.push(item);
            items.len()
        };
        self.inner.state.send_modify(|state| state.length = length);
    }

    /// Says that nothing more will come. The first reason given stays.
    pub fn close(&self, why: Closed) {
        self.inner.state.send_modify(|state| {
            state.closed.get_or_insert(why);
        });
    }

    /// The position after the last message so far.
    pub fn position(&self) -> usize {
        self.items().len()
    }

    /// All that `pick` takes from the messages from a position on, up to now.
    pub fn collect<R>(&self, from: usize, pick: impl FnMut(&T) -> Option<R>) -> Vec<R> {
        self.items().iter().skip(from).filter_map(pick).collect()
    }

    /// The first thing that `pick` takes from the messages from a position on, waiting for it if need be.
    ///
    /// # Errors
    /// [`WaitError`], naming what was awaited and what came instead.
    pub async fn wait<R>(
        &self,
        from: usize,
        within: Duration,
        awaited: &str,
        mut pick: impl FnMut(&T) -> Option<R>,
    ) -> Result<R, WaitError> {
        let mut changes = self.inner.state.subscribe();
        let mut next = from;
        let search = async {
            loop {
                let state = changes.borrow_and_update().clone();
                {
                    let items = self.items();
                    for item in items.iter().skip(next) {
                        next += 1;
                        if let Some(found) = pick(item) {
                            return Ok(found);
                        }
                    }
                }
                if let Some(why) = state.closed {
                    return Err(WaitError::Closed { awaited: awaited.to_owned(), why });
                }
                // The sender lives in self: this cannot fail while we are here.
                let _ = changes.changed().await;
            }
        };
        match self.inner.starved.timeout(within, search).await {
            Ok(result) => result,
            Err(Late { within, starved }) => {
                let last = self.items().last().map_or_else(|| "nothing".to_owned(), short);
                Err(WaitError::Deadline { awaited: awaited.to_owned(), within, starved, last })
            }
        }
    }
}

/// The beginning of a message. Three dots stand for what is left out.
fn short(message: &impl fmt::Display) -> String {
    let words = message.to_string();
    let mut short: String = words.chars().take(SHOWN).collect();
    if short.len() < words.len() {
        short.push_str("...");
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::ended::tests::exited;

    const SOON: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn what_came_before_the_wait_counts() {
        let log = EventLog::default();
        log.push(1);
        let from = log.position();
        log.push(2);
        assert_eq!(log.wait(from, SOON, "any", |n| Some(*n)).await.unwrap(), 2);
        assert_eq!(log.wait(0, SOON, "any", |n| Some(*n)).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn a_waiter_is_woken() {
        let log = EventLog::default();
        let other = log.clone();
        let (got, ()) = tokio::join!(log.wait(0, Duration::from_secs(5), "two", |n| (*n == 2).then_some(())), async {
            other.push(1);
            tokio::task::yield_now().await;
            other.push(2);
        });
        got.unwrap();
    }

    #[test]
    fn a_long_message_is_cut() {
        let exact = "ä".repeat(SHOWN);
        assert_eq!(short(&exact), exact);
        assert_eq!(short(&format!("{exact}b")), format!("{exact}..."));
    }

    #[tokio::test]
    async fn errors_name_what_was_awaited_and_what_came() {
        let log = EventLog::default();
        let error = log.wait(0, SOON, "the moon", |n: &i32| (*n == 9).then_some(())).await.unwrap_err();
        assert_eq!(error.to_string(), "waited 20 ms for the moon; it did not come (last heard: nothing)");
        log.push(7);
        let error = log.wait(0, SOON, "the moon", |n| (*n == 9).then_some(())).await.unwrap_err();
        assert!(error.is_deadline() && error.to_string().ends_with("(last heard: 7)"), "{error}");
        log.close(Closed::Ended(exited(1, "no moon")));
        log.close(Closed::Nonsense("second reason".into()));
        let error = log.wait(0, SOON, "the moon", |n| (*n == 9).then_some(())).await.unwrap_err();
        assert_eq!(error.to_string(), "while waiting for the moon: QEMU ended (exit status: 1); it said: no moon");
        assert_eq!(error.ended(), Some(&exited(1, "no moon")));
        // What was said before the end still counts.
        log.wait(0, SOON, "seven", |n| (*n == 7).then_some(())).await.unwrap();
    }
}
