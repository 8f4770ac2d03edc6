//! The QEMU Machine Protocol (QMP): commands, and events in an [`EventLog`].

use std::collections::BTreeSet;
use std::sync::{self, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use qapi::futures::{QapiService, QmpStreamTokio};
use qapi::qmp;
use tokio::io::{ReadHalf, WriteHalf};
use tokio::net::UnixStream;
use tokio::sync::Mutex;

use super::event_log::{Closed, EventLog, WaitError};
use super::known_events::KnownEvents;
use super::pci::Bdf;
use super::process::End;
pub use super::qmp_event::QmpEvent;
use super::starved::{Late, Starved};
use super::transcript::{Recorded, Recorder, Speaker};
use crate::text::duration;

type Sink = QmpStreamTokio<Recorded<WriteHalf<UnixStream>>>;
type Source = QmpStreamTokio<KnownEvents<Recorded<ReadHalf<UnixStream>>>>;

/// How long QEMU may take to answer a command. It answers from its main loop, at once unless the host is overloaded.
const ANSWER: Duration = Duration::from_secs(30);

/// How long QEMU may take to end after its connection was closed.
pub const EXIT_AFTER_CLOSE: Duration = Duration::from_secs(5);

/// Where QEMU keeps the devices that have an id.
const DEVICES: &str = "/machine/peripheral";

/// A negotiated QMP connection.
pub struct Qmp {
    service: QapiService<Sink>,
    /// Whether a command is still unanswered. Without out-of-band execution the qapi crate cannot tell the answers to
    /// two commands apart, and panics at the second.
    unanswered: Mutex<bool>,
    events: EventLog<QmpEvent>,
    /// The devices with an id at the last look.
    devices: sync::Mutex<BTreeSet<String>>,
    starved: Starved,
    reader: tokio::task::JoinHandle<()>,
}

/// A QMP command failed.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// QEMU refused a command, or the connection broke.
    #[error("QMP command {command}: {source}")]
    Command {
        /// The command's name.
        command: &'static str,
        /// QEMU's error, or that of the connection.
        source: qapi::ExecuteError,
    },
    /// QEMU did not answer.
    #[error("QMP command {command}: no answer within {}", duration(*within))]
    Silent {
        /// The command's name.
        command: &'static str,
        /// The deadline.
        within: Duration,
    },
    /// The command was not sent, as QMP cannot be used after a missing answer.
    #[error("QMP command {command}: not sent, as an earlier one was not answered")]
    Unanswered {
        /// The command's name.
        command: &'static str,
    },
    /// The greeting failed.
    #[error("the QMP greeting failed: {0}")]
    Greeting(#[from] std::io::Error),
    /// The human monitor gave an unexpected answer.
    #[error("QEMU's monitor answered \"{command}\" with \"{answer}\", not with {expected}")]
    Monitor {
        /// The command.
        command: String,
        /// The answer.
        answer: String,
        /// The expected answer.
        expected: &'static str,
    },
    /// A device lacks a capability that the harness uses.
    #[error("the device at {device} has no {what} capability")]
    NoCapability {
        /// The device's address.
        device: Bdf,
        /// The capability's name.
        what: &'static str,
    },
}

impl Qmp {
    /// Reads the greeting on a new connection, and negotiates capabilities. `end` is the end of its QEMU.
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
        let events = EventLog::of(end.time().clone());
        let reader = tokio::spawn(read_events(source, events.clone(), end));
        Ok(Qmp { service, unanswered: Mutex::new(false), events, devices: sync::Mutex::default(), starved, reader })
    }

    /// All events, past and future.
    pub fn events(&self) -> &EventLog<QmpEvent> {
        &self.events
    }

    /// Whether a command is under way.
    pub(super) fn is_busy(&self) -> bool {
        self.unanswered.try_lock().is_err()
    }

    /// Executes a command.
    ///
    /// # Errors
    /// QEMU's refusal, a broken connection, or no answer in time.
    pub async fn execute<C: qmp::QmpCommand>(&self, command: C) -> Result<C::Ok, QmpError>
    where
        Sink: futures_util::Sink<qapi::Execute<C, u32>, Error = std::io::Error> + Unpin,
    {
        let late = |Late { within, .. }| Err(QmpError::Silent { command: C::NAME, within });
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
        // This stays true if the future is dropped before the answer comes.
        *unanswered = true;
        let result = self.service.execute(command).await;
        *unanswered = matches!(result, Err(qapi::ExecuteError::Io(_)));
        result.map_err(|source| QmpError::Command { command: C::NAME, source })
    }

    /// Executes a command of the human monitor and returns what it prints.
    ///
    /// # Errors
    /// Those of [`Qmp::execute`]. Errors of the monitor itself are part of the text.
    pub async fn monitor(&self, command_line: &str) -> Result<String, QmpError> {
        let command = qmp::human_monitor_command { cpu_index: None, command_line: command_line.to_owned() };
        Ok(self.execute(command).await?.trim().to_owned())
    }

    /// Waits until QEMU has unplugged the device with this id. The sign is the event `DEVICE_DELETED`, or that the device
    /// is no part of the machine any more (`Qmp::look_at_devices`), whichever is known first. QEMU sends the event for
    /// each VF too, without an id.
    ///
    /// # Errors
    /// [`WaitError`].
    pub async fn device_deleted(&self, from: usize, id: &str, within: Duration) -> Result<(), WaitError> {
        let awaited = format!("QMP event DEVICE_DELETED of {id}");
        let pick = |event: &QmpEvent| {
            let device = match event {
                QmpEvent::Sent(qmp::Event::DEVICE_DELETED { data, .. }) => data.device.as_deref(),
                QmpEvent::Sent(_) => None,
                QmpEvent::Left(device) => Some(device.as_str()),
            };
            (device == Some(id)).then_some(())
        };
        self.events.wait(from, within, &awaited, pick).await
    }

    /// Looks which devices with an id are part of the machine, and notes those that are not any more among the events.
    /// QEMU sends `DEVICE_DELETED` from its RCU thread, some of the host's time after the device was unplugged
    /// (`hw/core/qdev.c`, `device_finalize()`). What is seen at a defined time of the guest does not depend on that.
    ///
    /// # Errors
    /// Those of [`Qmp::execute`].
    pub(super) async fn look_at_devices(&self) -> Result<(), QmpError> {
        let now = self.execute(qmp::qom_list { path: DEVICES.to_owned() }).await?;
        let now: BTreeSet<_> = now.into_iter().map(|device| device.name).collect();
        // A panic in another thread cannot leave a set half changed.
        let mut seen = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        for left in seen.difference(&now) {
            self.events.push(QmpEvent::Left(left.clone()));
        }
        *seen = now;
        Ok(())
    }
}

impl Drop for Qmp {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

async fn read_events(mut source: qapi::futures::QapiEvents<Source>, events: EventLog<QmpEvent>, end: End) {
    let mut garbage = None;
    while let Some(event) = source.next().await {
        match event {
            Ok(event) => events.push(QmpEvent::Sent(event)),
            // An answer for which no task waits any more. If the line is no QMP at all, the stream ends after it.
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => garbage = Some(error),
            Err(_) => break,
        }
    }
    // Tells the waiting commands that no answer will come.
    drop(source);
    // QEMU is ending, and its exit status is the reason, unless QEMU has only sent invalid data.
    let why = match garbage {
        None => Closed::Ended(end.wait().await),
        Some(error) => match tokio::time::timeout(EXIT_AFTER_CLOSE, end.wait()).await {
            Ok(ended) => Closed::Ended(ended),
            Err(_) => Closed::Garbage(format!("the QMP connection broke: {error}").into()),
        },
    };
    events.close(why);
}
