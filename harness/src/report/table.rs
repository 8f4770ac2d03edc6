//! The table for people.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use comfy_table::{ContentArrangement, Table, presets};

use super::{Against, Report, Terminal, words};
use crate::cell::CellId;
use crate::evidence::RunCell;
use crate::verdict::{Expected, Verdict};

/// The mark after an unexpected result.
const MARK: &str = " !";

pub fn render(report: &Report, terminal: Terminal) -> String {
    let rows = rows(report);
    let variants = variants(report);
    let mut text = paint(&grid(report, &rows, &variants, terminal).to_string(), terminal.color);
    text.push_str("\n\n");
    legend(report, &variants, &mut text);
    unexpected(report, &mut text);
    skipped(report, &mut text);
    retried(report, &mut text);
    summary(report, &mut text);
    text
}

/// The key of a row: scenario, topology, trigger.
type Row<'a> = (&'a str, &'a str, &'static str);

fn row(id: &CellId) -> Row<'_> {
    (&id.scenario, &id.topology, id.trigger_name())
}

/// The rows, in the order of their first cells. Rows of one scenario are together.
fn rows(report: &Report) -> Vec<Row<'_>> {
    let mut rows = distinct(report.run.cells.iter().map(|cell| row(&cell.record.cell)));
    let scenarios = distinct(rows.iter().map(|row| (row.0, row.1)));
    rows.sort_by_key(|row| scenarios.iter().position(|scenario| *scenario == (row.0, row.1)));
    rows
}

/// The variants: first the reference, then those that the run describes, in its order, then the others.
fn variants(report: &Report) -> Vec<&str> {
    let seen: Vec<&str> = distinct(report.run.cells.iter().map(|cell| cell.record.cell.variant.as_str()));
    let reference = report.against.as_ref().and_then(Against::kernel_of_run);
    let known = reference.into_iter().chain(report.run.info.variants.iter().map(|variant| variant.name.as_str()));
    distinct(known.filter(|name| seen.contains(name)).chain(seen.iter().copied()))
}

fn distinct<T: PartialEq>(items: impl Iterator<Item = T>) -> Vec<T> {
    items.fold(Vec::new(), |mut distinct, item| {
        if !distinct.contains(&item) {
            distinct.push(item);
        }
        distinct
    })
}

fn grid(report: &Report, rows: &[Row<'_>], variants: &[&str], terminal: Terminal) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    if let Some(width) = terminal.width {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    }
    let several_topologies = distinct(rows.iter().map(|row| row.1)).len() > 1;
    table.set_header(["scenario", "trigger"].into_iter().chain(variants.iter().copied()));
    let mut before = None;
    for &(scenario, topology, trigger) in rows {
        // The first row of a scenario has its name. The family is on its own line, to keep the column narrow.
        let name = match before.replace((scenario, topology)) {
            Some(last) if last == (scenario, topology) => String::new(),
            _ if several_topologies => format!("{} ({topology})", scenario.replace("::", "::\n  ")),
            _ => scenario.replace("::", "::\n  "),
        };
        let results = variants.iter().map(|variant| {
            let cells = report.run.cells.iter().filter(|cell| {
                row(&cell.record.cell) == (scenario, topology, trigger) && cell.record.cell.variant == *variant
            });
            results(&cells.collect::<Vec<_>>())
        });
        let trigger = if trigger == "none" { "" } else { trigger };
        table.add_row([name, trigger.to_owned()].into_iter().chain(results));
    }
    table
}

/// The results of the repeats of one cell: `pass`, `10/10 DEADLOCK`, or a line for each of several results.
fn results(cells: &[&RunCell]) -> String {
    let word = |cell: &RunCell| {
        let mark = if is_unexpected(cell) { MARK } else { "" };
        format!("{}{mark}", words::shown(&cell.record))
    };
    if let [cell] = cells {
        return word(cell);
    }
    let lines = distinct(cells.iter().map(|cell| word(cell))).into_iter().map(|result| {
        let count = cells.iter().filter(|cell| word(cell) == result).count();
        format!("{count}/{} {result}", cells.len())
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Whether another result was expected. No result is expected of the user's own kernels.
fn is_unexpected(cell: &RunCell) -> bool {
    !cell.record.is_as_expected() && !is_own(cell)
}

/// Whether the kernel of a cell is the user's own: no result was expected.
fn is_own(cell: &RunCell) -> bool {
    cell.record.expected == Expected::None
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
        let _ = writeln!(text, "!: unexpected, see below; all other results{own} are as expected");
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
        let _ = writeln!(text, "{} {}: {}{evidence}", mark(cell), cell.record.cell, words::explanation(&cell.record));
    }
    not_built(&without_kernel, text);
    if !not_begun.is_empty() {
        let _ = writeln!(text, "! cells that did not begin because the run ended before: {}", not_begun.len());
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
        let have = if cells.len() == 1 { "cell has" } else { "cells have" };
        let _ = writeln!(text, "{mark} {}: not built, so {} {have} no result:", kernels.join(", "), cells.len());
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
        let cells = match reasons.clone().filter(|other| *other == reason).count() {
            1 => "1 cell".to_owned(),
            count => format!("{count} cells"),
        };
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
    let _ = writeln!(text, "{} cells: {}; evidence in {}", counts.cells, parts.join(", "), report.run.path.display());
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
