//! `summary.md`: what GitHub shows on the page of a job (`$GITHUB_STEP_SUMMARY`), and what fits a comment on GitHub or
//! GitLab. What is not as expected comes first, so that a reader who stops early has read it.

use std::fmt::Write as _;

use super::Report;
use super::answer::sentences;
use super::grid::{Grid, GridRow, family, grid};
use super::outcome::{self, Outcome};
use super::words;
use crate::evidence::RunCell;
use crate::text::counted;
use crate::verdict::Verdict;

/// GitHub refuses a summary of more than 1 MiB. The rest is for the lines that say what was left out.
const LIMIT: usize = 1024 * 1024 - 16 * 1024;

pub fn render(report: &Report) -> String {
    let mut text = String::new();
    for (sentence, number) in sentences(report).iter().zip(0..) {
        let _ = write!(text, "{}{}\n\n", if number == 0 { "# " } else { "" }, escaped(sentence));
    }
    what_ran(report, &mut text);
    for what in &report.run.missing {
        let _ = writeln!(text, "- Not known: {}", escaped(what));
    }
    let bad: Vec<_> = report
        .run
        .cells
        .iter()
        .map(|cell| (cell, outcome::of(report, cell)))
        .filter(|(_, (outcome, _))| matches!(outcome, Outcome::Failed(_) | Outcome::Broken(_)))
        .collect();
    if !bad.is_empty() {
        let title = if report.against.is_some() { "Worse, or without an answer" } else { "Not as expected" };
        let _ = write!(text, "\n## {title}\n\n");
        fill(&mut text, bad.iter().map(|(cell, (_, why))| item(report, cell, why)), ("cell", "cells"));
    }
    text += "\n## All cells\n\n";
    matrix(&grid(report), &mut text);
    text
}

fn what_ran(report: &Report, text: &mut String) {
    let info = &report.run.info;
    let facts = [
        ("Command", code(&info.command.join(" "))),
        ("Started", escaped(&info.started)),
        ("QEMU", escaped(&info.qemu)),
        ("Accelerator", escaped(&info.accel)),
    ];
    for (name, value) in facts.iter().filter(|(_, value)| !value.trim_matches('`').trim().is_empty()) {
        let _ = writeln!(text, "- {name}: {value}");
    }
    for variant in &info.variants {
        if report.run.cells.iter().any(|cell| cell.record.cell.variant == variant.name) {
            let _ = writeln!(text, "- Kernel {}: {}", code(&variant.name), escaped(&variant.about));
        }
    }
}

/// A cell that is not as expected: what happened, the cycle that proves it, and how to repeat it.
fn item(report: &Report, cell: &RunCell, why: &str) -> String {
    let record = &cell.record;
    let mut item = format!("- **{}**: {}\n", code(&record.cell.to_string()), escaped(why));
    if let Verdict::Fail(failure) = &record.verdict {
        for wait in failure.cycle.iter().flatten() {
            let _ = writeln!(item, "  - {}", escaped(wait));
        }
    }
    if let Some(evidence) = &cell.evidence {
        let name = evidence.strip_prefix(&report.run.path).unwrap_or(evidence);
        let _ = writeln!(item, "  - Evidence: {}", code(&name.display().to_string()));
        let _ = writeln!(item, "  - To repeat it: {}", code(&shell_words::join(record.cell.command(&cell.own))));
    }
    item
}

/// Adds parts while they fit, and then says how many were left out.
fn fill(text: &mut String, parts: impl ExactSizeIterator<Item = String>, (one, several): (&str, &str)) {
    let count = parts.len();
    for (part, before) in parts.zip(0..) {
        if text.len() + part.len() > LIMIT {
            let left = counted(count - before, &format!("more {one} does"), &format!("more {several} do"));
            let _ = write!(text, "\n{left} not fit here: see report.html.\n");
            return;
        }
        text.push_str(&part);
    }
}

/// The table. Families of which every cell passes are folded.
fn matrix(grid: &Grid<'_>, text: &mut String) {
    let passes = |row: &GridRow<'_>| row.cells.iter().flatten().all(|cell| cell.record.verdict == Verdict::Pass);
    let quiet = |name: &str| grid.rows.iter().filter(|row| row.family() == name).all(passes);
    let (folded, shown): (Vec<_>, Vec<_>) = grid.rows.iter().partition(|row| quiet(family(row.scenario)));
    if !shown.is_empty() {
        rows(grid, &shown, text);
    }
    if !folded.is_empty() {
        let scenarios = counted(folded.len(), "row", "rows");
        let _ = write!(text, "\n<details><summary>{scenarios} that pass on every kernel</summary>\n\n");
        rows(grid, &folded, text);
        text.push_str("\n</details>\n");
    }
}

fn rows(grid: &Grid<'_>, rows: &[&GridRow<'_>], text: &mut String) {
    let heads = grid.variants.iter().map(|name| code(name));
    let head: Vec<_> = ["scenario", "trigger"].map(str::to_owned).into_iter().chain(heads).collect();
    let line = |fields: &[String]| format!("| {} |\n", fields.join(" | "));
    *text += &line(&head);
    *text += &line(&vec!["---".to_owned(); head.len()]);
    let several = grid.rows.iter().any(|row| row.topology != grid.rows[0].topology);
    let row = |row: &&GridRow<'_>| {
        let on = if several { format!(" on {}", escaped(row.topology)) } else { String::new() };
        let trigger = if row.trigger == "none" { "" } else { row.trigger };
        let results = row.cells.iter().map(|cells| {
            let words = words::results(cells).lines().map(escaped).collect::<Vec<_>>().join("<br>");
            if words.contains('!') { format!("**{words}**") } else { words }
        });
        let fields = [format!("{}{on}", code(row.scenario)), escaped(trigger)];
        line(&fields.into_iter().chain(results).collect::<Vec<_>>())
    };
    fill(text, rows.iter().map(row), ("row", "rows"));
}

/// Text in which nothing is markup. Lines stay lines.
fn escaped(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => plain.push_str("&amp;"),
            '<' => plain.push_str("&lt;"),
            '>' => plain.push_str("&gt;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '~' | '#' | '$' => plain.extend(['\\', c]),
            '@' => plain.push_str("&#64;"),
            c if c.is_control() => plain.push(' '),
            c => plain.push(c),
        }
    }
    plain.trim().to_owned()
}

/// Text as code, on one line. Fences are longer than any row of backticks in it.
fn code(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest + 1);
    let space = if longest > 0 { " " } else { "" };
    // In a table, a bar ends the field even in code.
    format!("{fence}{space}{}{space}{fence}", text.replace('|', "\\|"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_text_is_markup() {
        assert_eq!(escaped("a <b> *c* d_e | @f\n# g"), "a &lt;b&gt; \\*c\\* d\\_e \\| &#64;f \\# g");
        assert_eq!((code("a`b|c"), code("plain")), ("`` a`b\\|c ``".to_owned(), "`plain`".to_owned()));
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        let mut text = String::new();
        fill(&mut text, vec!["x".repeat(LIMIT / 2); 3].into_iter(), ("cell", "cells"));
        assert!(text.len() < LIMIT + 100 && text.ends_with("\n1 more cell does not fit here: see report.html.\n"));
    }
}
