//! The folder of one cell.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::{EvidenceError, JsonlWriter, file};
use crate::cell::CellId;
use crate::classify::{Splat, SplatKind};
use crate::notes::Notes;
use crate::verdict::{Expected, Verdict};
use crate::waits::{Graph, words};

/// The description of a cell, which is written before the cell begins (`start.json`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CellStart {
    /// The cell.
    pub cell: CellId,
    /// The expected result.
    pub expected: Expected,
    /// QEMU's command line. Empty if QEMU is not started.
    pub argv: Vec<String>,
    /// The kernel. None if it did not build.
    pub kernel: Option<KernelNote>,
    /// The command line options that name the kernel, if it comes from the user's tree or from a series.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub own: Vec<String>,
    /// The script, if the scenario is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<ScriptNote>,
    /// `kvm` or `tcg`.
    pub accel: String,
    /// Versions of the programs that take part (`qemu`, `harness`, ...), by name.
    pub versions: BTreeMap<String, String>,
}

/// A script that is a scenario.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScriptNote {
    /// The name of its copy in the folder of the cell.
    pub copy: String,
    /// Its text. Bytes that are no UTF-8 are replaced.
    pub text: String,
    /// The words of `cargo xtask run` that name it. None if the copy is enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub again: Option<Vec<String>>,
}

/// The folder of a cell's folder with its script.
const SCRIPT: &str = "script";

/// The file of a cell's folder with what its script printed.
pub const OUTPUT: &str = "output.log";

/// Identifies a kernel exactly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelNote {
    /// Its key in the cache: a hash of everything that it was built from.
    pub key: String,
    /// `uname -r`.
    pub release: String,
}

/// The file of a cell's folder with the guest's serial console.
pub const CONSOLE: &str = "console.log";

/// The file of a cell's folder with the dump of the guest's memory.
pub const DUMP: &str = "memory.kdump";

/// The file of a cell's folder with the transcript of the agent's channel.
pub const AGENT: &str = "agent.jsonl";

/// The file of a cell's folder with the transcript of the QMP channel.
pub(super) const QMP: &str = "qmp.jsonl";

/// The file of a cell's folder that says who waited for whom at the end.
pub(super) const WAITS: &str = "waits.json";

/// The result of a cell (`verdict.json`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CellRecord {
    /// The cell.
    pub cell: CellId,
    /// The expected result.
    pub expected: Expected,
    /// The verdict on its kernel.
    pub verdict: Verdict,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// The lines of the guest's log that prove which path the removal took.
    #[serde(default)]
    pub trigger_proof: Option<String>,
    /// The kernel's reports of faults on the console.
    #[serde(default)]
    pub splats: Vec<Splat>,
    /// Why each earlier try of this cell gave no verdict. These are errors of the test bed, not of the kernel.
    #[serde(default)]
    pub retries: Vec<String>,
    /// A hash of everything that a held guest said, on its console and through its agent. The same parts give the same
    /// hash on any host. None on the host's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub said: Option<String>,
    /// The kernel's messages of level "error" and above since the scenario began, as [`crate::classify::errors`] writes
    /// them, each once. None if the cell did not pass, or messages were lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errors: Option<Vec<String>>,
    /// The observations of the scenario: values read, waits, tasks and their stacks.
    #[serde(default)]
    pub observations: Notes,
}

impl CellRecord {
    /// Whether the cell ended as expected.
    pub fn is_as_expected(&self) -> bool {
        match self.lockdep_off() {
            Some(_) => self.expected.met_without_lockdep(&self.verdict),
            None => self.expected.met_by(&self.verdict),
        }
    }

    /// Whether the verdict differs from the expected result. False if no result was expected.
    pub fn is_unexpected(&self) -> bool {
        self.expected != Expected::None && !self.is_as_expected()
    }

    /// The known lockdep report, if there was one. Lockdep is off after its first report, for the rest of the boot.
    pub fn lockdep_off(&self) -> Option<&Splat> {
        self.splats.iter().find(|splat| splat.kind == SplatKind::Lockdep && splat.known.is_some())
    }

    /// Whether the kernel has a random bug that did not reproduce in this cell.
    pub fn is_missed(&self) -> bool {
        self.expected.missed_by(&self.verdict)
    }
}

/// The folder of a cell that is running.
#[derive(Debug)]
pub struct CellDir {
    path: PathBuf,
    began: Instant,
}

/// The file with the description of a cell.
pub const START: &str = "start.json";
/// The file with the result of a cell.
pub(super) const VERDICT: &str = "verdict.json";

impl CellDir {
    /// Creates the folder of a cell in the folder of its run. The folder appears atomically, with all files that are
    /// written before the cell begins.
    pub(super) fn create(run: &Path, start: &CellStart) -> Result<CellDir, EvidenceError> {
        let aside = tempfile::Builder::new()
            .prefix(".new-")
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir_in(run)
            .map_err(EvidenceError::io("create a folder in", run))?;
        file::write_json(&aside.path().join(START), start)?;
        let argv = shell_words::join(&start.argv).replace(" -", " \\\n    -");
        file::write(&aside.path().join("argv.txt"), format!("{argv}\n").as_bytes(), 0o644)?;
        if let Some(script) = &start.script {
            let folder = aside.path().join(SCRIPT);
            fs::create_dir(&folder).map_err(EvidenceError::io("create", &folder))?;
            file::write(&folder.join(&script.copy), script.text.as_bytes(), 0o755)?;
        }
        file::write(&aside.path().join("repro.sh"), repro(start).as_bytes(), 0o755)?;
        let path = run.join(start.cell.folder());
        fs::rename(aside.path(), &path).map_err(EvidenceError::io("move into place", &path))?;
        // The folder has its final name now, so the guard must not delete the old name.
        let _ = aside.keep();
        Ok(CellDir { path, began: Instant::now() })
    }

    /// The folder.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The log of the serial console, which QEMU writes.
    pub fn console(&self) -> PathBuf {
        self.path.join(CONSOLE)
    }

    /// The dump of the guest's memory, if there is one.
    pub fn dump(&self) -> PathBuf {
        self.path.join(DUMP)
    }

    /// The file for what a script prints.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn output(&self) -> Result<fs::File, EvidenceError> {
        let path = self.path.join(OUTPUT);
        fs::File::create(&path).map_err(EvidenceError::io("create", &path))
    }

    /// The transcript of the QMP channel.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn qmp(&self) -> Result<JsonlWriter, EvidenceError> {
        JsonlWriter::create(&self.path.join(QMP), self.began)
    }

    /// The transcript of the agent's channel.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn agent(&self) -> Result<JsonlWriter, EvidenceError> {
        JsonlWriter::create(&self.path.join(AGENT), self.began)
    }

    /// Renames the console log of a try that failed because of the test bed to `console.tryN.log`. The next try gets a
    /// new console log. The transcripts of the other channels continue in the same files.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn set_aside(&self, number: usize) -> Result<(), EvidenceError> {
        let (from, to) = (self.console(), self.path.join(format!("console.try{number}.log")));
        match fs::rename(&from, &to) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(EvidenceError::io("set aside", &from)(error))
            }
            _ => Ok(()),
        }
    }

    /// The time since the cell began, in seconds.
    pub fn seconds(&self) -> f64 {
        (self.began.elapsed().as_secs_f64() * 1e3).round() / 1e3
    }

    /// Writes who waited for whom: `waits.json` for programs, and `waits.txt` in words. The stacks of all tasks are in
    /// `stacks.txt`, too.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn waits(&self, graph: &Graph) -> Result<(), EvidenceError> {
        file::write_json(&self.path.join(WAITS), graph)?;
        let text = words::text(graph);
        file::write_whole(&self.path.join("waits.txt"), text.as_bytes())?;
        file::write_whole(&self.path.join("stacks.txt"), words::stacks(graph).as_bytes())
    }

    /// Writes the verdict. This completes the cell.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn finish(self, record: &CellRecord) -> Result<(), EvidenceError> {
        file::write_json(&self.path.join(VERDICT), record)
    }
}

/// Which word of the command of a cell is its scenario.
const SCENARIO: usize = 3;

/// A script that runs only this cell.
fn repro(start: &CellStart) -> String {
    let cell = &start.cell;
    let mut words = cell.command(&start.own);
    let command = match &start.script {
        None => shell_words::join(words),
        // The folder of this file is known only when it runs, so its variable must not be quoted.
        Some(ScriptNote { copy, again: None, .. }) => {
            let rest = shell_words::join(words.split_off(SCENARIO + 1));
            let copy = shell_words::quote(copy);
            format!("cargo xtask run --script \"$(dirname \"$(realpath \"$0\")\")\"/{SCRIPT}/{copy} {rest}")
        }
        Some(ScriptNote { again: Some(again), .. }) => {
            let rest = words.split_off(SCENARIO + 1);
            words.truncate(SCENARIO);
            // After `--` there are only the words of a command.
            let (options, command) = again.split_at(again.iter().position(|word| word == "--").unwrap_or(again.len()));
            shell_words::join(words.iter().chain(options).chain(&rest).chain(command))
        }
    };
    format!("#!/bin/sh\n# Runs only {cell}. Start it in a checkout of iov-regress.\nexec {command} \"$@\"\n")
}
