//! The gate of a guest whose clock is held ([`super::clock`]): QEMU's plugin `harness/plugin/gate.c` stops the guest, and
//! the harness says when it goes on. While the guest is stopped, its time stands still, and QMP works.
//!
//! Two rules:
//! - QMP's `stop` and `quit` wait for the virtual CPUs, and those wait at the gate. To end QEMU, close the gate.
//! - QEMU ends when its gate is closed, or when the harness is gone.

mod wire;

use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Mutex, MutexGuard, watch};
use tokio::task::JoinHandle;

use super::drive::Turn;
use super::event_log::Closed;
use super::process::End;
use super::starved::Late;
use crate::text::duration;

use wire::Order;
pub use wire::{Stop, Unknown};

/// The host's side of a guest's gate. Dropping it closes it.
#[derive(Debug)]
pub struct Gate {
    /// None after [`Gate::close`].
    write: Mutex<Option<OwnedWriteHalf>>,
    state: watch::Sender<State>,
    /// Of the driver ([`super::drive`]).
    turn: Mutex<Turn>,
    end: End,
    reader: JoinHandle<()>,
}

#[derive(Clone, Debug, Default)]
struct State {
    /// Where the guest stands. None while it runs.
    stop: Option<Stop>,
    stops: u64,
    closed: Option<Closed>,
}

/// The gate could not be used.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// The guest did not stop in time.
    #[error("the guest passed no gate within {}: it spins, or its interrupts are off", duration(.0.within))]
    Late(Late),
    /// The gate is closed: QEMU ended, or the plugin sent what is not of its protocol.
    #[error("the guest cannot be held any more: {0}")]
    Closed(Closed),
    /// The harness has closed the gate.
    #[error("the guest's gate was closed before")]
    Shut,
    /// An order could not be sent.
    #[error("cannot send an order to the plugin that holds the guest: {0}")]
    Send(#[source] std::io::Error),
    /// An order to go on came while the guest ran.
    #[error("the guest cannot go on, as it is not stopped")]
    NotStopped,
}

impl Gate {
    /// Uses the connection of a plugin. `end` is the end of its QEMU.
    pub fn open(stream: UnixStream, end: End) -> Gate {
        let (read, write) = stream.into_split();
        let (state, _) = watch::channel(State::default());
        let reader = tokio::spawn(read_stops(read, state.clone(), end.clone()));
        Gate { write: Mutex::new(Some(write)), state, turn: Mutex::default(), end, reader }
    }

    /// Where the guest stands. None while it runs.
    pub fn stop(&self) -> Option<Stop> {
        self.state.borrow().stop
    }

    /// How often the guest has been stopped.
    pub fn stops(&self) -> u64 {
        self.state.borrow().stops
    }

    /// Waits until the guest stands. The deadline is in the host's time.
    ///
    /// # Errors
    /// [`GateError::Late`], [`GateError::Closed`].
    pub async fn stopped(&self, within: Duration) -> Result<Stop, GateError> {
        self.end.starved().timeout(within, self.stands()).await.unwrap_or_else(|late| Err(GateError::Late(late)))
    }

    /// Waits until the guest stands, without a deadline.
    pub(super) async fn stands(&self) -> Result<Stop, GateError> {
        let mut state = self.state.subscribe();
        let state = state.wait_for(|state| state.stop.is_some() || state.closed.is_some()).await;
        match state.map(|state| (state.closed.clone(), state.stop)) {
            Ok((None, Some(stop))) => Ok(stop),
            Ok((Some(why), _)) => Err(GateError::Closed(why)),
            // `self` owns the sender, and the guest stands.
            Ok((None, None)) | Err(_) => Err(GateError::Shut),
        }
    }

    pub(super) async fn turn(&self) -> MutexGuard<'_, Turn> {
        self.turn.lock().await
    }

    /// Lets the guest go on until its next stop.
    ///
    /// # Errors
    /// [`GateError::NotStopped`], [`GateError::Send`], [`GateError::Closed`], [`GateError::Shut`].
    pub async fn go(&self) -> Result<(), GateError> {
        // Before the order is sent: the next stop may come before the call returns.
        let mut stood = false;
        self.state.send_modify(|state| stood = state.stop.take().is_some());
        if stood { self.order(Order::Go).await } else { Err(self.closed().unwrap_or(GateError::NotStopped)) }
    }

    /// Lets the guest go on, and stops it no more.
    ///
    /// # Errors
    /// [`GateError::Send`], [`GateError::Closed`], [`GateError::Shut`].
    pub async fn free(&self) -> Result<(), GateError> {
        self.state.send_modify(|state| state.stop = None);
        self.order(Order::Free).await
    }

    /// Stops a free guest again, from the next marker or place on.
    ///
    /// # Errors
    /// [`GateError::Send`], [`GateError::Closed`], [`GateError::Shut`].
    pub async fn hold(&self) -> Result<(), GateError> {
        self.order(Order::Hold).await
    }

    /// Makes the guest stop at a place, at its `hit`-th execution from now on, counted from 1. With 0 it does not stop there
    /// any more.
    ///
    /// # Errors
    /// [`GateError::Send`], [`GateError::Closed`], [`GateError::Shut`].
    pub async fn stop_at(&self, place: usize, hit: u64) -> Result<(), GateError> {
        self.order(Order::StopAt { place, hit }).await
    }

    /// Waits until the guest stands at a place.
    ///
    /// # Errors
    /// [`GateError::Closed`].
    pub async fn at_place(&self, place: usize) -> Result<(), GateError> {
        let is_there = |state: &State| matches!(state.stop, Some(Stop::Place { place: at, .. }) if at == place);
        let mut state = self.state.subscribe();
        let state = state.wait_for(|state| is_there(state) || state.closed.is_some()).await;
        match state.map(|state| state.closed.clone()) {
            Ok(None) => Ok(()),
            Ok(Some(why)) => Err(GateError::Closed(why)),
            // `self` owns the sender.
            Err(_) => Err(GateError::Shut),
        }
    }

    /// Closes the gate, which ends QEMU at once, with exit status 0. The guest does nothing more.
    pub async fn close(&self) {
        // Dropping the half ends what the plugin reads.
        self.write.lock().await.take();
    }

    async fn order(&self, order: Order) -> Result<(), GateError> {
        if let Some(closed) = self.closed() {
            return Err(closed);
        }
        match self.write.lock().await.as_mut() {
            None => Err(GateError::Shut),
            Some(write) => write.write_all(order.to_string().as_bytes()).await.map_err(GateError::Send),
        }
    }

    fn closed(&self) -> Option<GateError> {
        self.state.borrow().closed.clone().map(GateError::Closed)
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

async fn read_stops(read: OwnedReadHalf, state: watch::Sender<State>, end: End) {
    let mut lines = BufReader::new(read).lines();
    let why = loop {
        match lines.next_line().await {
            Ok(Some(line)) => match line.parse() {
                Ok(stop) => state.send_modify(|state| {
                    state.stop = Some(stop);
                    state.stops += 1;
                }),
                Err(error) => break Closed::Garbage(Unknown::to_string(&error).into()),
            },
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                break Closed::Garbage(
                    format!("what the plugin that stops the guest sent is not text: {error}").into(),
                );
            }
            // QEMU is ending, and its exit status is the reason.
            Ok(None) | Err(_) => break Closed::Ended(end.wait().await),
        }
    };
    state.send_modify(|state| {
        state.stop = None;
        state.closed = Some(why);
    });
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::super::process::Process;
    use super::super::time::Time;
    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    /// A gate, the plugin's end of its connection, and a process that plays QEMU.
    fn gate() -> (Gate, UnixStream, Process) {
        let process = Process::start("sleep".as_ref(), &["60".to_owned()], Time::guest).unwrap();
        let (host, plugin) = UnixStream::pair().unwrap();
        (Gate::open(host, process.end()), plugin, process)
    }

    async fn heard(plugin: &mut UnixStream) -> char {
        let mut byte = [0];
        tokio::time::timeout(SOON, plugin.read_exact(&mut byte)).await.unwrap().unwrap();
        char::from(byte[0])
    }

    #[tokio::test]
    async fn the_guest_stands_until_the_host_says_go() {
        let (gate, mut plugin, _qemu) = gate();
        assert!(matches!(gate.go().await, Err(GateError::NotStopped)));
        plugin.write_all(b"mark 1\n").await.unwrap();
        assert_eq!(gate.stopped(SOON).await.unwrap(), Stop::Mark { vcpu: 1 });
        assert_eq!((gate.stop(), gate.stops()), (Some(Stop::Mark { vcpu: 1 }), 1));
        gate.go().await.unwrap();
        assert_eq!(gate.stop(), None);
        assert_eq!(heard(&mut plugin).await, 'g');
        // A line may come in parts.
        plugin.write_all(b"place 0 ").await.unwrap();
        let late = gate.stopped(Duration::from_millis(20)).await.unwrap_err();
        assert!(late.to_string().starts_with("the guest passed no gate within "), "{late}");
        plugin.write_all(b"1 3\n").await.unwrap();
        assert_eq!(gate.stopped(SOON).await.unwrap(), Stop::Place { place: 0, vcpu: 1, hit: 3 });
        assert_eq!(gate.stops(), 2);
    }

    #[tokio::test]
    async fn a_free_guest_can_be_held_again() {
        let (gate, mut plugin, _qemu) = gate();
        plugin.write_all(b"mark 0\n").await.unwrap();
        gate.stopped(SOON).await.unwrap();
        gate.free().await.unwrap();
        gate.hold().await.unwrap();
        assert_eq!([heard(&mut plugin).await, heard(&mut plugin).await], ['f', 'h']);
        assert_eq!(gate.stop(), None);
    }

    #[tokio::test]
    async fn the_plugin_sees_that_the_gate_was_closed_or_dropped() {
        let (gate, mut plugin, _qemu) = self::gate();
        gate.close().await;
        assert_eq!(tokio::time::timeout(SOON, plugin.read(&mut [0])).await.unwrap().unwrap(), 0);
        assert!(matches!(gate.hold().await, Err(GateError::Shut)));
        let (gate, mut plugin, _qemu) = self::gate();
        drop(gate);
        assert_eq!(tokio::time::timeout(SOON, plugin.read(&mut [0])).await.unwrap().unwrap(), 0);
    }

    #[tokio::test]
    async fn the_end_of_qemu_is_the_reason_of_a_closed_gate() {
        let (gate, plugin, qemu) = gate();
        drop(qemu);
        drop(plugin);
        let error = gate.stopped(SOON).await.unwrap_err().to_string();
        assert_eq!(error, "the guest cannot be held any more: QEMU was killed by the harness");
        assert!(matches!(gate.go().await, Err(GateError::Closed(_))));
    }

    #[tokio::test]
    async fn another_language_closes_the_gate() {
        for said in [b"mark one\n".as_slice(), b"\xff\n"] {
            let (gate, mut plugin, _qemu) = gate();
            plugin.write_all(said).await.unwrap();
            let error = gate.stopped(SOON).await.unwrap_err().to_string();
            assert!(error.contains("the plugin that stops the guest sent"), "{error}");
        }
    }
}
