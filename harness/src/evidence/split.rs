//! A plan that is cut into parts, each of which is a run of its own (`split.json`).

use std::collections::BTreeSet;
use std::path::Path;

use kernels::cache::KeyMaker;
use serde::{Deserialize, Serialize};

use super::{EvidenceError, file};
use crate::cell::{CellId, PlannedCell};
use crate::verdict::Expected;

/// Where it is written, in the folder of each part's run.
const SPLIT: &str = "split.json";

/// All cells of a plan, and the part that each belongs to. Every part keeps the same.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SplitNote {
    /// A hash of everything below but the seconds. Parts with the same digest are parts of one plan.
    pub digest: String,
    /// By what cells were assigned to parts: `hash`, `count` or `times`.
    pub by: String,
    /// The number of parts.
    pub parts: u32,
    /// The cells, in the order of the plan.
    pub cells: Vec<SplitCell>,
}

/// A cell of such a plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SplitCell {
    /// Identifies it.
    pub id: CellId,
    /// The expected result.
    pub expected: Expected,
    /// The part that runs it, from 1.
    pub part: u32,
    /// How long it takes by an earlier run, in seconds. None if that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
}

/// Which part of a plan a run is (in `run.json`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartNote {
    /// The digest of the plan.
    pub digest: String,
    /// By what cells were assigned to parts.
    pub by: String,
    /// The number of this part, from 1.
    pub part: u32,
    /// The number of parts.
    pub parts: u32,
}

/// That a run was made of the parts of a plan (in `run.json`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergedNote {
    /// The digest of the plan.
    pub digest: String,
    /// The number of parts.
    pub parts: u32,
    /// The parts that are missing, by their numbers.
    pub missing: Vec<u32>,
    /// The others.
    pub of: Vec<MergedPart>,
}

/// A part that was merged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergedPart {
    /// Its number, from 1.
    pub part: u32,
    /// When its run began.
    pub started: String,
    /// The folder or archive that it came from.
    pub from: String,
}

/// One part of a plan, for the run that is this part.
#[derive(Clone, Debug, PartialEq)]
pub struct Share {
    /// The plan.
    pub split: SplitNote,
    /// The number of the part, from 1.
    pub part: u32,
}

impl SplitNote {
    /// A plan whose cells have been assigned to parts.
    pub fn new(by: &str, parts: u32, cells: Vec<SplitCell>) -> SplitNote {
        let mut split = SplitNote { digest: String::new(), by: by.to_owned(), parts, cells };
        split.digest = split.computed();
        split
    }

    /// The digest of the content.
    fn computed(&self) -> String {
        let cell = |cell: &SplitCell| format!("{} {:?} {}\n", cell.id, cell.expected, cell.part);
        let maker = KeyMaker::new().with("by", &self.by).with("parts", self.parts.to_le_bytes());
        maker.with("cells", self.cells.iter().map(cell).collect::<String>()).finish().as_str().to_owned()
    }

    /// The cells of a part.
    pub fn of_part(&self, part: u32) -> Vec<PlannedCell> {
        self.cells.iter().filter(|cell| cell.part == part).map(SplitCell::planned).collect()
    }

    /// All cells.
    pub fn planned(&self) -> Vec<PlannedCell> {
        self.cells.iter().map(SplitCell::planned).collect()
    }

    /// The kernels of a part.
    pub fn kernels_of(&self, part: u32) -> BTreeSet<&str> {
        self.cells.iter().filter(|cell| cell.part == part).map(|cell| cell.id.variant.as_str()).collect()
    }

    /// Writes it into the folder of a run.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write(&self, run: &Path) -> Result<(), EvidenceError> {
        self.write_file(&run.join(SPLIT))
    }

    /// Writes it into a file.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write_file(&self, path: &Path) -> Result<(), EvidenceError> {
        file::write_json(path, self)
    }

    /// Reads it from the folder of a run; none if the run is not a part.
    ///
    /// # Errors
    /// The file cannot be read, or was changed after it was written.
    pub fn read(run: &Path) -> Result<Option<SplitNote>, EvidenceError> {
        SplitNote::read_file(&run.join(SPLIT))
    }

    /// Reads it from a file; none if there is no such file.
    ///
    /// # Errors
    /// The file cannot be read, or was changed after it was written.
    pub fn read_file(path: &Path) -> Result<Option<SplitNote>, EvidenceError> {
        let Some(split) = file::read_json::<SplitNote>(path)? else { return Ok(None) };
        match split.computed() == split.digest {
            true => Ok(Some(split)),
            false => Err(EvidenceError::Changed { path: path.to_owned(), digest: split.digest.clone() }),
        }
    }
}

impl SplitCell {
    fn planned(&self) -> PlannedCell {
        PlannedCell { id: self.id.clone(), expected: self.expected.clone() }
    }
}

impl Share {
    /// The note for `run.json`.
    pub fn note(&self) -> PartNote {
        let SplitNote { digest, by, parts, .. } = &self.split;
        PartNote { digest: digest.clone(), by: by.clone(), part: self.part, parts: *parts }
    }

    /// The cells of the part.
    pub fn cells(&self) -> Vec<PlannedCell> {
        self.split.of_part(self.part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::tests::id;

    fn split() -> SplitNote {
        let cell = |(variant, part): (&str, u32)| SplitCell {
            id: id("a::b", None, variant, 1),
            expected: Expected::Pass,
            part,
            seconds: None,
        };
        SplitNote::new("hash", 2, [("x", 1), ("y", 2), ("z", 1)].map(cell).into())
    }

    #[test]
    fn the_digest_is_of_the_assignment_and_not_of_the_seconds() {
        let mut timed = split();
        timed.cells[0].seconds = Some(1.5);
        assert_eq!(timed.computed(), split().digest);
        let mut moved = split();
        moved.cells[0].part = 2;
        assert_ne!(moved.computed(), split().digest);
        let mut by = split();
        by.by = "count".to_owned();
        assert_ne!(by.computed(), split().digest);
    }

    #[test]
    fn a_split_is_read_as_it_was_written_and_a_changed_one_is_refused() {
        let run = tempfile::tempdir().unwrap();
        assert_eq!(SplitNote::read(run.path()).unwrap(), None);
        split().write(run.path()).unwrap();
        assert_eq!(SplitNote::read(run.path()).unwrap(), Some(split()));
        let mut changed = split();
        changed.cells[0].part = 2;
        changed.write(run.path()).unwrap();
        let error = SplitNote::read(run.path()).unwrap_err().to_string();
        assert!(error.contains("was changed after it was written"), "{error}");
    }

    #[test]
    fn a_part_has_its_cells_and_kernels() {
        assert_eq!(split().of_part(1).len() + split().of_part(2).len(), split().planned().len());
        assert_eq!(split().kernels_of(1), ["x", "z"].into());
        assert_eq!(Share { split: split(), part: 2 }.cells()[0].id.variant, "y");
    }
}
