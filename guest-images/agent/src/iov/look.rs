//! `iov wait-blocked`: waits until a process sleeps in the kernel.

use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use super::{Ended, Next, Words, missing, number};
use crate::procfs;

/// How long to wait by default, in seconds.
pub const WITHIN: u64 = 30;

/// How often to look. No event reports that a task begins to wait.
const POLL: Duration = Duration::from_millis(20);

/// `iov wait-blocked PID FUNCTION`.
pub fn wait_blocked(mut words: Words) -> Ended {
    let (mut pid, mut function, mut within) = (None, None, WITHIN);
    while let Some(next) = words.next()? {
        match next {
            Next::Word(word) if pid.is_none() => pid = Some(number::<i32>(&word, "the pid")?),
            Next::Word(word) if function.is_none() => function = Some(word),
            Next::Option(name) if name == "within" => within = number(&words.value(&name)?, "--within")?,
            other => return Err(other.unknown("wait-blocked")),
        }
    }
    let pid = pid.ok_or_else(|| missing("a pid"))?;
    let function = function.ok_or_else(|| missing("a function"))?;
    let deadline = Instant::now() + Duration::from_secs(within);
    loop {
        let tasks = procfs::tasks_of(pid)?;
        if tasks.iter().any(|task| task.state == 'D' && task.stack.contains(&function)) {
            return Ok(ExitCode::SUCCESS);
        }
        if tasks.is_empty() || Instant::now() >= deadline {
            let state = |task: &guest_protocol::TaskState| {
                format!(
                    "{} is in state {} in {}",
                    task.comm,
                    task.state,
                    task.stack.first().map_or("no function", String::as_str)
                )
            };
            let now = tasks.first().map_or(format!("process {pid} has ended"), state);
            eprintln!("iov wait-blocked: no task of process {pid} waits in {function}: {now}");
            return Ok(ExitCode::FAILURE);
        }
        thread::sleep(POLL);
    }
}
