//! Serves requests: each operation on the kernel gets a process of its own, so that the server never gets stuck.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::ChildStdin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use guest_protocol::{Command, Message, OpId, Outcome, Reply, Request, decode};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::clock;
use crate::error::AgentError;
use crate::job::{Control, Job};
use crate::outbox::Outbox;
use crate::relay::Process;

/// The server.
pub struct Server {
    outbox: Arc<Outbox>,
    program: PathBuf,
    running: Arc<Mutex<HashMap<OpId, Running>>>,
}

/// An operation whose process has not ended.
struct Running {
    pid: i32,
    accepts: Option<Control>,
    stdin: ChildStdin,
}

impl Server {
    /// A server that answers through an outbox and starts operations with a program: this one, in the guest.
    pub fn new(outbox: Arc<Outbox>, program: impl Into<PathBuf>) -> Server {
        Server { outbox, program: program.into(), running: Arc::default() }
    }

    /// Serves requests, a line each, until they end. Operations that still run then go on.
    ///
    /// # Errors
    /// Those of reading requests.
    pub fn serve(&self, requests: impl Read) -> Result<(), AgentError> {
        let mut requests = BufReader::new(requests);
        let mut line = Vec::new();
        loop {
            line.clear();
            let length = requests
                .read_until(b'\n', &mut line)
                .map_err(|source| AgentError::io("read a request from the host", source))?;
            if length == 0 {
                return Ok(());
            }
            let text = String::from_utf8_lossy(&line);
            if text.trim().is_empty() {
                continue;
            }
            match decode::<Request>(&text) {
                Ok(request) => self.handle(request),
                // Without an id there is nobody to answer to.
                Err(error) => eprintln!("iov-agent: a request was not understood: {error}"),
            }
        }
    }

    fn handle(&self, Request { id, command }: Request) {
        let result = match command {
            Command::Hello => {
                self.outbox.hello();
                Ok(())
            }
            Command::Continue { target } => self.tell(target, Control::Continue),
            Command::Stop { target } => self.tell(target, Control::Stop),
            Command::Kill { target, signal } => self.kill(target, signal),
            command => match self.start(id, command) {
                Ok(()) => return,
                Err(error) => Err(error),
            },
        };
        let outcome = match result {
            Ok(()) => Outcome::Ok(Reply::Nothing),
            Err(error) => Outcome::Err(error.failure()),
        };
        self.outbox.send(&Message::Done { id, at: clock::now(), outcome });
    }

    fn start(&self, id: OpId, command: Command) -> Result<(), AgentError> {
        let target = match command {
            Command::Where { target } => self.running().get(&target).map(|running| running.pid),
            _ => None,
        };
        let job = Job { id, command, target };
        let (process, stdin) = Process::start(&self.program, &job)?;
        let pid = process.pid();
        self.running().insert(id, Running { pid, accepts: job.control(), stdin });
        self.outbox.send(&Message::Started { id, pid, at: clock::now() });
        let (outbox, running) = (self.outbox.clone(), self.running.clone());
        thread::spawn(move || {
            process.relay(id, &outbox, || drop(lock(&running).remove(&id)));
        });
        Ok(())
    }

    fn tell(&self, target: OpId, control: Control) -> Result<(), AgentError> {
        let mut running = self.running();
        let told = match running.get_mut(&target) {
            None => return Err(not_running(target)),
            Some(running) if running.accepts == Some(control) => &mut running.stdin,
            Some(_) => {
                return Err(AgentError::Refused(format!("operation {} cannot be told {control:?}", target.0)));
            }
        };
        let line = format!("{}\n", serde_json::json!(control));
        told.write_all(line.as_bytes()).map_err(|source| AgentError::io(format!("tell operation {}", target.0), source))
    }

    fn kill(&self, target: OpId, signal: i32) -> Result<(), AgentError> {
        let signal =
            Signal::try_from(signal).map_err(|_| AgentError::Refused(format!("{signal} is not a signal number")))?;
        // Under the lock, the process is not reaped, so its number is its own.
        let running = self.running();
        let pid = running.get(&target).ok_or_else(|| not_running(target))?.pid;
        kill(Pid::from_raw(pid), signal).map_err(|errno| AgentError::io(format!("kill operation {}", target.0), errno))
    }

    fn running(&self) -> MutexGuard<'_, HashMap<OpId, Running>> {
        lock(&self.running)
    }
}

fn lock(running: &Mutex<HashMap<OpId, Running>>) -> MutexGuard<'_, HashMap<OpId, Running>> {
    running.lock().unwrap_or_else(PoisonError::into_inner)
}

fn not_running(target: OpId) -> AgentError {
    AgentError::Refused(format!("operation {} is not running", target.0))
}
