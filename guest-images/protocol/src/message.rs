//! What the guest says.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::inventory::Inventory;
use crate::request::OpId;

/// One message from the guest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", tag = "type")]
pub enum Message {
    /// The agent is up and serves requests.
    Hello {
        /// [`crate::VERSION`] of the guest.
        version: u32,
        /// `uname -r`.
        kernel: String,
        /// Online CPUs.
        cpus: u32,
        /// When.
        at: u64,
    },
    /// An operation has a process now.
    Started {
        /// The operation.
        id: OpId,
        /// Its process.
        pid: i32,
        /// When.
        at: u64,
    },
    /// An operation got somewhere.
    Progress {
        /// The operation.
        id: OpId,
        /// When.
        at: u64,
        /// Where it got.
        progress: Progress,
    },
    /// An operation is over.
    Done {
        /// The operation.
        id: OpId,
        /// When.
        at: u64,
        /// How it ended.
        outcome: Outcome,
    },
    /// A kernel uevent, in the order of arrival.
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
        /// Sequence number: a gap means lost records.
        seq: u64,
        /// Syslog severity, 0 (emergency) to 7 (debug).
        level: u8,
        /// The text, without continuation (dictionary) lines.
        text: String,
    },
    /// A stream overflowed and messages were lost: its silence proves nothing from here on.
    Lost {
        /// Which stream: `uevent`, `link` or `kmsg`.
        stream: String,
        /// When it was noticed.
        at: u64,
    },
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

/// A change of a network interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct LinkEvent {
    /// The interface went away (`RTM_DELLINK`).
    pub gone: bool,
    /// `IFLA_IFNAME`.
    pub ifname: String,
    /// Interface index.
    pub index: u32,
    /// `IFF_*` flags.
    pub flags: u32,
    /// `IFLA_OPERSTATE` as its number in RFC 2863 (6 is up), if the message has it.
    pub operstate: Option<u8>,
}

/// Where an operation got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum Progress {
    /// An owner has its devices open and their request eventfds armed.
    Opened {
        /// Number of the IOMMU group of each.
        groups: Vec<u32>,
    },
    /// The kernel asked an owner for a device: the request eventfd fired.
    Requested {
        /// Which device.
        bdf: String,
    },
    /// An owner is about to read an attribute.
    Reading {
        /// Which.
        path: String,
    },
    /// An owner has read an attribute.
    Read(Access),
    /// An owner is about to write an attribute.
    Writing {
        /// Which.
        path: String,
    },
    /// An owner has written an attribute.
    Written(Access),
    /// An owner waits for [`crate::Command::Continue`].
    Holding,
    /// An owner has closed a device.
    Closed {
        /// Which.
        bdf: String,
    },
    /// An owner has closed everything.
    Released,
    /// Of a [`crate::Command::Sweep`], these accesses do not end, and why; all others have ended.
    Waiting(Vec<Waiting>),
    /// A reader is armed: no event from now on is missed.
    Watching,
    /// A reader saw an event and has read its attributes.
    Saw {
        /// The event.
        event: Sighting,
        /// When the reader received it, before its first read.
        seen: u64,
        /// What it read, in the order asked for.
        reads: Vec<Access>,
    },
}

/// An access that does not end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Waiting {
    /// Which attribute.
    pub path: String,
    /// It is being written, not read.
    pub write: bool,
    /// When it began.
    pub since: u64,
    /// Where it is.
    pub task: TaskState,
}

/// An event as a reader saw it.
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
    /// As asked.
    Ok(Reply),
    /// Not as asked. An attribute that answers with an errno is *not* such a failure: see [`Access`].
    Err(Failure),
}

/// What an operation brings back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// Nothing to say.
    Nothing,
    /// An attribute was read or written.
    Access(Access),
    /// Names in a directory.
    Names(Vec<String>),
    /// Target of a symbolic link.
    Target(String),
    /// Tasks and where they are.
    Tasks(Vec<TaskState>),
    /// The accesses of a [`crate::Command::Sweep`], in the order in which they ended.
    Swept(Vec<Swept>),
    /// What the guest shows of its PCI functions.
    Inventory(Box<Inventory>),
    /// How a [`crate::Command::Cycle`] went.
    Cycled {
        /// Whole rounds.
        rounds: u32,
        /// Writes that the kernel refused.
        refused: u32,
    },
}

/// One `open` and `read(2)`, or `open` and `write(2)`, of an attribute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Access {
    /// Which attribute.
    pub path: String,
    /// What was read with trailing white space taken off (empty after a write), or the kernel's errno.
    pub value: Result<String, Errno>,
    /// Before `open(2)`.
    pub started: u64,
    /// After the last system call.
    pub finished: u64,
}

/// An access of a [`crate::Command::Sweep`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Swept {
    /// It was a write, not a read.
    pub write: bool,
    /// The access; of what was read, only the beginning.
    pub access: Access,
}

impl Access {
    /// How long the access took.
    pub fn latency(&self) -> Duration {
        Duration::from_nanos(self.finished.saturating_sub(self.started))
    }

    /// The value, or the name of the errno that came in its place.
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
    /// Its symbolic name where known (`EBUSY`), else the C library's text.
    pub name: String,
}

/// Why an operation could not be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Failure {
    /// What was tried and what came instead, as one readable chain.
    pub message: String,
    /// The errno at the bottom of it, if one is.
    pub errno: Option<Errno>,
}

/// One task (thread) of the guest, from `/proc/PID/task/TID`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct TaskState {
    /// Process.
    pub pid: i32,
    /// Thread.
    pub tid: i32,
    /// Name.
    pub comm: String,
    /// State letter of `proc_pid_stat(5)`: `D` is uninterruptible sleep.
    pub state: char,
    /// `wchan`, empty if the task is not waiting.
    pub wchan: String,
    /// Kernel stack, innermost function first, names without offsets.
    pub stack: Vec<String>,
}
