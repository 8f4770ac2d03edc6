//! Scheduling of an operation's process.

use guest_protocol::{Policy, Sched};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use crate::error::AgentError;

/// Pins and schedules this process as asked.
pub fn apply(sched: Sched) -> Result<(), AgentError> {
    if let Some(cpu) = sched.cpu {
        let action = format!("pin to CPU {cpu}");
        let mut cpus = CpuSet::new();
        cpus.set(cpu as usize)
            .and_then(|()| sched_setaffinity(Pid::from_raw(0), &cpus))
            .map_err(|errno| AgentError::io(action, errno))?;
    }
    match sched.policy {
        Policy::Other => Ok(()),
        Policy::Fifo(priority) => {
            set_fifo(priority).map_err(|source| AgentError::io(format!("become SCHED_FIFO {priority}"), source))
        }
    }
}

/// `sched_setscheduler(2)` of the calling thread: neither the standard library nor nix has it.
fn set_fifo(priority: u8) -> std::io::Result<()> {
    let param = nix::libc::sched_param { sched_priority: priority.into() };
    // SAFETY: `param` is a whole sched_param that outlives the call, which only reads it.
    match unsafe { nix::libc::sched_setscheduler(0, nix::libc::SCHED_FIFO, &param) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}
