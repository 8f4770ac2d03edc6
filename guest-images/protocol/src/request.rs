//! The requests from the host to the guest.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::call::{Call, VfioDevice};
use crate::word::{Answer, WordId};

/// Identifies an operation. The host chooses it, and never uses one twice in a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OpId(pub u64);

/// One request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The id in all messages about this operation.
    pub id: OpId,
    /// What to do.
    pub command: Command,
}

/// A command. Its facts and its words are in `facts.rs`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// Send [`crate::Message::Hello`] again. Done with [`crate::Reply::Nothing`].
    Hello,
    /// Read an attribute once, from a process of its own. Done with [`crate::Reply::Access`].
    Read {
        /// Absolute path in the guest.
        path: String,
    },
    /// Read bytes of a file, as hexadecimal digits: of `/proc`, or of an attribute that is no text. Done with
    /// [`crate::Reply::Access`].
    ReadBytes {
        /// Absolute path in the guest.
        path: String,
        /// Where to begin.
        at: u64,
        /// At most so many bytes. There are fewer if the file ends before.
        length: u32,
    },
    /// Write an attribute with a single `write(2)`, from a process of its own. Done with [`crate::Reply::Access`].
    Write {
        /// Absolute path in the guest.
        path: String,
        /// The bytes to write; no newline is added.
        data: String,
        /// Offset in the file. Only for files with offsets, such as a function's `config`.
        #[serde(default, skip_serializing_if = "is_start")]
        at: u64,
        /// How the writing process is scheduled.
        #[serde(default)]
        sched: Sched,
    },
    /// List a directory. Done with [`crate::Reply::Names`], sorted.
    List {
        /// Absolute path in the guest.
        path: String,
    },
    /// Resolve a symbolic link. Done with [`crate::Reply::Target`].
    ReadLink {
        /// Absolute path in the guest.
        path: String,
    },
    /// Bind a PCI device to a driver (`driver_override`, unbind, `drivers_probe`), and check that the driver has it.
    /// Done with [`crate::Reply::Nothing`].
    Bind {
        /// Address of the device, as `0000:01:00.0`.
        bdf: String,
        /// Name of the driver, as in `/sys/bus/pci/drivers`.
        driver: String,
    },
    /// Open devices that are bound to vfio-pci, arm their request eventfds, report [`crate::Progress::Opened`], and
    /// take steps one after the other in a single thread. Devices that no step has released are released at the end.
    /// Done with [`crate::Reply::Nothing`].
    Own {
        /// The devices, opened in this order.
        devices: Vec<VfioDevice>,
        /// The steps.
        steps: Vec<Step>,
    },
    /// Write attributes in turn, again and again, as fast as possible. Writes that the kernel refuses are counted; they
    /// are no error. Done with [`crate::Reply::Cycled`], after the number of rounds or after [`Command::Stop`].
    Cycle {
        /// The writes of one round.
        writes: Vec<AttributeWrite>,
        /// The number of rounds. None for no limit.
        rounds: Option<u32>,
    },
    /// Read a register of the PHY of a network interface again and again, as fast as possible (`SIOCGMIIREG` of
    /// `include/uapi/linux/sockios.h`, as `mii-tool` does). Reads that the kernel refuses are counted. Done with
    /// [`crate::Reply::Cycled`], after [`Command::Stop`] or when the interface is gone.
    ReadPhy {
        /// Interface name.
        ifname: String,
        /// Register (`include/uapi/linux/mii.h`).
        register: u16,
    },
    /// Read every attribute in and below some folders, each from a thread of its own, and write some values back.
    /// Reports [`crate::Progress::Waiting`] once, when all accesses that have not ended seem to wait for something.
    /// Done with [`crate::Reply::Swept`] when all have ended.
    Sweep(Sweep),
    /// Wait for events, and read attributes as soon as one arrives. Reports [`crate::Progress::Watching`] when it
    /// listens, and [`crate::Progress::Saw`] for each event. Done with [`crate::Reply::Nothing`] after
    /// [`Command::Stop`].
    Watch {
        /// The events to wait for.
        source: Source,
        /// Absolute paths of the attributes to read at each event, in this order.
        read: Vec<String>,
        /// How the reading process is scheduled.
        #[serde(default)]
        sched: Sched,
    },
    /// Set a network interface up or down through rtnetlink. Done with [`crate::Reply::Nothing`].
    SetLink {
        /// Interface name.
        ifname: String,
        /// True for up, false for down.
        up: bool,
    },
    /// Set the MAC address of a VF through the interface of its PF, with rtnetlink: `ip link set PF vf N mac`. Done with
    /// [`crate::Reply::Nothing`].
    SetVfMac {
        /// The PF's interface.
        ifname: String,
        /// The number of the VF, from 0.
        vf: u32,
        /// The address.
        mac: [u8; 6],
    },
    /// Create a file, or replace one. The next bytes of the file follow the newline of this request on the channel. The
    /// folder must exist, and be on a file system in memory. Done with [`crate::Reply::Nothing`] when the bytes are
    /// written. The file gets its name with its last byte.
    PutFile {
        /// Absolute path in the guest.
        path: String,
        /// How many bytes of the file came before. A request with 0 begins the file.
        offset: u64,
        /// How many bytes follow.
        size: u64,
        /// How many bytes the file has.
        total: u64,
        /// Whether it is a program.
        executable: bool,
    },
    /// Run a program in a session of its own, with empty standard input, the variables `PATH` and `HOME`, and those
    /// given. Its standard output and standard error come in the order of the writes as [`crate::Progress::Printed`].
    /// After [`Command::Stop`], all processes of the session are killed. Done with [`crate::Reply::Ran`], when the
    /// program has ended and no process of its session is left.
    Run {
        /// Absolute path in the guest.
        program: String,
        /// Its arguments, without its name.
        args: Vec<String>,
        /// Environment variables.
        #[serde(default)]
        env: BTreeMap<String, String>,
        /// Its output is a socket, and no pipe. sendfile(2) into a pipe holds the lock of the pipe while it reads
        /// (`splice_file_to_pipe()` in `fs/splice.c`). If the read waits in the kernel, all others wait who write to the pipe
        /// or read from it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        socket: bool,
    },
    /// Let an owner at [`Step::Hold`] continue with its next step. Done when the owner was told so.
    Continue {
        /// The owner's operation.
        target: OpId,
    },
    /// Let an owner at [`Step::Hold`] make a call, and hold on. Done when the owner was told so. The owner reports the
    /// result as [`crate::Progress::Called`].
    Call {
        /// The owner's operation.
        target: OpId,
        /// What to call.
        call: Call,
    },
    /// End a [`Command::Watch`], a [`Command::Cycle`], a [`Command::ReadPhy`] or a [`Command::Run`].
    Stop {
        /// Its operation.
        target: OpId,
    },
    /// Send a signal to the process of an operation.
    Kill {
        /// The operation.
        target: OpId,
        /// Signal number.
        signal: i32,
    },
    /// Find the tasks of an operation's process, and of the programs that it runs. Done with [`crate::Reply::Tasks`], which is empty if the operation has
    /// ended.
    Where {
        /// The operation.
        target: OpId,
    },
    /// Find every task in D state, and every task in any state whose kernel stack has one of these functions. Done with
    /// [`crate::Reply::Tasks`].
    Tasks {
        /// Names of kernel functions, without offsets.
        in_functions: Vec<String>,
    },
    /// List all PCI functions from all places where sysfs has them. Done with [`crate::Reply::Inventory`].
    Inventory,
    /// Write a key to `/proc/sysrq-trigger`. What the kernel then prints comes as [`crate::Message::Kmsg`].
    Sysrq {
        /// The key, as in `Documentation/admin-guide/sysrq.rst`.
        key: char,
    },
    /// Wait for a time, and let nothing in the guest delay the answer but interrupts that are off. Done with
    /// [`crate::Reply::Nothing`] when the time has come. There may be several alarms at once.
    Alarm {
        /// The time, in nanoseconds of the guest's `CLOCK_MONOTONIC`. If it is past, the alarm goes off at once.
        at: u64,
    },
    /// Report [`crate::Progress::Saving`], and execute [`crate::MARKER`] a second time without sending anything. A host
    /// that holds the guest's clock saves the guest between the two. Done with [`crate::Reply::Nothing`] when the guest
    /// goes on.
    Save,
    /// Hear the words of scripts ([`crate::Word`]) on [`crate::WORDS_SOCKET`], and pass each on as
    /// [`crate::Message::Asked`]. Done with [`crate::Reply::Nothing`] when the socket is there.
    HearWords,
    /// Answer a word. Done when the script was told.
    Answer {
        /// The word.
        word: WordId,
        /// The answer.
        answer: Answer,
    },
}

fn is_start(at: &u64) -> bool {
    *at == 0
}

/// The attributes of a sweep.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Sweep {
    /// Absolute paths of folders. All readable files in and below them are read. Symbolic links are not followed.
    pub folders: Vec<String>,
    /// Names of files and folders to leave out.
    pub leave_out: Vec<String>,
    /// Names of files whose value is written back after it was read.
    pub write_back: Vec<String>,
    /// If no access has ended for this many milliseconds, the remaining ones seem to wait for something.
    pub quiet_ms: u64,
}

/// One value for one attribute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct AttributeWrite {
    /// Absolute path.
    pub path: String,
    /// The bytes to write; no newline is added.
    pub data: String,
}

/// A step of an owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum Step {
    /// Wait until the kernel asks the owner to release one of its open devices. Reports [`crate::Progress::Requested`].
    AwaitRequest,
    /// Read an attribute. Reports [`crate::Progress::Reading`], then [`crate::Progress::Read`].
    Read {
        /// Absolute path.
        path: String,
    },
    /// Write an attribute. Reports [`crate::Progress::Writing`], then [`crate::Progress::Written`].
    Write(AttributeWrite),
    /// Report [`crate::Progress::Holding`], and make each [`Command::Call`] until [`Command::Continue`].
    Hold,
    /// Close a device. If it is the last one of its group, group and container are closed too. Reports
    /// [`crate::Progress::Closed`].
    Close {
        /// Address of the device.
        bdf: String,
    },
    /// Close all open devices with their groups and containers, in the order of opening. Reports
    /// [`crate::Progress::Released`].
    Release,
}

/// The source of events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum Source {
    /// Kernel uevents (`NETLINK_KOBJECT_UEVENT`, multicast group 1) with this action and path.
    Uevent {
        /// `ACTION=`. None for any.
        action: Option<String>,
        /// `DEVPATH=`, the whole path. None for any.
        devpath: Option<String>,
    },
    /// `RTM_NEWLINK` messages (`RTMGRP_LINK`), of any interface.
    Rtnetlink,
}

/// How a process is scheduled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Sched {
    /// The CPU to pin it to.
    #[serde(default)]
    pub cpu: Option<u32>,
    /// Scheduling policy.
    #[serde(default)]
    pub policy: Policy,
}

/// Scheduling policy; see `sched(7)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// `SCHED_OTHER`.
    #[default]
    Other,
    /// `SCHED_FIFO` at this priority, 1 to 99.
    Fifo(u8),
}
