//! A virtual machine with its three channels: QMP, the agent, and the serial console.

pub mod agent;
pub mod argv;
pub mod clock;
pub mod config_space;
pub(crate) mod devices;
pub mod drive;
pub mod dump;
pub mod ended;
mod error;
pub mod event_log;
pub mod fault;
mod first_byte;
pub mod gate;
pub mod iommu;
mod known_events;
mod look;
pub mod memory;
pub mod model;
mod outgoing;
pub mod pci;
pub mod process;
pub mod qmp;
mod qmp_event;
mod reply;
pub mod scale;
pub mod slot;
pub(crate) mod snapshot;
pub(crate) mod sockets;
pub mod starved;
pub mod time;
pub mod topology;
pub mod transcript;
pub(crate) mod tsc;
mod unread;
pub mod version;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Mutex, OnceCell};

use agent::{Agent, AgentError, Hello};
use argv::{Channels, Machine};
use ended::Ended;
pub use error::{BootError, KillError};
use gate::Gate;
pub use look::{Look, NoDump, NoGraph};
use memory::{GuestMemory, MemoryError};
use process::Process;
use qmp::{EXIT_AFTER_CLOSE, Qmp};
use starved::Late;
use time::Time;
use transcript::Recorder;

use crate::notes::Steps;
use crate::text::duration;

/// Where the channels of a guest are recorded.
#[derive(Clone)]
pub struct Recorders {
    /// The file of the serial console. QEMU writes it.
    pub console: PathBuf,
    /// Gets each line of QMP.
    pub qmp: Recorder,
    /// Gets each line of the agent's protocol.
    pub agent: Recorder,
}

/// A guest whose agent has said hello. Dropping it kills QEMU at once.
pub struct Vm {
    machine: Machine,
    qmp: Qmp,
    agent: Agent,
    gate: Option<Gate>,
    process: Process,
    steps: Steps,
    /// None if this process must not read QEMU's memory.
    memory: OnceCell<Option<Arc<GuestMemory>>>,
    /// Where its configuration space is in physical memory.
    ecam: OnceCell<u64>,
    /// Held by whoever has stopped the guest by QMP, until it goes on.
    standing: Mutex<()>,
    // Dropped last: it contains QEMU's sockets.
    sockets: TempDir,
}

/// A QEMU with connected channels, whose guest's agent has not said hello yet.
struct Connected {
    machine: Machine,
    qmp: Qmp,
    agent: Agent,
    /// The gate of a guest whose clock is held.
    gate: Option<Gate>,
    process: Process,
    sockets: TempDir,
    /// When QEMU's process was started.
    began: Instant,
    steps: Steps,
}

impl Connected {
    async fn start(
        machine: Machine,
        recorders: Recorders,
        more: &[&str],
        within: Duration,
    ) -> Result<Connected, BootError> {
        let infra = |error: std::io::Error| BootError::Qemu(format!("cannot create QEMU's sockets: {error}"));
        let sockets = sockets::folder().map_err(infra)?;
        let channels = Channels {
            qmp: sockets.path().join("qmp"),
            agent: sockets.path().join("agent"),
            gate: sockets.path().join("gate"),
            console: recorders.console.clone(),
        };
        // The harness listens and QEMU connects, so the sockets exist before QEMU starts.
        let qmp = UnixListener::bind(&channels.qmp).map_err(infra)?;
        let agent = UnixListener::bind(&channels.agent).map_err(infra)?;
        let gate = match machine.held() {
            None => None,
            Some(_) => Some(UnixListener::bind(&channels.gate).map_err(infra)?),
        };
        let mut argv = machine.argv(&channels);
        argv.extend(more.iter().map(|&word| word.to_owned()));
        let began = Instant::now();
        let time = if gate.is_some() { Time::guest } else { Time::host };
        let process = Process::start(&machine.qemu, &argv, time).map_err(|e| BootError::Qemu(e.to_string()))?;
        // QEMU loads plugins before it connects its character devices.
        let gate = match gate {
            None => None,
            Some(gate) => Some(Gate::open(accept(&gate, &process, within).await?, process.end())),
        };
        let qmp = accept(&qmp, &process, within).await?;
        let agent = accept(&agent, &process, within).await?;
        let agent = Agent::open(agent, recorders.agent, process.end());
        let qmp = greet(qmp, recorders.qmp, &process, within).await?;
        let steps = Steps { qemu: Some(began.elapsed().as_secs_f64()), ..Steps::default() };
        Ok(Connected { machine, qmp, agent, gate, process, sockets, began, steps })
    }

    /// The time since the last step of its start, in seconds.
    fn since_last_step(&self) -> f64 {
        self.began.elapsed().as_secs_f64() - self.steps.total()
    }

    /// The guest after its hello, or the error that follows from a missing hello.
    fn with_hello(self, hello: Result<Hello, AgentError>) -> Result<Vm, BootError> {
        match hello {
            Ok(_) => Ok(self.into_vm()),
            Err(AgentError::Wait(error)) if error.is_deadline() => Err(BootError::Silent(error.into())),
            Err(error) => match error.ended().cloned().or_else(|| self.process.end().now()) {
                Some(ended) => Err(BootError::Ended(ended)),
                None => Err(BootError::Foreign(error)),
            },
        }
    }

    fn into_vm(self) -> Vm {
        let Connected { machine, qmp, agent, gate, process, sockets, steps, began: _ } = self;
        let (memory, ecam, standing) = (OnceCell::new(), OnceCell::new(), Mutex::new(()));
        Vm { machine, qmp, agent, gate, process, steps, memory, ecam, standing, sockets }
    }
}

impl Vm {
    /// Starts QEMU and waits until the guest's agent says hello. `within` is the deadline of each step: that QEMU connects,
    /// that it greets, and that the agent says hello.
    ///
    /// # Errors
    /// [`BootError`].
    pub async fn boot(machine: Machine, recorders: Recorders, within: Duration) -> Result<Vm, BootError> {
        Vm::boot_with(&[], machine, recorders, within).await
    }

    /// Boots with additional arguments for QEMU.
    async fn boot_with(
        more: &[&str],
        machine: Machine,
        recorders: Recorders,
        within: Duration,
    ) -> Result<Vm, BootError> {
        let console = recorders.console.clone();
        let mut connected = Connected::start(machine, recorders, more, within).await?;
        let hello = connected.agent.hello(within);
        let (hello, spoke) = first_byte::with_first_byte(&console, connected.began, hello).await;
        let kernel = spoke.map(|spoke| spoke - connected.steps.total());
        connected.steps.kernel = kernel;
        connected.steps.agent = Some(connected.since_last_step());
        let host = connected.began.elapsed().as_secs_f64();
        // A held clock may run faster than the host's.
        let hellos = hello.as_ref().ok().filter(|_| connected.gate.is_none());
        if let Some(guest) = hellos.and_then(|hello| fast_clock(hello.at, host)) {
            return Err(BootError::Clock { guest, host });
        }
        connected.with_hello(hello)
    }

    /// How long each step of the start took.
    pub fn steps(&self) -> Steps {
        self.steps
    }

    /// Its configuration.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Its QMP connection.
    pub fn qmp(&self) -> &Qmp {
        &self.qmp
    }

    /// Its agent.
    pub fn agent(&self) -> &Agent {
        &self.agent
    }

    /// Its gate, if its clock is held.
    pub fn gate(&self) -> Option<&Gate> {
        self.gate.as_ref()
    }

    /// Its memory, as it is while it is read, or as it was when this was called. The guest must stand.
    ///
    /// # Errors
    /// [`MemoryError`].
    pub async fn memory(&self) -> Result<Arc<GuestMemory>, MemoryError> {
        let mib = self.machine.memory_mib;
        let open = async || {
            let pid = self.process.pid().ok_or(MemoryError::Ended)?;
            match GuestMemory::open(&self.qmp, pid, mib).await {
                Err(error) if error.is_refusal() => Ok(None),
                opened => opened.map(|memory| Some(Arc::new(memory))),
            }
        };
        match self.memory.get_or_try_init(open).await? {
            Some(memory) => Ok(memory.clone()),
            None => Ok(Arc::new(GuestMemory::saved(&self.qmp, mib, self.sockets.path()).await?)),
        }
    }

    /// The time in which waits for it are measured.
    pub fn time(&self) -> Time {
        self.process.end().time().clone()
    }

    /// Ends QEMU without a shutdown of the guest, and waits until it has ended.
    ///
    /// # Errors
    /// [`KillError`]. QEMU has ended in any case.
    pub async fn kill(&self, within: Duration) -> Result<(), KillError> {
        let end = self.process.end();
        if let Some(ended) = end.now() {
            return Err(KillError::Ended(ended));
        }
        // QEMU handles QMP in its main loop, whatever the guest does: it answers, and then ends. After `quit` it would
        // wait for a guest that stands at its gate, so such a guest's QEMU is ended by the gate.
        let quit = async {
            let answered = match &self.gate {
                None => self.qmp.execute(qapi::qmp::quit {}).await.map(drop),
                Some(_) => self.qmp.execute(qapi::qmp::query_status {}).await.map(drop),
            };
            if let Some(gate) = &self.gate {
                gate.close().await;
            }
            match answered {
                Ok(()) => Ok(end.wait().await),
                Err(error) => Err(ended_soon(&self.process).await.map_or(KillError::Refused(error), KillError::Ended)),
            }
        };
        match tokio::time::timeout(within, quit).await {
            Ok(Ok(ended)) if ended.is_success() => Ok(()),
            Ok(Ok(ended)) => Err(KillError::Ended(ended)),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(KillError::Late(within)),
        }
    }
}

/// The guest's clock in seconds, if it shows more than the `host` seconds since its QEMU was started, with an allowance
/// for the precision of both clocks. The guest's clock may show less, as it does not count the time in the firmware.
fn fast_clock(at: u64, host: f64) -> Option<f64> {
    const PRECISION: f64 = 1.1;
    const ALLOWANCE: f64 = 1.0;
    let guest = Duration::from_nanos(at).as_secs_f64();
    (guest > host * PRECISION + ALLOWANCE).then_some(guest)
}

async fn accept(listener: &UnixListener, process: &Process, within: Duration) -> Result<UnixStream, BootError> {
    let end = process.end();
    let accepted = async {
        tokio::select! {
            stream = listener.accept() => match stream {
                Ok((stream, _)) => Ok(stream),
                Err(error) => Err(BootError::Qemu(format!("cannot accept QEMU's connection: {error}"))),
            },
            ended = end.wait() => Err(BootError::Gone(ended)),
        }
    };
    let late = |late: Late| Err(too_slow(process, "connect to the harness's sockets", late.within));
    end.starved().timeout(within, accepted).await.unwrap_or_else(late)
}

async fn greet(stream: UnixStream, record: Recorder, process: &Process, within: Duration) -> Result<Qmp, BootError> {
    let end = process.end();
    match end.starved().timeout(within, Qmp::open(stream, record, end.clone())).await {
        Ok(Ok(qmp)) => Ok(qmp),
        Ok(Err(error)) => Err(ended_soon(process).await.map_or_else(|| error.into(), BootError::Gone)),
        Err(late) => Err(too_slow(process, "greet on QMP", late.within)),
    }
}

fn too_slow(process: &Process, what: &str, within: Duration) -> BootError {
    BootError::Mute(process.with_stderr(&format!("QEMU did not {what} within {}", duration(within))))
}

/// How QEMU ended, if it ends soon. When QEMU does not answer, it has usually ended, and its exit status explains more
/// than the error of the connection.
async fn ended_soon(process: &Process) -> Option<Ended> {
    tokio::time::timeout(EXIT_AFTER_CLOSE, process.end().wait()).await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fast_clock_is_detected() {
        let seconds = |seconds: u64| seconds * 1_000_000_000;
        // A case that occurred: the kernel measured a TSC of 2596 MHz as 118 MHz.
        assert_eq!(fast_clock(seconds(924), 134.8), Some(924.0));
        for (guest, host) in [(3, 5.0), (13, 13.2), (14, 13.9), (2, 1.5), (0, 0.0)] {
            assert_eq!(fast_clock(seconds(guest), host), None, "{guest} s in {host} s");
        }
    }
}
