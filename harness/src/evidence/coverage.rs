//! What cells executed of their kernels (`coverage.json`), and what there is to execute (`coverage/KERNEL.json`). Reports
//! are made from these files, so they need no kernel.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{CellDir, EvidenceError, Run, RunCell, RunDir, file};
use crate::coverage::Sources;

/// The folder with the kernels, in the folder of a run with coverage.
pub const KERNELS: &str = "coverage";
/// The file of a cell.
const CELL: &str = "coverage.json";

/// What a cell executed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CellCoverage {
    /// These functions and lines.
    Executed(Sources),
    /// It is not known, for this reason.
    Unknown(String),
}

/// The coverage of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunCoverage {
    /// All functions and lines of each kernel, by its key.
    pub kernels: BTreeMap<String, Sources>,
    /// Each cell that began, with what it executed.
    pub cells: Vec<(RunCell, CellCoverage)>,
}

impl RunDir {
    /// Makes the folder for coverage. It marks a run with coverage.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn begin_coverage(&self) -> Result<(), EvidenceError> {
        let folder = self.path().join(KERNELS);
        fs::create_dir_all(&folder).map_err(EvidenceError::io("create", &folder))
    }

    /// Writes all functions and lines of a kernel.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write_kernel_coverage(&self, key: &str, all: &Sources) -> Result<(), EvidenceError> {
        file::write_json(&of_kernel(self.path(), key), all)
    }
}

impl CellDir {
    /// The file in which the plugin of QEMU notes blocks. It is removed after the cell.
    pub fn blocks(&self) -> PathBuf {
        self.path().join("coverage.blocks")
    }

    /// Writes what the cell executed.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write_coverage(&self, coverage: &CellCoverage) -> Result<(), EvidenceError> {
        file::write_json(&self.path().join(CELL), coverage)
    }
}

impl Run {
    /// Reads the coverage of the run. None if it was made without coverage.
    ///
    /// # Errors
    /// A file cannot be read, or is missing.
    pub fn coverage(&self) -> Result<Option<RunCoverage>, EvidenceError> {
        if !self.path.join(KERNELS).is_dir() {
            return Ok(None);
        }
        let mut coverage = RunCoverage::default();
        for cell in &self.cells {
            let Some(folder) = &cell.evidence else { continue };
            let of_cell = file::read_json(&folder.join(CELL))?;
            let of_cell = of_cell.unwrap_or_else(|| CellCoverage::Unknown("the cell did not complete".to_owned()));
            if let (CellCoverage::Executed(_), Some(key)) = (&of_cell, &cell.kernel)
                && !coverage.kernels.contains_key(key)
            {
                let path = of_kernel(&self.path, key);
                let missing = || EvidenceError::io("read", &path)(std::io::ErrorKind::NotFound.into());
                coverage.kernels.insert(key.clone(), file::read_json(&path)?.ok_or_else(missing)?);
            }
            coverage.cells.push((cell.clone(), of_cell));
        }
        Ok(Some(coverage))
    }
}

fn of_kernel(run: &Path, key: &str) -> PathBuf {
    run.join(KERNELS).join(format!("{key}.json"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::tests::{id, record, start};
    use crate::evidence::{RunInfo, read_run};
    use crate::verdict::{Expected, Verdict};

    fn sources(json: &str) -> Sources {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn coverage_is_read_as_it_was_written() {
        let out = tempfile::tempdir().unwrap();
        let run = RunDir::create(out.path(), RunInfo::default()).unwrap();
        assert_eq!(read_run(run.path()).unwrap().coverage().unwrap(), None);

        run.begin_coverage().unwrap();
        let executed = CellCoverage::Executed(sources(r#"{"a.c":{"functions":["f"],"lines":"1-2"}}"#));
        let unknown = CellCoverage::Unknown("its kernel has no vmlinux".to_owned());
        for (name, coverage) in [("a::one", Some(&executed)), ("a::two", Some(&unknown)), ("a::three", None)] {
            let start = start(id(name, None, "stock", 1), Expected::Pass);
            let cell = run.cell(&start).unwrap();
            coverage.into_iter().for_each(|coverage| cell.write_coverage(coverage).unwrap());
            cell.finish(&record(&start, Verdict::Pass, 1.0)).unwrap();
        }
        let error = read_run(run.path()).unwrap().coverage().unwrap_err().to_string();
        assert!(error.contains("/coverage/0123.json: "), "{error}");

        let all = sources(r#"{"a.c":{"functions":["f","g"],"lines":"1-9"}}"#);
        run.write_kernel_coverage("0123", &all).unwrap();
        let coverage = read_run(run.path()).unwrap().coverage().unwrap().unwrap();
        assert_eq!(coverage.kernels, [("0123".to_owned(), all)].into());
        let of = |name: &str| {
            let (_, coverage) = coverage.cells.iter().find(|(cell, _)| cell.record.cell.scenario == name).unwrap();
            coverage.clone()
        };
        assert_eq!((of("a::one"), of("a::two")), (executed, unknown));
        assert_eq!(of("a::three"), CellCoverage::Unknown("the cell did not complete".to_owned()));
    }
}
