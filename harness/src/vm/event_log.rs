//! All messages of a channel in order, and waiting for further ones.
//!
//! A waiter names a position and examines all messages from there on, so that it misses no message between two waits.
//! Take the position before you cause an event, then wait from it.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::ended::Ended;
use super::starved::{Late, Starved};
use super::time::Time;
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
    /// The time of the sender.
    time: Time,
}

#[derive(Clone, Debug, Default)]
struct State {
    length: usize,
    closed: Option<Closed>,
}

/// Why a channel ended.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Closed {
    /// QEMU ended, which closes all its channels.
    #[error("{0}")]
    Ended(Ended),
    /// The channel carried data that is not of its protocol.
    #[error("{0}")]
    Garbage(Arc<str>),
}

/// An awaited message did not come.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WaitError {
    /// Not within the deadline.
    #[error("waited {} for {awaited}; it did not come (last heard: {last})", duration(*within))]
    Deadline {
        /// What was waited for.
        awaited: String,
        /// How long it waited in total: the deadline is extended by the time in which QEMU waited for a host CPU.
        within: Duration,
        /// How long QEMU waited for a host CPU meanwhile.
        starved: Duration,
        /// The last message that came, or `nothing`.
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
    /// Whether the deadline passed: the sender may still be running.
    pub fn is_deadline(&self) -> bool {
        matches!(self, WaitError::Deadline { .. })
    }

    /// The deadline, if it passed.
    pub fn late(&self) -> Option<Late> {
        match self {
            WaitError::Deadline { within, starved, .. } => Some(Late { within: *within, starved: *starved }),
            WaitError::Closed { .. } => None,
        }
    }

    /// How QEMU ended, if that is the cause.
    pub fn ended(&self) -> Option<&Ended> {
        match self {
            WaitError::Closed { why: Closed::Ended(ended), .. } => Some(ended),
            _ => None,
        }
    }
}

/// Maximum number of characters of the last message in an error.
const SHOWN: usize = 160;

impl<T> Clone for EventLog<T> {
    fn clone(&self) -> Self {
        EventLog { inner: self.inner.clone() }
    }
}

impl<T> Default for EventLog<T> {
    fn default() -> Self {
        EventLog::of(Time::host(Starved::never()))
    }
}

impl<T> EventLog<T> {
    /// A log of messages from QEMU or its guest.
    pub fn of(time: Time) -> Self {
        let (state, _) = watch::channel(State::default());
        EventLog { inner: Arc::new(Inner { items: Mutex::new(Vec::new()), state, time }) }
    }
}

impl<T: fmt::Display> EventLog<T> {
    /// The sender's time.
    pub(super) fn time(&self) -> &Time {
        &self.inner.time
    }

    fn items(&self) -> MutexGuard<'_, Vec<T>> {
        // A panic in another thread cannot leave a Vec::push half done.
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

    /// Closes the log: no more messages will come. The first reason counts.
    pub fn close(&self, why: Closed) {
        self.inner.state.send_modify(|state| {
            state.closed.get_or_insert(why);
        });
    }

    /// The position after the last message so far.
    pub fn position(&self) -> usize {
        self.items().len()
    }

    /// The last value that `pick` selects from the messages so far.
    pub fn last<R>(&self, pick: impl FnMut(&T) -> Option<R>) -> Option<R> {
        self.items().iter().rev().find_map(pick)
    }

    /// Whether anything waits for a message.
    pub fn is_awaited(&self) -> bool {
        self.inner.state.receiver_count() > 0
    }

    /// All values that `pick` selects from the messages so far, from a position on.
    pub fn collect<R>(&self, from: usize, pick: impl FnMut(&T) -> Option<R>) -> Vec<R> {
        self.items().iter().skip(from).filter_map(pick).collect()
    }

    /// The first value that `pick` selects from the messages from a position on. Waits for it if necessary, with a
    /// deadline in the sender's time.
    ///
    /// # Errors
    /// [`WaitError`], naming what was awaited and what came instead.
    pub async fn wait<R>(
        &self,
        from: usize,
        within: Duration,
        awaited: &str,
        pick: impl FnMut(&T) -> Option<R>,
    ) -> Result<R, WaitError> {
        self.wait_by(&self.inner.time, from, within, awaited, pick).await
    }

    /// As [`EventLog::wait`], with the deadline in another time.
    ///
    /// # Errors
    /// [`WaitError`].
    pub(super) async fn wait_by<R>(
        &self,
        time: &Time,
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
                // `self` owns the sender, so this cannot fail.
                let _ = changes.changed().await;
            }
        };
        time.timeout(within, search).await.unwrap_or_else(|late| Err(self.late(awaited, late)))
    }

    /// The error for a message that did not come in time.
    pub(super) fn late(&self, awaited: &str, Late { within, starved }: Late) -> WaitError {
        let last = self.items().last().map_or_else(|| "nothing".to_owned(), short);
        WaitError::Deadline { awaited: awaited.to_owned(), within, starved, last }
    }
}

/// The beginning of a message, with three dots if it is cut.
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
    async fn messages_from_before_the_wait_count() {
        let log = EventLog::default();
        log.push(1);
        let from = log.position();
        log.push(2);
        assert_eq!(log.last(|n| Some(*n)), Some(2));
        assert_eq!(log.wait(from, SOON, "any", |n| Some(*n)).await.unwrap(), 2);
        assert_eq!(log.wait(0, SOON, "any", |n| Some(*n)).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn a_waiter_is_woken() {
        let log = EventLog::default();
        let other = log.clone();
        assert!(!log.is_awaited());
        let (got, ()) = tokio::join!(log.wait(0, Duration::from_secs(5), "two", |n| (*n == 2).then_some(())), async {
            assert!(other.is_awaited());
            other.push(1);
            tokio::task::yield_now().await;
            other.push(2);
        });
        got.unwrap();
        assert!(!log.is_awaited());
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
        let error = log.wait(0, SOON, "event 9", |n: &i32| (*n == 9).then_some(())).await.unwrap_err();
        assert_eq!(error.to_string(), "waited 20 ms for event 9; it did not come (last heard: nothing)");
        log.push(7);
        let error = log.wait(0, SOON, "event 9", |n| (*n == 9).then_some(())).await.unwrap_err();
        assert!(error.is_deadline() && error.to_string().ends_with("(last heard: 7)"), "{error}");
        log.close(Closed::Ended(exited(1, "no event")));
        log.close(Closed::Garbage("second reason".into()));
        let error = log.wait(0, SOON, "event 9", |n| (*n == 9).then_some(())).await.unwrap_err();
        assert_eq!(error.to_string(), "while waiting for event 9: QEMU ended (exit status: 1); it said: no event");
        assert_eq!(error.ended(), Some(&exited(1, "no event")));
        // Messages from before the end still count.
        log.wait(0, SOON, "seven", |n| (*n == 7).then_some(())).await.unwrap();
    }
}
