//! Deadlines that take a busy host into account. While QEMU is runnable and waits for a host CPU, its guest cannot make
//! progress, so that time does not count. An idle guest, such as one that hangs, does not wait for a CPU: its deadlines
//! are not extended.

use std::fs;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

/// The total time for which a QEMU was runnable but did not run. Clones read the same clock.
#[derive(Clone)]
pub struct Starved(Arc<dyn Fn() -> Duration + Send + Sync>);

/// A deadline passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Late {
    /// How long the deadline was in the end.
    pub within: Duration,
    /// How long QEMU waited for a host CPU meanwhile.
    pub starved: Duration,
}

/// A deadline is extended to at most this many times its length, however busy the host is.
const MOST: u32 = 4;

/// A deadline is not extended by less than its length divided by this.
const WORTH: u32 = 20;

impl Late {
    /// A deadline that is extended by the time for which QEMU waited for a host CPU.
    pub(super) fn extended(within: Duration, starved: Duration) -> Late {
        Late { within: within + starved.min(within * (MOST - 1)), starved }
    }
}

impl Starved {
    /// A process that never waits for a CPU.
    pub fn never() -> Starved {
        Starved(Arc::new(|| Duration::ZERO))
    }

    /// A process's time on run queues (`/proc/PID/task/TID/schedstat`, the kernel's
    /// `Documentation/scheduler/sched-stats.rst`). It is 0 if the host's kernel does not count it.
    pub fn process(pid: u32) -> Starved {
        let folder = format!("/proc/{pid}/task");
        Starved(Arc::new(move || {
            let threads = fs::read_dir(&folder).into_iter().flatten().flatten();
            threads.filter_map(|thread| waited(&fs::read_to_string(thread.path().join("schedstat")).ok()?)).sum()
        }))
    }

    /// For how long QEMU has waited for a host CPU until now.
    pub fn so_far(&self) -> Duration {
        (self.0)()
    }

    /// Waits for `work`. The time `within` does not include the time for which QEMU waited for a host CPU.
    ///
    /// # Errors
    /// [`Late`].
    pub async fn timeout<T>(&self, within: Duration, work: impl Future<Output = T>) -> Result<T, Late> {
        let mut work = pin!(work);
        let began = Instant::now();
        // Nearly all work is done by then, and the time on run queues is in a file for each of QEMU's threads.
        if let Ok(done) = timeout_at(began + within / WORTH, &mut work).await {
            return Ok(done);
        }
        let before = self.so_far();
        let mut until = within;
        loop {
            if let Ok(done) = timeout_at(began + until, &mut work).await {
                return Ok(done);
            }
            // When a thread ends, its time is lost, so the sum can become smaller.
            let starved = self.so_far().saturating_sub(before);
            let late = Late::extended(within, starved);
            if late.within < until + within / WORTH {
                return Err(Late { within: until, ..late });
            }
            until = late.within;
        }
    }
}

impl std::fmt::Debug for Starved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Starved({:?})", self.so_far())
    }
}

/// The second figure: nanoseconds spent waiting on a run queue.
fn waited(schedstat: &str) -> Option<Duration> {
    schedstat.split_ascii_whitespace().nth(1)?.parse().ok().map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::process::{Child, Command, Stdio};
    use std::sync::Mutex;

    use super::*;

    /// A process that has waited for a CPU for this long at each reading, in milliseconds.
    fn readings(milliseconds: &'static [u64]) -> Starved {
        let readings = Mutex::new(milliseconds.iter().copied().chain(std::iter::repeat(*milliseconds.last().unwrap())));
        Starved(Arc::new(move || Duration::from_millis(readings.lock().unwrap().next().unwrap())))
    }

    async fn late(starved: Starved) -> u128 {
        let late = starved.timeout(Duration::from_millis(40), pending::<()>()).await.unwrap_err();
        late.within.as_millis()
    }

    #[tokio::test]
    async fn a_deadline_counts_the_time_in_which_qemu_could_run() {
        assert_eq!(late(Starved::never()).await, 40);
        // Time from before the wait does not count, and very short times do not.
        assert_eq!(late(readings(&[900, 901])).await, 40);
        // 20 ms were lost, and another 10 ms during the extension.
        assert_eq!(late(readings(&[900, 920, 930, 930])).await, 70);
        assert_eq!(late(readings(&[0, 10_000])).await, 160, "no deadline is extended without limit");
        assert_eq!(late(readings(&[900, 3])).await, 40, "a thread has ended");
    }

    #[tokio::test]
    async fn a_result_that_comes_late_on_a_busy_host_counts() {
        // The result comes after the first deadline has passed.
        let (tell, comes) = tokio::sync::oneshot::channel();
        let readings = Mutex::new([None, Some(tell)].into_iter());
        let starved = Starved(Arc::new(move || match readings.lock().unwrap().next().flatten() {
            Some(tell) => tell.send("it").map(|()| Duration::from_millis(100)).unwrap(),
            None => Duration::ZERO,
        }));
        assert_eq!(starved.timeout(Duration::from_millis(40), comes).await.unwrap().unwrap(), "it");
    }

    /// A process that never sleeps.
    struct Busy(Child);

    impl Drop for Busy {
        fn drop(&mut self) {
            let _ = self.0.kill().and_then(|()| self.0.wait());
        }
    }

    #[tokio::test]
    async fn processes_that_share_a_cpu_are_starved() {
        let cpus = std::thread::available_parallelism().unwrap().get();
        let spin = || Command::new("sh").args(["-c", "while :; do :; done"]).stdin(Stdio::null()).spawn().unwrap();
        let spinning: Vec<_> = (0..=cpus).map(|_| Busy(spin())).collect();
        let clocks: Vec<_> = spinning.iter().map(|busy| Starved::process(busy.0.id())).collect();
        let longest = || clocks.iter().map(|clock| (clock.0)()).max().unwrap();
        // Without CONFIG_SCHED_INFO the kernel does not count the time.
        if fs::exists("/proc/self/schedstat").unwrap() {
            let seen = async {
                while longest() < Duration::from_millis(50) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(20), seen).await.expect("none of them waited for a CPU");
        } else {
            assert_eq!(longest(), Duration::ZERO);
        }
        assert_eq!((Starved::process(u32::MAX).0)(), Duration::ZERO, "there is no such process");
    }
}
