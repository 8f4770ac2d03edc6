//! Letting a held guest go on ([`super::gate`]), at defined points only: when what the harness does waits for the guest.
//!
//! While the guest stands, the harness acts on all that the guest has said. The guest goes on when
//! - the harness's work waits, and nothing has woken it,
//! - QEMU has taken what was sent to the agent, and no QMP command is under way,
//! - and all QMP events until then have been seen by the work.
//!
//! So what the guest sees does not depend on how long the harness took.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use guest_protocol::Command;

use super::Vm;
use super::agent::{Agent, Operation};
use super::event_log::WaitError;
use super::gate::{Gate, GateError, Stop};
use super::qmp::{Qmp, QmpError};
use super::time::GuestTime;

/// How long QEMU may take to take a request, before the guest goes on all the same. It does not take it if the agent is
/// not reading, and then the guest must go on.
const TAKEN: Duration = Duration::from_millis(100);

/// While the work waits for an event of QEMU, the guest stops for a look, as such an event has no marker: first after
/// this much of its time, then after twice as much each time, up to the second figure.
const TICKS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(400));

/// A guest that executes a second of its time needs about a second of a CPU, and one that is idle comes to its next
/// stop at once. The host's time that a guest may take to its next stop, before it is taken for one that never stops.
const PATIENCE: Duration = Duration::from_secs(20);

/// The time of a guest that does not stop goes on with the host's, this many times as fast. A busy guest executes up to
/// about four seconds in one of the host's, and the time of an idle one jumps.
const SPEED: u32 = 4;

/// It does so in steps of this, in the host's time.
const STEP: Duration = Duration::from_millis(100);

/// What the guest has said so far comes at once. A busy host may need more. After the first figure, QEMU is asked
/// whether the guest still has the agent's port.
const SAID: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// What the driver knows of a guest from one stop to the next.
#[derive(Debug, Default)]
pub(super) struct Turn {
    /// How many messages the agent had sent when the guest went on.
    heard: usize,
    /// The guest comes to a marker next that has no line before it.
    without_line: bool,
    /// How many requests had been sent to the agent when QEMU last had them all.
    sent: u64,
    /// The next stop that is needed because an event of QEMU is awaited.
    tick: Option<Tick>,
    /// The alarm that stops the guest, and its time.
    alarm: Option<(Duration, Operation)>,
}

/// A stop for a look at QEMU's events.
#[derive(Clone, Copy, Debug)]
struct Tick {
    at: Duration,
    /// The time from the tick before.
    step: Duration,
}

impl Tick {
    /// The tick that is needed after this one.
    fn next(before: Option<Tick>, now: Duration) -> Tick {
        let (first, longest) = TICKS;
        match before {
            Some(tick) if tick.at > now => tick,
            before => {
                let step = before.map_or(first, |before| (before.step * 2).min(longest));
                Tick { at: now + step, step }
            }
        }
    }
}

impl Turn {
    /// Of a guest that is restored: it was saved between the markers of a save, and there is no line before the second.
    pub(super) fn restored() -> Turn {
        Turn { without_line: true, ..Turn::default() }
    }
}

/// A held guest could not be driven. If QEMU ended, the work says so, and this is no error.
#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    /// Of the gate.
    #[error(transparent)]
    Gate(#[from] GateError),
    /// QEMU did not answer.
    #[error(transparent)]
    Qmp(#[from] QmpError),
    /// The guest stands behind a line of its agent, and this line did not come.
    #[error(transparent)]
    Line(#[from] WaitError),
    /// The guest stands behind a line of its agent that cannot come any more.
    #[error("the guest has given up the port of its agent, as a kernel does that goes down")]
    NoPort,
    /// The alarm that makes the guest stop could not be set.
    #[error(transparent)]
    Agent(#[from] super::agent::AgentError),
}

impl Vm {
    /// Does some work with the guest, and lets a held guest go on whenever the work waits. On the host's clock it only
    /// does the work. A guest that stood before stands when this returns. Not for two works at once: the second waits
    /// for the first.
    ///
    /// # Errors
    /// [`DriveError`].
    pub async fn drive<T>(&self, work: impl Future<Output = T>) -> Result<T, DriveError> {
        match self.gate() {
            None => Ok(work.await),
            Some(gate) => Driver { gate, agent: self.agent(), qmp: self.qmp() }.run(work).await,
        }
    }
}

/// The channels of a held guest.
pub(super) struct Driver<'a> {
    pub(super) gate: &'a Gate,
    pub(super) agent: &'a Agent,
    pub(super) qmp: &'a Qmp,
}

impl Driver<'_> {
    /// As [`Vm::drive`].
    pub(super) async fn run<T>(&self, work: impl Future<Output = T>) -> Result<T, DriveError> {
        let mut work = pin!(work);
        let mut turn = self.gate.turn().await;
        loop {
            match self.stop(work.as_mut()).await {
                Stopped::At(stop) => self.hear(stop, &turn).await?,
                Stopped::Done(done) => return Ok(done),
                // The work waits for QEMU, so it finds out too.
                Stopped::Ended => return Ok(work.await),
            }
            if let Some(done) = self.act(&mut turn, work.as_mut()).await? {
                return Ok(done);
            }
            (turn.heard, turn.without_line) = (self.agent.messages().position(), false);
            go(self.gate).await?;
        }
    }

    /// Waits until the guest stands. The work does nothing meanwhile, although an event of QEMU may have come: it would
    /// act at a random time of the guest's. If the guest does not stop at all, the work goes on, and the guest's time is
    /// taken to go on with the host's.
    async fn stop<F: Future>(&self, mut work: Pin<&mut F>) -> Stopped<F::Output> {
        let (began, at) = (Instant::now(), self.time().map_or(Duration::ZERO, GuestTime::now));
        match self.gate.stopped(PATIENCE).await {
            Ok(stop) => return Stopped::At(stop),
            Err(GateError::Late(_)) => {}
            Err(_) => return Stopped::Ended,
        }
        loop {
            tokio::select! {
                biased;
                stop = self.gate.stands() => return stop.map_or(Stopped::Ended, Stopped::At),
                done = &mut work => return Stopped::Done(done),
                () = tokio::time::sleep(STEP) => {
                    if let Some(time) = self.time() {
                        time.has_come_to(at + began.elapsed() * SPEED);
                    }
                }
            }
        }
    }

    /// Waits for the line before a marker, and notes the time.
    async fn hear(&self, stop: Stop, turn: &Turn) -> Result<(), DriveError> {
        if matches!(stop, Stop::Mark { .. }) && !turn.without_line {
            self.hear_line(turn.heard).await?;
        }
        if let Some(time) = self.time() {
            time.has_come_to(Duration::from_nanos(self.agent.guest_time()));
        }
        Ok(())
    }

    /// Waits for a line after those that were heard.
    async fn hear_line(&self, heard: usize) -> Result<(), DriveError> {
        let messages = self.agent.messages();
        let line = async |within| {
            let awaited = "the agent's line before a marker";
            messages.wait_by(&messages.time().of_host(), heard, within, awaited, |_| Some(())).await
        };
        let (soon, late) = SAID;
        match line(soon).await {
            Err(error) if error.is_deadline() => {}
            heard => return Ok(heard?),
        }
        if self.qmp.monitor("info qtree").await?.lines().any(is_given_up) {
            return Err(DriveError::NoPort);
        }
        Ok(line(late).await?)
    }

    /// Does the work until it waits for the guest, while the guest stands.
    async fn act<F: Future>(&self, turn: &mut Turn, mut work: Pin<&mut F>) -> Result<Option<F::Output>, DriveError> {
        let mut looked = false;
        loop {
            if let Some(done) = until_it_waits(work.as_mut()).await {
                return Ok(Some(done));
            }
            let awaits_qemu = self.qmp.events().is_awaited();
            let settled = turn.sent == self.agent.outgoing().added() && !self.qmp.is_busy();
            if settled && (looked || !awaits_qemu) && !self.set_alarm(turn, awaits_qemu).await? {
                return Ok(None);
            }
            turn.sent = self.agent.outgoing().added();
            self.hand_over().await;
            if let Some(done) = self.round_trip(work.as_mut()).await? {
                return Ok(Some(done));
            }
            looked = true;
        }
    }

    /// Sends what was asked of the agent, and waits until QEMU has taken it. If QEMU has ended, the work finds out.
    async fn hand_over(&self) {
        let outgoing = self.agent.outgoing();
        if let Ok(Ok(())) = tokio::time::timeout(TAKEN, outgoing.send()).await {
            outgoing.taken(TAKEN).await;
        }
    }

    /// Sets an alarm in the guest for the next time at which the harness has to act: a deadline, or a look at the events
    /// of QEMU. False if there is one already that is not later, or if none is needed.
    async fn set_alarm(&self, turn: &mut Turn, awaits_qemu: bool) -> Result<bool, DriveError> {
        let Some(time) = self.time() else { return Ok(false) };
        turn.tick = awaits_qemu.then(|| Tick::next(turn.tick, time.now()));
        let Some(at) = turn.tick.map(|tick| tick.at).into_iter().chain(time.next_deadline()).min() else {
            return Ok(false);
        };
        if turn.alarm.as_ref().is_some_and(|(set, alarm)| *set <= at && !alarm.is_done()) {
            return Ok(false);
        }
        let nanoseconds = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
        turn.alarm = Some((at, self.agent.start(Command::Alarm { at: nanoseconds }).await?));
        Ok(true)
    }

    /// Asks QEMU which devices it has. When the answer comes, QEMU's main loop has handed over what it took before, and all events
    /// until then have come. The work goes on meanwhile, as it may have a command under way, which comes first. The
    /// answer is awaited in any case: after a missing answer, QMP cannot be used.
    async fn round_trip<F: Future>(&self, mut work: Pin<&mut F>) -> Result<Option<F::Output>, QmpError> {
        let mut answer = pin!(self.qmp.look_at_devices());
        let mut finished = None;
        loop {
            tokio::select! {
                answer = &mut answer => return answer.map(|_| finished),
                done = &mut work, if finished.is_none() => finished = Some(done),
            }
        }
    }

    fn time(&self) -> Option<&GuestTime> {
        self.agent.messages().time().held()
    }
}

/// Whether this line of `info qtree` is that of a port which the guest does not have open (`virtser_bus_dev_print()`,
/// `hw/char/virtio-serial-bus.c`).
fn is_given_up(line: &str) -> bool {
    line.trim_start().starts_with("port ") && line.contains("guest off")
}

/// What a guest came to that was let go.
enum Stopped<T> {
    /// It stands.
    At(Stop),
    /// It did not stop, and the work is done.
    Done(T),
    /// QEMU has ended.
    Ended,
}

/// Lets the guest go on.
async fn go(gate: &Gate) -> Result<(), GateError> {
    match gate.go().await {
        // QEMU has ended meanwhile. The next look at the gate tells.
        Err(GateError::Closed(_)) => Ok(()),
        result => result,
    }
}

/// Polls a future until nothing wakes it any more. Its result, if it is done.
async fn until_it_waits<F: Future>(mut work: Pin<&mut F>) -> Option<F::Output> {
    loop {
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        let poll = poll_fn(|_| Poll::Ready(work.as_mut().poll(&mut Context::from_waker(&waker)))).await;
        if let Poll::Ready(done) = poll {
            return Some(done);
        }
        // Tokio puts off some wakes until the tasks that are ready have run, such as those of futures that have done
        // much in one go.
        tokio::task::yield_now().await;
        if !woken.0.load(Ordering::SeqCst) {
            return None;
        }
    }
}

/// A waker that notes that it was used.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn ticks_become_rare() {
        let ms = Duration::from_millis;
        let (mut tick, mut now, mut steps) = (None, ms(5000), Vec::new());
        for _ in 0..5 {
            let next = Tick::next(tick, now);
            assert_eq!(Tick::next(Some(next), now).at, next.at, "it has not come yet");
            steps.push((next.at - now).as_millis());
            (tick, now) = (Some(next), next.at);
        }
        assert_eq!(steps, [100, 200, 400, 400, 400]);
    }

    #[test]
    fn a_port_that_the_guest_does_not_have_open_is_found() {
        assert!(is_given_up("            port 1, guest off, host on, throttle off"));
        assert!(!is_given_up("            port 1, guest on, host on, throttle off"));
        assert!(!is_given_up("        dev: virtserialport, id \"\""));
    }

    #[tokio::test]
    async fn work_is_done_until_it_waits() {
        let (tell, told) = tokio::sync::oneshot::channel();
        let steps = Cell::new(0);
        let mut work = pin!(async {
            for _ in 0..1000 {
                tokio::task::yield_now().await;
                steps.set(steps.get() + 1);
            }
            told.await.unwrap()
        });
        assert_eq!(until_it_waits(work.as_mut()).await, None);
        assert_eq!(until_it_waits(work.as_mut()).await, None, "it still waits");
        tell.send(7).unwrap();
        assert_eq!(until_it_waits(work.as_mut()).await, Some(7));
        assert_eq!(steps.get(), 1000);
    }
}
