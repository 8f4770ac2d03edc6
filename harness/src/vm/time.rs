//! The time in which waits for a guest are measured.
//!
//! For a guest on the host's clock it is the host's time, without the time for which QEMU waited for a host CPU
//! ([`super::starved`]). For a held guest it is the guest's own time: whoever waits leaves a deadline here, and the driver
//! ([`super::drive`]) sets an alarm in the guest for the earliest of them. So a deadline depends on nothing that the host
//! does.

use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::starved::{Late, Starved};

/// The time of one guest. Clones share it.
#[derive(Clone, Debug)]
pub struct Time {
    starved: Starved,
    source: Source,
}

#[derive(Clone, Debug)]
enum Source {
    Host { began: Instant },
    Guest(Arc<GuestTime>),
}

/// A deadline for a caller that polls.
#[derive(Debug)]
pub struct Patience {
    time: Time,
    /// How long QEMU had waited for a host CPU when the deadline began.
    before: Duration,
    began: Duration,
    within: Duration,
}

impl Time {
    /// The host's time.
    pub fn host(starved: Starved) -> Time {
        Time { starved, source: Source::Host { began: Instant::now() } }
    }

    /// The time of a held guest. Somebody has to drive the guest ([`super::drive`]), otherwise no deadline passes.
    pub fn guest(starved: Starved) -> Time {
        Time { starved, source: Source::Guest(Arc::new(GuestTime::default())) }
    }

    /// The host's time for the same QEMU: for waits for QEMU itself, and for guests that nobody drives yet.
    pub fn of_host(&self) -> Time {
        Time::host(self.starved.clone())
    }

    /// The time of a held guest. None on the host's clock.
    pub(super) fn held(&self) -> Option<&GuestTime> {
        match &self.source {
            Source::Host { .. } => None,
            Source::Guest(guest) => Some(guest),
        }
    }

    /// How long QEMU has waited for a host CPU.
    pub fn starved(&self) -> &Starved {
        &self.starved
    }

    /// The time since an arbitrary beginning.
    pub fn now(&self) -> Duration {
        match &self.source {
            Source::Host { began } => began.elapsed(),
            Source::Guest(guest) => guest.now(),
        }
    }

    /// Waits for `work`.
    ///
    /// # Errors
    /// [`Late`].
    pub async fn timeout<T>(&self, within: Duration, work: impl Future<Output = T>) -> Result<T, Late> {
        match &self.source {
            Source::Host { .. } => self.starved.timeout(within, work).await,
            Source::Guest(guest) => guest.timeout(within, work).await,
        }
    }

    /// The same deadline, for a caller that polls.
    pub fn patience(&self, within: Duration) -> Patience {
        Patience { before: self.lost(), began: self.now(), within, time: self.clone() }
    }

    /// Sleeps for this time.
    pub async fn pause(&self, time: Duration) {
        let _ = self.timeout(time, std::future::pending::<()>()).await;
    }

    /// The time that does not count although it passes: for which QEMU waited for a host CPU. A held guest does not
    /// notice that.
    pub fn lost(&self) -> Duration {
        match &self.source {
            Source::Host { .. } => self.starved.so_far(),
            Source::Guest(_) => Duration::ZERO,
        }
    }
}

impl Patience {
    /// Whether the deadline has passed.
    pub fn is_over(&self) -> Option<Late> {
        let passed = self.time.now().saturating_sub(self.began);
        if passed < self.within {
            return None;
        }
        // Read only when needed: it reads a file for each of QEMU's threads. When a thread ends, its time is missing.
        let starved = self.time.lost().saturating_sub(self.before);
        let late = Late::extended(self.within, starved);
        (passed >= late.within).then_some(late)
    }
}

/// The time of a held guest, as far as it is known: the guest has been there.
pub(super) struct GuestTime {
    now: watch::Sender<Duration>,
    /// What is waited for, by time.
    deadlines: Mutex<BTreeSet<(Duration, u64)>>,
    next: AtomicU64,
}

impl Default for GuestTime {
    fn default() -> GuestTime {
        let (now, _) = watch::channel(Duration::ZERO);
        GuestTime { now, deadlines: Mutex::default(), next: AtomicU64::new(0) }
    }
}

impl GuestTime {
    pub(super) fn now(&self) -> Duration {
        *self.now.borrow()
    }

    /// The guest's clock shows this. Deadlines until then have passed.
    pub(super) fn has_come_to(&self, time: Duration) {
        self.now.send_if_modified(|now| {
            let later = time > *now;
            *now = time.max(*now);
            later
        });
    }

    /// The next time at which somebody has waited enough. A deadline that has passed may still be there: whoever set it
    /// does something else first.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        let now = self.now();
        self.deadlines().range((now, u64::MAX)..).next().map(|(at, _)| *at)
    }

    async fn timeout<T>(&self, within: Duration, work: impl Future<Output = T>) -> Result<T, Late> {
        let at = self.now().saturating_add(within);
        let mut now = self.now.subscribe();
        let _deadline = Deadline::new(self, at);
        let mut work = pin!(work);
        tokio::select! {
            biased;
            done = &mut work => Ok(done),
            // `self` owns the sender, so this cannot fail.
            _ = now.wait_for(|now| *now >= at) => Err(Late { within, starved: Duration::ZERO }),
        }
    }

    fn deadlines(&self) -> MutexGuard<'_, BTreeSet<(Duration, u64)>> {
        // A panic in another thread cannot leave a set half changed.
        self.deadlines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for GuestTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GuestTime({:?})", self.now())
    }
}

/// A deadline that somebody waits for. Dropping it takes it back.
struct Deadline<'a> {
    time: &'a GuestTime,
    entry: (Duration, u64),
}

impl Deadline<'_> {
    fn new(time: &GuestTime, at: Duration) -> Deadline<'_> {
        let entry = (at, time.next.fetch_add(1, Ordering::Relaxed));
        time.deadlines().insert(entry);
        Deadline { time, entry }
    }
}

impl Drop for Deadline<'_> {
    fn drop(&mut self) {
        self.time.deadlines().remove(&self.entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[tokio::test]
    async fn a_deadline_of_a_held_guest_passes_when_the_guest_comes_there() {
        let time = Time::guest(Starved::never());
        let guest = time.held().unwrap();
        guest.has_come_to(seconds(5));
        assert_eq!((time.now(), guest.next_deadline()), (seconds(5), None));
        let clock = async {
            assert_eq!(guest.next_deadline(), Some(seconds(12)));
            guest.has_come_to(seconds(11));
            guest.has_come_to(seconds(9));
            assert_eq!(time.now(), seconds(11), "time does not go back");
            tokio::task::yield_now().await;
            assert_eq!(guest.next_deadline(), Some(seconds(12)));
            guest.has_come_to(seconds(12));
        };
        let wait = time.timeout(seconds(7), std::future::pending::<()>());
        let (late, ()) = tokio::join!(biased; wait, clock);
        assert_eq!(late, Err(Late { within: seconds(7), starved: Duration::ZERO }));
        assert!(guest.deadlines().is_empty(), "it is taken back");
    }

    #[tokio::test]
    async fn what_comes_at_the_deadline_counts() {
        let time = Time::guest(Starved::never());
        let (tell, told) = tokio::sync::oneshot::channel();
        let clock = async {
            tell.send("it").unwrap();
            time.held().unwrap().has_come_to(seconds(100));
        };
        let (came, ()) = tokio::join!(biased; time.timeout(seconds(7), told), clock);
        assert_eq!(came.unwrap().unwrap(), "it");
    }

    #[test]
    fn a_deadline_that_has_passed_is_not_the_next() {
        let time = Time::guest(Starved::never());
        let guest = time.held().unwrap();
        let (_early, _late) = (Deadline::new(guest, seconds(1)), Deadline::new(guest, seconds(2)));
        assert_eq!(guest.next_deadline(), Some(seconds(1)));
        guest.has_come_to(seconds(1));
        assert_eq!(guest.next_deadline(), Some(seconds(2)));
        guest.has_come_to(seconds(3));
        assert_eq!(guest.next_deadline(), None);
    }

    #[test]
    fn polling_has_the_same_deadline_as_waiting() {
        let time = Time::guest(Starved::never());
        let patience = time.patience(seconds(40));
        for (now, late) in [(39, false), (40, true)] {
            time.held().unwrap().has_come_to(seconds(now));
            assert_eq!(patience.is_over().is_some(), late, "{now}");
        }
        let host = Time::host(Starved::never());
        let patience = |passed| Patience { began: Duration::ZERO, ..host.patience(passed) };
        assert_eq!(patience(seconds(3600)).is_over(), None);
        assert_eq!(patience(Duration::ZERO).is_over().map(|late| late.within), Some(Duration::ZERO));
    }
}
