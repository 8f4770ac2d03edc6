//! The folder of one run.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

use super::{CellDir, CellStart, EvidenceError, MergedNote, PartNote, file};
use crate::cell::PlannedCell;

/// The description of a run (`run.json`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunInfo {
    /// When it began, in UTC, in the format of RFC 3339. [`RunDir::create`] sets it if it is empty.
    pub started: String,
    /// The command line.
    pub command: Vec<String>,
    /// Version of the harness.
    pub harness: String,
    /// Version of QEMU.
    pub qemu: String,
    /// `kvm` or `tcg`.
    pub accel: String,
    /// Why this accelerator was chosen.
    pub accel_reason: String,
    /// The clock of the guests: `guest` or `host`. Empty in runs from before there was a choice.
    #[serde(default)]
    pub clock: String,
    /// How many cells run at a time.
    pub jobs: usize,
    /// The kernels, in the order in which they are shown.
    pub variants: Vec<VariantNote>,
    /// The scenarios, in the order in which they are shown.
    pub scenarios: Vec<ScenarioNote>,
    /// The bugs of the manifest.
    pub bugs: Vec<kernels::Bug>,
    /// All planned cells. With this list, a report can name the cells that did not begin.
    pub planned: Vec<PlannedCell>,
    /// Which part of a plan this run is. None if it is the whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub part: Option<PartNote>,
    /// The parts that this run was made of. None if it is a run of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub merged: Option<MergedNote>,
}

/// A kernel of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VariantNote {
    /// Its name.
    pub name: String,
    /// One line for people.
    pub about: String,
    /// The ids of its bugs. Empty if the kernel is not in the manifest.
    pub bugs: Vec<String>,
}

impl From<&kernels::Variant> for VariantNote {
    fn from(variant: &kernels::Variant) -> VariantNote {
        let kernels::Variant { name, about, bugs, .. } = variant.clone();
        VariantNote { name, about, bugs }
    }
}

/// A scenario of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScenarioNote {
    /// `family::name`.
    pub name: String,
    /// One line for people.
    pub about: String,
    /// The bugs that it detects, by id. Runs of before this was written down have none.
    #[serde(default)]
    pub detects: Vec<String>,
    /// The text of the script that it is, if it is one and short enough to be quoted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<String>,
}

/// The folder of a run.
#[derive(Clone, Debug)]
pub struct RunDir {
    path: PathBuf,
}

/// The file with the description of a run.
pub const RUN: &str = "run.json";
/// The link to the newest run, beside the runs.
pub const LATEST: &str = "latest";

impl RunDir {
    /// Creates a folder for a run in `out`, and `out` itself if it does not exist. Makes the link `latest` in `out`
    /// point to the new folder. Runs that begin in the same second get different folders.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn create(out: &Path, mut info: RunInfo) -> Result<RunDir, EvidenceError> {
        let now: DateTime<Utc> = SystemTime::now().into();
        if info.started.is_empty() {
            info.started = now.to_rfc3339_opts(SecondsFormat::Secs, true);
        }
        let (out, path) = unique(out, now)?;
        file::write_json(&path.join(RUN), &info)?;
        point_latest(&out, &path)?;
        Ok(RunDir { path })
    }

    /// The folder, as an absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Begins a cell.
    ///
    /// # Errors
    /// Those of the file system. This includes that the cell has a folder already.
    pub fn cell(&self, start: &CellStart) -> Result<CellDir, EvidenceError> {
        CellDir::create(&self.path, start)
    }
}

/// Creates a folder in `out` that is named by the time, for what several runs have in common. Makes the link `latest` in
/// `out` point to it.
///
/// # Errors
/// Those of the file system.
pub fn folder_of_runs(out: &Path) -> Result<PathBuf, EvidenceError> {
    let (out, path) = unique(out, SystemTime::now().into())?;
    point_latest(&out, &path)?;
    Ok(path)
}

/// `out` as an absolute path, and a new folder in it that is named by the time.
fn unique(out: &Path, now: DateTime<Utc>) -> Result<(PathBuf, PathBuf), EvidenceError> {
    fs::create_dir_all(out).map_err(EvidenceError::io("create", out))?;
    let out = out.canonicalize().map_err(EvidenceError::io("find", out))?;
    let path = create_unique(&out, &now.format("%Y%m%d-%H%M%S").to_string())?;
    Ok((out, path))
}

fn create_unique(out: &Path, name: &str) -> Result<PathBuf, EvidenceError> {
    let mut number = 1;
    loop {
        let path = out.join(if number == 1 { name.to_owned() } else { format!("{name}-{number}") });
        match fs::create_dir(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(source) => return Err(EvidenceError::io("create", &path)(source)),
        }
    }
}

/// Makes the link point to a run, atomically: other processes may do the same at the same time.
fn point_latest(out: &Path, path: &Path) -> Result<(), EvidenceError> {
    let latest = out.join(LATEST);
    let name = path.file_name().map(Path::new).unwrap_or(path);
    let aside = out.join(format!(".{LATEST}-{}", name.display()));
    symlink(name, &aside).map_err(EvidenceError::io("make the link", &aside))?;
    fs::rename(&aside, &latest).map_err(EvidenceError::io("move into place", &latest))
}
