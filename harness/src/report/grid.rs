//! The cells of a run as people know them from the table: kernels across, scenarios and triggers down.

use std::collections::HashMap;

use super::{Against, Report};
use crate::cell::CellId;
use crate::evidence::RunCell;
use crate::trigger::Trigger;

/// The cells, ordered as they are shown.
#[derive(Debug)]
pub struct Grid<'a> {
    /// The columns: first the reference, then the kernels that the run describes, in its order, then the others.
    pub variants: Vec<&'a str>,
    /// The rows, in the order of their first cells. Rows of one scenario are together.
    pub rows: Vec<GridRow<'a>>,
}

/// A scenario with a trigger, on a topology.
#[derive(Debug)]
pub struct GridRow<'a> {
    pub scenario: &'a str,
    pub topology: &'a str,
    pub trigger: &'static str,
    /// For each column, the repeats of the cell.
    pub cells: Vec<Vec<&'a RunCell>>,
}

impl GridRow<'_> {
    /// The family of the scenario: what stands before `::` in its name.
    pub fn family(&self) -> &str {
        family(self.scenario)
    }

    /// The trigger; none if the scenario removes nothing.
    pub fn of(&self) -> Option<Trigger> {
        self.cells.iter().flatten().find_map(|cell| cell.record.cell.trigger)
    }
}

/// The family of a scenario: what stands before `::` in its name.
pub fn family(scenario: &str) -> &str {
    scenario.split_once("::").map_or(scenario, |(family, _)| family)
}

/// The grid of a report.
pub fn grid(report: &Report) -> Grid<'_> {
    let variants = variants(report);
    let column: HashMap<&str, usize> = variants.iter().copied().zip(0..).collect();
    let mut rows: Vec<GridRow<'_>> = Vec::new();
    let mut places: HashMap<(&str, &str, &'static str), usize> = HashMap::new();
    for cell in &report.run.cells {
        let CellId { scenario, topology, variant, .. } = &cell.record.cell;
        let trigger = cell.record.cell.trigger_name();
        let place = *places.entry((scenario, topology, trigger)).or_insert_with(|| {
            rows.push(GridRow { scenario, topology, trigger, cells: vec![Vec::new(); variants.len()] });
            rows.len() - 1
        });
        if let Some(&column) = column.get(variant.as_str()) {
            rows[place].cells[column].push(cell);
        }
    }
    let mut first: HashMap<(&str, &str), usize> = HashMap::new();
    for (row, place) in rows.iter().zip(0..) {
        first.entry((row.scenario, row.topology)).or_insert(place);
    }
    rows.sort_by_key(|row| first.get(&(row.scenario, row.topology)).copied());
    Grid { variants, rows }
}

fn variants(report: &Report) -> Vec<&str> {
    let mut seen: Vec<&str> = distinct(report.run.cells.iter().map(|cell| cell.record.cell.variant.as_str()));
    let reference = report.against.as_ref().and_then(Against::kernel_of_run);
    let known = reference.into_iter().chain(report.run.info.variants.iter().map(|variant| variant.name.as_str()));
    let mut ordered: Vec<&str> = distinct(known.filter(|name| seen.contains(name)));
    seen.retain(|name| !ordered.contains(name));
    ordered.extend(seen);
    ordered
}

/// Each item once, in the order of its first appearance.
pub fn distinct<T: PartialEq>(items: impl Iterator<Item = T>) -> Vec<T> {
    items.fold(Vec::new(), |mut distinct, item| {
        if !distinct.contains(&item) {
            distinct.push(item);
        }
        distinct
    })
}
