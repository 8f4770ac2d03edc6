//! Reading the files of a run.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::cell_dir::{START, VERDICT};
use super::run_dir::RUN;
use super::{CellRecord, CellStart, EvidenceError, RunInfo, file};
use crate::cell::CellId;
use crate::notes::Notes;
use crate::verdict::{Expected, Verdict};

/// A run, read from its files.
#[derive(Clone, Debug)]
pub struct Run {
    /// Its folder.
    pub path: PathBuf,
    /// What was run.
    pub info: RunInfo,
    /// Its cells, in the order of the plan. Cells that were not planned come last.
    pub cells: Vec<RunCell>,
}

/// A cell of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct RunCell {
    /// Its result.
    pub record: CellRecord,
    /// Its folder. None if it did not begin.
    pub evidence: Option<PathBuf>,
    /// It has a verdict.
    pub finished: bool,
    /// The key of its kernel. None if there was no kernel.
    pub kernel: Option<String>,
}

/// Reads a run. A cell without a verdict did not complete, and neither did a planned cell that did not begin: they get
/// [`Verdict::Infra`].
///
/// # Errors
/// If the folder is not that of a run, or a file in it cannot be read.
pub fn read_run(path: &Path) -> Result<Run, EvidenceError> {
    let description = path.join(RUN);
    let missing = || EvidenceError::io("find a run:", &description)(std::io::ErrorKind::NotFound.into());
    let info: RunInfo = file::read_json(&description)?.ok_or_else(missing)?;
    let mut cells = Vec::new();
    for entry in fs::read_dir(path).map_err(EvidenceError::io("list", path))? {
        let folder = entry.map_err(EvidenceError::io("list", path))?.path();
        cells.extend(read_cell(&folder)?);
    }
    let begun: HashSet<CellId> = cells.iter().map(|cell| cell.record.cell.clone()).collect();
    let not_begun = info.planned.iter().filter(|planned| !begun.contains(&planned.id));
    cells.extend(not_begun.map(|planned| RunCell {
        record: incomplete(planned.id.clone(), planned.expected.clone(), "did not begin: the run ended before"),
        evidence: None,
        finished: false,
        kernel: None,
    }));
    let place = |id: &CellId| info.planned.iter().position(|planned| planned.id == *id).unwrap_or(usize::MAX);
    cells.sort_by_cached_key(|cell| (place(&cell.record.cell), cell.record.cell.clone()));
    Ok(Run { path: path.to_owned(), info, cells })
}

/// The cell in a folder, if the folder is that of a cell.
fn read_cell(folder: &Path) -> Result<Option<RunCell>, EvidenceError> {
    let hidden = folder.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    if hidden || !folder.is_dir() {
        return Ok(None);
    }
    let Some(start) = file::read_json::<CellStart>(&folder.join(START))? else { return Ok(None) };
    let verdict = file::read_json(&folder.join(VERDICT))?;
    let finished = verdict.is_some();
    let kernel = start.kernel.map(|kernel| kernel.key);
    let record = verdict
        .unwrap_or_else(|| incomplete(start.cell, start.expected, "did not complete: it was ended before its verdict"));
    Ok(Some(RunCell { record, evidence: Some(folder.to_owned()), finished, kernel }))
}

fn incomplete(cell: CellId, expected: Expected, why: &str) -> CellRecord {
    CellRecord {
        cell,
        expected,
        verdict: Verdict::Infra(why.to_owned()),
        seconds: 0.0,
        trigger_proof: None,
        splats: Vec::new(),
        retries: Vec::new(),
        said: None,
        errors: None,
        observations: Notes::default(),
    }
}
