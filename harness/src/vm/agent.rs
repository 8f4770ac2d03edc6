//! The host's side of the guest agent: requests out, messages in as an [`EventLog`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use guest_protocol::{Command, Failure, Message, OpId, Outcome, Progress, Reply, Request, Sched, TaskState};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, ReadHalf, WriteHalf};
use tokio::net::UnixStream;
use tokio::sync::Mutex;

use super::event_log::{EventLog, WaitError};
use super::process::End;
use super::transcript::{Recorded, Recorder, Speaker};

/// The agent of one guest. Clones share the connection.
#[derive(Clone)]
pub struct Agent {
    shared: Arc<Shared>,
}

struct Shared {
    write: Mutex<Recorded<WriteHalf<UnixStream>>>,
    messages: EventLog<Message>,
    next_id: AtomicU64,
    reader: tokio::task::JoinHandle<()>,
}

/// The agent did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// It says so itself.
    #[error("the agent could not {what}: {}", failure.message)]
    Failed {
        /// What was asked for.
        what: String,
        /// What it says.
        failure: Failure,
    },
    /// It says nothing.
    #[error(transparent)]
    Wait(#[from] WaitError),
    /// The request could not be sent.
    #[error("cannot send a request to the agent: {0}")]
    Send(#[source] std::io::Error),
    /// It speaks another protocol.
    #[error("the guest's agent speaks protocol version {theirs}, this harness {ours}: rebuild the guest image (delete the cache's initramfs folder)", ours = guest_protocol::VERSION)]
    Version {
        /// The guest's version.
        theirs: u32,
    },
    /// It is done, and what was awaited of it did not come before.
    #[error("the agent's operation to {what} was over before {awaited}")]
    Over {
        /// What was asked for.
        what: String,
        /// What did not come.
        awaited: String,
    },
    /// It answered with another kind of reply than the request has.
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

/// A stream of the guest overflowed, and something rests on its silence.
#[derive(Debug, thiserror::Error)]
#[error("the guest's {stream} stream lost messages, so an event that it did not report may have happened")]
pub struct Lost {
    /// As in [`guest_protocol::Message::Lost`].
    pub stream: String,
}

/// How long a request may take to leave the host. QEMU takes it into its buffers unless the guest has stopped reading.
const SEND: Duration = Duration::from_secs(30);

/// What stands in the kernel's log where somebody wants to have read it all.
const MARK: &str = "iov-regress: so far";

/// Who the guest is, from its first words.
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
    /// Takes over a connection on which a guest will say hello. `end` is that of its QEMU.
    pub fn open(stream: UnixStream, record: Recorder, end: End) -> Agent {
        let (read, write) = tokio::io::split(stream);
        let read = Recorded::new(read, Speaker::Guest, record.clone());
        let messages = EventLog::of(end.starved().clone());
        let reader = tokio::spawn(read_messages(read, messages.clone(), end));
        let write = Mutex::new(Recorded::new(write, Speaker::Host, record));
        Agent { shared: Arc::new(Shared { write, messages, next_id: AtomicU64::new(1), reader }) }
    }

    /// Numbers operations from here on. A guest must not be given a number twice, also not by two connections.
    pub(super) fn number_from(&self, first: u64) {
        self.shared.next_id.store(first, Ordering::Relaxed);
    }

    /// All that the guest said and will say.
    pub fn messages(&self) -> &EventLog<Message> {
        &self.shared.messages
    }

    /// Whether the silence of a stream since a position proves anything.
    ///
    /// # Errors
    /// [`Lost`] if messages of it were lost.
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

    /// Waits for the guest's first words.
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
        let (theirs, hello) = self.messages().wait(0, within, "the agent's first words", pick).await?;
        if theirs == guest_protocol::VERSION { Ok(hello) } else { Err(AgentError::Version { theirs }) }
    }

    /// Sends a request and returns its operation, without waiting for anything.
    ///
    /// # Errors
    /// [`AgentError::Send`].
    pub async fn start(&self, command: Command) -> Result<Operation, AgentError> {
        let id = OpId(self.shared.next_id.fetch_add(1, Ordering::Relaxed));
        let what = command.to_string();
        let from = self.messages().position();
        let line = guest_protocol::encode(&Request { id, command }).map_err(|e| AgentError::Send(e.into()))?;
        let send = async {
            let mut write = self.shared.write.lock().await;
            write.write_all(line.as_bytes()).await?;
            write.flush().await
        };
        let late = |_| AgentError::Send(std::io::Error::new(std::io::ErrorKind::TimedOut, "the guest does not read"));
        tokio::time::timeout(SEND, send).await.map_err(late)?.map_err(AgentError::Send)?;
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

    /// Waits until the agent has sent all of the kernel's log so far: it sends records in their order, and so a mark last.
    ///
    /// # Errors
    /// Any [`AgentError`].
    pub async fn told_all(&self, within: Duration) -> Result<(), AgentError> {
        // At syslog's level "informational". Without the newline the record stays open for more, and is shown to nobody.
        let data = format!("<6>{MARK}\n");
        let from = self.messages().position();
        let write = Command::Write { path: "/dev/kmsg".to_owned(), data, at: 0, sched: Sched::default() };
        self.call(write, within).await?;
        let is_mark = |message: &Message| match message {
            Message::Kmsg { text, .. } => (text == MARK).then_some(()),
            _ => None,
        };
        Ok(self.messages().wait(from, within, "the guest to have told all of its log", is_mark).await?)
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
    /// Its id, to name it as the target of another command.
    pub fn id(&self) -> OpId {
        self.id
    }

    /// What was asked for, as a verb and its object.
    pub(super) fn what(&self) -> &str {
        &self.what
    }

    /// Waits until it is over.
    ///
    /// # Errors
    /// [`AgentError::Failed`] if it could not be done, [`AgentError::Wait`] if it is not over in time.
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

    /// Waits for a step of it; an operation that ends in failure before that is an error at once.
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

    /// Waits for a step of it that need not come: none if it ends without.
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

    /// All steps of it so far that `pick` takes.
    pub fn steps<R>(&self, mut pick: impl FnMut(u64, &Progress) -> Option<R>) -> Vec<R> {
        self.agent.messages().collect(self.from, |message| match message {
            Message::Progress { id, at, progress } if *id == self.id => pick(*at, progress),
            _ => None,
        })
    }

    /// Where it is: the tasks of its process.
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
                Err(error) => return messages.close(&error.to_string()),
            },
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                return messages.close(&format!("what came over the agent's channel is no text: {error}"));
            }
            // QEMU is ending, and how it ends is the reason. ECONNRESET says only that it left a request unread.
            Ok(None) | Err(_) => return messages.close(&end.wait().await),
        }
    }
}
