//! Serves requests. Each operation on the kernel runs in a process of its own, so that the server never gets stuck.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::ChildStdin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use guest_protocol::{Command, Control, Message, OpId, Outcome, Progress, Reply, Request, decode, encode};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Serialize;

use crate::alarm::Alarms;
use crate::clock;
use crate::error::{AgentError, doing};
use crate::job::{Job, Told};
use crate::outbox::Outbox;
use crate::relay::Process;
use crate::upload::{self, Piece};
use crate::words::Words;

/// The server.
pub struct Server {
    outbox: Arc<Outbox>,
    alarms: Alarms,
    words: Words,
    program: PathBuf,
    running: Arc<Mutex<HashMap<OpId, Running>>>,
}

/// An operation whose process has not ended.
struct Running {
    pid: i32,
    /// The command in words.
    what: String,
    accepts: Option<Control>,
    stdin: ChildStdin,
}

impl Server {
    /// A server that answers through an outbox. `program` is started for each operation. In the guest that is this
    /// program.
    pub fn new(outbox: Arc<Outbox>, program: impl Into<PathBuf>) -> Server {
        let (alarms, words) = (Alarms::new(outbox.clone()), Words::new(outbox.clone()));
        Server { outbox, alarms, words, program: program.into(), running: Arc::default() }
    }

    /// Serves requests, one line each, until the input ends. Operations that still run then are not stopped.
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
                Ok(request) => self.handle(request, &mut requests),
                // Without an id it cannot be answered.
                Err(error) => eprintln!("iov-agent: a request cannot be parsed: {error}"),
            }
        }
    }

    /// `channel` is the input after the request.
    fn handle(&self, Request { id, command }: Request, channel: &mut impl Read) {
        let result = match command.process() {
            // The process answers.
            Some(_) => self.start(id, command).map(|()| None),
            None => self.at_once(id, &command, channel),
        };
        let outcome = match result {
            Ok(None) => return,
            Ok(Some(reply)) => Outcome::Ok(reply),
            Err(error) => Outcome::Err(error.failure()),
        };
        self.outbox.send(&Message::Done { id, at: clock::now(), outcome });
    }

    /// Carries out a command that needs no process. None if the answer comes later.
    fn at_once(&self, id: OpId, command: &Command, channel: &mut impl Read) -> Result<Option<Reply>, AgentError> {
        let done = match *command {
            Command::PutFile { ref path, offset, size, total, executable } => {
                upload::receive(channel, &Piece { path, offset, size, total, executable })
            }
            Command::Hello => {
                self.outbox.hello();
                Ok(())
            }
            Command::Continue { target } => self.tell(target, Control::Continue, &Control::Continue),
            Command::Stop { target } => self.tell(target, Control::Stop, &Control::Stop),
            // Whoever can be told to continue holds.
            Command::Call { target, ref call } => {
                self.tell(target, Control::Continue, &Told::Call { id, call: call.clone() })
            }
            Command::Kill { target, signal } => self.kill(target, signal),
            Command::HearWords => self.words.hear(),
            Command::Answer { word, ref answer } => self.words.answer(word, answer),
            // The alarm answers.
            Command::Alarm { at } => return self.alarms.set(id, at).map(|()| None),
            Command::Save => {
                let progress = Progress::Saving;
                self.outbox.send_and_stand(&Message::Progress { id, at: clock::now(), progress });
                Ok(())
            }
            Command::Read { .. }
            | Command::ReadBytes { .. }
            | Command::Write { .. }
            | Command::List { .. }
            | Command::ReadLink { .. }
            | Command::Bind { .. }
            | Command::Own { .. }
            | Command::Cycle { .. }
            | Command::ReadPhy { .. }
            | Command::Sweep(_)
            | Command::Watch { .. }
            | Command::SetLink { .. }
            | Command::SetVfMac { .. }
            | Command::Run { .. }
            | Command::Where { .. }
            | Command::Tasks { .. }
            | Command::Inventory
            | Command::Sysrq { .. } => {
                Err(AgentError::Refused(format!("cannot {command} from the server: only a process of its own can")))
            }
        };
        done.map(|()| Some(Reply::Nothing))
    }

    fn start(&self, id: OpId, command: Command) -> Result<(), AgentError> {
        let target = command.target().and_then(|target| self.running().get(&target).map(|running| running.pid));
        let what = command.to_string();
        let job = Job { id, command, target };
        let (process, stdin) = Process::start(&self.program, &job)?;
        let pid = process.pid();
        self.running().insert(id, Running { pid, what, accepts: job.command.control(), stdin });
        self.outbox.send(&Message::Started { id, pid, at: clock::now() });
        let outbox = self.outbox.clone();
        let running = self.running.clone();
        thread::spawn(move || {
            process.relay(id, &outbox, || drop(lock(&running).remove(&id)));
        });
        Ok(())
    }

    /// Writes a line to the process of an operation, if it listens for this control.
    fn tell(&self, target: OpId, control: Control, line: &impl Serialize) -> Result<(), AgentError> {
        let mut running = self.running();
        let told = match running.get_mut(&target) {
            None => return Err(not_running(target)),
            Some(running) if running.accepts == Some(control) => &mut running.stdin,
            Some(running) => {
                let message = format!("{target} ({}) does not listen for `{control}`", running.what);
                return Err(AgentError::Refused(message));
            }
        };
        let write = || {
            let line = encode(line)?;
            told.write_all(line.as_bytes())
        };
        doing(&format!("tell {target} to {control}"), write)
    }

    fn kill(&self, target: OpId, signal: i32) -> Result<(), AgentError> {
        let signal =
            Signal::try_from(signal).map_err(|_| AgentError::Refused(format!("{signal} is not a signal number")))?;
        // The process is not reaped as long as this lock is held, so no other process has its id.
        let running = self.running();
        let pid = running.get(&target).ok_or_else(|| not_running(target))?.pid;
        kill(Pid::from_raw(pid), signal)
            .map_err(|errno| AgentError::io(format!("send signal {signal} to {target}"), errno))
    }

    fn running(&self) -> MutexGuard<'_, HashMap<OpId, Running>> {
        lock(&self.running)
    }
}

fn lock(running: &Mutex<HashMap<OpId, Running>>) -> MutexGuard<'_, HashMap<OpId, Running>> {
    running.lock().unwrap_or_else(PoisonError::into_inner)
}

fn not_running(target: OpId) -> AgentError {
    AgentError::Refused(format!("{target} is not running"))
}
