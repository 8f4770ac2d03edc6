//! KTAP, version 1 (`Documentation/dev-tools/ktap.rst`): a test for each family of scenarios, and in it one for each cell.

use std::fmt::Write as _;

use super::Report;
use super::answer::answer;
use super::grid::{distinct, family};
use super::outcome::{self, Outcome};
use crate::evidence::RunCell;

/// Spaces before the lines of a subtest.
const INDENT: &str = "    ";

pub fn render(report: &Report) -> String {
    let cells = &report.run.cells;
    let families = distinct(cells.iter().map(|cell| family(&cell.record.cell.scenario)));
    let mut text = format!("KTAP version 1\n1..{}\n", families.len());
    note(&mut text, "", &answer(report));
    report.run.missing.iter().for_each(|what| note(&mut text, "", &format!("not known: {what}")));
    for (name, number) in families.iter().zip(1..) {
        let cells: Vec<_> = cells.iter().filter(|cell| family(&cell.record.cell.scenario) == *name).collect();
        let _ = writeln!(text, "{INDENT}KTAP version 1\n{INDENT}# Subtest: {name}\n{INDENT}1..{}", cells.len());
        let mut worst = "ok";
        for (cell, number) in cells.iter().zip(1..) {
            let result = one(report, cell, number, &mut text);
            worst = if result == "ok" { worst } else { result };
        }
        let _ = writeln!(text, "{worst} {number} {}", plain(name));
    }
    text
}

/// Writes the lines of a cell, and gives its result.
fn one(report: &Report, cell: &RunCell, number: usize, text: &mut String) -> &'static str {
    let (outcome, why) = outcome::of(report, cell);
    note(text, INDENT, &why);
    if outcome != Outcome::Passed {
        cell.evidence.iter().for_each(|path| note(text, INDENT, &format!("evidence: {}", path.display())));
    }
    let (result, skip) = match &outcome {
        Outcome::Passed => ("ok", String::new()),
        Outcome::Skipped(why) => ("ok", format!(" # SKIP {}", one_line(why))),
        Outcome::Failed(_) | Outcome::Broken(_) => ("not ok", String::new()),
    };
    let _ = writeln!(text, "{INDENT}{result} {number} {}{skip}", plain(&cell.record.cell.to_string()));
    result
}

/// A diagnostic line for each line of a text.
fn note(text: &mut String, indent: &str, what: &str) {
    what.lines().filter(|line| !line.trim().is_empty()).for_each(|line| {
        let _ = writeln!(text, "{indent}# {}", one_line(line));
    });
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A name without `#`, which begins a directive.
fn plain(name: &str) -> String {
    one_line(name).replace('#', ".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_begin_a_directive_and_a_diagnostic_cannot_end_its_line() {
        assert_eq!(plain("a::b::igb::none::mine #SKIP\n#2"), "a::b::igb::none::mine .SKIP .2");
        let mut text = String::new();
        note(&mut text, INDENT, "first\n\nok 1 second\r\x0bthird");
        assert_eq!(text, "    # first\n    # ok 1 second third\n");
    }
}
