//! A QEMU process. It is killed when the harness ends. Errors about it contain the last lines of its stderr.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStderr, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::ended::{Ended, it_said};
use super::starved::Starved;
use super::time::Time;

/// A running QEMU. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    pid: Option<u32>,
    end: End,
    stderr: LastLines,
    keeper: JoinHandle<()>,
}

/// A handle to wait for the end of a QEMU process. It does not keep QEMU running.
#[derive(Clone, Debug)]
pub struct End {
    ended: watch::Receiver<Option<Ended>>,
    time: Time,
}

/// The last lines of a stderr.
#[derive(Clone, Debug, Default)]
struct LastLines(Arc<Mutex<VecDeque<String>>>);

/// QEMU could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot start {program}: {source}", program = program.display())]
pub struct SpawnError {
    program: PathBuf,
    source: std::io::Error,
}

/// Maximum number of lines of QEMU's stderr in an error.
const KEPT: usize = 12;

/// The QEMU to run: `IOV_REGRESS_QEMU` if set, otherwise `qemu-system-x86_64` in `PATH`.
pub fn program() -> OsString {
    std::env::var_os("IOV_REGRESS_QEMU").filter(|path| !path.is_empty()).unwrap_or_else(|| "qemu-system-x86_64".into())
}

/// The output of `--version`; empty if QEMU cannot be run.
pub fn banner(program: &OsStr) -> String {
    let output = std::process::Command::new(program).arg("--version").output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

/// The identity of a QEMU executable, which differs between builds of the same version: path, size, and time of the
/// last change (seconds since 1970, with nanoseconds). Empty if there is no such file.
pub fn identity(program: &OsStr) -> String {
    let paths = match Path::new(program) {
        path if path.components().count() > 1 => vec![path.to_owned()],
        name => {
            std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).map(|dir| dir.join(name)).collect()
        }
    };
    let known = |path: &PathBuf| {
        let path = path.canonicalize().ok()?;
        let file = path.metadata().ok().filter(Metadata::is_file)?;
        Some(format!("{} {} {}.{:09}", path.display(), file.size(), file.mtime(), file.mtime_nsec()))
    };
    paths.iter().find_map(known).unwrap_or_default()
}

impl Process {
    /// Starts QEMU in a separate process group, so that Ctrl-C in a terminal reaches only the harness. The host's
    /// kernel kills QEMU when the harness dies: `setpriv` of util-linux sets that up and then executes QEMU. `time` is
    /// the guest's: [`Time::host`] or [`Time::guest`].
    ///
    /// # Errors
    /// [`SpawnError`].
    pub fn start(program: &OsStr, argv: &[String], time: fn(Starved) -> Time) -> Result<Process, SpawnError> {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program).args(argv);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command.process_group(0).kill_on_drop(true);
        let mut child =
            command.spawn().map_err(|source| SpawnError { program: Path::new("setpriv").into(), source })?;
        let stderr = child.stderr.take();
        // QEMU has the pid of `setpriv`, which executes it.
        let pid = child.id();
        let starved = pid.map_or_else(Starved::never, Starved::process);
        let (tell, ended) = watch::channel(None);
        let last = LastLines::default();
        let lines = last.clone();
        let keeper = tokio::spawn(async move {
            let ended = keep(child, stderr, lines).await;
            let _ = tell.send(Some(ended));
        });
        Ok(Process { pid, end: End { ended, time: time(starved) }, stderr: last, keeper })
    }

    /// Its pid. None if it had ended when it was to be read.
    pub fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// A handle to wait for its end.
    pub fn end(&self) -> End {
        self.end.clone()
    }

    /// A message, followed by the last lines of QEMU's stderr so far.
    pub fn with_stderr(&self, what: &str) -> String {
        let mut message = what.to_owned();
        // Writing to a string does not fail.
        let _ = it_said(&mut message, &self.stderr.lines());
        message
    }
}

impl End {
    /// Waits until QEMU has ended, and returns how it ended.
    pub async fn wait(&self) -> Ended {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await.map(|ended| ended.clone()) {
            Ok(Some(ended)) => ended,
            // The keeper task was aborted, which kills QEMU.
            _ => Ended::killed(),
        }
    }

    /// How QEMU ended, if it has ended.
    pub fn now(&self) -> Option<Ended> {
        self.ended.borrow().clone()
    }

    /// The time in which waits for its guest are measured.
    pub fn time(&self) -> &Time {
        &self.time
    }

    /// How long QEMU has waited for a host CPU.
    pub fn starved(&self) -> &Starved {
        self.time.starved()
    }
}

impl LastLines {
    fn push(&self, line: String) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == KEPT {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

/// Whether this is QEMU's warning about the network cables. Every guest causes it, as the cables are not connected on
/// purpose.
fn is_cable_warning(line: &str) -> bool {
    line.contains("warning: hub ") && line.ends_with(" is not connected to host network")
}

async fn keep(mut child: Child, stderr: Option<ChildStderr>, last: LastLines) -> Ended {
    let listen = async {
        let Some(stderr) = stderr else { return };
        let mut lines = BufReader::new(stderr).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if !is_cable_warning(&line) {
                last.push(line);
            }
        }
    };
    let (status, ()) = tokio::join!(child.wait(), listen);
    Ended::of(status, last.lines())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_qemu_is_identified_by_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let [one, other] = ["one", "other"].map(|name| folder.path().join(name));
        for path in [&one, &other] {
            std::fs::write(path, "QEMU").unwrap();
        }
        let before = identity(one.as_os_str());
        assert!(before.contains("/one 4 "), "{before}");
        assert_eq!(identity(one.as_os_str()), before);
        assert_ne!(identity(other.as_os_str()), before);
        std::fs::write(&one, "QEMU, newer").unwrap();
        assert_ne!(identity(one.as_os_str()), before);
        assert_eq!(identity(folder.path().join("none").as_os_str()), "");
        // A name without a folder is searched in PATH.
        assert!(identity("sh".as_ref()).starts_with('/'));
    }

    #[tokio::test]
    async fn the_error_after_a_bad_argument_contains_stderr() {
        // This needs no QEMU: without one, setpriv reports that it could not execute it.
        let process = Process::start(&program(), &["-no-such-option".to_owned()], Time::host).unwrap();
        let ended = tokio::time::timeout(std::time::Duration::from_secs(20), process.end().wait()).await.unwrap();
        let text = ended.to_string();
        assert!(text.starts_with("QEMU ended (exit status: ") && text.contains("it said: "), "{text}");
        assert!(!ended.is_crash() && !ended.is_success());
    }
}
