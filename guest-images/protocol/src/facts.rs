//! What host and agent must both know of each command.
//!
//! Each fact is one `match` without a catch-all arm, so the compiler names every place that a new command needs. Beside
//! these there are two more, which carry commands out: `Server::at_once` and `op::run` in the agent.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::request::{Command, OpId, Source};
use crate::text::{counted, listed, quoted};

/// What the process of an operation can be told while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Control {
    /// See [`Command::Continue`].
    Continue,
    /// See [`Command::Stop`].
    Stop,
}

impl fmt::Display for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Control::Continue => "continue",
            Control::Stop => "stop",
        })
    }
}

/// How the names of the processes of operations begin ([`Command::process`]). The harness recognises them by it.
pub const PROCESS_PREFIX: &str = "iov-";

impl Command {
    /// The name of the process that carries the command out, for `/proc/PID/comm` and the kernel's messages about hung
    /// tasks. It has at most 15 bytes (`TASK_COMM_LEN`).
    ///
    /// `None` for a command that the agent's server carries out itself, at once. Such a command never waits in the
    /// kernel.
    pub fn process(&self) -> Option<&'static str> {
        match self {
            Command::Hello
            | Command::PutFile { .. }
            | Command::Continue { .. }
            | Command::Call { .. }
            | Command::Stop { .. }
            | Command::Kill { .. }
            | Command::Alarm { .. }
            | Command::Save
            | Command::HearWords
            | Command::Answer { .. } => None,
            Command::Read { .. } => Some("iov-read"),
            Command::ReadBytes { .. } => Some("iov-readbytes"),
            Command::Write { .. } => Some("iov-write"),
            Command::List { .. } => Some("iov-list"),
            Command::ReadLink { .. } => Some("iov-readlink"),
            Command::Bind { .. } => Some("iov-bind"),
            Command::Own { .. } => Some("iov-own"),
            Command::Cycle { .. } => Some("iov-cycle"),
            Command::ReadPhy { .. } => Some("iov-phy"),
            Command::Sweep(_) => Some("iov-sweep"),
            Command::Watch { .. } => Some("iov-watch"),
            Command::SetLink { .. } => Some("iov-setlink"),
            Command::SetVfMac { .. } => Some("iov-setvfmac"),
            Command::Run { .. } => Some("iov-run"),
            Command::Where { .. } => Some("iov-where"),
            Command::Tasks { .. } => Some("iov-tasks"),
            Command::Inventory => Some("iov-inventory"),
            Command::Sysrq { .. } => Some("iov-sysrq"),
        }
    }

    /// What the command's process can be told while it runs. `None` for one that reads nothing from the host any more:
    /// only [`Command::Kill`] ends it early.
    pub fn control(&self) -> Option<Control> {
        match self {
            Command::Own { .. } => Some(Control::Continue),
            Command::Cycle { .. } | Command::ReadPhy { .. } | Command::Watch { .. } | Command::Run { .. } => {
                Some(Control::Stop)
            }
            Command::Hello
            | Command::Read { .. }
            | Command::ReadBytes { .. }
            | Command::Write { .. }
            | Command::List { .. }
            | Command::ReadLink { .. }
            | Command::Bind { .. }
            | Command::Sweep(_)
            | Command::SetLink { .. }
            | Command::SetVfMac { .. }
            | Command::PutFile { .. }
            | Command::Continue { .. }
            | Command::Call { .. }
            | Command::Stop { .. }
            | Command::Kill { .. }
            | Command::Where { .. }
            | Command::Tasks { .. }
            | Command::Inventory
            | Command::Sysrq { .. }
            | Command::Alarm { .. }
            | Command::Save
            | Command::HearWords
            | Command::Answer { .. } => None,
        }
    }

    /// The other operation that the command is about.
    pub fn target(&self) -> Option<OpId> {
        match self {
            Command::Continue { target }
            | Command::Call { target, .. }
            | Command::Stop { target }
            | Command::Kill { target, .. }
            | Command::Where { target } => Some(*target),
            Command::Hello
            | Command::Read { .. }
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
            | Command::PutFile { .. }
            | Command::Run { .. }
            | Command::Tasks { .. }
            | Command::Inventory
            | Command::Sysrq { .. }
            | Command::Alarm { .. }
            | Command::Save
            | Command::HearWords
            | Command::Answer { .. } => None,
        }
    }
}

/// The command as a verb and its object, as in "the agent could not `read /sys/...`".
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Command::Hello => f.write_str("say hello again"),
            Command::Read { path } => write!(f, "read {path}"),
            Command::ReadBytes { path, at, length } => {
                write!(f, "read {} of {path} at offset {at:#x}", counted(u64::from(*length), "byte", "bytes"))
            }
            Command::Write { path, data, at: 0, .. } => write!(f, "write {} to {path}", quoted(data)),
            Command::Write { path, data, at, .. } => write!(f, "write {} to {path} at offset {at:#x}", quoted(data)),
            Command::List { path } => write!(f, "list {path}"),
            Command::ReadLink { path } => write!(f, "read the link {path}"),
            Command::Bind { bdf, driver } => write!(f, "bind {bdf} to {driver}"),
            Command::Own { devices, .. } => {
                write!(f, "own {} through vfio", listed(devices.iter().map(|device| &device.bdf)))
            }
            Command::Cycle { writes, rounds } => {
                write!(f, "write {} in turn", listed(writes.iter().map(|write| &write.path)))?;
                match rounds {
                    Some(rounds) => write!(f, " for {rounds} rounds"),
                    None => f.write_str(" until told to stop"),
                }
            }
            Command::ReadPhy { ifname, register } => {
                write!(f, "read PHY register {register} of {ifname} until told to stop")
            }
            Command::Sweep(sweep) => write!(f, "sweep {}", listed(&sweep.folders)),
            Command::Watch { source, .. } => write!(f, "watch {source}"),
            Command::SetLink { ifname, up: true } => write!(f, "set {ifname} up"),
            Command::SetLink { ifname, up: false } => write!(f, "set {ifname} down"),
            Command::SetVfMac { ifname, vf, mac } => {
                let mac: Vec<String> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
                write!(f, "set the MAC address of VF {vf} of {ifname} to {}", mac.join(":"))
            }
            Command::PutFile { path, offset, size, .. } => {
                write!(f, "put {} into {path} at {offset}", counted(*size, "byte", "bytes"))
            }
            Command::Run { program, .. } => write!(f, "run {program}"),
            Command::Continue { target } => write!(f, "let {target} continue"),
            Command::Call { target, call } => write!(f, "let {target} {call}"),
            Command::Stop { target } => write!(f, "stop {target}"),
            Command::Kill { target, signal } => write!(f, "send signal {signal} to {target}"),
            Command::Where { target } => write!(f, "find the tasks of {target}"),
            Command::Tasks { in_functions } if in_functions.is_empty() => f.write_str("find the tasks in D state"),
            Command::Tasks { in_functions } => {
                write!(f, "find the tasks that are in D state or in {}", listed(in_functions))
            }
            Command::Inventory => f.write_str("take the inventory of all PCI functions"),
            Command::Sysrq { key } => write!(f, "press the sysrq key {}", quoted(&key.to_string())),
            Command::Alarm { at } => {
                write!(f, "wait for {}.{:09} s on the guest's clock", at / 1_000_000_000, at % 1_000_000_000)
            }
            Command::Save => f.write_str("stand still to be saved"),
            Command::HearWords => f.write_str("hear the words of a script"),
            Command::Answer { answer, .. } => write!(f, "answer a script: {answer}"),
        }
    }
}

impl fmt::Display for OpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "operation {}", self.0)
    }
}

/// The source as the object of a sentence, as in "watch `remove uevents of /devices/x`".
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Uevent { action, devpath } => {
                if let Some(action) = action {
                    write!(f, "{action} ")?;
                }
                f.write_str("uevents")?;
                devpath.as_ref().map_or(Ok(()), |devpath| write!(f, " of {devpath}"))
            }
            Source::Rtnetlink => f.write_str("changes of network interfaces"),
        }
    }
}
