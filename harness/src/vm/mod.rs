//! A virtual machine with its three channels: QMP, the agent, and the console.

pub mod agent;
pub mod argv;
pub mod event_log;
pub mod process;
pub mod qmp;
pub mod snapshot;
pub mod topology;
pub mod transcript;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::{UnixListener, UnixStream};

use agent::{Agent, AgentError, Hello};
use argv::{Channels, Machine};
use process::Process;
use qmp::{Qmp, QmpError};
use transcript::Recorder;

/// Where the channels of a guest are written down.
#[derive(Clone)]
pub struct Recorders {
    /// The serial console's file. QEMU writes it.
    pub console: PathBuf,
    /// Takes each line of QMP.
    pub qmp: Recorder,
    /// Takes each line of the agent's protocol.
    pub agent: Recorder,
}

/// A guest whose agent has said hello. Dropping it kills QEMU at once.
pub struct Vm {
    machine: Machine,
    qmp: Qmp,
    agent: Agent,
    hello: Hello,
    watchdog: tokio::task::JoinHandle<()>,
    process: Arc<Process>,
    // Dropped last: QEMU's sockets are in it.
    _sockets: TempDir,
}

/// A guest did not come up.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// QEMU itself failed: nothing is known about the kernel.
    #[error("{0}")]
    Qemu(String),
    /// QEMU ended while the kernel booted, as it does when the kernel panics.
    #[error("the guest ended before its agent said hello: {0}")]
    Ended(String),
    /// The agent did not say hello in time.
    #[error("the guest did not come up: {0}")]
    Silent(AgentError),
}

/// A QEMU that is connected, and a guest that has not said anything yet.
struct Connected {
    machine: Machine,
    qmp: Qmp,
    agent: Agent,
    watchdog: tokio::task::JoinHandle<()>,
    process: Arc<Process>,
    sockets: TempDir,
}

impl Connected {
    async fn start(machine: Machine, recorders: Recorders, more: &[&str]) -> Result<Connected, BootError> {
        let infra = |error: std::io::Error| BootError::Qemu(format!("cannot make QEMU's sockets: {error}"));
        let sockets = tempfile::Builder::new().prefix("iov-regress-").tempdir().map_err(infra)?;
        let channels = Channels {
            qmp: sockets.path().join("qmp"),
            agent: sockets.path().join("agent"),
            console: recorders.console.clone(),
        };
        // The harness listens and QEMU connects: there is no moment at which a socket is not there yet.
        let qmp = UnixListener::bind(&channels.qmp).map_err(infra)?;
        let agent = UnixListener::bind(&channels.agent).map_err(infra)?;
        let mut argv = machine.argv(&channels);
        argv.extend(more.iter().map(|&word| word.to_owned()));
        let process = Process::start(&machine.qemu, &argv).map_err(|e| BootError::Qemu(e.to_string()))?;
        let process = Arc::new(process);
        let qmp = accept(&qmp, &process).await?;
        let agent = Agent::open(accept(&agent, &process).await?, recorders.agent);
        let qmp = match Qmp::open(qmp, recorders.qmp).await {
            Ok(qmp) => qmp,
            Err(error) => return Err(no_greeting(&process, &error).await),
        };
        let watchdog = tokio::spawn(watch(process.clone(), qmp.events().clone(), agent.messages().clone()));
        Ok(Connected { machine, qmp, agent, watchdog, process, sockets })
    }

    fn with(self, hello: Hello) -> Vm {
        let Connected { machine, qmp, agent, watchdog, process, sockets } = self;
        Vm { machine, qmp, agent, hello, watchdog, process, _sockets: sockets }
    }
}

impl Vm {
    /// Starts QEMU and waits until the guest's agent says hello.
    ///
    /// # Errors
    /// [`BootError`].
    pub async fn boot(machine: Machine, recorders: Recorders, within: Duration) -> Result<Vm, BootError> {
        let connected = Connected::start(machine, recorders, &[]).await?;
        match connected.agent.hello(within).await {
            Ok(hello) => Ok(connected.with(hello)),
            Err(AgentError::Wait(error)) if !error.is_deadline() => Err(BootError::Ended(error.to_string())),
            Err(error) => Err(BootError::Silent(error)),
        }
    }

    /// What the guest is made of.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// QMP.
    pub fn qmp(&self) -> &Qmp {
        &self.qmp
    }

    /// The agent.
    pub fn agent(&self) -> &Agent {
        &self.agent
    }

    /// What the agent said of itself.
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Stops QEMU without asking the guest, and waits until it has gone.
    ///
    /// # Errors
    /// If QEMU had died before by itself: how.
    pub async fn kill(self) -> Result<(), String> {
        self.watchdog.abort();
        if let Some(why) = self.agent.messages().closed() {
            return Err(why.to_string());
        }
        // QEMU answers `quit` and then ends, from its main loop, whatever the guest does.
        let quit = self.qmp.execute(qapi::qmp::quit {}).await;
        match tokio::time::timeout(Duration::from_secs(10), self.process.ended()).await {
            Ok(epitaph) if quit.is_ok() && epitaph.contains("exit status: 0") => Ok(()),
            Ok(epitaph) => Err(epitaph.to_string()),
            Err(_) => Err("QEMU did not end within 10 s of `quit`; it was killed".to_owned()),
        }
    }
}

/// How long QEMU may take from its start to its sockets; it reads nothing big before.
const CONNECT: Duration = Duration::from_secs(60);

async fn accept(listener: &UnixListener, process: &Process) -> Result<UnixStream, BootError> {
    tokio::select! {
        stream = listener.accept() => match stream {
            Ok((stream, _)) => Ok(stream),
            Err(error) => Err(BootError::Qemu(format!("QEMU's connection: {error}"))),
        },
        epitaph = process.ended() => Err(BootError::Qemu(epitaph.to_string())),
        () = tokio::time::sleep(CONNECT) => Err(BootError::Qemu(format!("QEMU did not connect within {CONNECT:?}"))),
    }
}

/// QEMU did not greet. Mostly that is because it ended, and then its last words say more than a broken connection.
async fn no_greeting(process: &Process, error: &QmpError) -> BootError {
    match tokio::time::timeout(LAST_WORDS, process.ended()).await {
        Ok(epitaph) => BootError::Qemu(epitaph.to_string()),
        Err(_) => BootError::Qemu(error.to_string()),
    }
}

/// How long QEMU may take from a closed connection to its end.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Tells everyone who waits on a channel when QEMU ends, with its own words.
async fn watch(
    process: Arc<Process>,
    events: event_log::EventLog<qapi::qmp::Event>,
    messages: event_log::EventLog<guest_protocol::Message>,
) {
    let epitaph = process.ended().await;
    events.close(&epitaph);
    messages.close(&epitaph);
}

impl From<QmpError> for BootError {
    fn from(error: QmpError) -> BootError {
        BootError::Qemu(error.to_string())
    }
}
