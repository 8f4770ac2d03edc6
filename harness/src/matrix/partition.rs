//! Cuts a plan into parts, which run on any number of machines, each without knowing of the others.
//!
//! `hash:K/N` and `count:K/N` are spelt and meant as cargo-nextest's `--partition`, with one difference: the hash goes
//! over the machine of a cell (kernel, topology, command line) and not over the cell's name. So all cells that start from
//! one snapshot are in one part.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use kernels::cache::KeyMaker;

use crate::cell::{CellId, PlannedCell};
use crate::evidence::{EvidenceError, Share, SplitCell, SplitNote};
use crate::scenario::Scenario;
use crate::trigger::{Hotplug, Trigger};

/// Which part of a plan to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    by: By,
    part: u32,
    parts: u32,
}

/// By what cells are assigned to parts.
#[derive(Clone, Debug, PartialEq, Eq)]
enum By {
    /// By a hash of the cell's machine. A cell that is added to a plan moves no other cell.
    Hash,
    /// The first cell to the first part, the second to the second, and so on.
    Count,
    /// By the file of a plan that was cut before: see [`balance`](super::balance::balance).
    File(PathBuf),
}

/// Why a partition cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum PartitionError {
    /// The text is not a partition.
    #[error(
        "`{0}` is not hash:K/N, count:K/N or PLAN.json:K/N, where K and N are numbers and K is from 1 to N: hash:2/4 is the \
         second of four parts"
    )]
    Syntax(String),
    /// The file of the plan does not exist.
    #[error(
        "there is no file {}: `cargo xtask plan --parts N --format json` writes a plan; the parts of a partition are \
         hash:K/N, count:K/N or PLAN.json:K/N", .0.display()
    )]
    NoFile(PathBuf),
    /// The file of the plan has another number of parts.
    #[error("{} has {has} parts, and not {asked}", path.display())]
    Parts {
        /// The file.
        path: PathBuf,
        /// The number of its parts.
        has: u32,
        /// The number that was asked for.
        asked: u32,
    },
    /// The options of this command select other cells than the plan in the file has.
    #[error(
        "the options of this command select other cells than {} has: {}; give the same options to `plan` and to its parts, \
         in the same checkout", path.display(), difference
    )]
    OtherCells {
        /// The file.
        path: PathBuf,
        /// The first difference.
        difference: String,
    },
    /// The file of the plan cannot be read.
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
}

impl FromStr for Partition {
    type Err = PartitionError;

    fn from_str(text: &str) -> Result<Partition, PartitionError> {
        let wrong = || PartitionError::Syntax(text.to_owned());
        let (by, numbers) = text.rsplit_once(':').ok_or_else(wrong)?;
        let (part, parts) = numbers.split_once('/').ok_or_else(wrong)?;
        let number = |digits: &str| digits.parse::<u32>().map_err(|_| wrong());
        let (part, parts) = (number(part)?, number(parts)?);
        let by = match by {
            "hash" => By::Hash,
            "count" => By::Count,
            "" => return Err(wrong()),
            path => By::File(path.into()),
        };
        if (1..=parts).contains(&part) { Ok(Partition { by, part, parts }) } else { Err(wrong()) }
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Partition { by, part, parts } = self;
        match by {
            By::Hash => write!(f, "hash:{part}/{parts}"),
            By::Count => write!(f, "count:{part}/{parts}"),
            By::File(path) => write!(f, "{}:{part}/{parts}", path.display()),
        }
    }
}

impl Partition {
    /// The number of the part, from 1.
    pub fn part(&self) -> u32 {
        self.part
    }

    /// Its part of a plan.
    ///
    /// # Errors
    /// [`PartitionError`], if a file has the plan and does not fit.
    pub fn share(&self, cells: &[PlannedCell], scenarios: &[Scenario]) -> Result<Share, PartitionError> {
        let split = match &self.by {
            By::Hash => split("hash", cells, self.parts, |_, id| part_of(id, scenarios, self.parts)),
            // A plan has fewer cells than there are numbers.
            By::Count => split("count", cells, self.parts, |place, _| (place % self.parts as usize) as u32 + 1),
            By::File(path) => {
                let found = SplitNote::read_file(path)?.ok_or_else(|| PartitionError::NoFile(path.clone()))?;
                if found.parts != self.parts {
                    return Err(PartitionError::Parts { path: path.clone(), has: found.parts, asked: self.parts });
                }
                match difference(&found.planned(), cells) {
                    Some(difference) => return Err(PartitionError::OtherCells { path: path.clone(), difference }),
                    None => found,
                }
            }
        };
        Ok(Share { split, part: self.part })
    }
}

fn split(by: &str, cells: &[PlannedCell], parts: u32, part: impl Fn(usize, &CellId) -> u32) -> SplitNote {
    let cell = |(place, PlannedCell { id, expected }): (usize, &PlannedCell)| SplitCell {
        part: part(place, id),
        id: id.clone(),
        expected: expected.clone(),
        seconds: None,
    };
    SplitNote::new(by, parts, cells.iter().enumerate().map(cell).collect())
}

/// The part of a cell by the hash of its machine, from 1.
fn part_of(id: &CellId, scenarios: &[Scenario], parts: u32) -> u32 {
    let hash = KeyMaker::new().with("machine", machine(id, scenarios)).finish();
    // 60 bits: the first digits of a SHA-256.
    let number = u64::from_str_radix(&hash.as_str()[..15], 16).unwrap_or_default();
    // The remainder is smaller than `parts`.
    (number % u64::from(parts)) as u32 + 1
}

/// What is known of a cell's machine before anything is built: the kernel, the hardware, and what the scenario adds to the
/// command line. Cells with the same text start from the same snapshot.
pub(super) fn machine(id: &CellId, scenarios: &[Scenario]) -> String {
    let hotplug = match id.trigger.map_or(Hotplug::Native, Trigger::hotplug) {
        Hotplug::Native => "native",
        Hotplug::Acpi => "acpi",
    };
    let scenario = scenarios.iter().find(|scenario| scenario.name == id.scenario);
    let append = scenario.map(|scenario| scenario.append.join(" ")).unwrap_or_default();
    let memory = scenario.and_then(|scenario| scenario.needs.memory_mib).map(|mib| mib.to_string());
    format!("{}\n{}\n{hotplug}\n{}\n{append}", id.variant, id.topology, memory.unwrap_or_default())
}

/// The first difference between two plans, in words.
fn difference(theirs: &[PlannedCell], ours: &[PlannedCell]) -> Option<String> {
    let name = |cell: &PlannedCell| format!("{} (expected: {})", cell.id, cell.expected.word());
    let only = |some: &[PlannedCell], others: &[PlannedCell]| some.iter().find(|cell| !others.contains(cell)).map(name);
    if theirs == ours {
        return None;
    }
    let of_theirs = only(theirs, ours).map(|cell| format!("only the plan has {cell}"));
    let of_ours = || only(ours, theirs).map(|cell| format!("only the command has {cell}"));
    Some(of_theirs.or_else(of_ours).unwrap_or_else(|| "the order of the cells".to_owned()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::scenario::Needs;
    use crate::verdict::{Expected, Verdict};

    fn cell(scenario: &str, trigger: Option<Trigger>, variant: &str) -> PlannedCell {
        let id = CellId {
            scenario: scenario.to_owned(),
            topology: "igb".to_owned(),
            trigger,
            variant: variant.to_owned(),
            repeat: 1,
        };
        PlannedCell { id, expected: Expected::Pass }
    }

    fn scenario(name: &'static str, append: &'static [&'static str]) -> Scenario {
        Scenario {
            name,
            about: "",
            detects: &[],
            topology: "igb",
            also: &[],
            triggers: &[],
            append,
            needs: Needs::NOTHING,
            run: |_| Box::pin(async { Ok(Verdict::Pass) }),
        }
    }

    fn scenarios() -> [Scenario; 3] {
        [scenario("a::one", &[]), scenario("a::two", &[]), scenario("b::other", &["pci=noaer"])]
    }

    /// A hundred and twenty cells on twenty kernels.
    fn cells() -> Vec<PlannedCell> {
        let triggers = [Some(Trigger::Yank), Some(Trigger::DeviceDelAcpi)];
        let of = |number: usize| {
            let variant = format!("kernel-{number}");
            let names = ["a::one", "a::two", "b::other"].into_iter();
            names.flat_map(move |name| triggers.map(|trigger| cell(name, trigger, &variant))).collect::<Vec<_>>()
        };
        (0..20).flat_map(of).collect()
    }

    fn share(partition: &str, cells: &[PlannedCell]) -> Share {
        partition.parse::<Partition>().unwrap().share(cells, &scenarios()).unwrap()
    }

    #[test]
    fn the_parts_together_are_the_whole() {
        for by in ["hash", "count"] {
            for parts in [1, 2, 3, 4, 7, 19, 200] {
                let shares: Vec<_> = (1..=parts).map(|k| share(&format!("{by}:{k}/{parts}"), &cells())).collect();
                let mut together: Vec<_> = shares.iter().flat_map(Share::cells).collect();
                let place = |cell: &PlannedCell| cells().iter().position(|one| one == cell).unwrap();
                together.sort_by_key(place);
                assert_eq!(together, cells(), "{by} {parts}");
                assert!(shares.iter().all(|share| share.note().digest == shares[0].note().digest));
            }
        }
    }

    #[test]
    fn a_cell_that_is_added_moves_no_other() {
        for parts in [2, 3, 4, 7, 19] {
            let place = |cells: &[PlannedCell]| -> BTreeMap<_, _> {
                share(&format!("hash:1/{parts}"), cells)
                    .split
                    .cells
                    .into_iter()
                    .map(|cell| (cell.id, cell.part))
                    .collect()
            };
            let before = place(&cells());
            let mut more = cells();
            more.insert(0, cell("a::two", None, "kernel-3"));
            more.insert(7, cell("a::two", None, "new"));
            let after = place(&more);
            assert!(before.iter().all(|(id, part)| after[id] == *part), "{parts}");
        }
    }

    #[test]
    fn the_cells_of_a_machine_are_in_one_part() {
        let split = share("hash:1/19", &cells()).split;
        let part = |name: &str, trigger| {
            let id = cell(name, Some(trigger), "kernel-7").id;
            split.cells.iter().find(|cell| cell.id == id).unwrap().part
        };
        assert_eq!(part("a::one", Trigger::Yank), part("a::two", Trigger::Yank));
        let machines = [("a::one", Trigger::Yank), ("a::one", Trigger::DeviceDelAcpi), ("b::other", Trigger::Yank)]
            .map(|(name, trigger)| machine(&cell(name, Some(trigger), "kernel-7").id, &scenarios()));
        assert!(machines[0] != machines[1] && machines[0] != machines[2]);
    }

    #[test]
    fn every_nth_cell_is_in_a_part_by_count() {
        let names = |partition: &str| -> Vec<_> {
            let few = ["v", "w", "x", "y", "z"].map(|variant| cell("a::one", None, variant));
            share(partition, &few).cells().into_iter().map(|cell| cell.id.variant).collect()
        };
        assert_eq!(names("count:1/2"), ["v", "x", "z"]);
        assert_eq!(names("count:2/2"), ["w", "y"]);
        assert_eq!(names("count:6/6"), Vec::<String>::new());
    }

    #[test]
    fn a_plan_in_a_file_must_have_the_same_cells() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("plan.json");
        let asked = |numbers: &str, cells: &[PlannedCell]| {
            let partition = format!("{}:{numbers}", file.display()).parse::<Partition>().unwrap();
            partition.share(cells, &scenarios()).map_err(|error| error.to_string())
        };
        assert!(asked("1/2", &cells()).unwrap_err().contains("`cargo xtask plan --parts N"));
        let split = share("count:1/2", &cells()).split;
        std::fs::write(&file, serde_json::to_string(&split).unwrap()).unwrap();
        assert_eq!(asked("2/2", &cells()).unwrap().split, split);
        assert!(asked("2/3", &cells()).unwrap_err().ends_with("has 2 parts, and not 3"));
        let error = asked("1/2", &cells()[1..]).unwrap_err();
        assert!(error.contains("only the plan has a::one::igb::yank::kernel-0 (expected: pass)"), "{error}");
        let more = [cells(), vec![cell("a::one", None, "new")]].concat();
        assert!(asked("1/2", &more).unwrap_err().contains("only the command has a::one::igb::none::new"));
    }

    #[test]
    fn what_is_no_partition_is_refused() {
        for wrong in [
            "",
            "hash",
            "hash:1",
            "hash:0/4",
            "hash:5/4",
            "hash:a/4",
            "hash:1/0",
            ":1/2",
            "hash:-1/2",
            "hash:1/99999999999",
        ] {
            let error = wrong.parse::<Partition>().unwrap_err().to_string();
            assert!(error.contains("hash:2/4 is the second of four parts"), "{wrong}: {error}");
        }
        for good in ["hash:1/1", "count:3/4", "runs/plan.json:2/8"] {
            assert_eq!(good.parse::<Partition>().unwrap().to_string(), good);
        }
    }
}
