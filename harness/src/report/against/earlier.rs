//! The `results.json` of an earlier run, read as a reference.
//!
//! The file may be of an older or a newer version. A cell with missing or unknown values is left out, and is then not
//! compared.

use std::fs;
use std::path::{Path, PathBuf};

use kernels::split_profile;
use serde::Deserialize;
use serde_json::Value;

use crate::evidence::{EarlierCell, EarlierKernel, EvidenceError, LATEST};
use crate::report::{RESULTS, Report};
use crate::verdict::{Failure, Verdict};

/// The results of an earlier run.
#[derive(Clone, Debug)]
pub struct Earlier {
    path: PathBuf,
    started: String,
    bugs: Vec<VariantPart>,
    cells: Vec<CellPart>,
}

/// A path does not give the results of a kernel.
#[derive(Debug, thiserror::Error)]
pub enum EarlierError {
    /// It cannot be read.
    #[error("cannot read {}: {cause}", path.display())]
    Read {
        /// The path.
        path: PathBuf,
        /// The reason.
        cause: std::io::Error,
    },
    /// It is not a `results.json`.
    #[error("{} is not the results.json of a run: {why}", path.display())]
    Other {
        /// The path.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A folder that is not the folder of a run.
    #[error("{} is not the folder of a run: it has neither results.json nor run.json{}", path.display(), hint(path))]
    Folder {
        /// The folder.
        path: PathBuf,
    },
    /// A folder whose evidence cannot be read.
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
    /// It has several kernels, and none was named.
    #[error(
        "{} has the results of {} kernels; name one of them: {}",
        path.display(),
        known.len(),
        known.iter().map(|name| format!("{}:{name}", path.display())).collect::<Vec<_>>().join(", ")
    )]
    Several {
        /// The file.
        path: PathBuf,
        /// The names of the kernels.
        known: Vec<String>,
    },
    /// It does not have the kernel that was named.
    #[error("{} has no results for a kernel `{kernel}`; it has: {}", path.display(), known.join(", "))]
    Kernel {
        /// The file.
        path: PathBuf,
        /// The name.
        kernel: String,
        /// The names of the kernels.
        known: Vec<String>,
    },
}

fn hint(folder: &Path) -> String {
    match folder.join(LATEST) {
        latest if latest.is_dir() => format!("; the newest run there is {}", latest.display()),
        _ => String::new(),
    }
}

#[derive(Deserialize)]
struct Results {
    #[serde(default)]
    run: RunPart,
    cells: Vec<Value>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RunPart {
    started: String,
    variants: Vec<Value>,
}

#[derive(Clone, Debug, Deserialize)]
struct VariantPart {
    name: String,
    #[serde(default)]
    bugs: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct CellPart {
    scenario: String,
    variant: String,
    topology: String,
    trigger: String,
    outcome: String,
    failure: Option<Failure>,
    reason: Option<String>,
    expected: Option<String>,
    errors: Option<Vec<String>>,
    evidence: Option<PathBuf>,
}

impl CellPart {
    /// The verdict on its kernel, if it has one that this version knows.
    fn verdict(&self) -> Option<Verdict> {
        match (self.outcome.as_str(), &self.failure) {
            ("pass", _) => Some(Verdict::Pass),
            ("fail", Some(failure)) => Some(Verdict::Fail(failure.clone())),
            ("skip", _) => Some(Verdict::Skip(self.reason.clone().unwrap_or_default())),
            _ => None,
        }
    }
}

impl Earlier {
    /// Reads a `results.json`, or the one in the folder of a run.
    ///
    /// # Errors
    /// [`EarlierError`], except those about the name of a kernel.
    pub fn read(path: &Path) -> Result<Earlier, EarlierError> {
        let read = |cause| EarlierError::Read { path: path.to_owned(), cause };
        let found = fs::canonicalize(path).map_err(read)?;
        let file = if found.is_dir() { found.join(RESULTS) } else { found.clone() };
        let other = |why: serde_json::Error| EarlierError::Other { path: file.clone(), why: why.to_string() };
        let results = if file.is_file() {
            serde_json::from_slice(&fs::read(&file).map_err(read)?).map_err(other)?
        } else {
            let no_run = |error| match error {
                EvidenceError::Io { .. } => EarlierError::Folder { path: path.to_owned() },
                other @ (EvidenceError::Malformed { .. } | EvidenceError::Changed { .. }) => other.into(),
            };
            Report::of(&found).map_err(no_run)?.results()
        };
        let Results { run, cells } = Results::deserialize(results).map_err(other)?;
        Ok(Earlier { started: run.started, bugs: known(run.variants), cells: known(cells), path: file })
    }

    /// The names of its kernels, in the order of its cells.
    pub fn kernels(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for cell in &self.cells {
            if !names.contains(&cell.variant) {
                names.push(cell.variant.clone());
            }
        }
        names
    }

    /// The full name and the results of the kernel of this name, which may be without its profile. Without a name, of
    /// the only kernel.
    ///
    /// # Errors
    /// [`EarlierError::Kernel`], [`EarlierError::Several`].
    pub fn kernel(&self, name: Option<&str>) -> Result<(String, EarlierKernel), EarlierError> {
        let (path, known) = (self.path.clone(), self.kernels());
        let is_named = |known: &&String| name.is_none_or(|name| *known == name || split_profile(known).0 == name);
        let found: Vec<_> = known.iter().filter(is_named).collect();
        let exact = known.iter().find(|known| Some(known.as_str()) == name);
        match (exact.or(found.first().copied()), name) {
            (Some(one), _) if exact.is_some() || found.len() == 1 => Ok((one.clone(), self.of_kernel(one))),
            (Some(_), _) => Err(EarlierError::Several { path, known }),
            (None, Some(kernel)) => Err(EarlierError::Kernel { path, kernel: kernel.to_owned(), known }),
            (None, None) => Err(EarlierError::Other { path, why: "it has no cells".to_owned() }),
        }
    }

    fn of_kernel(&self, name: &str) -> EarlierKernel {
        let cells = || self.cells.iter().filter(|cell| cell.variant == name);
        let is_known = cells().any(|cell| matches!(cell.expected.as_deref(), Some("pass" | "fail")));
        let variant = self.bugs.iter().find(|variant| variant.name == name);
        let cell = |cell: &CellPart| {
            let CellPart { scenario, topology, trigger, errors, evidence, .. } = cell.clone();
            Some(EarlierCell { scenario, topology, trigger, verdict: cell.verdict()?, errors, evidence })
        };
        EarlierKernel {
            results: self.path.clone(),
            started: self.started.clone(),
            bugs: variant.filter(|_| is_known).map(|variant| variant.bugs.clone()),
            cells: cells().filter_map(cell).collect(),
        }
    }
}

/// The values that this version can read.
fn known<T: for<'de> Deserialize<'de>>(values: Vec<Value>) -> Vec<T> {
    values.into_iter().filter_map(|value| T::deserialize(value).ok()).collect()
}
