//! Reads every attribute of some folders at the same time, to find those whose access does not end.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use guest_protocol::{Access, Progress, Sched, Sweep, Swept, TaskState, Waiting};

use super::{Report, attribute};
use crate::error::{AgentError, doing};
use crate::{clock, procfs};

/// Stack of a thread. It needs a page to read into, and little else.
const STACK: usize = 64 << 10;
/// The longest value of an attribute in sysfs.
const PAGE: usize = 4096;
/// How many characters of a value are reported. No verdict depends on a longer value.
const TOLD: usize = 80;
/// After so many quiet periods, tasks in R state count as waiting too. A task that tries to take a lock again and again
/// never sleeps (`net/core/net-sysfs.c`, `restart_syscall()`).
const ROUNDS: u32 = 4;

/// A message from a thread.
enum Word {
    /// It begins an access.
    Began { tid: i32, path: Arc<str>, write: bool, since: u64 },
    /// The access has ended.
    Ended { tid: i32, swept: Result<Swept, AgentError> },
}

/// An access that has begun.
struct Begun {
    path: Arc<str>,
    write: bool,
    since: u64,
}

/// Accesses all attributes, and reports once which accesses have not ended.
pub fn sweep(sweep: &Sweep, report: &Report) -> Result<Vec<Swept>, AgentError> {
    let mut paths = Vec::new();
    for folder in &sweep.folders {
        doing(&format!("list {folder}"), || find(Path::new(folder), &sweep.leave_out, &mut paths))?;
    }
    let (sender, words) = channel();
    for path in paths {
        let back = sweep.write_back.iter().any(|name| path.rsplit('/').next() == Some(name));
        let sender = sender.clone();
        let started = thread::Builder::new().stack_size(STACK).spawn(move || attempt(&path.into(), back, &sender));
        doing("start a thread", || started)?;
    }
    drop(sender);
    gather(&words, Duration::from_millis(sweep.quiet_ms), report)
}

/// Finds the readable files in and below a folder. Files that are removed meanwhile are left out.
fn find(folder: &Path, leave_out: &[String], paths: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // Neither of these follows a symbolic link.
        let (Ok(kind), Ok(metadata)) = (entry.file_type(), entry.metadata()) else { continue };
        if leave_out.contains(&name) {
            continue;
        }
        if kind.is_dir() {
            match find(&entry.path(), leave_out, paths) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                found => found?,
            }
        } else if !kind.is_symlink() && metadata.permissions().mode() & 0o400 != 0 {
            paths.push(entry.path().to_string_lossy().into_owned());
        }
    }
    Ok(())
}

/// Reads an attribute. If `back` is set and it has a value, writes the value back. Messages that are sent after the
/// sweep has failed are lost.
fn attempt(path: &Arc<str>, back: bool, sender: &Sender<Word>) {
    let tid = nix::unistd::gettid().as_raw();
    let told = |write: bool, access: &mut dyn FnMut() -> Result<Access, AgentError>| {
        let _ = sender.send(Word::Began { tid, path: path.clone(), write, since: clock::now() });
        let done = access();
        let value = done.as_ref().ok().and_then(|access| access.value.clone().ok());
        let swept = done.map(|access| Swept { write, access: shortened(access) });
        let _ = sender.send(Word::Ended { tid, swept });
        value
    };
    let value = told(false, &mut || Ok(attribute::read_into(path, &mut [0; PAGE])));
    // Without a value, some attributes show `(null)`: `%s` of a null pointer. It must not be written back.
    if let Some(value) = value.filter(|value| back && value != "(null)") {
        told(true, &mut || attribute::write(path, &value, 0, Sched::default()));
    }
}

fn shortened(mut access: Access) -> Access {
    access.value = access.value.map(|value| value.chars().take(TOLD).collect());
    access
}

/// Receives the messages of all threads until they end. If no access ends for the time `quiet`, and the remaining
/// threads seem to wait, reports the accesses that have not ended.
fn gather(words: &Receiver<Word>, quiet: Duration, report: &Report) -> Result<Vec<Swept>, AgentError> {
    let mut begun: BTreeMap<i32, Begun> = BTreeMap::new();
    let mut ended = Vec::new();
    let mut rounds = 0;
    let mut told = false;
    loop {
        let word =
            if told { words.recv().map_err(|_| RecvTimeoutError::Disconnected) } else { words.recv_timeout(quiet) };
        match word {
            Ok(Word::Began { tid, path, write, since }) => drop(begun.insert(tid, Begun { path, write, since })),
            Ok(Word::Ended { tid, swept }) => {
                begun.remove(&tid);
                ended.push(swept?);
                rounds = 0;
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(ended),
            Err(RecvTimeoutError::Timeout) => {
                rounds += 1;
                let (waiting, all) = waiting(&begun)?;
                if rounds >= ROUNDS || all && waiting.iter().all(|waiting| waiting.task.state != 'R') {
                    report.progress(Progress::Waiting(waiting))?;
                    told = true;
                }
            }
        }
    }
}

/// The accesses that have begun and not ended, and whether all threads are at such an access. A thread that has not
/// begun its access only waits for a CPU.
fn waiting(begun: &BTreeMap<i32, Begun>) -> Result<(Vec<Waiting>, bool), AgentError> {
    let mut tasks = procfs::tasks_of(std::process::id() as i32)?;
    tasks.retain(|task| task.tid != task.pid);
    let threads = tasks.len();
    let waiting = |task: TaskState| {
        let Begun { path, write, since } = begun.get(&task.tid)?;
        Some(Waiting { path: path.to_string(), write: *write, since: *since, task })
    };
    let waiting: Vec<_> = tasks.into_iter().filter_map(waiting).collect();
    let all = waiting.len() == threads;
    Ok((waiting, all))
}
