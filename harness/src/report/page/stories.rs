//! What is told of which cell, so that a page of a long run is still short enough to load at once.
//!
//! A cell that passed as it should, or that did not begin, has one line. Of the others, all is told as long as there is
//! room: first of those that are not as expected, then of one cell for each way in which a row fails, then of the cells
//! that fail in the same way as one before. The rest is told short.

use std::collections::{BTreeSet, HashMap, HashSet};

use maud::{Markup, html};

use super::super::grid::GridRow;
use super::super::timeline;
use super::picture::Shared;
use super::{Page, cell, head, values, words};
use crate::evidence::RunCell;
use crate::text::counted;
use crate::verdict::Verdict;

/// The longest page, in bytes, as far as it depends on what is told of cells.
const LIMIT: usize = 4_500_000;

/// How much is told of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// It has a line.
    Line,
    /// What happened, and its files.
    Short,
    /// Everything.
    Whole,
}

/// The cells of a page.
#[derive(Default)]
pub struct Stories {
    /// Those of which all is told.
    whole: HashMap<*const RunCell, Markup>,
    /// The pictures that several cells of a row show.
    shared: HashMap<*const RunCell, Markup>,
    /// How many are told short.
    short: usize,
}

/// The same cell on a kernel on which it passes, as others are compared with it.
pub struct Reference<'a> {
    pub cell: &'a RunCell,
    pub picture: Shared,
    /// What its kernel said.
    pub said: BTreeSet<String>,
}

/// A cell and its row.
type Place<'r, 'a> = (&'a RunCell, &'r GridRow<'a>);

impl Stories {
    /// Of as many cells as fit a page of which so many bytes are taken.
    pub fn of(page: &Page<'_>, taken: usize) -> Stories {
        let cells = page.grid.rows.iter().flat_map(|row| row.cells.iter().flatten().map(move |cell| (*cell, row)));
        let (mut told, lines): (Vec<Place<'_, '_>>, Vec<_>) = cells.partition(|(cell, _)| !has_line(cell));
        let mut room = LIMIT.saturating_sub(taken);
        let short: HashMap<_, _> =
            told.iter().map(|(cell, _)| (std::ptr::from_ref(*cell), cell::short(page, cell).0.len())).collect();
        let least = lines.iter().map(|(cell, _)| cell::line(page, cell).0.len()).chain(short.values().copied());
        room = room.saturating_sub(least.sum());
        sort(&mut told);
        let mut stories = Stories::default();
        let mut references: HashMap<*const RunCell, Option<Reference<'_>>> = HashMap::new();
        for (number, (cell, row)) in told.iter().enumerate() {
            let mut more = 0;
            let other = cell::reference(page, cell, row);
            let reference = other.and_then(|other| {
                let known = references.entry(std::ptr::from_ref(other)).or_insert_with(|| {
                    let (reference, picture) = refer(page, other)?;
                    more = picture.0.len();
                    stories.shared.insert(std::ptr::from_ref(other), picture);
                    Some(reference)
                });
                known.as_ref()
            });
            let whole = cell::whole(page, cell, reference);
            let length = (whole.0.len() + more).saturating_sub(short[&std::ptr::from_ref(*cell)]);
            if length > room {
                stories.short = told.len() - number;
                break;
            }
            room -= length;
            stories.whole.insert(std::ptr::from_ref(*cell), whole);
        }
        stories
    }

    /// How much is told of a cell.
    pub fn told(&self, cell: &RunCell) -> Told {
        match () {
            () if has_line(cell) => Told::Line,
            () if self.whole.contains_key(&std::ptr::from_ref(cell)) => Told::Whole,
            () => Told::Short,
        }
    }

    /// All cells of a row. The lines come last.
    pub fn row(&self, page: &Page<'_>, row: &GridRow<'_>) -> Markup {
        let cells = || row.cells.iter().flatten();
        html! {
            @for shared in cells().filter_map(|cell| self.shared.get(&std::ptr::from_ref(*cell))) { (shared) }
            @for cell in cells() {
                @match self.told(cell) {
                    Told::Whole => (self.whole[&std::ptr::from_ref(*cell)]),
                    Told::Short => (cell::short(page, cell)),
                    Told::Line => {},
                }
            }
            @for cell in cells().filter(|cell| has_line(cell)) { (cell::line(page, cell)) }
        }
    }

    /// What a reader must know who looks for more.
    pub fn note(&self, page: &Page<'_>) -> Markup {
        let folders: Vec<_> = page.report.run.folders().map(|folder| folder.display().to_string()).collect();
        let command = ["cargo", "xtask", "report"].into_iter().chain(folders.iter().map(String::as_str));
        let command =
            shell_words::join(command.chain(["--only", "SCENARIO::*", "--format", "html", "--out", "page.html"]));
        html! {
            @if self.short > 0 {
                p.missing {
                    "This run is long, so " (counted(self.short, "cell is told short", "cells are told short"))
                    " here, mostly such as fail as expected and like another cell of which all is told. Their files have the rest. "
                    "A page of one scenario tells all of it: " code { (command) }
                }
            }
        }
    }
}

/// A cell that passed as it should, or that did not begin.
fn has_line(cell: &RunCell) -> bool {
    cell.evidence.is_none() || (cell.record.verdict == Verdict::Pass && cell.record.is_as_expected())
}

/// First what is told first.
fn sort(told: &mut [Place<'_, '_>]) {
    let mut seen = HashSet::new();
    let mut order: HashMap<*const RunCell, u8> = HashMap::new();
    for (cell, row) in told.iter() {
        let way = head::way(cell);
        let is_new = seen.insert((std::ptr::from_ref(*row), way.0, way.1.join(" ")));
        let is_as_expected = cell.record.is_as_expected() && !words::is_own(cell);
        let rank = match (is_as_expected, is_new) {
            (false, _) => 0,
            (true, true) => 1,
            (true, false) => 2,
        };
        order.insert(std::ptr::from_ref(*cell), rank);
    }
    told.sort_by_key(|(cell, _)| order.get(&std::ptr::from_ref(*cell)).copied());
}

/// What others are compared with, and its picture.
fn refer<'a>(page: &Page<'_>, cell: &'a RunCell) -> Option<(Reference<'a>, Markup)> {
    let details = cell.details();
    let timeline = timeline::of(&cell.record, &details)?;
    let (picture, once) = Shared::of(&timeline, format!("t{}", page.id(cell)));
    Some((Reference { cell, picture, said: values::said(&details) }, once))
}
