//! What a run came to: the answer in a sentence, and one more for what has no result.

use super::grid::distinct;
use super::{Change, Counts, Report, words};
use crate::evidence::{RunCell, SeriesNote};
use crate::text::counted;
use crate::verdict::Verdict;

/// What the run came to: the answer in a sentence, and one more for what has no result.
pub fn answer(report: &Report) -> String {
    sentences(report).join(" ")
}

/// The same, sentence by sentence.
pub fn sentences(report: &Report) -> Vec<String> {
    let cells = &report.run.cells;
    let counts = report.counts();
    if cells.is_empty() && report.bisection.is_none() {
        return vec!["The run has no cells, so nothing is known.".to_owned()];
    }
    let mut parts = match (&report.against, &report.series) {
        _ if report.bisection.is_some() => report.bisection.iter().map(|note| note.answer.clone()).collect(),
        (Some(_), _) => vec![compared(report)],
        (None, Some(note)) => vec![from_patch_to_patch(report, note)],
        (None, None) => expected(report, counts),
    };
    let not_begun = cells.iter().filter(|cell| cell.evidence.is_none()).count();
    let broken = counts.infra.saturating_sub(not_begun);
    if broken > 0 {
        parts.push(format!("{} no result, because the harness or the test bed failed", have(broken)));
    }
    if not_begun > 0 {
        parts.push(format!("{} not begun, because the run ended before, or still goes on", have(not_begun)));
    }
    parts.into_iter().map(|part| part + ".").collect()
}

fn expected(report: &Report, counts: Counts) -> Vec<String> {
    let of = |own: bool| {
        let is_of_it =
            |cell: &&RunCell| words::is_own(cell) == own && !matches!(cell.record.verdict, Verdict::Infra(_));
        let cells: Vec<_> = report.run.cells.iter().filter(is_of_it).collect();
        let bad: Vec<_> = cells.iter().copied().filter(|cell| !cell.record.is_as_expected()).collect();
        (cells, bad)
    };
    let ((own, own_bad), (known, known_bad)) = (of(true), of(false));
    let mut parts = Vec::new();
    if counts.cells == counts.infra {
        parts.push("No cell has a verdict on its kernel".to_owned());
    }
    if !own.is_empty() {
        let kernels = distinct(own.iter().map(|cell| cell.record.cell.variant.as_str()));
        let kernels = listed(&kernels, 3);
        parts.push(match own_bad.len() {
            0 if own.len() == 1 => format!("The cell of {kernels} passes"),
            0 => format!("All {} cells of {kernels} pass", own.len()),
            bad => format!("{bad} of {} of {kernels} {}", cells(own.len()), does_fail(bad) + &ways(&own_bad)),
        });
    }
    if !known.is_empty() {
        let with_bugs = if own.is_empty() { "" } else { " of known kernels" };
        parts.push(match known_bad.len() {
            0 => {
                let why = match known.iter().any(|cell| matches!(cell.record.verdict, Verdict::Fail(_))) {
                    true => ": kernels with a known bug fail in the way of that bug, and all others pass",
                    false => "",
                };
                let all = if known.len() == 1 { "The cell".to_owned() } else { format!("All {} cells", known.len()) };
                let are = if known.len() == 1 { "is" } else { "are" };
                format!("{all}{with_bugs} {are} as expected{why}")
            }
            bad => {
                let are = if bad == 1 { "is" } else { "are" };
                format!("{bad} of {}{with_bugs} {are} not as expected: {}", cells(known.len()), ways(&known_bad))
            }
        });
    }
    parts
}

fn cells(count: usize) -> String {
    counted(count, "cell", "cells")
}

fn does_fail(count: usize) -> String {
    if count == 1 { "fails: " } else { "fail: " }.to_owned()
}

/// In which ways cells ended, and on which kernels: `deadlock at f on stock and mine; pass on stock`.
fn ways(bad: &[&RunCell]) -> String {
    let all = distinct(bad.iter().map(|cell| words::ended(&cell.record.verdict)));
    let way = |way: &String| {
        let here = bad.iter().filter(|cell| words::ended(&cell.record.verdict) == *way);
        let kernels = distinct(here.map(|cell| cell.record.cell.variant.as_str()));
        format!("{way} on {}", listed(&kernels, 3))
    };
    let ways: Vec<_> = all.iter().take(3).map(way).collect();
    match all.len() - ways.len() {
        0 => ways.join("; "),
        more => format!("{}; and {more} more", ways.join("; ")),
    }
}

/// The first items of a list, and how many more there are.
fn listed(items: &[&str], most: usize) -> String {
    match items {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first @ .., last] if items.len() <= most => format!("{} and {last}", first.join(", ")),
        _ => format!("{} and {} more", items[..most].join(", "), items.len() - most),
    }
}

fn compared(report: &Report) -> String {
    let Some(against) = &report.against else { return String::new() };
    let (worse, better) = against.worse_and_better();
    let reference = against.reference();
    let fixed =
        if better > 0 { format!(", and {} fixed", counted(better, "cell is", "cells are")) } else { String::new() };
    match worse {
        0 => format!("No cell is worse than on {reference}{fixed}"),
        _ => format!("{} worse than on {reference}{fixed}", counted(worse, "cell is", "cells are")),
    }
}

fn from_patch_to_patch(report: &Report, note: &SeriesNote) -> String {
    let changes = report.marked_changes();
    let count = |wanted: Change| changes.values().filter(|change| **change == wanted).count();
    format!(
        "From one patch of \"{}\" to the next, {} and {}",
        note.subject,
        counted(count(Change::Regressed), "cell gets worse", "cells get worse"),
        counted(count(Change::Fixed), "is fixed", "are fixed")
    )
}

fn have(count: usize) -> String {
    counted(count, "cell has", "cells have")
}
