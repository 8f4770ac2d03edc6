//! The table for people.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use comfy_table::{ContentArrangement, Table, presets};

use super::grid::{Grid, GridRow, distinct, family, grid};
use super::words::{is_own, is_unexpected, results};
use super::{Report, Terminal, words};
use crate::evidence::RunCell;
use crate::text::counted;
use crate::verdict::{Expected, Verdict};

pub fn render(report: &Report, terminal: Terminal) -> String {
    let mut grid = grid(report);
    let mut text = String::new();
    unexpected(report, &mut text);
    let folded = fold(&mut grid, terminal);
    if !grid.rows.is_empty() {
        text += &paint(&drawn(&grid, terminal).to_string(), terminal.color);
        text.push('\n');
    }
    text += &folded;
    text.push('\n');
    skipped(report, &mut text);
    retried(report, &mut text);
    missing(report, &mut text);
    if !text.ends_with("\n\n") {
        text.push('\n');
    }
    legend(report, &grid.variants, &mut text);
    summary(report, &mut text);
    text
}

/// What is unexpected, and the summary.
pub fn brief(report: &Report) -> String {
    let mut text = String::new();
    unexpected(report, &mut text);
    summary(report, &mut text);
    text
}

/// About how many rows fit a screen. A table with no more is shown whole.
const SCREEN: usize = 20;

/// Takes the rows of families of which every cell passes out of a long table, and names these families.
fn fold(grid: &mut Grid<'_>, terminal: Terminal) -> String {
    if terminal.whole || grid.rows.len() <= SCREEN {
        return String::new();
    }
    let passes = |row: &GridRow<'_>| {
        let mut cells = row.cells.iter().flatten();
        cells.all(|cell| {
            cell.record.verdict == Verdict::Pass && words::shown(&cell.record) == "pass" && !is_unexpected(cell)
        })
    };
    let families = distinct(grid.rows.iter().map(|row| family(row.scenario)));
    let quiet = |name: &&str| grid.rows.iter().filter(|row| row.family() == *name).all(passes);
    let quiet: Vec<&str> = families.into_iter().filter(quiet).collect();
    let (folded, shown): (Vec<_>, Vec<_>) =
        std::mem::take(&mut grid.rows).into_iter().partition(|row| quiet.contains(&family(row.scenario)));
    grid.rows = shown;
    if quiet.is_empty() {
        return String::new();
    }
    let cells = folded.iter().flat_map(|row| &row.cells).map(Vec::len).sum();
    let line = format!(
        "{} of {} (-v shows them): {}",
        counted(cells, "cell passes, all", "cells pass, all"),
        counted(quiet.len(), "family", "families"),
        quiet.join(", ")
    );
    let options = textwrap::Options::new(terminal.width.map_or(120, usize::from)).subsequent_indent("  ");
    textwrap::fill(&line, options) + "\n"
}

fn drawn(grid: &Grid<'_>, terminal: Terminal) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    if let Some(width) = terminal.width {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    }
    let several_topologies = distinct(grid.rows.iter().map(|row| row.topology)).len() > 1;
    table.set_header(["scenario", "trigger"].into_iter().chain(grid.variants.iter().copied()));
    let mut before = None;
    for row in &grid.rows {
        // The first row of a scenario has its name. The family is on its own line, to keep the column narrow.
        let name = match before.replace((row.scenario, row.topology)) {
            Some(last) if last == (row.scenario, row.topology) => String::new(),
            _ if several_topologies => format!("{} ({})", row.scenario.replace("::", "::\n  "), row.topology),
            _ => row.scenario.replace("::", "::\n  "),
        };
        let trigger = if row.trigger == "none" { "" } else { row.trigger };
        let results = row.cells.iter().map(|cells| results(cells));
        table.add_row([name, trigger.to_owned()].into_iter().chain(results));
    }
    table
}

/// The legend: the words of the table, the functions of the failures, and the kernels.
fn legend(report: &Report, variants: &[&str], text: &mut String) {
    let cells = &report.run.cells;
    for word in distinct(cells.iter().map(|cell| words::shown(&cell.record))) {
        let places: BTreeSet<&str> = cells
            .iter()
            .filter(|cell| words::shown(&cell.record) == word)
            .filter_map(|cell| match &cell.record.verdict {
                Verdict::Fail(failure) => failure.function.as_deref(),
                _ => None,
            })
            .collect();
        let places = match places.len() {
            0 => String::new(),
            _ => format!(" (at {})", places.into_iter().collect::<Vec<_>>().join(", ")),
        };
        let _ = writeln!(text, "{word}: {}{places}", words::meaning(word));
    }
    let own = if cells.iter().any(is_own) { " of known kernels" } else { "" };
    if cells.iter().any(is_unexpected) {
        let _ = writeln!(text, "!: unexpected, see above; all other results{own} are as expected");
    } else if !cells.iter().all(is_own) {
        let _ = writeln!(text, "All results{own} are as expected. A kernel with a known bug is expected to fail.");
    }
    text.push('\n');
    let width = variants.iter().map(|name| name.len()).max().unwrap_or(0);
    for variant in report.run.info.variants.iter().filter(|variant| variants.contains(&variant.name.as_str())) {
        let _ = writeln!(text, "{:width$}  {}", variant.name, variant.about);
    }
    text.push('\n');
    bugs(report, text);
}

/// The bugs of the kernels that are expected to fail.
fn bugs(report: &Report, text: &mut String) {
    let expected: BTreeSet<&str> = report
        .run
        .cells
        .iter()
        .filter_map(|cell| match &cell.record.expected {
            Expected::Fail(signatures) => Some(signatures.iter().map(|signature| signature.bug.as_str())),
            _ => None,
        })
        .flatten()
        .collect();
    let bugs: Vec<_> = report.run.info.bugs.iter().filter(|bug| expected.contains(bug.id.as_str())).collect();
    if bugs.is_empty() {
        return;
    }
    text.push_str("Kernels with these bugs are expected to fail:\n");
    for bug in bugs {
        let _ = writeln!(text, "{} ({}): {}", bug.id, bug.shows_as(), bug.title);
    }
    text.push('\n');
}

/// One line for each cell that did not end as expected, and one line for all cells that did not begin. `results.json`
/// lists these one by one. The reason why a kernel was not built comes once for all its cells.
fn unexpected(report: &Report, text: &mut String) {
    let (begun, not_begun): (Vec<_>, Vec<_>) = report.unexpected().partition(|cell| cell.evidence.is_some());
    let (without_kernel, begun): (Vec<_>, Vec<_>) = begun.into_iter().partition(|cell| why_not_built(cell).is_some());
    for cell in begun {
        let evidence = cell.evidence.as_ref().map(|path| format!(" [{}]", path.display())).unwrap_or_default();
        let _ = writeln!(text, "{} {} {}{evidence}", mark(cell), cell.record.cell, words::sentence(&cell.record));
    }
    not_built(&without_kernel, text);
    if !not_begun.is_empty() {
        let lacks_parts = report.run.info.merged.as_ref().is_some_and(|merged| !merged.missing.is_empty());
        let why = if lacks_parts {
            "their part is missing, or ended before"
        } else {
            "the run ended before or still goes on"
        };
        let _ = writeln!(text, "! cells that did not begin because {why}: {}", not_begun.len());
    }
    if report.unexpected().next().is_some() {
        text.push('\n');
    }
}

fn mark(cell: &RunCell) -> char {
    if is_own(cell) { '-' } else { '!' }
}

/// Why the kernel of a cell was not built, if the cell has no result because of that.
fn why_not_built(cell: &RunCell) -> Option<&str> {
    match &cell.record.verdict {
        Verdict::BuildFailed(why) => Some(why),
        Verdict::Infra(why) if cell.kernel.is_none() && cell.finished => Some(why),
        _ => None,
    }
}

/// The kernels that were not built: how many cells have no result because of that, and why, once for each kernel. If
/// several kernels were not built for the same reason, it comes once for all of them.
fn not_built(cells: &[&RunCell], text: &mut String) {
    for why in distinct(cells.iter().filter_map(|cell| why_not_built(cell))) {
        let cells: Vec<_> = cells.iter().filter(|cell| why_not_built(cell) == Some(why)).collect();
        let kernels = distinct(cells.iter().map(|cell| cell.record.cell.variant.as_str()));
        let mark = cells.first().map_or('!', |cell| mark(cell));
        let have = counted(cells.len(), "cell has", "cells have");
        let _ = writeln!(text, "{mark} {}: not built, so {have} no result:", kernels.join(", "));
        for line in why.lines().filter(|line| !line.trim().is_empty()) {
            let _ = writeln!(text, "    {line}");
        }
    }
}

/// Why cells were skipped: one line for each reason.
fn skipped(report: &Report, text: &mut String) {
    let reasons = report.run.cells.iter().filter_map(|cell| match &cell.record.verdict {
        Verdict::Skip(reason) => Some(reason),
        _ => None,
    });
    for reason in distinct(reasons.clone()) {
        let cells = counted(reasons.clone().filter(|other| *other == reason).count(), "cell", "cells");
        let _ = writeln!(text, "skipped, {cells}: {}", reason.split_whitespace().collect::<Vec<_>>().join(" "));
    }
}

/// Cells that the test bed made the harness try again. They are always listed, and never counted against a kernel.
fn retried(report: &Report, text: &mut String) {
    for cell in report.run.cells.iter().filter(|cell| !cell.record.retries.is_empty()) {
        let record = &cell.record;
        // Writing to a String cannot fail.
        let _ = writeln!(text, "tried again: {}: {}", record.cell, record.retries.join("; then: "));
    }
}

/// The files that could not be read, and the parts that a merged run lacks.
fn missing(report: &Report, text: &mut String) {
    if let Some(words) = report.run.info.merged.as_ref().and_then(words::missing) {
        let _ = writeln!(text, "! PARTIAL: {words}");
    }
    for what in &report.run.missing {
        let _ = writeln!(text, "not known: {what}");
    }
}

fn summary(report: &Report, text: &mut String) {
    let counts = report.counts();
    let mut parts = Vec::new();
    let own = counts.own_passed + counts.own_failed;
    if own > 0 {
        parts.push(format!("{} passed", counts.own_passed));
        parts.extend((counts.own_failed > 0).then(|| format!("{} FAILED", counts.own_failed)));
    }
    if own < counts.as_expected + counts.unexpected || own == 0 {
        let missed = match counts.missed {
            0 => String::new(),
            missed => format!(" ({missed} of them missed)"),
        };
        parts.push(format!("{} as expected{missed}", counts.as_expected - counts.own_passed));
        let unexpected = counts.unexpected - counts.own_failed;
        parts.extend((unexpected > 0).then(|| format!("{unexpected} UNEXPECTED")));
    }
    parts.extend((counts.infra > 0).then(|| format!("{} without a result", counts.infra)));
    let folders: Vec<_> = report.run.folders().map(|path| path.display().to_string()).collect();
    let cells = counted(counts.cells, "cell", "cells");
    let _ = writeln!(text, "{cells}: {}; evidence in {}", parts.join(", "), folders.join(", "));
}

/// Colours the results. The text without colours says the same.
fn paint(table: &str, color: bool) -> String {
    if !color {
        return table.to_owned();
    }
    let paint = |field: &str| {
        let word = field.trim();
        let code = match word {
            _ if word.ends_with('!') => "1;31",
            _ if word.ends_with("pass") => "32",
            _ if !word.is_empty()
                && word.chars().all(|c| !c.is_lowercase())
                && word.chars().any(char::is_uppercase) =>
            {
                "33"
            }
            _ => return field.to_owned(),
        };
        field.replacen(word, &format!("\x1b[{code}m{word}\x1b[0m"), 1)
    };
    let line = |line: &str| {
        line.split_inclusive(['│', '┆'])
            .map(|part| {
                let field = part.trim_end_matches(['│', '┆']);
                paint(field) + &part[field.len()..]
            })
            .collect::<String>()
    };
    table.lines().map(line).collect::<Vec<_>>().join("\n")
}
