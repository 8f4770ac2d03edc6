//! The host's side of the guest agent: it sends requests, and collects messages in an [`EventLog`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use guest_protocol::{Command, Failure, Message, OpId, Outcome, Progress, Reply, Request, Sched, TaskState};
use tokio::io::{AsyncBufReadExt, BufReader, ReadHalf};
use tokio::net::UnixStream;

use super::ended::Ended;
use super::event_log::{Closed, EventLog, WaitError};
use super::outgoing::Outgoing;
use super::process::End;
use super::transcript::{Recorded, Recorder, Speaker};

/// The agent of one guest. Clones share the connection.
#[derive(Clone)]
pub struct Agent {
    shared: Arc<Shared>,
}

struct Shared {
    outgoing: Outgoing,
    messages: EventLog<Message>,
    next_id: AtomicU64,
    reader: tokio::task::JoinHandle<()>,
}

/// A request to the agent failed.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The agent reported a failure.
    #[error("the agent could not {what}: {}", failure.message)]
    Failed {
        /// What was asked for.
        what: String,
        /// The agent's report.
        failure: Failure,
    },
    /// The agent did not answer.
    #[error(transparent)]
    Wait(#[from] WaitError),
    /// The request could not be sent.
    #[error("cannot send a request to the agent: {0}")]
    Send(#[source] std::io::Error),
    /// The agent speaks another version of the protocol.
    #[error("the guest's agent speaks protocol version {theirs}, this harness {ours}: rebuild the guest image (delete the cache's initramfs folder)", ours = guest_protocol::VERSION)]
    Version {
        /// The guest's version.
        theirs: u32,
    },
    /// The operation ended before the awaited event.
    #[error("the agent's operation to {what} ended before {awaited}")]
    Over {
        /// What was asked for.
        what: String,
        /// What did not come.
        awaited: String,
    },
    /// The agent answered with another kind of reply than the request has.
    #[error("the agent was asked to {what} and answered with {reply}, not with {expected}")]
    Reply {
        /// What was asked for.
        what: String,
        /// What came.
        reply: Reply,
        /// What should have come.
        expected: &'static str,
    },
}

impl AgentError {
    /// Whether the guest does not answer, although its QEMU is running.
    pub fn is_silence(&self) -> bool {
        match self {
            AgentError::Wait(error) => error.is_deadline(),
            AgentError::Send(error) => error.kind() == std::io::ErrorKind::TimedOut,
            _ => false,
        }
    }

    /// How QEMU ended, if that is the cause.
    pub fn ended(&self) -> Option<&Ended> {
        match self {
            AgentError::Wait(error) => error.ended(),
            _ => None,
        }
    }
}

/// A stream of the guest lost messages, so the absence of a message proves nothing.
#[derive(Debug, thiserror::Error)]
#[error("the guest's {stream} stream lost messages, so an event that it did not report may have happened")]
pub struct Lost {
    /// As in [`guest_protocol::Message::Lost`].
    pub stream: String,
}

/// How long the sending of a request may take. QEMU accepts it into its buffers unless the guest has stopped reading.
const SEND: Duration = Duration::from_secs(30);

/// A file is sent in pieces of so many bytes. A guest has buffers for 128 pages (Linux `drivers/char/virtio_console.c`,
/// QEMU `hw/char/virtio-serial-bus.c`), so QEMU takes a whole piece although the guest stands.
const PIECE: usize = 64 << 10;

/// The text that [`Agent::log_complete`] writes into the kernel's log as a mark.
const MARK: &str = "iov-regress: so far";

/// The guest's identity, from the agent's hello message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// `uname -r`.
    pub kernel: String,
    /// Online CPUs.
    pub cpus: u32,
    /// The guest's monotonic clock then, in nanoseconds.
    pub at: u64,
}

impl Agent {
    /// Uses a connection on which a guest's agent will say hello. `end` is the end of its QEMU.
    pub fn open(stream: UnixStream, record: Recorder, end: End) -> Agent {
        let socket = Outgoing::socket_of(&stream);
        let (read, write) = tokio::io::split(stream);
        let read = Recorded::new(read, Speaker::Guest, record.clone());
        let messages = EventLog::of(end.time().clone());
        let reader = tokio::spawn(read_messages(read, messages.clone(), end));
        let outgoing = Outgoing::new(socket, write, record);
        Agent { shared: Arc::new(Shared { outgoing, messages, next_id: AtomicU64::new(1), reader }) }
    }

    /// The requests on their way to it. Those to a held guest wait there until the driver sends them.
    pub(super) fn outgoing(&self) -> &Outgoing {
        &self.shared.outgoing
    }

    /// The guest's time in its last message, in nanoseconds.
    pub(super) fn guest_time(&self) -> u64 {
        let is_kmsg = |message: &Message| matches!(message, Message::Kmsg { .. });
        self.messages().last(|message| (!is_kmsg(message)).then(|| message.at())).unwrap_or(0)
    }

    /// Numbers operations from here on. A guest must not get the same number twice, even over two connections.
    pub(super) fn number_from(&self, first: u64) {
        self.shared.next_id.store(first, Ordering::Relaxed);
    }

    /// All messages of the guest, past and future.
    pub fn messages(&self) -> &EventLog<Message> {
        &self.shared.messages
    }

    /// Checks that no message of a stream was lost since this position. Only then the absence of a message proves that
    /// the event did not happen.
    ///
    /// # Errors
    /// [`Lost`] if messages of the stream were lost.
    pub fn heard_all(&self, stream: &str, from: usize) -> Result<(), Lost> {
        let lost = |message: &Message| match message {
            Message::Lost { stream, .. } => Some(stream.clone()),
            _ => None,
        };
        match self.messages().collect(from, lost).into_iter().find(|lost| lost == stream) {
            None => Ok(()),
            Some(stream) => Err(Lost { stream }),
        }
    }

    /// Waits for the agent's hello message. The deadline is in the host's time.
    ///
    /// # Errors
    /// [`AgentError::Wait`], [`AgentError::Version`].
    pub async fn hello(&self, within: Duration) -> Result<Hello, AgentError> {
        let pick = |message: &Message| match message {
            Message::Hello { version, kernel, cpus, at } => {
                Some((*version, Hello { kernel: kernel.clone(), cpus: *cpus, at: *at }))
            }
            _ => None,
        };
        let host = self.messages().time().of_host();
        let (theirs, hello) = self.messages().wait_by(&host, 0, within, "the agent's hello message", pick).await?;
        if theirs == guest_protocol::VERSION { Ok(hello) } else { Err(AgentError::Version { theirs }) }
    }

    /// Sends a request and returns its operation, without waiting for anything. Requests to a held guest are sent when
    /// the work waits.
    ///
    /// # Errors
    /// [`AgentError::Send`].
    pub async fn start(&self, command: Command) -> Result<Operation, AgentError> {
        self.start_with(command, &[]).await
    }

    /// Sends a file to the guest. `within` is the deadline for each piece of it.
    ///
    /// # Errors
    /// Any [`AgentError`].
    pub async fn put_file(
        &self,
        path: &str,
        bytes: &[u8],
        executable: bool,
        within: Duration,
    ) -> Result<(), AgentError> {
        let (total, mut offset) = (bytes.len() as u64, 0);
        loop {
            let rest = &bytes[offset..];
            let piece = &rest[..rest.len().min(PIECE)];
            let (path, size) = (path.to_owned(), piece.len() as u64);
            let command = Command::PutFile { path, offset: offset as u64, size, total, executable };
            self.start_with(command, piece).await?.done(within).await?;
            offset += piece.len();
            if offset == bytes.len() {
                return Ok(());
            }
        }
    }

    /// Sends a request and the bytes that belong to it.
    async fn start_with(&self, command: Command, bytes: &[u8]) -> Result<Operation, AgentError> {
        let id = OpId(self.shared.next_id.fetch_add(1, Ordering::Relaxed));
        let what = command.to_string();
        let from = self.messages().position();
        let line = guest_protocol::encode(&Request { id, command }).map_err(|e| AgentError::Send(e.into()))?;
        self.outgoing().add(&line, bytes);
        if self.messages().time().held().is_none() {
            let late = |_| std::io::Error::new(std::io::ErrorKind::TimedOut, "the guest does not read its requests");
            let sent = tokio::time::timeout(SEND, self.outgoing().send()).await;
            sent.map_err(late).flatten().map_err(AgentError::Send)?;
        }
        Ok(Operation { agent: self.clone(), id, what, from })
    }

    /// Sends a request and waits until it is done.
    ///
    /// # Errors
    /// Any [`AgentError`].
    pub async fn call(&self, command: Command, within: Duration) -> Result<Reply, AgentError> {
        self.start(command).await?.done(within).await
    }

    /// The names in a folder of the guest.
    ///
    /// # Errors
    /// Any [`AgentError`].
    pub async fn list(&self, path: &str, within: Duration) -> Result<Vec<String>, AgentError> {
        self.start(Command::List { path: path.to_owned() }).await?.names(within).await
    }

    /// Tasks that are in D state, or have one of these functions on their kernel stack.
    ///
    /// # Errors
    /// Any [`AgentError`].
    pub async fn tasks(&self, in_functions: &[&str], within: Duration) -> Result<Vec<TaskState>, AgentError> {
        let in_functions = in_functions.iter().map(|&name| name.to_owned()).collect();
        self.start(Command::Tasks { in_functions }).await?.tasks(within).await
    }

    /// Waits until the agent has sent the whole kernel log so far. To find out, it writes a mark into the log: the
    /// agent sends records in order.
    ///
    /// # Errors
    /// Any [`AgentError`].
    pub async fn log_complete(&self, within: Duration) -> Result<(), AgentError> {
        // At syslog's level "informational". Without the newline the record stays open, and no reader gets it.
        let data = format!("<6>{MARK}\n");
        let from = self.messages().position();
        let write = Command::Write { path: "/dev/kmsg".to_owned(), data, at: 0, sched: Sched::default() };
        self.call(write, within).await?;
        let is_mark = |message: &Message| match message {
            Message::Kmsg { text, .. } => (text == MARK).then_some(()),
            _ => None,
        };
        Ok(self.messages().wait(from, within, "the end of the guest's kernel log", is_mark).await?)
    }
}

impl std::fmt::Debug for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.id, self.what)
    }
}

/// One operation in the guest.
#[derive(Clone)]
pub struct Operation {
    agent: Agent,
    id: OpId,
    what: String,
    from: usize,
}

impl Operation {
    /// The id of the operation, for commands that have it as their target.
    pub fn id(&self) -> OpId {
        self.id
    }

    /// The request as a verb and its object: `write "2" to /sys/...`.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// Whether the operation is over.
    pub fn is_done(&self) -> bool {
        let done = |message: &Message| matches!(message, Message::Done { id, .. } if *id == self.id).then_some(());
        !self.agent.messages().collect(self.from, done).is_empty()
    }

    /// Waits until the operation is over.
    ///
    /// # Errors
    /// [`AgentError::Failed`] if the operation failed, [`AgentError::Wait`] if it is not over in time.
    pub async fn done(&self, within: Duration) -> Result<Reply, AgentError> {
        let pick = |message: &Message| match message {
            Message::Done { id, outcome, .. } if *id == self.id => Some(outcome.clone()),
            _ => None,
        };
        let awaited = format!("the end of the operation to {}", self.what);
        match self.agent.messages().wait(self.from, within, &awaited, pick).await? {
            Outcome::Ok(reply) => Ok(reply),
            Outcome::Err(failure) => Err(AgentError::Failed { what: self.what.clone(), failure }),
        }
    }

    /// Waits for a step of the operation. Returns an error at once if the operation ends first.
    ///
    /// # Errors
    /// As [`Operation::done`].
    pub async fn progress<R>(
        &self,
        within: Duration,
        awaited: &str,
        pick: impl FnMut(&Progress) -> Option<R>,
    ) -> Result<R, AgentError> {
        match self.progress_or_end(within, awaited, pick).await? {
            Some(found) => Ok(found),
            None => Err(AgentError::Over { what: self.what.clone(), awaited: awaited.to_owned() }),
        }
    }

    /// Waits for a step of the operation. Returns `None` if the operation ends without it.
    ///
    /// # Errors
    /// As [`Operation::done`].
    pub async fn progress_or_end<R>(
        &self,
        within: Duration,
        awaited: &str,
        mut pick: impl FnMut(&Progress) -> Option<R>,
    ) -> Result<Option<R>, AgentError> {
        let pick = |message: &Message| match message {
            Message::Progress { id, progress, .. } if *id == self.id => pick(progress).map(|found| Ok(Some(found))),
            Message::Done { id, outcome, .. } if *id == self.id => Some(match outcome {
                Outcome::Ok(_) => Ok(None),
                Outcome::Err(failure) => Err(failure.clone()),
            }),
            _ => None,
        };
        let failed = |failure| AgentError::Failed { what: self.what.clone(), failure };
        self.agent.messages().wait(self.from, within, awaited, pick).await?.map_err(failed)
    }

    /// All steps so far that `pick` selects.
    pub fn steps<R>(&self, mut pick: impl FnMut(u64, &Progress) -> Option<R>) -> Vec<R> {
        self.agent.messages().collect(self.from, |message| match message {
            Message::Progress { id, at, progress } if *id == self.id => pick(*at, progress),
            _ => None,
        })
    }

    /// The tasks of the operation's process, with their stacks.
    ///
    /// # Errors
    /// Any [`AgentError`].
    pub async fn whereabouts(&self, within: Duration) -> Result<Vec<TaskState>, AgentError> {
        self.agent.start(Command::Where { target: self.id }).await?.tasks(within).await
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

async fn read_messages(read: Recorded<ReadHalf<UnixStream>>, messages: EventLog<Message>, end: End) {
    let mut lines = BufReader::new(read).lines();
    loop {
        match lines.next_line().await {
            Ok(Some(line)) => match guest_protocol::decode(&line) {
                Ok(message) => messages.push(message),
                Err(error) => return messages.close(garbage(error.to_string())),
            },
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                return messages.close(garbage(format!("the data on the agent's channel is not text: {error}")));
            }
            // QEMU is ending, and its exit status is the reason. ECONNRESET only means that it left a request unread.
            Ok(None) | Err(_) => return messages.close(Closed::Ended(end.wait().await)),
        }
    }
}

fn garbage(what: String) -> Closed {
    Closed::Garbage(what.into())
}
