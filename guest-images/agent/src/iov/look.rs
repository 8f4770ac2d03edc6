//! `iov wait-blocked`: waits until a process sleeps in the kernel.

use std::fmt;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use guest_protocol::TaskState;

use super::{Ended, Next, Words, missing, number};
use crate::error::AgentError;
use crate::procfs;

/// How long to wait by default, in seconds.
pub const WITHIN: u64 = 30;

/// How often to look. No event reports that a task begins to wait.
const POLL: Duration = Duration::from_millis(20);

/// How many tasks the message shows that no task waits.
const SHOWN: usize = 3;

/// Whose tasks are looked at.
#[derive(Clone, Copy, PartialEq)]
enum Whose {
    /// Those of a process.
    Process(i32),
    /// All in D state.
    Any,
}

impl Whose {
    fn of(word: &str) -> Result<Whose, AgentError> {
        match word {
            "any" => Ok(Whose::Any),
            pid => pid
                .parse()
                .map(Whose::Process)
                .map_err(|_| AgentError::Refused(format!("the pid is a number or `any`, not `{pid}`"))),
        }
    }

    fn tasks(self) -> Result<Vec<TaskState>, AgentError> {
        match self {
            Whose::Process(pid) => procfs::tasks_of(pid),
            Whose::Any => procfs::tasks_in(&[]),
        }
    }

    /// What it means that there are none.
    fn none(self) -> &'static str {
        match self {
            Whose::Process(_) => "the process has ended",
            Whose::Any => "no task is in state D",
        }
    }
}

impl fmt::Display for Whose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Whose::Process(pid) => write!(f, "process {pid}"),
            Whose::Any => f.write_str("the guest"),
        }
    }
}

fn state(task: &TaskState) -> String {
    let at = task.stack.first().map_or("no function", String::as_str);
    format!("{} is in state {} in {at}", task.comm, task.state)
}

/// `iov wait-blocked PID FUNCTION`, or with `any` for the pid.
pub fn wait_blocked(mut words: Words) -> Ended {
    let (mut whose, mut function, mut within) = (None, None, WITHIN);
    while let Some(next) = words.next()? {
        match next {
            Next::Word(word) if whose.is_none() => whose = Some(Whose::of(&word)?),
            Next::Word(word) if function.is_none() => function = Some(word),
            Next::Option(name) if name == "within" => within = number(&words.value(&name)?, "--within")?,
            other => return Err(other.unknown("wait-blocked")),
        }
    }
    let whose = whose.ok_or_else(|| missing("a pid, or `any`,"))?;
    let function = function.ok_or_else(|| missing("a function"))?;
    let deadline = Instant::now() + Duration::from_secs(within);
    loop {
        let tasks = whose.tasks()?;
        if tasks.iter().any(|task| task.state == 'D' && task.stack.contains(&function)) {
            return Ok(ExitCode::SUCCESS);
        }
        let is_over = tasks.is_empty() && whose != Whose::Any;
        if is_over || Instant::now() >= deadline {
            let now = tasks.iter().take(SHOWN).map(state).collect::<Vec<_>>().join("; ");
            let now = if now.is_empty() { whose.none() } else { &now };
            eprintln!("iov wait-blocked: no task of {whose} waits in {function}: {now}");
            return Ok(ExitCode::FAILURE);
        }
        thread::sleep(POLL);
    }
}
