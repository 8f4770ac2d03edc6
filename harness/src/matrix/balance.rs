//! Cuts a plan into parts that take about the same time.

use std::collections::{BTreeMap, BTreeSet};

use super::order::Times;
use super::partition::machine;
use crate::cell::PlannedCell;
use crate::evidence::{SplitCell, SplitNote};
use crate::scenario::Scenario;

/// No piece of work that stays together takes more than this share of a part's time, unless it is a single cell. So no
/// part takes a fifth longer than the mean.
const LARGEST: f64 = 0.2;

/// Up to this share over the mean, a part gets more cells of a machine that it has already, before another part does.
const FULL: f64 = 1.02;

/// Cells of one machine that stay together.
struct Piece<'a> {
    machine: &'a str,
    /// Their places in the plan.
    cells: Vec<usize>,
    seconds: f64,
}

/// A plan in `parts` parts of about the same time, by the times of an earlier run. Cells of one machine stay together as
/// far as that allows: a part boots each of its machines, and builds each of its kernels.
pub fn balance(cells: &[PlannedCell], scenarios: &[Scenario], parts: u32, times: &Times) -> SplitNote {
    let seconds: Vec<_> = times.each(cells).map(|(_, seconds)| seconds).collect();
    let mean = seconds.iter().sum::<f64>() / f64::from(parts.max(1));
    let machines: Vec<_> = cells.iter().map(|cell| machine(&cell.id, scenarios)).collect();
    let mut pieces = pieces(&machines, &seconds, mean * LARGEST);
    pieces.sort_by(|one, other| other.seconds.total_cmp(&one.seconds).then_with(|| one.cells.cmp(&other.cells)));
    let mut loads: Vec<(f64, BTreeSet<&str>)> = vec![(0.0, BTreeSet::new()); parts.max(1) as usize];
    let mut part_of = vec![1; cells.len()];
    for piece in &pieces {
        let fits =
            |(load, has): &(f64, BTreeSet<&str>)| has.contains(piece.machine) && load + piece.seconds <= mean * FULL;
        let part = loads.iter().position(fits).unwrap_or_else(|| lightest(&loads));
        loads[part].0 += piece.seconds;
        loads[part].1.insert(piece.machine);
        for cell in &piece.cells {
            part_of[*cell] = part as u32 + 1;
        }
    }
    let cell = |place: usize| SplitCell {
        id: cells[place].id.clone(),
        expected: cells[place].expected.clone(),
        part: part_of[place],
        seconds: Some((seconds[place] * 1e3).round() / 1e3),
    };
    SplitNote::new("times", parts.max(1), (0..cells.len()).map(cell).collect())
}

fn lightest(loads: &[(f64, BTreeSet<&str>)]) -> usize {
    let place = loads.iter().enumerate().min_by(|(_, one), (_, other)| one.0.total_cmp(&other.0));
    place.map_or(0, |(place, _)| place)
}

/// The cells of each machine, in pieces that take at most so long each.
fn pieces<'a>(machines: &'a [String], seconds: &[f64], largest: f64) -> Vec<Piece<'a>> {
    let mut by_machine = BTreeMap::<&str, Vec<usize>>::new();
    for (place, machine) in machines.iter().enumerate() {
        by_machine.entry(machine).or_default().push(place);
    }
    let mut pieces = Vec::new();
    for (machine, cells) in by_machine {
        let mut piece = Piece { machine, cells: Vec::new(), seconds: 0.0 };
        for cell in cells {
            if !piece.cells.is_empty() && piece.seconds + seconds[cell] > largest {
                pieces.push(std::mem::replace(&mut piece, Piece { machine, cells: Vec::new(), seconds: 0.0 }));
            }
            piece.cells.push(cell);
            piece.seconds += seconds[cell];
        }
        pieces.push(piece);
    }
    pieces
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cell::CellId;
    use crate::verdict::Expected;

    fn cell(scenario: usize, variant: usize) -> PlannedCell {
        let id = CellId {
            scenario: format!("a::s{scenario}"),
            topology: "igb".to_owned(),
            trigger: None,
            variant: format!("v{variant}"),
            repeat: 1,
        };
        PlannedCell { id, expected: Expected::Pass }
    }

    fn sums(split: &SplitNote) -> Vec<f64> {
        let of = |part| split.cells.iter().filter(|cell| cell.part == part).filter_map(|cell| cell.seconds).sum();
        (1..=split.parts).map(of).collect()
    }

    proptest! {
        /// Seconds of cells on kernels, one of which has most cells, as in the catalogue.
        #[test]
        fn no_part_takes_a_fifth_longer_than_the_mean(
            seconds in prop::collection::vec(prop::collection::vec(1.0..12.0f64, 1..40), 4..30),
            parts in 1u32..9,
        ) {
            let mut cells = Vec::new();
            let mut known = Vec::new();
            for (variant, times) in seconds.iter().enumerate() {
                for (scenario, time) in times.iter().enumerate() {
                    cells.push(cell(scenario, variant));
                    known.push((cell(scenario, variant).id, *time));
                }
            }
            let split = balance(&cells, &[], parts, &Times::known(known));
            prop_assert_eq!(split.planned(), cells);
            let sums = sums(&split);
            let mean = sums.iter().sum::<f64>() / f64::from(parts);
            let longest = sums.iter().copied().fold(0.0, f64::max);
            prop_assert!(longest <= mean + (mean * LARGEST).max(12.0) + 0.1, "{:?}", sums);
        }
    }

    #[test]
    fn cells_of_a_machine_stay_together_if_the_times_allow_it() {
        let cells: Vec<_> = (0..8).flat_map(|variant| (0..2).map(move |scenario| cell(scenario, variant))).collect();
        let split = balance(&cells, &[], 2, &Times::default());
        assert_eq!(sums(&split)[0], sums(&split)[1]);
        for pair in split.cells.chunks(2) {
            assert_eq!(pair[0].part, pair[1].part, "{} and {}", pair[0].id, pair[1].id);
        }
    }

    #[test]
    fn a_kernel_with_most_of_the_cells_is_divided() {
        let cells: Vec<_> = (0..40).map(|scenario| cell(scenario, 0)).collect();
        let split = balance(&cells, &[], 4, &Times::default());
        assert_eq!(sums(&split), [100.0; 4]);
        assert!(balance(&[], &[], 4, &Times::default()).cells.is_empty());
    }
}
