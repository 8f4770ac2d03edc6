//! Deadlines that a busy host does not spoil. A guest can do nothing while its QEMU is ready to run and waits for one of
//! the host's CPUs, so that time does not count. A guest that is idle, as one is that hangs, waits for no CPU: its
//! deadlines pass as ever.

use std::fs;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

/// For how long a QEMU has been ready to run without running, all in all. Clones read the same clock.
#[derive(Clone)]
pub struct Starved(Arc<dyn Fn() -> Duration + Send + Sync>);

/// A deadline passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Late {
    /// How long it was in the end.
    pub within: Duration,
    /// For how long QEMU was starved meanwhile.
    pub starved: Duration,
}

/// A deadline for whoever looks again and again.
#[derive(Debug)]
pub struct Patience<'a> {
    starved: &'a Starved,
    /// How long QEMU had been starved when it began.
    before: Duration,
    began: Instant,
    within: Duration,
}

/// However busy the host is, a deadline gets no longer than this many times what it was.
const MOST: u32 = 4;

/// To wait less than this part of a deadline longer is not worth it.
const WORTH: u32 = 20;

impl Starved {
    /// A process that never is.
    pub fn never() -> Starved {
        Starved(Arc::new(|| Duration::ZERO))
    }

    /// By what the scheduler says of a process (`/proc/PID/task/TID/schedstat`, the kernel's
    /// `Documentation/scheduler/sched-stats.rst`). On a host whose kernel does not say, it never is.
    pub fn process(pid: u32) -> Starved {
        let folder = format!("/proc/{pid}/task");
        Starved(Arc::new(move || {
            let threads = fs::read_dir(&folder).into_iter().flatten().flatten();
            threads.filter_map(|thread| waited(&fs::read_to_string(thread.path().join("schedstat")).ok()?)).sum()
        }))
    }

    /// How long it has been so until now.
    pub fn so_far(&self) -> Duration {
        (self.0)()
    }

    /// Waits for something of QEMU's, for as long as `within` of which QEMU was not starved.
    ///
    /// # Errors
    /// [`Late`].
    pub async fn timeout<T>(&self, within: Duration, work: impl Future<Output = T>) -> Result<T, Late> {
        let mut work = pin!(work);
        let patience = self.patience(within);
        let mut until = within;
        loop {
            if let Ok(done) = timeout_at(patience.began + until, &mut work).await {
                return Ok(done);
            }
            let late = patience.late();
            if late.within < until + within / WORTH {
                return Err(Late { within: until, ..late });
            }
            until = late.within;
        }
    }

    /// The same deadline, for whoever cannot wait and has to look.
    pub fn patience(&self, within: Duration) -> Patience<'_> {
        Patience { starved: self, before: self.so_far(), began: Instant::now(), within }
    }

    /// Lets this much time pass of which QEMU is not starved.
    pub async fn pause(&self, time: Duration) {
        let _ = self.timeout(time, std::future::pending::<()>()).await;
    }
}

impl Patience<'_> {
    /// How long the deadline is by now.
    fn late(&self) -> Late {
        // A thread that ends takes its figures with it.
        let starved = self.starved.so_far().saturating_sub(self.before);
        Late { within: self.within + starved.min(self.within * (MOST - 1)), starved }
    }

    /// Whether the deadline has passed.
    pub fn is_over(&self) -> Option<Late> {
        let passed = self.began.elapsed();
        // Looked at only then: it takes a look at each of QEMU's threads.
        let late = (passed >= self.within).then(|| self.late())?;
        (passed >= late.within).then_some(late)
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

    /// A process that has been starved for this long at each look, in milliseconds.
    fn looks(milliseconds: &'static [u64]) -> Starved {
        let looks = Mutex::new(milliseconds.iter().copied().chain(std::iter::repeat(*milliseconds.last().unwrap())));
        Starved(Arc::new(move || Duration::from_millis(looks.lock().unwrap().next().unwrap())))
    }

    async fn late(starved: Starved) -> u128 {
        let late = starved.timeout(Duration::from_millis(40), pending::<()>()).await.unwrap_err();
        late.within.as_millis()
    }

    #[tokio::test]
    async fn a_deadline_counts_the_time_in_which_qemu_could_run() {
        assert_eq!(late(Starved::never()).await, 40);
        // What was before the wait does not count, nor does next to nothing.
        assert_eq!(late(looks(&[900, 901])).await, 40);
        // 20 ms were lost, and of those another 10.
        assert_eq!(late(looks(&[900, 920, 930, 930])).await, 70);
        assert_eq!(late(looks(&[0, 10_000])).await, 160, "no deadline is stretched for ever");
        assert_eq!(late(looks(&[900, 3])).await, 40, "a thread has ended");
    }

    #[test]
    fn who_looks_has_the_same_deadline_as_who_waits() {
        let seconds = Duration::from_secs;
        let after = |passed, starved: &Starved| {
            let patience = starved.patience(seconds(40));
            Patience { began: Instant::now() - seconds(passed), ..patience }.is_over()
        };
        let starved = || looks(&[900_000, 920_000]);
        assert_eq!(after(30, &starved()), None);
        assert_eq!(after(50, &starved()), None);
        assert_eq!(after(61, &starved()), Some(Late { within: seconds(60), starved: seconds(20) }));
        assert_eq!(after(41, &Starved::never()), Some(Late { within: seconds(40), starved: Duration::ZERO }));
        assert_eq!(after(161, &looks(&[0, 1_000_000])).map(|late| late.within), Some(seconds(160)));
    }

    #[tokio::test]
    async fn what_comes_late_on_a_busy_host_still_comes() {
        // It comes when the deadline has passed once.
        let (tell, comes) = tokio::sync::oneshot::channel();
        let looks = Mutex::new([None, Some(tell)].into_iter());
        let starved = Starved(Arc::new(move || match looks.lock().unwrap().next().flatten() {
            Some(tell) => tell.send("it").map(|()| Duration::from_millis(100)).unwrap(),
            None => Duration::ZERO,
        }));
        assert_eq!(starved.timeout(Duration::from_millis(40), comes).await.unwrap().unwrap(), "it");
    }

    /// A process that never rests.
    struct Busy(Child);

    impl Drop for Busy {
        fn drop(&mut self) {
            let _ = self.0.kill().and_then(|()| self.0.wait());
        }
    }

    #[tokio::test]
    async fn processes_that_share_a_cpu_are_starved() {
        if fs::read_to_string("/proc/self/schedstat").is_err() {
            return eprintln!("this kernel does not tell of waiting tasks (CONFIG_SCHED_INFO)");
        }
        let cpus = std::thread::available_parallelism().unwrap().get();
        let spin = || Command::new("sh").args(["-c", "while :; do :; done"]).stdin(Stdio::null()).spawn().unwrap();
        let spinning: Vec<_> = (0..=cpus).map(|_| Busy(spin())).collect();
        let clocks: Vec<_> = spinning.iter().map(|busy| Starved::process(busy.0.id())).collect();
        let seen = async {
            while clocks.iter().map(|clock| (clock.0)()).max().unwrap() < Duration::from_millis(50) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), seen).await.expect("none of them waited for a CPU");
        assert_eq!((Starved::process(u32::MAX).0)(), Duration::ZERO, "there is no such process");
    }
}
