//! Runs a program together with everything that it starts. The whole process group is killed when the job is cancelled,
//! when the program ends, and when this process dies.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::event::CancelToken;

/// The shell starts a guard in the background and then becomes the program. Both are in one process group. The guard
/// reads from a pipe whose other end this process holds: when this process dies, in whatever way, the pipe is closed
/// and the guard kills the group. `PR_SET_PDEATHSIG` would reach only the program itself, not the compilers that it has
/// started. make ignores children that it did not start. `nice`, because guests that run at the same time have
/// deadlines, and these programs have none.
const GUARD: &str = "exec 3<&0; { read -r _; kill -KILL 0; } <&3 >/dev/null 2>&1 & exec 3<&-; \
                     exec nice -n 5 \"$@\" </dev/null 2>&1";

/// How often the cancel token is looked at.
const POLL: Duration = Duration::from_millis(100);

/// How long processes that the program left behind may keep its output open before they are killed.
const LINGER: Duration = Duration::from_secs(2);

/// The environment variables that are passed to programs. Others could change what is built (`ARCH`, `CC`, `KCFLAGS`,
/// `MAKEFLAGS`, ...).
const ENVIRONMENT: &[&str] = &[
    "PATH",
    "HOME",
    "TMPDIR",
    "APT_CONFIG",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
];

/// How often to check whether a program has ended that has closed its output. Most programs end sooner than this.
const CLOSING: Duration = Duration::from_millis(2);

/// How many lines of output an error shows.
const TAIL: usize = 20;

/// A program to run, with its arguments and environment.
pub(crate) struct Job {
    program: OsString,
    arguments: Vec<OsString>,
    environment: Vec<(&'static str, OsString)>,
    folder: Option<PathBuf>,
    deadline: Option<Duration>,
}

/// Why a job failed.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// It could not be started.
    #[error("cannot run {program}")]
    Start {
        /// Its name.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// It ended with an error.
    #[error("{program} failed ({status}):\n{tail}")]
    Failed {
        /// Its name.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// The last lines of its output.
        tail: String,
    },
    /// It did not end in time, and was killed.
    #[error("{program} did not end within {} s", deadline.as_secs())]
    Late {
        /// Its name.
        program: String,
        /// The time limit.
        deadline: Duration,
    },
    /// The job was cancelled.
    #[error("cancelled")]
    Cancelled,
}

/// The messages of `ENOSPC` and `EDQUOT`.
const DISK_FULL: [&str; 2] = ["No space left on device", "Disk quota exceeded"];

/// Whether a program's output says that the disk is full, or that the user's quota is used up.
pub(crate) fn says_disk_full(output: &str) -> bool {
    DISK_FULL.iter().any(|message| output.contains(message))
}

impl Job {
    pub(crate) fn new(program: impl AsRef<OsStr>) -> Job {
        Job {
            program: program.as_ref().to_owned(),
            arguments: Vec::new(),
            environment: Vec::new(),
            folder: None,
            deadline: None,
        }
    }

    pub(crate) fn arg(mut self, argument: impl AsRef<OsStr>) -> Job {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    pub(crate) fn args<S: AsRef<OsStr>>(self, arguments: impl IntoIterator<Item = S>) -> Job {
        arguments.into_iter().fold(self, Job::arg)
    }

    pub(crate) fn env(mut self, name: &'static str, value: impl AsRef<OsStr>) -> Job {
        self.environment.push((name, value.as_ref().to_owned()));
        self
    }

    /// The folder to run in.
    pub(crate) fn within(mut self, folder: &Path) -> Job {
        self.folder = Some(folder.to_owned());
        self
    }

    /// The time after which the program is killed.
    pub(crate) fn deadline(mut self, deadline: Duration) -> Job {
        self.deadline = Some(deadline);
        self
    }

    /// Runs the program and waits for its end. Its output is only used if it fails.
    pub(crate) fn run(self, cancel: &CancelToken) -> Result<(), JobError> {
        self.follow(cancel, |_| {})
    }

    /// Runs the program, waits for its end, and returns its output.
    pub(crate) fn output(self, cancel: &CancelToken) -> Result<String, JobError> {
        let mut output = String::new();
        self.follow(cancel, |line| {
            output.push_str(line);
            output.push('\n');
        })?;
        Ok(output)
    }

    /// Runs the program and waits for its end. Each line of its output goes to `on_line`.
    pub(crate) fn lines(self, cancel: &CancelToken, on_line: impl FnMut(&str)) -> Result<(), JobError> {
        self.follow(cancel, on_line)
    }

    /// Runs the program and waits for its end. Each line of its output goes to a log and to `on_line`.
    pub(crate) fn logged(
        self,
        cancel: &CancelToken,
        log: &mut File,
        mut on_line: impl FnMut(&str),
    ) -> Result<(), JobError> {
        self.follow(cancel, |line| {
            // If the log cannot be written (disk full), the build itself may still succeed.
            let _ = writeln!(log, "{line}");
            on_line(line);
        })
    }

    fn follow(self, cancel: &CancelToken, mut on_line: impl FnMut(&str)) -> Result<(), JobError> {
        if cancel.is_cancelled() {
            return Err(JobError::Cancelled);
        }
        let program = self.program.to_string_lossy().into_owned();
        let deadline = self.deadline;
        let until = deadline.map(|deadline| Instant::now() + deadline);
        let mut group = Group::start(self).map_err(|source| JobError::Start { program: program.clone(), source })?;
        let mut tail = Tail::default();
        let status = group
            .follow(cancel, until, |line| {
                tail.push(line);
                on_line(line);
            })
            .map_err(|source| JobError::Start { program: program.clone(), source })?;
        match status {
            None if cancel.is_cancelled() => Err(JobError::Cancelled),
            None => Err(JobError::Late { program, deadline: deadline.unwrap_or_default() }),
            Some(status) if status.success() => Ok(()),
            // The shell exits with 127 if it does not find the program.
            Some(status) if status.code() == Some(127) => {
                Err(JobError::Start { program, source: io::ErrorKind::NotFound.into() })
            }
            Some(status) => Err(JobError::Failed { program, status, tail: tail.text() }),
        }
    }
}

/// The last lines of an output.
#[derive(Default)]
struct Tail(std::collections::VecDeque<String>);

impl Tail {
    fn push(&mut self, line: &str) {
        if self.0.len() == TAIL {
            self.0.pop_front();
        }
        self.0.push_back(line.to_owned());
    }

    fn text(self) -> String {
        Vec::from(self.0).join("\n")
    }
}

/// A running program with all its descendants.
struct Group {
    child: Child,
    id: Option<Pid>,
    /// The child's standard input, which the guard reads from. It is taken out of `child`, because `Child::wait` would
    /// close it, and the guard would then kill the group too early.
    _guard: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Group {
    fn start(job: Job) -> io::Result<Group> {
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(GUARD).arg("sh").arg(&job.program).args(&job.arguments);
        command.env_clear().envs(ENVIRONMENT.iter().filter_map(|name| Some((name, env::var_os(name)?))));
        command.env("LC_ALL", "C").envs(job.environment);
        if let Some(folder) = job.folder {
            command.current_dir(folder);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
        let mut child = command.spawn()?;
        let id = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let guard = child.stdin.take();
        let (sender, lines) = mpsc::channel();
        if let Some(output) = child.stdout.take() {
            thread::spawn(move || {
                for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                    if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                        break;
                    }
                }
            });
        }
        Ok(Group { child, id, _guard: guard, lines })
    }

    /// Passes lines to `on_line` until the program has ended and its output is read. `None` if the job was cancelled, or
    /// was still running at `until`.
    fn follow(
        &mut self,
        cancel: &CancelToken,
        until: Option<Instant>,
        mut on_line: impl FnMut(&str),
    ) -> io::Result<Option<ExitStatus>> {
        let mut ended: Option<(ExitStatus, Instant)> = None;
        let mut silent = false;
        loop {
            if cancel.is_cancelled() || until.is_some_and(|until| Instant::now() > until) {
                return Ok(None);
            }
            match self.lines.recv_timeout(POLL) {
                Ok(line) => {
                    on_line(&line);
                    continue;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) if silent => thread::sleep(CLOSING),
                Err(RecvTimeoutError::Disconnected) => silent = true,
            }
            match ended {
                Some((status, when)) if silent || when.elapsed() > LINGER => return Ok(Some(status)),
                Some(_) => {}
                None => ended = self.child.try_wait()?.map(|status| (status, Instant::now())),
            }
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The guard is alive as long as this process holds the pipe, so no other process group has this number.
        if let Some(id) = self.id {
            let _ = kill_process_group(id, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Job {
        Job::new("sh").arg("-c").arg(script)
    }

    #[test]
    fn stdout_and_stderr_are_read() {
        let output = sh("echo one; echo two >&2").output(&CancelToken::new()).unwrap();
        assert_eq!(output, "one\ntwo\n");
    }

    #[test]
    fn a_failure_shows_the_last_lines() {
        let error = sh("seq 100; exit 3").run(&CancelToken::new()).unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.contains("\n81\n") && !error.contains("\n80\n"), "{error}");
    }

    #[test]
    fn a_program_that_closes_its_output_is_waited_for() {
        let error = sh("exec >&- 2>&-; sleep 0.3; exit 3").run(&CancelToken::new()).unwrap_err().to_string();
        assert!(error.contains("exit status: 3"), "{error}");
    }

    #[test]
    fn a_program_that_does_not_end_in_time_is_killed() {
        let mut descendant = None;
        let job = sh("echo $$; exec sleep 1000").deadline(Duration::from_millis(300));
        let error = job.lines(&CancelToken::new(), |line| descendant = Some(line.to_owned())).unwrap_err();
        assert!(matches!(error, JobError::Late { .. }), "{error}");
        assert_gone(&descendant.unwrap());
    }

    #[test]
    fn a_program_that_is_missing_is_named() {
        let error = Job::new("no-such-program").run(&CancelToken::new()).unwrap_err().to_string();
        assert_eq!(error, "cannot run no-such-program");
    }

    #[test]
    fn only_chosen_environment_variables_are_passed_on() {
        let output = sh("env").env("KBUILD_BUILD_VERSION", "1").output(&CancelToken::new()).unwrap();
        assert!(output.contains("KBUILD_BUILD_VERSION=1") && !output.contains("CARGO"), "{output}");
    }

    #[test]
    fn a_job_is_nicer_than_this_process_by_five() {
        let own = Command::new("nice").output().unwrap();
        let own: i32 = String::from_utf8(own.stdout).unwrap().trim().parse().unwrap();
        let job: i32 = sh("nice").output(&CancelToken::new()).unwrap().trim().parse().unwrap();
        assert!(own < 19, "nothing is nicer than 19: run the tests with a lower nice value");
        assert_eq!(job, (own + 5).min(19));
    }

    #[test]
    fn cancelling_kills_descendants() {
        let folder = tempfile::tempdir().unwrap();
        let cancel = CancelToken::new();
        let begun = Instant::now();
        let mut descendant = None;
        let result = sh("sleep 1000 & echo $!; wait").within(folder.path()).follow(&cancel, |line| {
            descendant = Some(line.to_owned());
            cancel.cancel();
        });
        assert!(matches!(result, Err(JobError::Cancelled)));
        assert!(begun.elapsed() < Duration::from_secs(5));
        assert_gone(&descendant.unwrap());
    }

    #[test]
    fn processes_that_a_program_leaves_behind_are_killed() {
        let mut descendant = None;
        let result = sh("sleep 1000 & echo $!").follow(&CancelToken::new(), |line| descendant = Some(line.to_owned()));
        assert!(result.is_ok());
        assert_gone(&descendant.unwrap());
    }

    #[test]
    fn the_group_is_killed_when_the_pipe_closes() {
        let mut group = Group::start(sh("trap '' HUP TERM; sleep 1000 & echo $!; wait")).unwrap();
        let descendant = group.lines.recv_timeout(Duration::from_secs(5)).unwrap();
        // The kernel closes the pipe like this when this process dies.
        group._guard = None;
        assert_gone(&descendant);
    }

    /// Waits until a process is gone, or is a zombie.
    fn assert_gone(process: &str) {
        let deadline = Instant::now() + Duration::from_secs(5);
        while let Ok(status) = std::fs::read_to_string(format!("/proc/{process}/stat")) {
            if status.contains(") Z ") {
                return;
            }
            assert!(Instant::now() < deadline, "still there: {status}");
            thread::yield_now();
        }
    }
}
