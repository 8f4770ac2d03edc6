//! PID 1: sets the machine up, starts the server, reaps.
//!
//! It does nothing else, so that nothing can make it stuck; and it reaps all that is orphaned, while the server reaps
//! its own children, so that neither takes an exit status from the other.

use std::fs;
use std::process::{Command, ExitCode};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::wait::waitpid;

use crate::error::{self, AgentError};
use crate::{modules, program};

/// What is mounted where, and whether the agent is of any use without it.
const MOUNTS: [(&str, &str, bool); 5] = [
    ("devtmpfs", "/dev", true),
    ("proc", "/proc", true),
    ("sysfs", "/sys", true),
    ("debugfs", "/sys/kernel/debug", false),
    ("tmpfs", "/tmp", false),
];

/// Runs PID 1. It returns only when the server is gone, which ends the guest: a PID 1 that exits panics the kernel
/// (`do_exit()` in `kernel/exit.c`), and the host sees that.
pub fn run() -> ExitCode {
    let Err(error) = set_up_and_reap();
    eprintln!("iov-agent: PID 1 gives up: {}", error::chain(&error));
    ExitCode::FAILURE
}

fn set_up_and_reap() -> Result<std::convert::Infallible, AgentError> {
    for (kind, target, needed) in MOUNTS {
        match mount(Some(kind), target, Some(kind), MsFlags::empty(), None::<&str>) {
            Err(errno) if needed => return Err(AgentError::io(format!("mount {kind} on {target}"), errno)),
            Err(errno) => eprintln!("iov-agent: no {kind} on {target}: {errno}"),
            Ok(()) => {}
        }
    }
    program::name_process("iov-init").map_err(|source| AgentError::io("name PID 1", source))?;
    // All sysrq keys, whatever the kernel's default: they are how a stuck guest is made to speak.
    if let Err(error) = fs::write("/proc/sys/kernel/sysrq", "1") {
        eprintln!("iov-agent: sysrq stays as the kernel has it: {error}");
    }
    modules::load_all()?;
    let server = Command::new(program::SELF)
        .arg("serve")
        .spawn()
        .map_err(|source| AgentError::io("start the server", source))?;
    loop {
        match waitpid(None, None) {
            Ok(status) if status.pid().is_some_and(|pid| pid.as_raw().unsigned_abs() == server.id()) => {
                return Err(AgentError::Refused(format!("the server is gone: {status:?}")));
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(AgentError::io("wait for children", errno)),
        }
    }
}
