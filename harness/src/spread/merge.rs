//! Makes one run of the parts of a plan.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::copy;
use super::error::{Fault, MergeError};
use super::found::Found;
use super::weave;
use crate::evidence::{
    AgainstNote, COVERAGE, EvidenceError, MergedNote, MergedPart, PATCHES, PartNote, Run, RunDir, RunInfo, SeriesNote,
    SplitNote, read_run,
};

/// A run that was made of parts.
#[derive(Clone, Debug)]
pub struct Merged {
    /// Its folder.
    pub run: PathBuf,
    /// Whether it is a run of a series.
    pub is_series: bool,
    /// What differs between the parts and need not: kernels, QEMU. A line each.
    pub differences: Vec<String>,
}

/// How far the merge is.
#[derive(Debug)]
pub enum Told<'a> {
    /// The folder or archive is read.
    Reads(&'a Path),
    /// The cells of a part are copied.
    Copies {
        /// Its number.
        part: u32,
        /// The number of parts.
        parts: u32,
        /// How many cells it has.
        cells: usize,
    },
}

/// A run that is a part.
struct Part {
    note: PartNote,
    run: Run,
    from: String,
}

/// Makes one run, in a new folder in `out`, of the parts in these folders and archives. With `partial`, parts may be
/// missing: the report of the run says which.
///
/// # Errors
/// [`MergeError`].
pub fn merge(
    paths: &[PathBuf],
    out: &Path,
    partial: bool,
    command: Vec<String>,
    tell: impl Fn(Told<'_>),
) -> Result<Merged, MergeError> {
    fs::create_dir_all(out).map_err(EvidenceError::io("create", out))?;
    let mut found = Found::default();
    for path in paths {
        tell(Told::Reads(path));
        found.add(path, out)?;
    }
    let (split, parts) = checked(&found, partial)?;
    let there: BTreeSet<_> = parts.iter().map(|part| part.note.part).collect();
    let merged = MergedNote {
        digest: split.digest.clone(),
        parts: split.parts,
        missing: (1..=split.parts).filter(|number| !there.contains(number)).collect(),
        of: parts.iter().map(Part::merged).collect(),
    };
    let run = RunDir::create(out, RunInfo { merged: Some(merged), ..info(&parts, &split, command) })?;
    let is_series = copy_notes(&parts, run.path())?;
    for part in &parts {
        tell(Told::Copies { part: part.note.part, parts: split.parts, cells: part.run.cells.len() });
        for cell in &part.run.cells {
            if let Some(evidence) = &cell.evidence {
                copy::folder(evidence, &run.path().join(cell.record.cell.folder()))?;
            }
        }
    }
    Ok(Merged { run: run.path().to_owned(), is_series, differences: differences(&parts) })
}

/// The parts in their order, and their plan, if each is there once and nothing else is.
fn checked(found: &Found, partial: bool) -> Result<(SplitNote, Vec<Part>), MergeError> {
    let (mut faults, mut parts, mut split) = (Vec::new(), Vec::<Part>::new(), None::<SplitNote>);
    for (path, from) in &found.runs {
        let run = read_run(path)?;
        let plan = SplitNote::read(path)?;
        let (Some(note), Some(plan)) = (run.info.part.clone(), plan) else {
            faults.push(Fault::Whole(path.clone()));
            continue;
        };
        let first = split.get_or_insert(plan.clone());
        if plan.digest != first.digest || note.digest != first.digest {
            let part = format!("part {} of {}", note.part, note.parts);
            let (digest, first) = (plan.digest, first.digest.clone());
            faults.push(Fault::OtherPlan { run: path.clone(), part, digest, first });
            continue;
        }
        // CI systems that follow links store the newest run twice.
        let is_copy = |part: &Part| part.from == *from && part.run.info == run.info;
        if !parts.iter().any(is_copy) {
            parts.push(Part { note, run, from: from.clone() });
        }
    }
    let Some(split) = split else { return Err(MergeError::Faults(faults)) };
    for number in 1..=split.parts {
        let runs: Vec<_> =
            parts.iter().filter(|part| part.note.part == number).map(|part| part.run.path.clone()).collect();
        match runs.len() {
            0 if !partial => {
                let cells = split.of_part(number).len();
                faults.push(Fault::Missing { part: number, parts: split.parts, cells });
            }
            0 | 1 => {}
            _ => faults.push(Fault::Twice { part: number, runs }),
        }
    }
    faults.extend(parts.iter().filter_map(|part| foreign(part, &split)));
    parts.sort_by_key(|part| part.note.part);
    if faults.is_empty() { Ok((split, parts)) } else { Err(MergeError::Faults(faults)) }
}

/// The first cell of a run that is not one of its part. With none in any run, no cell is there twice.
fn foreign(part: &Part, split: &SplitNote) -> Option<Fault> {
    let own: BTreeSet<_> = split.of_part(part.note.part).into_iter().map(|cell| cell.id).collect();
    let cell = part.run.cells.iter().find(|cell| !own.contains(&cell.record.cell))?;
    let (cell, run) = (cell.record.cell.to_string(), part.run.path.clone());
    Some(Fault::Cell { cell, run, part: part.note.part })
}

impl Part {
    fn merged(&self) -> MergedPart {
        MergedPart { part: self.note.part, started: self.run.info.started.clone(), from: self.from.clone() }
    }
}

/// The description of the whole.
fn info(parts: &[Part], split: &SplitNote, command: Vec<String>) -> RunInfo {
    let infos = || parts.iter().map(|part| &part.run.info);
    let planned = split.planned();
    let together = infos().cloned().reduce(RunInfo::with).unwrap_or_default();
    let (mut variants, mut scenarios) = (together.variants.clone(), together.scenarios.clone());
    let kernels = weave::kernels(&planned);
    variants.sort_by_key(|variant| kernels.iter().position(|kernel| *kernel == variant.name));
    // Scenarios are planned one after the other.
    scenarios.sort_by_key(|scenario| planned.iter().position(|cell| cell.id.scenario == scenario.name));
    RunInfo {
        started: infos().map(|info| info.started.clone()).min().unwrap_or_default(),
        command,
        jobs: infos().map(|info| info.jobs).sum(),
        variants,
        scenarios,
        planned,
        part: None,
        merged: None,
        ..together
    }
}

/// Copies what runs have beside their cells. Returns whether they are runs of a series.
fn copy_notes(parts: &[Part], run: &Path) -> Result<bool, MergeError> {
    for part in parts {
        let coverage = part.run.path.join(COVERAGE);
        if coverage.is_dir() {
            copy::folder(&coverage, &run.join(COVERAGE))?;
        }
    }
    let Some(first) = parts.first().map(|part| &part.run.path) else { return Ok(false) };
    if let Some(against) = AgainstNote::read(first)? {
        against.write(run)?;
    }
    let patches = first.join(PATCHES);
    if !patches.is_dir() {
        return Ok(false);
    }
    copy::folder(&patches, &run.join(PATCHES))?;
    let mut note = SeriesNote::read(first)?;
    // The options that repeat a cell name the folder of the patches last.
    if let Some(folder) = note.options.last_mut() {
        *folder = run.join(PATCHES).display().to_string();
    }
    note.write(run)?;
    Ok(true)
}

/// What differs between parts although they are parts of one plan.
fn differences(parts: &[Part]) -> Vec<String> {
    type Text = fn(&RunInfo) -> &str;
    let mut lines = Vec::new();
    let texts: [(&str, Text); 4] = [
        ("QEMU", |info| &info.qemu),
        ("the accelerator", |info| &info.accel),
        ("the clock", |info| &info.clock),
        ("the harness", |info| &info.harness),
    ];
    for (what, text) in texts {
        let by = group(parts.iter().map(|part| (text(&part.run.info).to_owned(), part.note.part)));
        lines.extend(differs(what, &by));
    }
    let cells = parts.iter().flat_map(|part| part.run.cells.iter().map(move |cell| (cell, part.note.part)));
    let mut kernels = BTreeMap::<&str, Vec<(String, u32)>>::new();
    for (cell, part) in cells {
        if let Some(key) = &cell.kernel {
            kernels.entry(&cell.record.cell.variant).or_default().push((key.clone(), part));
        }
    }
    for (variant, keys) in kernels {
        lines.extend(differs(&format!("the kernel {variant}"), &group(keys.into_iter())));
    }
    lines
}

fn group(items: impl Iterator<Item = (String, u32)>) -> BTreeMap<String, BTreeSet<u32>> {
    let mut groups = BTreeMap::<_, BTreeSet<_>>::new();
    items.filter(|(text, _)| !text.is_empty()).for_each(|(text, part)| {
        groups.entry(text).or_default().insert(part);
    });
    groups
}

fn differs(what: &str, groups: &BTreeMap<String, BTreeSet<u32>>) -> Option<String> {
    let of = |(text, parts): (&String, &BTreeSet<u32>)| {
        let parts: Vec<_> = parts.iter().map(ToString::to_string).collect();
        format!("{text} in part {}", parts.join(", "))
    };
    let words: Vec<_> = groups.iter().map(of).collect();
    (words.len() > 1).then(|| format!("{what} differs between parts: {}", words.join("; ")))
}
