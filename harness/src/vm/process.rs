//! A QEMU process: it dies with the harness, and what it said goes into every error about it.

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

/// A running QEMU. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    end: End,
    said: Said,
    keeper: JoinHandle<()>,
}

/// The end of a QEMU, for those who wait for it, or for something else of QEMU's. It does not keep QEMU alive.
#[derive(Clone, Debug)]
pub struct End {
    ended: watch::Receiver<Option<Ended>>,
    starved: Starved,
}

/// The last lines of a stderr.
#[derive(Clone, Debug, Default)]
struct Said(Arc<Mutex<VecDeque<String>>>);

/// QEMU could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot start {program}: {source}", program = program.display())]
pub struct SpawnError {
    program: PathBuf,
    source: std::io::Error,
}

/// Lines of QEMU's stderr that an error repeats.
const KEPT: usize = 12;

/// The QEMU to run: `IOV_REGRESS_QEMU`, else `qemu-system-x86_64` on the path.
pub fn program() -> OsString {
    std::env::var_os("IOV_REGRESS_QEMU").filter(|path| !path.is_empty()).unwrap_or_else(|| "qemu-system-x86_64".into())
}

/// What a QEMU prints of its version; nothing if it cannot be run.
pub fn banner(program: &OsStr) -> String {
    let output = std::process::Command::new(program).arg("--version").output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

/// What tells a QEMU from another that prints the same version: where the file is, its size, and when it was changed
/// (nanoseconds since 1970). Nothing if there is no such file.
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
    /// Starts QEMU. It is in a process group of its own, so that a terminal's Ctrl-C reaches the harness alone, and the
    /// kernel kills it when the harness dies (`setpriv` of util-linux sets that up and becomes QEMU).
    ///
    /// # Errors
    /// [`SpawnError`].
    pub fn start(program: &OsStr, argv: &[String]) -> Result<Process, SpawnError> {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program).args(argv);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command.process_group(0).kill_on_drop(true);
        let mut child =
            command.spawn().map_err(|source| SpawnError { program: Path::new("setpriv").into(), source })?;
        let stderr = child.stderr.take();
        let starved = child.id().map_or_else(Starved::never, Starved::process);
        let (tell, ended) = watch::channel(None);
        let said = Said::default();
        let hear = said.clone();
        let keeper = tokio::spawn(async move {
            let ended = keep(child, stderr, hear).await;
            let _ = tell.send(Some(ended));
        });
        Ok(Process { end: End { ended, starved }, said, keeper })
    }

    /// Its end.
    pub fn end(&self) -> End {
        self.end.clone()
    }

    /// This, with the last lines of QEMU's stderr so far.
    pub fn in_its_words(&self, what: &str) -> String {
        let mut words = what.to_owned();
        // Writing to a string does not fail.
        let _ = it_said(&mut words, &self.said.lines());
        words
    }
}

impl End {
    /// Waits for the end of QEMU and returns how it came.
    pub async fn wait(&self) -> Ended {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await.map(|ended| ended.clone()) {
            Ok(Some(ended)) => ended,
            // The keeper is gone without a word: it was aborted, which kills QEMU.
            _ => Ended::killed(),
        }
    }

    /// How it came, if it has come.
    pub fn now(&self) -> Option<Ended> {
        self.ended.borrow().clone()
    }

    /// How long QEMU has waited for the host's CPUs.
    pub fn starved(&self) -> &Starved {
        &self.starved
    }
}

impl Said {
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

/// What QEMU says of every guest of ours, and means nothing by: the network cards' cables lead nowhere, as intended.
fn is_known(line: &str) -> bool {
    line.contains("warning: hub ") && line.ends_with(" is not connected to host network")
}

async fn keep(mut child: Child, stderr: Option<ChildStderr>, said: Said) -> Ended {
    let listen = async {
        let Some(stderr) = stderr else { return };
        let mut lines = BufReader::new(stderr).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if !is_known(&line) {
                said.push(line);
            }
        }
    };
    let (status, ()) = tokio::join!(child.wait(), listen);
    Ended::of(status, said.lines())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_qemu_is_known_by_its_file() {
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
        // A bare name is looked for on the path.
        assert!(identity("sh".as_ref()).starts_with('/'));
    }

    #[tokio::test]
    async fn a_bad_argument_is_told_in_its_own_words() {
        // Needs no QEMU: without one, setpriv itself says what it could not execute.
        let process = Process::start(&program(), &["-no-such-option".to_owned()]).unwrap();
        let ended = tokio::time::timeout(std::time::Duration::from_secs(20), process.end().wait()).await.unwrap();
        let told = ended.to_string();
        assert!(told.starts_with("QEMU ended (exit status: ") && told.contains("it said: "), "{told}");
        assert!(!ended.is_crash() && !ended.is_success());
    }
}
