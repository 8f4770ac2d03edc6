//! The messages from the guest to the host.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::call::Returned;
use crate::inventory::Inventory;
use crate::request::OpId;
use crate::word::{Word, WordId};

/// One message from the guest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", tag = "type")]
pub enum Message {
    /// The agent has started and serves requests.
    Hello {
        /// [`crate::VERSION`] of the guest.
        version: u32,
        /// The kernel's release, as in `uname -r`.
        kernel: String,
        /// Number of online CPUs.
        cpus: u32,
        /// When it was sent.
        at: u64,
    },
    /// The process of an operation has started.
    Started {
        /// The operation.
        id: OpId,
        /// Its process.
        pid: i32,
        /// When it started.
        at: u64,
    },
    /// An operation has reached a certain point.
    Progress {
        /// The operation.
        id: OpId,
        /// When it got there.
        at: u64,
        /// The point that it has reached.
        progress: Progress,
    },
    /// An operation has ended.
    Done {
        /// The operation.
        id: OpId,
        /// When it ended.
        at: u64,
        /// How it ended.
        outcome: Outcome,
    },
    /// A kernel uevent. Uevents are sent in the order in which they arrive.
    Uevent {
        /// When it was received.
        at: u64,
        /// The event.
        #[serde(flatten)]
        uevent: Uevent,
    },
    /// An `RTM_NEWLINK` or `RTM_DELLINK`.
    Link {
        /// When it was received.
        at: u64,
        /// The event.
        #[serde(flatten)]
        link: LinkEvent,
    },
    /// A record of `/dev/kmsg`.
    Kmsg {
        /// The kernel's own timestamp of the record, in nanoseconds (its resolution is a microsecond).
        at: u64,
        /// Sequence number. A gap means that records were lost.
        seq: u64,
        /// Syslog severity, 0 (emergency) to 7 (debug).
        level: u8,
        /// The text, without continuation (dictionary) lines.
        text: String,
    },
    /// A script has said a word that only the host can carry out. It waits for [`crate::Command::Answer`].
    Asked {
        /// The id of the word.
        id: WordId,
        /// When it came.
        at: u64,
        /// The word.
        word: Word,
    },
    /// Messages of a stream were lost. From here on, a missing message of this stream proves nothing.
    Lost {
        /// The stream: `uevent`, `link` or `kmsg`.
        stream: String,
        /// When the loss was noticed.
        at: u64,
    },
}

impl Message {
    /// Its time, in nanoseconds of the guest's `CLOCK_MONOTONIC`. That of a kernel message is older than the message.
    pub fn at(&self) -> u64 {
        match *self {
            Message::Hello { at, .. }
            | Message::Started { at, .. }
            | Message::Progress { at, .. }
            | Message::Done { at, .. }
            | Message::Uevent { at, .. }
            | Message::Link { at, .. }
            | Message::Kmsg { at, .. }
            | Message::Asked { at, .. }
            | Message::Lost { at, .. } => at,
        }
    }
}

/// A kernel uevent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Uevent {
    /// `ACTION=`: `add`, `remove`, `change`, `bind`, `unbind`, `move`, `online`, `offline`.
    pub action: String,
    /// `DEVPATH=`: the path below `/sys`.
    pub devpath: String,
    /// `SEQNUM=`.
    pub seqnum: u64,
    /// All other variables.
    pub env: BTreeMap<String, String>,
}

/// A change of a network interface, from rtnetlink.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct LinkEvent {
    /// The interface was removed (`RTM_DELLINK`).
    pub gone: bool,
    /// `IFLA_IFNAME`.
    pub ifname: String,
    /// Interface index.
    pub index: u32,
    /// `IFF_*` flags.
    pub flags: u32,
    /// `IFLA_OPERSTATE` as a number of RFC 2863 (6 is up), if the message has this attribute.
    pub operstate: Option<u8>,
}

/// A point that an operation has reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum Progress {
    /// An owner has opened its devices and armed their request eventfds.
    Opened {
        /// The number of each device's IOMMU group.
        groups: Vec<u32>,
    },
    /// The kernel asked an owner to release a device: the request eventfd was signalled.
    Requested {
        /// Address of the device.
        bdf: String,
    },
    /// An owner is about to read an attribute.
    Reading {
        /// Path of the attribute.
        path: String,
    },
    /// An owner has read an attribute.
    Read(Access),
    /// An owner is about to write an attribute.
    Writing {
        /// Path of the attribute.
        path: String,
    },
    /// An owner has written an attribute.
    Written(Access),
    /// An owner waits for [`crate::Command::Continue`].
    Holding,
    /// An owner has made a call of [`crate::Command::Call`].
    Called {
        /// Id of the request.
        id: OpId,
        /// What came.
        result: Result<Returned, Errno>,
    },
    /// The guest can be saved now ([`crate::Command::Save`]).
    Saving,
    /// An owner has closed a device.
    Closed {
        /// Address of the device.
        bdf: String,
    },
    /// An owner has closed all its devices.
    Released,
    /// These accesses of a [`crate::Command::Sweep`] have not ended and seem to wait for something. All others have
    /// ended.
    Waiting(Vec<Waiting>),
    /// A program of [`crate::Command::Run`] has written this to its standard output or standard error. Bytes that are no
    /// UTF-8 are replaced.
    Printed {
        /// What it has written since the last such message.
        text: String,
    },
    /// A reader listens: it misses no event from now on.
    Watching,
    /// A reader has received an event and read its attributes.
    Saw {
        /// The event.
        event: Sighting,
        /// When the reader received the event, before its first read.
        seen: u64,
        /// The reads, in the order of the request.
        reads: Vec<Access>,
    },
}

/// An access of a sweep that has not ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Waiting {
    /// Path of the attribute.
    pub path: String,
    /// The access is a write, not a read.
    pub write: bool,
    /// When the access began.
    pub since: u64,
    /// The thread, with its kernel stack.
    pub task: TaskState,
}

/// An event that a reader has received.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sighting {
    /// From [`crate::Source::Uevent`].
    Uevent(Uevent),
    /// From [`crate::Source::Rtnetlink`].
    Link(LinkEvent),
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It was carried out.
    Ok(Reply),
    /// It could not be carried out. If an access to an attribute gives an errno, that is *not* a failure: see
    /// [`Access`].
    Err(Failure),
}

/// The result of an operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// There is no result.
    Nothing,
    /// An attribute was read or written.
    Access(Access),
    /// Names in a directory.
    Names(Vec<String>),
    /// Target of a symbolic link.
    Target(String),
    /// Tasks with their states.
    Tasks(Vec<TaskState>),
    /// The accesses of a [`crate::Command::Sweep`], in the order in which they ended.
    Swept(Vec<Swept>),
    /// All PCI functions of the guest.
    Inventory(Box<Inventory>),
    /// What a [`crate::Command::Cycle`] or a [`crate::Command::ReadPhy`] has done.
    Cycled {
        /// Complete rounds.
        rounds: u32,
        /// Accesses that the kernel refused.
        refused: u32,
    },
    /// A program of [`crate::Command::Run`] has ended.
    Ran {
        /// How it ended.
        end: ProgramEnd,
        /// How many bytes of its output were not reported, because it wrote too much.
        unreported: u64,
    },
}

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProgramEnd {
    /// It exited with this status.
    Exited(i32),
    /// This signal killed it, as in `SIGKILL`.
    Killed(String),
}

/// One `open` and `read(2)`, or `open` and `write(2)`, of an attribute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Access {
    /// Path of the attribute.
    pub path: String,
    /// The value without trailing white space (empty after a write), or the kernel's errno.
    pub value: Result<String, Errno>,
    /// When it started, before `open(2)`.
    pub started: u64,
    /// When it finished, after the last system call.
    pub finished: u64,
}

/// An access of a [`crate::Command::Sweep`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Swept {
    /// It was a write, not a read.
    pub write: bool,
    /// The access. It has only the beginning of a long value.
    pub access: Access,
}

impl Access {
    /// How long the access took.
    pub fn latency(&self) -> Duration {
        Duration::from_nanos(self.finished.saturating_sub(self.started))
    }

    /// The value, or the name of the errno.
    pub fn shown(&self) -> &str {
        match &self.value {
            Ok(value) => value,
            Err(errno) => &errno.name,
        }
    }
}

/// An errno of the guest's kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Errno {
    /// The number, positive.
    pub code: i32,
    /// Its symbolic name (`EBUSY`), or the C library's text if it has none.
    pub name: String,
}

/// Why an operation could not be carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Failure {
    /// The error and its causes, on one line.
    pub message: String,
    /// The errno that caused it, if there is one.
    pub errno: Option<Errno>,
}

/// One task (thread) of the guest, from `/proc/PID/task/TID`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct TaskState {
    /// Process id.
    pub pid: i32,
    /// Thread id.
    pub tid: i32,
    /// Name, from `comm`.
    pub comm: String,
    /// State letter of `proc_pid_stat(5)`: `D` is uninterruptible sleep.
    pub state: char,
    /// `wchan`. Empty if the task does not wait.
    pub wchan: String,
    /// Kernel stack, innermost function first. Names of functions without offsets.
    pub stack: Vec<String>,
}
