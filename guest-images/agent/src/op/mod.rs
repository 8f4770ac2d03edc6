//! One operation on the kernel, in a process of its own.
//!
//! The process reads a job from its standard input, writes messages to its standard output, and ends. It has a single
//! thread, as an application has that does one thing after the other. Only a sweep has more threads.

pub(crate) mod attribute;
pub(crate) mod bind;
mod cycle;
mod inventory;
mod own;
mod phy;
mod run;
mod sweep;
mod watch;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use guest_protocol::{Command, Message, OpId, Outcome, Progress, Reply, encode};

use crate::error::{self, AgentError, doing};
use crate::job::{Controls, Job};
use crate::{clock, link, procfs, program};

/// The main function of an operation's process.
pub fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        // The server tells the host that there was no answer. The reason goes to the console.
        Err(error) => {
            eprintln!("iov-agent: an operation failed without an answer: {}", error::chain(&error));
            ExitCode::FAILURE
        }
    }
}

fn serve() -> Result<(), AgentError> {
    let mut controls = doing("take over standard input", Controls::of_stdin)?;
    let job: Option<Job> = doing("read the job", || controls.next())?;
    let Some(job) = job else { return Err(AgentError::Refused("the server sent no job".to_owned())) };
    if let Some(name) = job.command.process() {
        doing("name the process", || program::name_process(name))?;
    }
    let report = Report { id: job.id };
    let outcome = match run(job, &report, &mut controls) {
        Ok(reply) => Outcome::Ok(reply),
        Err(error) => Outcome::Err(error.failure()),
    };
    report.send(&Message::Done { id: report.id, at: clock::now(), outcome })
}

fn run(job: Job, report: &Report, controls: &mut Controls) -> Result<Reply, AgentError> {
    match job.command {
        Command::Read { path } => Ok(Reply::Access(attribute::read(&path))),
        Command::ReadBytes { path, at, length } => Ok(Reply::Access(attribute::read_bytes(&path, at, length))),
        Command::Write { path, data, at, sched } => attribute::write(&path, &data, at, sched).map(Reply::Access),
        Command::List { path } => attribute::list(&path).map(Reply::Names),
        Command::ReadLink { path } => attribute::read_link(&path).map(Reply::Target),
        Command::Bind { bdf, driver } => bind::bind(&bdf, &driver).map(|()| Reply::Nothing),
        Command::Own { devices, steps } => own::own(&devices, &steps, report, controls).map(|()| Reply::Nothing),
        Command::Cycle { writes, rounds } => cycle::cycle(&writes, rounds, controls),
        Command::ReadPhy { ifname, register } => phy::read(&ifname, register, controls),
        Command::Sweep(sweep) => sweep::sweep(&sweep, report).map(Reply::Swept),
        Command::Watch { source, read, sched } => {
            watch::watch(&source, &read, sched, report, controls).map(|()| Reply::Nothing)
        }
        Command::SetLink { ifname, up } => link::set(&ifname, up).map(|()| Reply::Nothing),
        Command::SetVfMac { ifname, vf, mac } => link::set_vf_mac(&ifname, vf, mac).map(|()| Reply::Nothing),
        Command::Run { program, args, env, socket } => {
            run::run(&run::Program { path: &program, args: &args, env: &env, socket }, report, controls)
        }
        Command::Where { .. } => job.target.map_or(Ok(Vec::new()), procfs::tasks_with_session_of).map(Reply::Tasks),
        Command::Tasks { in_functions } => procfs::tasks_in(&in_functions).map(Reply::Tasks),
        Command::Inventory => inventory::take(Path::new("/")).map(Box::new).map(Reply::Inventory),
        Command::Sysrq { key } => attribute::sysrq(key).map(|()| Reply::Nothing),
        Command::Hello
        | Command::PutFile { .. }
        | Command::Continue { .. }
        | Command::Call { .. }
        | Command::Stop { .. }
        | Command::Kill { .. }
        | Command::Alarm { .. }
        | Command::Save
        | Command::HearWords
        | Command::Answer { .. } => {
            Err(AgentError::Refused(format!("cannot {} from a process: only the server can", job.command)))
        }
    }
}

/// Sends messages to the server, through standard output.
struct Report {
    id: OpId,
}

impl Report {
    /// Reports a point that the operation has reached.
    fn progress(&self, progress: Progress) -> Result<(), AgentError> {
        self.send(&Message::Progress { id: self.id, at: clock::now(), progress })
    }

    fn send(&self, message: &Message) -> Result<(), AgentError> {
        doing("report to the server", || {
            let line = encode(message)?;
            let mut stdout = std::io::stdout().lock();
            stdout.write_all(line.as_bytes())?;
            stdout.flush()
        })
    }
}
