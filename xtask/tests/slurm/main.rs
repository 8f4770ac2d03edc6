//! A run as jobs of a real Slurm, with real kernels in guests. One node dies while it runs a part.
//!
//! Without Slurm on this machine the tests say so and pass: `apt-get install slurm-wlm munge`.

mod cluster;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use cluster::Cluster;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Cells of two kernels: some pass, some fail as they should.
const CELLS: [&str; 8] =
    ["--kernels", "stock,candidate", "--scenarios", "numvfs_events::*", "--triggers", "none", "--jobs", "1"];

/// How long anything here may take. The machine may be busy, and kernels may have to be built first.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Whether there is a Slurm to test with. If not, says so, past the capture of the test's output.
fn is_possible() -> bool {
    let missing = cluster::missing();
    if !missing.is_empty() {
        let line = format!(
            "skipped: not tested with Slurm, because {} is not installed (apt-get install slurm-wlm munge)\n",
            missing.join(", ")
        );
        std::io::stderr().write_all(line.as_bytes()).unwrap();
    }
    missing.is_empty()
}

fn xtask(arguments: &[&str], out: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args(["run-matrix"]).args(CELLS).arg("--out").arg(out).args(arguments).stdin(Stdio::null());
    command
}

/// A command whose stderr is read line by line.
struct Running {
    child: Child,
    lines: Receiver<String>,
    said: Vec<String>,
}

impl Running {
    fn start(mut command: Command) -> Running {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Running { child, lines, said: Vec::new() }
    }

    /// The next line that fits.
    fn line(&mut self, fits: impl Fn(&str) -> bool) -> String {
        loop {
            let line = self.lines.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|error| panic!("{error}: {:#?}", self.said));
            self.said.push(line.clone());
            if fits(&line) {
                return line;
            }
        }
    }

    /// The folder with the scripts and parts.
    fn place(&mut self) -> PathBuf {
        let line = self.line(|line| line.starts_with("jobs "));
        line.rsplit_once(" in ").unwrap().1.into()
    }

    fn ended(mut self) -> (Option<i32>, String) {
        let until = Instant::now() + PATIENCE;
        while self.child.try_wait().unwrap().is_none() {
            self.said.extend(self.lines.recv_timeout(Duration::from_millis(200)));
            assert!(Instant::now() < until, "it does not end: {:#?}", self.said);
        }
        self.said.extend(self.lines.iter());
        (self.child.wait().unwrap().code(), self.said.join("\n"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A test that fails must not leave it behind.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Each cell of a run, with its verdict.
fn verdicts(results: &Path) -> BTreeMap<String, String> {
    let json: Value = serde_json::from_slice(&fs::read(results).unwrap()).unwrap();
    let mut verdicts = BTreeMap::new();
    for cell in json["cells"].as_array().unwrap() {
        let name = ["scenario", "topology", "trigger", "variant", "repeat"].map(|key| cell[key].to_string()).join(" ");
        let verdict = format!("{} {} {}", cell["outcome"], cell["failure"]["kind"], cell["as_expected"]);
        assert_eq!(verdicts.insert(name.clone(), verdict), None, "{name} is there twice");
    }
    verdicts
}

/// A part that runs a cell, and the node it runs on.
fn busy(place: &Path) -> Option<(u32, String)> {
    (1..=4).find_map(|part| {
        let run = place.join(format!("parts/{part}/latest"));
        let mut cells = fs::read_dir(&run).ok()?.flatten().map(|entry| entry.path());
        let runs = cells.any(|cell| cell.join("start.json").is_file() && !cell.join("verdict.json").is_file());
        runs.then_some((part, String::new()))
    })
}

#[test]
fn a_run_on_three_nodes_of_which_one_dies_is_that_of_one_machine() {
    if !is_possible() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let alone = folder.path().join("alone");
    let (code, said) = Running::start(xtask(&[], &alone)).ended();
    assert_eq!(code, Some(0), "{said}");

    let cluster = Cluster::start();
    // Slurm would replace `%j` in the name of a log, and ends it at a space.
    let out = folder.path().join("to gether %j");
    let mut command = xtask(&["--on", "slurm", "--parts", "4", "--", "--cpus-per-task=1"], &out);
    let mut run = Running::start({
        command.env("SLURM_CONF", cluster.conf());
        command
    });
    let place = run.place();
    let mut nodes = BTreeMap::new();
    let (killed, node) = loop {
        run.said.extend(run.lines.recv_timeout(Duration::from_millis(50)));
        for line in &run.said {
            if let Some((part, node)) = line.split_once(": running ") {
                nodes.insert(part.to_owned(), node.to_owned());
            }
        }
        let victim = busy(&place).and_then(|(part, _)| Some((part, nodes.get(&format!("part {part}"))?.clone())));
        if let Some(victim) = victim {
            break victim;
        }
        assert!(run.child.try_wait().unwrap().is_none(), "it ended: {:#?}", run.said);
    };
    cluster.kill_node(&node);
    let (code, said) = run.ended();
    assert_eq!(code, Some(0), "{said}\n{}", cluster.logs());
    assert_eq!(verdicts(&out.join("latest/results.json")), verdicts(&alone.join("latest/results.json")));
    for log in ["build.log", "part-1.log", "part-4.log", "merge.log"] {
        assert!(place.join(log).is_file(), "no {log} in {}", place.display());
    }
    let tries = fs::read_dir(place.join(format!("parts/{killed}"))).unwrap().flatten();
    let tries = tries.filter(|entry| entry.file_type().unwrap().is_dir()).count();
    assert_eq!(tries, 2, "part {killed}, whose node {node} died, did not run again: {said}");
}

#[test]
fn ctrl_c_cancels_the_jobs() {
    if !is_possible() {
        return;
    }
    let (cluster, out) = (Cluster::start(), tempfile::tempdir().unwrap());
    let mut command = xtask(&["--on", "slurm", "--", "--hold"], out.path());
    command.env("SLURM_CONF", cluster.conf());
    let mut run = Running::start(command);
    let place = run.place();
    kill_process(Pid::from_child(&run.child), Signal::INT).unwrap();
    let (code, said) = run.ended();
    assert_eq!(code, Some(130), "{said}");
    assert!(said.contains("were cancelled") && said.contains(place.to_str().unwrap()), "{said}");
    let mut squeue = Command::new("squeue");
    let left = squeue.args(["--noheader"]).env("SLURM_CONF", cluster.conf()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&left.stdout), "");
}

#[test]
fn without_slurm_the_error_says_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = xtask(&["--on", "slurm"], folder.path());
    let output = command.env("PATH", folder.path()).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(message.contains("cannot run `sbatch`"), "{message}");
    let shown = xtask(&["--on", "slurm", "--parts", "7", "--dry-run"], folder.path()).output().unwrap();
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("#SBATCH --array=1-7") && shown.contains("plan.json:\"$SLURM_ARRAY_TASK_ID\"/7"), "{shown}");
}
