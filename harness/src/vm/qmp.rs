//! QEMU's machine protocol: commands, and events as an [`EventLog`].

use std::time::Duration;

use futures_util::StreamExt;
use qapi::futures::{QapiService, QmpStreamTokio};
use qapi::qmp;
use tokio::io::{ReadHalf, WriteHalf};
use tokio::net::UnixStream;
use tokio::sync::Mutex;

use super::event_log::{EventLog, WaitError};
use super::known_events::KnownEvents;
use super::pci::Bdf;
use super::process::End;
pub use super::qmp_event::QmpEvent;
use super::starved::{Late, Starved};
use super::transcript::{Recorded, Recorder, Speaker};
use crate::text::duration;

type Sink = QmpStreamTokio<Recorded<WriteHalf<UnixStream>>>;
type Source = QmpStreamTokio<KnownEvents<Recorded<ReadHalf<UnixStream>>>>;

/// How long QEMU may take to answer a command: it does so from its main loop, at once unless the host is overloaded.
const ANSWER: Duration = Duration::from_secs(30);

/// How long QEMU may take from a closed connection to its end.
pub const LAST_WORDS: Duration = Duration::from_secs(5);

/// A negotiated QMP connection.
pub struct Qmp {
    service: QapiService<Sink>,
    /// A command was sent to which no answer has come. Without out-of-band execution the qapi crate cannot tell the
    /// answers to two commands apart, and panics at the second.
    unanswered: Mutex<bool>,
    events: EventLog<QmpEvent>,
    starved: Starved,
    reader: tokio::task::JoinHandle<()>,
}

/// QMP did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// QEMU refused a command, or the connection broke.
    #[error("QMP command {command}: {source}")]
    Command {
        /// Its name.
        command: &'static str,
        /// What QEMU says.
        source: qapi::ExecuteError,
    },
    /// No answer.
    #[error("QMP command {command}: no answer within {}", duration(*within))]
    Silent {
        /// Its name.
        command: &'static str,
        /// How long was waited.
        within: Duration,
    },
    /// It was not sent: QMP is of no use any more.
    #[error("QMP command {command}: not sent, as an earlier one was not answered")]
    Unanswered {
        /// Its name.
        command: &'static str,
    },
    /// The greeting failed.
    #[error("QMP greeting: {0}")]
    Greeting(#[from] std::io::Error),
    /// The human monitor answered something else than expected.
    #[error("QEMU's monitor answered {command:?} with {answer:?}, not with {expected}")]
    Monitor {
        /// The command.
        command: String,
        /// The answer.
        answer: String,
        /// What it should have been.
        expected: &'static str,
    },
    /// A device lacks what the monitor was to reach through it.
    #[error("the device at {device} has no {what} capability")]
    NoCapability {
        /// Its address.
        device: Bdf,
        /// The capability's name.
        what: &'static str,
    },
}

impl Qmp {
    /// Greets and negotiates over a fresh connection. `end` is that of its QEMU.
    ///
    /// # Errors
    /// [`QmpError::Greeting`].
    pub async fn open(stream: UnixStream, record: Recorder, end: End) -> Result<Qmp, QmpError> {
        let (read, write) = tokio::io::split(stream);
        let read = KnownEvents::new(Recorded::new(read, Speaker::Guest, record.clone()));
        let write = Recorded::new(write, Speaker::Host, record);
        let stream = QmpStreamTokio::open_split(read, write).await?.negotiate().await?;
        let (service, source) = stream.into_parts();
        let starved = end.starved().clone();
        let events = EventLog::of(starved.clone());
        let reader = tokio::spawn(read_events(source, events.clone(), end));
        Ok(Qmp { service, unanswered: Mutex::new(false), events, starved, reader })
    }

    /// The events so far and to come.
    pub fn events(&self) -> &EventLog<QmpEvent> {
        &self.events
    }

    /// Executes a command.
    ///
    /// # Errors
    /// QEMU's refusal, a broken connection, or no answer in time.
    pub async fn execute<C: qmp::QmpCommand>(&self, command: C) -> Result<C::Ok, QmpError>
    where
        Sink: futures_util::Sink<qapi::Execute<C, u32>, Error = std::io::Error> + Unpin,
    {
        let late = |Late(within)| Err(QmpError::Silent { command: C::NAME, within });
        self.starved.timeout(ANSWER, self.execute_in_turn(command)).await.unwrap_or_else(late)
    }

    async fn execute_in_turn<C: qmp::QmpCommand>(&self, command: C) -> Result<C::Ok, QmpError>
    where
        Sink: futures_util::Sink<qapi::Execute<C, u32>, Error = std::io::Error> + Unpin,
    {
        let mut unanswered = self.unanswered.lock().await;
        if *unanswered {
            return Err(QmpError::Unanswered { command: C::NAME });
        }
        // It stays so if this future is dropped before the answer.
        *unanswered = true;
        let result = self.service.execute(command).await;
        *unanswered = matches!(result, Err(qapi::ExecuteError::Io(_)));
        result.map_err(|source| QmpError::Command { command: C::NAME, source })
    }

    /// Executes a command of the human monitor and returns what it prints.
    ///
    /// # Errors
    /// Those of [`Qmp::execute`]. The monitor reports its own errors as text.
    pub async fn monitor(&self, command_line: &str) -> Result<String, QmpError> {
        let command = qmp::human_monitor_command { cpu_index: None, command_line: command_line.to_owned() };
        Ok(self.execute(command).await?.trim().to_owned())
    }

    /// Waits for QEMU to say that the device with this id is gone. It says so for each VF as well, without an id.
    ///
    /// # Errors
    /// [`WaitError`].
    pub async fn device_deleted(&self, from: usize, id: &str, within: Duration) -> Result<(), WaitError> {
        let awaited = format!("QMP event DEVICE_DELETED of {id}");
        let pick = |QmpEvent(event): &QmpEvent| match event {
            qmp::Event::DEVICE_DELETED { data, .. } => (data.device.as_deref() == Some(id)).then_some(()),
            _ => None,
        };
        self.events.wait(from, within, &awaited, pick).await
    }
}

impl Drop for Qmp {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

async fn read_events(mut source: qapi::futures::QapiEvents<Source>, events: EventLog<QmpEvent>, end: End) {
    let mut nonsense = None;
    while let Some(event) = source.next().await {
        match event {
            Ok(event) => events.push(QmpEvent(event)),
            // An answer for which nobody waits any more. If it is no QMP at all, nothing follows.
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => nonsense = Some(error),
            Err(_) => break,
        }
    }
    // Who waits for an answer must know now that none will come.
    drop(source);
    // QEMU is ending, and how it ends is the reason; unless it has just talked nonsense.
    let epitaph = match nonsense {
        None => end.wait().await,
        Some(error) => match tokio::time::timeout(LAST_WORDS, end.wait()).await {
            Ok(epitaph) => epitaph,
            Err(_) => format!("the QMP connection broke: {error}").into(),
        },
    };
    events.close(&epitaph);
}
