//! What the guest says, in one short line of words each, for error messages.

use std::fmt;

use crate::call::Returned;
use crate::message::{
    Access, Errno, Failure, LinkEvent, Message, Outcome, ProgramEnd, Progress, Reply, Sighting, Uevent, Waiting,
};
use crate::text::{counted, listed, quoted, short};

/// What the message is, as in "last heard: `the end of operation 1008: 12 names`".
impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Message::Hello { version, kernel, cpus, .. } => {
                let cpus = counted(u64::from(*cpus), "CPU", "CPUs");
                write!(f, "hello from Linux {} with {cpus} (protocol version {version})", short(kernel))
            }
            Message::Started { id, pid, .. } => write!(f, "the start of {id} as process {pid}"),
            Message::Progress { id, progress, .. } => write!(f, "progress of {id}: {progress}"),
            Message::Done { id, outcome, .. } => write!(f, "the end of {id}: {outcome}"),
            Message::Uevent { uevent, .. } => uevent.fmt(f),
            Message::Link { link, .. } => link.fmt(f),
            Message::Kmsg { text, .. } => write!(f, "kernel message {}", quoted(text)),
            Message::Asked { word, .. } => write!(f, "the script's word {}", quoted(&word.to_string())),
            Message::Lost { stream, .. } => write!(f, "loss of messages in the {} stream", short(stream)),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Ok(reply) => reply.fmt(f),
            Outcome::Err(failure) => write!(f, "failed: {failure}"),
        }
    }
}

/// What the reply is, as in "the agent answered with `12 names`".
impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reply::Nothing => f.write_str("an empty reply"),
            Reply::Access(access) => write!(f, "an access to {access}"),
            Reply::Names(names) => f.write_str(&counted(names.len() as u64, "name", "names")),
            Reply::Target(target) => write!(f, "the link target {}", short(target)),
            Reply::Tasks(tasks) => f.write_str(&counted(tasks.len() as u64, "task", "tasks")),
            Reply::Swept(swept) => write!(f, "a sweep of {}", counted(swept.len() as u64, "access", "accesses")),
            Reply::Inventory(inventory) => {
                write!(
                    f,
                    "an inventory of {}",
                    counted(inventory.functions.len() as u64, "PCI function", "PCI functions")
                )
            }
            Reply::Cycled { rounds, refused } => {
                let rounds = counted(u64::from(*rounds), "round", "rounds");
                write!(f, "{rounds} with {}", counted(u64::from(*refused), "refused access", "refused accesses"))
            }
            Reply::Ran { end, unreported: 0 } => write!(f, "the end of a program: {end}"),
            Reply::Ran { end, unreported } => {
                let lost = counted(*unreported, "byte", "bytes");
                write!(f, "the end of a program: {end}, without the last {lost} of its output")
            }
        }
    }
}

/// Where the operation got, as in "progress of operation 4: `reading /sys/...`".
impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Progress::Opened { groups } => {
                let numbers = listed(groups.iter().map(u32::to_string));
                write!(f, "opened its devices (IOMMU {} {numbers})", if groups.len() == 1 { "group" } else { "groups" })
            }
            Progress::Requested { bdf } => write!(f, "asked by the kernel to release {}", short(bdf)),
            Progress::Reading { path } => write!(f, "reading {}", short(path)),
            Progress::Read(Access { path, value: Ok(value), .. }) => {
                write!(f, "read {} from {}", quoted(value), short(path))
            }
            Progress::Read(Access { path, value: Err(errno), .. }) => write!(f, "reading {} gave {errno}", short(path)),
            Progress::Writing { path } => write!(f, "writing {}", short(path)),
            Progress::Written(Access { path, value: Ok(_), .. }) => write!(f, "wrote {}", short(path)),
            Progress::Written(Access { path, value: Err(errno), .. }) => {
                write!(f, "writing {} gave {errno}", short(path))
            }
            Progress::Holding => f.write_str("holding until told to continue"),
            Progress::Called { id, result: Ok(returned) } => {
                write!(f, "made the call of {id}, which returned {returned}")
            }
            Progress::Called { id, result: Err(errno) } => write!(f, "made the call of {id}, which gave {errno}"),
            Progress::Saving => f.write_str("standing still to be saved"),
            Progress::Closed { bdf } => write!(f, "closed {}", short(bdf)),
            Progress::Released => f.write_str("closed all its devices"),
            Progress::Waiting(waiting) => {
                let those = listed(waiting.iter().map(Waiting::to_string));
                write!(
                    f,
                    "{} not ended: {}",
                    counted(waiting.len() as u64, "access has", "accesses have"),
                    short(&those)
                )
            }
            Progress::Watching => f.write_str("watching for events"),
            Progress::Printed { text } => write!(f, "printed {}", quoted(text)),
            Progress::Saw { event, .. } => write!(f, "saw {event}"),
        }
    }
}

/// The value and how many bytes there are.
impl fmt::Display for Returned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.value)?;
        match self.bytes.len() as u64 {
            0 => Ok(()),
            length => write!(f, " and {}", counted(length, "byte", "bytes")),
        }
    }
}

impl fmt::Display for ProgramEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProgramEnd::Exited(status) => write!(f, "exit status {status}"),
            ProgramEnd::Killed(signal) => write!(f, "killed by {}", short(signal)),
        }
    }
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", if self.write { "write" } else { "read" }, short(&self.path))
    }
}

impl fmt::Display for Sighting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sighting::Uevent(uevent) => uevent.fmt(f),
            Sighting::Link(link) => link.fmt(f),
        }
    }
}

impl fmt::Display for Uevent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "uevent {} of {}", short(&self.action), short(&self.devpath))
    }
}

impl fmt::Display for LinkEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.gone { "RTM_DELLINK" } else { "RTM_NEWLINK" };
        write!(f, "{kind} of {}", short(&self.ifname))?;
        self.operstate.map_or(Ok(()), |state| write!(f, " (operstate {state})"))
    }
}

/// Path and value, or path and errno.
impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Ok(value) => write!(f, "{}: {}", short(&self.path), quoted(value)),
            Err(errno) => write!(f, "{}: {errno}", short(&self.path)),
        }
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&short(&self.name))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&short(&self.message))
    }
}
