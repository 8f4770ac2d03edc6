//! Running short commands, with a deadline.

use std::io::{self, Read, Seek};
use std::process::{Command, Stdio};
use std::time::Duration;

use wait_timeout::ChildExt;

use crate::text::duration;

/// Why a command gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It could not be started.
    #[error("cannot run `{program}`")]
    Start {
        /// The program.
        program: String,
        /// Why not.
        source: io::Error,
    },
    /// What it printed could not be kept.
    #[error("cannot keep what `{program}` prints")]
    Output {
        /// The program.
        program: String,
        /// Why not.
        source: io::Error,
    },
    /// It did not end in time, and was killed.
    #[error("`{program}` did not end within {}", duration(*deadline))]
    Deadline {
        /// The program.
        program: String,
        /// The time that it had.
        deadline: Duration,
    },
    /// It failed.
    #[error("`{program}` failed ({status}){}{stderr}", if stderr.is_empty() { "" } else { ": " })]
    Failed {
        /// The program.
        program: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// What it said about it.
        stderr: String,
    },
}

/// Runs a command and returns what it printed. Its words stay English, as our parsers expect.
pub(super) fn stdout_of(command: &mut Command, deadline: Duration) -> Result<String, CommandError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let keep = |source| CommandError::Output { program: program.clone(), source };
    // Files rather than pipes: nobody needs to read along, and no grandchild can keep us waiting for their end.
    let mut stdout = tempfile::tempfile().map_err(keep)?;
    let mut stderr = tempfile::tempfile().map_err(keep)?;
    command
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(stdout.try_clone().map_err(keep)?)
        .stderr(stderr.try_clone().map_err(keep)?);
    let status = run(command, deadline)?;
    let text = |file: &mut std::fs::File| {
        let mut bytes = Vec::new();
        file.rewind().and_then(|()| file.read_to_end(&mut bytes)).map_err(keep)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    if status.success() {
        return text(&mut stdout);
    }
    let stderr = text(&mut stderr)?.trim().to_owned();
    Err(CommandError::Failed { program, status, stderr })
}

/// Runs a command to its end, or kills it when the deadline has passed.
pub(super) fn run(command: &mut Command, deadline: Duration) -> Result<std::process::ExitStatus, CommandError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let start = |source| CommandError::Start { program: program.clone(), source };
    let mut child = command.spawn().map_err(start)?;
    if let Some(status) = child.wait_timeout(deadline).map_err(start)? {
        return Ok(status);
    }
    // Under sudo it is not ours to kill; then there is nothing to wait for either.
    if child.kill().is_ok() {
        let _ = child.wait();
    }
    Err(CommandError::Deadline { program, deadline })
}

/// Whether there is a program of this name on `PATH`.
pub(super) fn on_path(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(program).is_file()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn what_is_printed_comes_back() {
        assert_eq!(stdout_of(&mut sh("echo hello; echo noise >&2"), SOON).unwrap(), "hello\n");
    }

    #[test]
    fn a_failure_carries_what_was_said() {
        let error = stdout_of(&mut sh("echo why >&2; exit 3"), SOON).unwrap_err();
        assert!(matches!(&error, CommandError::Failed { stderr, .. } if stderr == "why"), "{error}");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = stdout_of(&mut Command::new("no-such-program-here"), SOON).unwrap_err();
        assert_eq!(error.to_string(), "cannot run `no-such-program-here`");
    }

    #[test]
    fn a_command_that_does_not_end_is_ended() {
        let error = stdout_of(&mut sh("exec sleep 60"), Duration::from_millis(50)).unwrap_err();
        assert!(matches!(error, CommandError::Deadline { .. }), "{error}");
    }
}
