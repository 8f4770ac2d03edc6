//! PID 1: sets up the guest, starts the server, and reaps.
//!
//! It does nothing else, so that it never gets stuck in the kernel. It reaps only orphans and the server. The server
//! reaps its own children, because it needs their exit statuses.

use std::fs;
use std::process::{Command, ExitCode};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::wait::{WaitStatus, waitpid};

use crate::error::{self, AgentError};
use crate::{modules, program};

/// The file systems to mount: type, folder, and whether the agent cannot work without it.
const MOUNTS: [(&str, &str, bool); 5] = [
    ("devtmpfs", "/dev", true),
    ("proc", "/proc", true),
    ("sysfs", "/sys", true),
    ("debugfs", "/sys/kernel/debug", false),
    ("tmpfs", "/tmp", false),
];

/// Runs PID 1. It returns when the server has ended, or after an error. The kernel then panics because PID 1 exits
/// (`do_exit()` in `kernel/exit.c`), and the host sees the panic.
pub fn run() -> ExitCode {
    let Err(error) = set_up_and_reap();
    eprintln!("iov-agent: PID 1 ends: {}", error::chain(&error));
    ExitCode::FAILURE
}

fn set_up_and_reap() -> Result<std::convert::Infallible, AgentError> {
    for (kind, target, needed) in MOUNTS {
        match mount(Some(kind), target, Some(kind), MsFlags::empty(), None::<&str>) {
            Err(errno) if needed => return Err(AgentError::io(format!("mount {kind} on {target}"), errno)),
            Err(errno) => eprintln!("iov-agent: cannot mount {kind} on {target}: {errno}"),
            Ok(()) => {}
        }
    }
    program::name_process("iov-init").map_err(|source| AgentError::io("name PID 1", source))?;
    // Enable all sysrq keys, whatever the kernel's default is. With them a stuck guest prints the stacks of its tasks.
    if let Err(error) = fs::write("/proc/sys/kernel/sysrq", "1") {
        eprintln!("iov-agent: cannot enable all sysrq keys: {error}");
    }
    modules::load_all()?;
    let server = Command::new(program::SELF)
        .arg("serve")
        .spawn()
        .map_err(|source| AgentError::io("start the server", source))?;
    loop {
        match waitpid(None, None) {
            Ok(status) if status.pid().is_some_and(|pid| pid.as_raw().unsigned_abs() == server.id()) => {
                return Err(AgentError::Refused(format!("the server has ended ({})", words(status))));
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(AgentError::io("wait for children", errno)),
        }
    }
}

/// How a process ended.
fn words(status: WaitStatus) -> String {
    match status {
        WaitStatus::Exited(_, code) => format!("exit status {code}"),
        WaitStatus::Signaled(_, signal, _) => format!("killed by {signal}"),
        // Only a traced or a stopped process has another status, and waitpid(2) was not asked for those.
        other => format!("unexpected status {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::Signal;
    use nix::unistd::Pid;

    use super::*;

    #[test]
    fn the_end_of_a_process_is_described() {
        let pid = Pid::from_raw(2);
        assert_eq!(words(WaitStatus::Exited(pid, 1)), "exit status 1");
        assert_eq!(words(WaitStatus::Signaled(pid, Signal::SIGKILL, false)), "killed by SIGKILL");
    }
}
