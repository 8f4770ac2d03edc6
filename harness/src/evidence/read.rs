//! Reading the files of a run.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::cell_dir::{START, VERDICT};
use super::run_dir::RUN;
use super::{CellRecord, CellStart, EvidenceError, RunInfo, file};
use crate::cell::{CellId, PlannedCell};
use crate::notes::Notes;
use crate::verdict::{Expected, Verdict};

/// A run, read from its files.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// Its folder.
    pub path: PathBuf,
    /// The folders of the runs that were added to it with [`Run::join`].
    pub others: Vec<PathBuf>,
    /// What was run.
    pub info: RunInfo,
    /// Its cells, in the order of the plan. Cells that were not planned come last.
    pub cells: Vec<RunCell>,
    /// Which files are missing or cannot be read, and what is not known because of that. A line each.
    pub missing: Vec<String>,
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
    /// The command line options that name its kernel ([`CellStart::own`]).
    pub own: Vec<String>,
}

/// Reads a run. A cell without a verdict did not complete, and neither did a planned cell that did not begin: they get
/// [`Verdict::Infra`]. So does a cell whose verdict cannot be read. [`Run::missing`] names the files that could not be
/// read.
///
/// # Errors
/// If the folder is not that of a run: it has no readable description of a run, and no cells.
pub fn read_run(path: &Path) -> Result<Run, EvidenceError> {
    let description = path.join(RUN);
    let read = file::read_json::<RunInfo>(&description);
    if !path.is_dir() {
        return Err(no_run(&description));
    }
    let mut missing = Vec::new();
    let planned = read.as_ref().ok().and_then(Option::as_ref).map_or(&[][..], |info| &info.planned);
    let mut cells = read_cells(path, planned, &mut missing)?;
    let info = match read {
        Ok(Some(info)) => info,
        Ok(None) if cells.is_empty() => return Err(no_run(&description)),
        Err(error) if cells.is_empty() => return Err(error),
        Ok(None) => without_description(&description, "it does not exist", &mut missing),
        Err(error) => without_description(&description, &error.to_string(), &mut missing),
    };
    let begun: HashSet<CellId> = cells.iter().map(|cell| cell.record.cell.clone()).collect();
    let not_begun = info.planned.iter().filter(|planned| !begun.contains(&planned.id));
    let why = match &info.merged {
        Some(merged) if !merged.missing.is_empty() => "did not begin: its part is missing, or ended before",
        _ => "did not begin: the run ended before",
    };
    cells.extend(not_begun.map(|planned| RunCell {
        record: incomplete(planned.id.clone(), planned.expected.clone(), why),
        evidence: None,
        finished: false,
        kernel: None,
        own: Vec::new(),
    }));
    let place: HashMap<&CellId, usize> =
        info.planned.iter().zip(0..).map(|(planned, place)| (&planned.id, place)).collect();
    let place = |id: &CellId| place.get(id).copied().unwrap_or(usize::MAX);
    cells.sort_by_cached_key(|cell| (place(&cell.record.cell), cell.record.cell.clone()));
    Ok(Run { path: path.to_owned(), others: Vec::new(), info, cells, missing })
}

fn no_run(description: &Path) -> EvidenceError {
    EvidenceError::io("find a run:", description)(std::io::ErrorKind::NotFound.into())
}

fn without_description(path: &Path, why: &str, missing: &mut Vec<String>) -> RunInfo {
    let what = "with which programs the cells ran, and which cells did not begin";
    missing.push(format!("{}, so it is not known {what}: {why}", path.display()));
    RunInfo::default()
}

fn read_cells(run: &Path, planned: &[PlannedCell], missing: &mut Vec<String>) -> Result<Vec<RunCell>, EvidenceError> {
    let mut cells = Vec::new();
    for entry in fs::read_dir(run).map_err(EvidenceError::io("list", run))? {
        match entry {
            Ok(entry) => cells.extend(read_cell(&entry.path(), planned, missing)),
            Err(error) => missing.push(format!("an entry of {}: {error}", run.display())),
        }
    }
    missing.sort_unstable();
    Ok(cells)
}

/// The verdict in the folder of a cell; none if it has not ended, or if it is no folder of a cell.
///
/// # Errors
/// The file cannot be read.
pub fn read_record(folder: &Path) -> Result<Option<CellRecord>, EvidenceError> {
    file::read_json(&folder.join(VERDICT))
}

/// The cell in a folder, if the folder is that of a cell.
fn read_cell(folder: &Path, planned: &[PlannedCell], missing: &mut Vec<String>) -> Option<RunCell> {
    let name = folder.file_name()?;
    if name.as_encoded_bytes().starts_with(b".") || !folder.is_dir() {
        return None;
    }
    let start = file::read_json::<CellStart>(&folder.join(START));
    let verdict = file::read_json::<CellRecord>(&folder.join(VERDICT));
    if matches!((&start, &verdict), (Ok(None), Ok(None))) {
        return None;
    }
    let start = match start {
        Ok(None) if verdict.as_ref().is_ok_and(Option::is_some) => {
            missing.push(format!("on which kernel {} ran: it has no {START}", name.display()));
            None
        }
        Ok(start) => start,
        Err(error) => {
            missing.push(format!("how {} was begun, and on which kernel: {error}", name.display()));
            None
        }
    };
    let verdict = verdict.map_err(|error| format!("its verdict cannot be read: {error}"));
    let finished = matches!(verdict, Ok(Some(_)));
    let why = match verdict {
        Ok(Some(record)) => {
            let (kernel, own) = start.map_or((None, Vec::new()), |start| (start.kernel, start.own));
            let kernel = kernel.map(|kernel| kernel.key);
            return Some(RunCell { record, evidence: Some(folder.to_owned()), finished, kernel, own });
        }
        Ok(None) => "did not complete: it was ended before its verdict, or still runs".to_owned(),
        Err(why) => {
            missing.push(format!("the verdict of {}: {why}", name.display()));
            why
        }
    };
    let plan = || planned.iter().find(|planned| planned.id.folder().as_str() == name);
    let (id, expected, kernel, own) = match start {
        Some(start) => (start.cell, start.expected, start.kernel.map(|kernel| kernel.key), start.own),
        None => {
            let PlannedCell { id, expected } = plan()?.clone();
            (id, expected, None, Vec::new())
        }
    };
    Some(RunCell { record: incomplete(id, expected, &why), evidence: Some(folder.to_owned()), finished, kernel, own })
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
