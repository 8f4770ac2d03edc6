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

/// What a cell is, written before it begins (`start.json`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CellStart {
    /// Which cell.
    pub cell: CellId,
    /// What is expected of it.
    pub expected: Expected,
    /// QEMU's command line; empty if it does not come to that.
    pub argv: Vec<String>,
    /// The kernel; none if there is none, as it did not build.
    pub kernel: Option<KernelNote>,
    /// The options that name the kernel on a command line, if it is one of the user's own or of a series.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub own: Vec<String>,
    /// `kvm` or `tcg`.
    pub accel: String,
    /// Versions of what takes part (`qemu`, `harness`, ...), by name.
    pub versions: BTreeMap<String, String>,
}

/// Which kernel exactly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelNote {
    /// Its key in the cache: a hash of all that it was built from.
    pub key: String,
    /// `uname -r`.
    pub release: String,
}

/// How a cell ended (`verdict.json`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CellRecord {
    /// Which cell.
    pub cell: CellId,
    /// What was expected of it.
    pub expected: Expected,
    /// What it says about its kernel.
    pub verdict: Verdict,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// The lines of the guest's log that prove which way the removal took.
    #[serde(default)]
    pub trigger_proof: Option<String>,
    /// What the kernel said about itself.
    #[serde(default)]
    pub splats: Vec<Splat>,
    /// Why each earlier try of this cell brought no verdict: the test bed's troubles, not the kernel's.
    #[serde(default)]
    pub retries: Vec<String>,
    /// What the scenario saw: values read, waits, tasks and their stacks.
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

    /// Whether the cell ended otherwise than the manifest lets one expect. Where nothing was expected, none does.
    pub fn is_unexpected(&self) -> bool {
        self.expected != Expected::None && !self.is_as_expected()
    }

    /// The known report of lockdep after which it was off for the rest of the boot, if there was one.
    pub fn lockdep_off(&self) -> Option<&Splat> {
        self.splats.iter().find(|splat| splat.kind == SplatKind::Lockdep && splat.known.is_some())
    }

    /// Whether the kernel has a bug that shows itself now and then, and did not this time.
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

/// Where a cell's beginning is written.
pub(super) const START: &str = "start.json";
/// Where its end is.
pub(super) const VERDICT: &str = "verdict.json";

impl CellDir {
    /// Makes the folder of a cell in that of its run. It appears with all that is known before the cell begins.
    pub(super) fn create(run: &Path, start: &CellStart) -> Result<CellDir, EvidenceError> {
        let aside = tempfile::Builder::new()
            .prefix(".new-")
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir_in(run)
            .map_err(EvidenceError::io("create a folder in", run))?;
        file::write_json(&aside.path().join(START), start)?;
        let argv = shell_words::join(&start.argv).replace(" -", " \\\n    -");
        file::write(&aside.path().join("argv.txt"), format!("{argv}\n").as_bytes(), 0o644)?;
        file::write(&aside.path().join("repro.sh"), repro(start).as_bytes(), 0o755)?;
        let path = run.join(start.cell.folder());
        fs::rename(aside.path(), &path).map_err(EvidenceError::io("move into place", &path))?;
        // The folder has its final name now; the guard must not look for the old one.
        let _ = aside.keep();
        Ok(CellDir { path, began: Instant::now() })
    }

    /// Where the serial console goes. QEMU writes it.
    pub fn console(&self) -> PathBuf {
        self.path.join("console.log")
    }

    /// The transcript of the QMP channel.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn qmp(&self) -> Result<JsonlWriter, EvidenceError> {
        JsonlWriter::create(&self.path.join("qmp.jsonl"), self.began)
    }

    /// The transcript of the agent's channel.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn agent(&self) -> Result<JsonlWriter, EvidenceError> {
        JsonlWriter::create(&self.path.join("agent.jsonl"), self.began)
    }

    /// Keeps the console of a try that the test bed spoiled, as `console.tryN.log`; the next one has its own. The other
    /// channels' transcripts go on in one file.
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

    /// Writes the verdict: the cell is complete with it.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn finish(self, record: &CellRecord) -> Result<(), EvidenceError> {
        file::write_json(&self.path.join(VERDICT), record)
    }
}

/// A script that runs a cell alone.
fn repro(start: &CellStart) -> String {
    let cell = &start.cell;
    let command = shell_words::join(cell.command(&start.own));
    format!("#!/bin/sh\n# Runs {cell} alone. To be started in a checkout of iov-regress.\nexec {command} \"$@\"\n")
}
