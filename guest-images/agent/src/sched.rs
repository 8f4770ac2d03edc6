//! Sets CPU and scheduling policy of an operation's process.

use guest_protocol::{Policy, Sched};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use crate::error::AgentError;

/// Applies a scheduling request to this process.
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

/// Calls `sched_setscheduler(2)` for the calling thread. Neither the standard library nor nix has it.
fn set_fifo(priority: u8) -> std::io::Result<()> {
    let param = nix::libc::sched_param { sched_priority: priority.into() };
    // SAFETY: `param` is a complete sched_param that lives longer than the call, and the call only reads it.
    match unsafe { nix::libc::sched_setscheduler(0, nix::libc::SCHED_FIFO, &param) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}
