//! Whether cells leak resources in the process that runs them, or outside of it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::{Measurement, Unit};
use crate::progress::{Event, Progress};
use crate::vm::sockets;

/// How much the memory of this process may grow from a quarter of the cells to all of them, in KiB. This detects a log
/// that is kept for each cell: the console of a cell is about 20 KiB, and its agent's channel as much again.
const GROWTH_KIB: u64 = 8 * 1024;

/// How long killed processes may take to exit.
const SETTLE: Duration = Duration::from_secs(20);

/// The resources that a run could leak.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traces {
    /// Processes whose command line names a folder of this harness's sockets, and children of this process: `PID
    /// (comm)`. Zombies count too.
    pub processes: BTreeSet<String>,
    /// Folders of sockets.
    pub sockets: BTreeSet<String>,
    /// Mounts that this process sees, by mount point.
    pub mounts: BTreeSet<String>,
    /// How many files, sockets and pipes this process has open.
    pub descriptors: usize,
}

impl Traces {
    /// The resources at this moment.
    pub fn now() -> Traces {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        Traces {
            processes: names("/proc".as_ref()).filter_map(|pid| own_process(&pid)).collect(),
            sockets: names(&std::env::temp_dir()).filter(|name| name.starts_with(&sockets::prefix())).collect(),
            mounts: mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(str::to_owned).collect(),
            // One of them is the folder that is being listed. It counts in each call, so differences are exact.
            descriptors: names("/proc/self/fd".as_ref()).count(),
        }
    }

    /// The resources that were not in `before`, one line each.
    pub fn beyond(&self, before: &Traces) -> Vec<String> {
        let new = |kind: &str, now: &BTreeSet<String>, then: &BTreeSet<String>| -> Vec<String> {
            now.difference(then).map(|name| format!("{kind}: {name}")).collect()
        };
        let mut lines = new("process", &self.processes, &before.processes);
        lines.extend(new("sockets", &self.sockets, &before.sockets));
        lines.extend(new("mount", &self.mounts, &before.mounts));
        if self.descriptors > before.descriptors {
            lines.push(format!("open files: {}, and {} before", self.descriptors, before.descriptors));
        }
        lines
    }

    /// The resources that were not in `before`, after processes had time to exit.
    pub async fn left(before: &Traces) -> Vec<String> {
        let began = Instant::now();
        loop {
            let left = Traces::now().beyond(before);
            if left.is_empty() || began.elapsed() > SETTLE {
                return left;
            }
            // There is no event for the exit of a process that is not a child of this one.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn names(folder: &Path) -> impl Iterator<Item = String> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name().to_string_lossy().into_owned())
}

/// A process, if it is a child of this one or its command line names one of our sockets.
fn own_process(pid: &str) -> Option<String> {
    let folder = Path::new("/proc").join(pid);
    pid.parse::<u32>().ok()?;
    let stat = fs::read_to_string(folder.join("stat")).ok()?;
    let (name, rest) = stat.rsplit_once(')')?;
    let parent = rest.split_whitespace().nth(1)?;
    let command = fs::read(folder.join("cmdline")).unwrap_or_default();
    let has_socket = String::from_utf8_lossy(&command).contains(&sockets::prefix());
    (parent == std::process::id().to_string() || has_socket).then(|| format!("{name})"))
}

/// The resident memory of this process, in KiB (`VmRSS`, proc_pid_status(5)).
fn memory_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Passes on the progress of a run, and measures the memory of this process after a quarter of the cells.
pub struct Watch<'a> {
    inner: &'a dyn Progress,
    quarter: usize,
    finished: AtomicUsize,
    early_kib: Mutex<Option<u64>>,
}

impl Watch<'_> {
    /// Watches a run of this many cells.
    pub fn new(inner: &dyn Progress, cells: usize) -> Watch<'_> {
        Watch { inner, quarter: cells.div_ceil(4), finished: AtomicUsize::new(0), early_kib: Mutex::default() }
    }

    /// What a run leaked, one line each. To be called after all cells. Adds its figures to the measurement.
    pub async fn conclude(&self, before: &Traces, measurement: &mut Measurement) -> Vec<String> {
        let mut left = Traces::left(before).await;
        let (finished, late) = (self.finished.load(Ordering::Relaxed), memory_kib());
        let early = self.early_kib.lock().ok().and_then(|early| *early).unwrap_or(late);
        measurement.add("cells", finished as f64, Unit::Count);
        measurement.add("memory after a quarter of the cells", early as f64 / 1024.0, Unit::Mebibytes);
        measurement.add("memory after all cells", late as f64 / 1024.0, Unit::Mebibytes);
        if late > early + GROWTH_KIB {
            left.push(format!("memory: {late} KiB after all cells, {early} KiB after a quarter of them"));
        }
        measurement.add("leaks", left.len() as f64, Unit::Count);
        left
    }
}

impl Progress for Watch<'_> {
    fn event(&self, event: Event<'_>) {
        if matches!(event, Event::CellFinished { .. })
            && self.finished.fetch_add(1, Ordering::Relaxed) + 1 == self.quarter
            && let Ok(mut early) = self.early_kib.lock()
        {
            *early = Some(memory_kib());
        }
        self.inner.event(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silence;
    use crate::verdict::Verdict;

    #[test]
    fn leaks_are_found() {
        let before = Traces::now();
        let folder = sockets::folder().unwrap();
        // More than the other tests open and close at the same time.
        let files: Vec<_> = (0..200).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let now = Traces { mounts: ["/left".to_owned()].into(), ..Traces::now() };
        let left = now.beyond(&Traces { mounts: BTreeSet::new(), ..before }).join("\n");
        child.kill().unwrap();
        child.wait().unwrap();
        drop((folder, files));
        for part in ["(sleep)", "sockets: iov-regress-", "mount: /left", "open files: "] {
            assert!(left.contains(part), "no {part} in: {left}");
        }
        assert!(now.beyond(&now).is_empty());
    }

    #[tokio::test]
    async fn growth_of_memory_is_reported() {
        let mut measurement = Measurement { setup: Vec::new(), figures: Vec::new() };
        let watch = Watch::new(&Silence, 4);
        for _ in 0..4 {
            let (verdict, took) = (&Verdict::Pass, Duration::ZERO);
            watch.event(Event::CellFinished { cell: "c", verdict, unexpected: false, took });
        }
        let early = watch.early_kib.lock().unwrap().unwrap();
        assert!(early > 0);
        *watch.early_kib.lock().unwrap() = Some(0);
        // The descriptors of other tests, which run at the same time, must not count.
        let before = Traces { descriptors: usize::MAX, ..Traces::now() };
        let left = watch.conclude(&before, &mut measurement).await;
        assert!(left.iter().any(|line| line.starts_with("memory: ")), "{left:?}");
    }
}
