//! Alarms: operations that are done when the guest's clock has come to a certain time.
//!
//! They go off on time whatever else the guest does, as long as it takes interrupts: their thread has the highest
//! priority that there is. The threads of interrupts have SCHED_FIFO 50, and one of them may run for milliseconds
//! (`pciehp_ist()` does, in `drivers/pci/hotplug/pciehp_hpc.c`).

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;

use guest_protocol::{Message, OpId, Outcome, Policy, Reply, Sched};
use nix::errno::Errno;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use crate::error::{self, AgentError};
use crate::outbox::Outbox;
use crate::{clock, sched};

/// The highest priority of a thread.
const HIGHEST: Sched = Sched { cpu: None, policy: Policy::Fifo(99) };

/// The alarms of a server. Clones share them.
#[derive(Clone)]
pub struct Alarms {
    outbox: Arc<Outbox>,
    shared: Arc<OnceLock<Shared>>,
}

/// What the thread and the server share. It exists from the first alarm on.
struct Shared {
    timer: TimerFd,
    /// The alarms that have not gone off, by their time.
    pending: Mutex<BTreeSet<(u64, OpId)>>,
}

impl Alarms {
    /// Alarms that go off through an outbox.
    pub fn new(outbox: Arc<Outbox>) -> Alarms {
        Alarms { outbox, shared: Arc::default() }
    }

    /// Sets an alarm for a time in nanoseconds of `CLOCK_MONOTONIC`. At this time, or at once if it is past, the
    /// operation is done.
    pub fn set(&self, id: OpId, at: u64) -> Result<(), AgentError> {
        let shared = self.shared()?;
        let mut pending = shared.pending();
        pending.insert((at, id));
        shared.arm(&pending).map_err(|errno| AgentError::io("set the timer of alarms", errno))
    }

    /// Starts the thread, if this is the first alarm. Only the server's one thread calls this.
    fn shared(&self) -> Result<&Shared, AgentError> {
        if let Some(shared) = self.shared.get() {
            return Ok(shared);
        }
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC)
            .map_err(|errno| AgentError::io("create the timer of alarms", errno))?;
        let shared = self.shared.get_or_init(|| Shared { timer, pending: Mutex::default() });
        let alarms = self.clone();
        thread::spawn(move || alarms.go_off());
        Ok(shared)
    }

    /// The thread: waits for the timer, again and again.
    fn go_off(&self) {
        if let Err(error) = sched::apply(HIGHEST) {
            // It may come late then. That is so only in tests on a host, without the rights to do this.
            eprintln!("iov-agent: alarms have an ordinary priority: {}", error::chain(&error));
        }
        let Some(shared) = self.shared.get() else { return };
        loop {
            match shared.timer.wait() {
                Ok(()) | Err(Errno::EINTR) => {}
                Err(errno) => return eprintln!("iov-agent: alarms end: wait for the timer: {errno}"),
            }
            for id in shared.due() {
                let outcome = Outcome::Ok(Reply::Nothing);
                self.outbox.send(&Message::Done { id, at: clock::now(), outcome });
            }
        }
    }
}

impl Shared {
    /// Sets the timer to the next alarm.
    fn arm(&self, pending: &BTreeSet<(u64, OpId)>) -> Result<(), Errno> {
        match pending.first() {
            None => Ok(()),
            // A time of 0 would switch the timer off.
            Some(&(at, _)) => {
                let at = TimeSpec::new((at / 1_000_000_000) as i64, (at % 1_000_000_000) as i64);
                let at = if at == TimeSpec::new(0, 0) { TimeSpec::new(0, 1) } else { at };
                self.timer.set(Expiration::OneShot(at), TimerSetTimeFlags::TFD_TIMER_ABSTIME)
            }
        }
    }

    /// Takes the alarms whose time has come, and sets the timer for the others.
    fn due(&self) -> Vec<OpId> {
        let mut pending = self.pending();
        let later = pending.split_off(&(clock::now() + 1, OpId(0)));
        let due = std::mem::replace(&mut *pending, later);
        if let Err(errno) = self.arm(&pending) {
            eprintln!("iov-agent: cannot set the timer of alarms: {errno}");
        }
        due.into_iter().map(|(_, id)| id).collect()
    }

    fn pending(&self) -> MutexGuard<'_, BTreeSet<(u64, OpId)>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
