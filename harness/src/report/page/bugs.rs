//! A page for each known bug, with the cells of a run that look for it, and a page that lists them.

use kernels::{Bug, Manifest};
use maud::{Markup, html};

use super::super::catalogue::{Entry, Measured, chance};
use super::super::{Report, words};
use super::{Page, document, head, linked, sentence};
use crate::evidence::RunCell;
use crate::scenario::Scenario;
use crate::text::counted;
use crate::verdict::{Expected, Verdict};

/// The page that lists the others.
const INDEX: &str = "index.html";

/// The pages, each with the name of its file. `measured` has for each bug what the catalogue and this run measured. Links
/// to the evidence lead from the folder in which the report is [read](Report::placed_in).
pub fn pages(
    report: &Report,
    manifest: &Manifest,
    scenarios: &[Scenario],
    measured: &Measured,
) -> Vec<(String, String)> {
    let mut pages = Vec::new();
    let mut listed = Vec::new();
    for bug in &manifest.bugs {
        let part = of_rows(report, bug);
        let page = Page::of(&part);
        let about = about(&page, bug, &Entry::of(bug, manifest, scenarios), measured.get(&bug.id));
        pages.push((file(bug), page.markup(&bug.id, about).into_string()));
        listed.push((bug, seen(report, bug), part.run.cells.len()));
    }
    pages.push((INDEX.to_owned(), index(report, &listed).into_string()));
    pages
}

fn file(bug: &Bug) -> String {
    format!("{}.html", bug.id)
}

/// The rows of which a cell is expected to show a bug, or shows it.
fn of_rows(report: &Report, bug: &Bug) -> Report {
    let row = |cell: &RunCell| {
        let id = &cell.record.cell;
        (id.scenario.clone(), id.topology.clone(), id.trigger_name())
    };
    let looks = |cell: &&RunCell| match &cell.record.expected {
        Expected::Fail(_) => cell.record.expected.bugs().any(|id| id == bug.id),
        _ => false,
    };
    let rows: std::collections::HashSet<_> = report.run.cells.iter().filter(looks).map(row).collect();
    let mut part = report.clone();
    part.run.cells.retain(|cell| rows.contains(&row(cell)));
    part
}

/// The cells that show a bug.
fn seen<'a>(report: &'a Report, bug: &Bug) -> Vec<&'a RunCell> {
    report.run.cells.iter().filter(|cell| shows(cell, &bug.id)).collect()
}

/// Whether a cell shows a bug.
pub fn shows(cell: &RunCell, bug: &str) -> bool {
    match &cell.record.verdict {
        Verdict::Fail(failure) => cell.record.expected.shown_by(failure).any(|shown| shown == bug),
        _ => false,
    }
}

/// The top of the page of a bug: what is known of it, and what this run says.
fn about(page: &Page<'_>, bug: &Bug, entry: &Entry<'_>, measured: Option<&String>) -> Markup {
    let names = |names: &[&str]| html! { @for (name, n) in names.iter().zip(0..) { @if n > 0 { ", " } code { (name) } } @if names.is_empty() { "none" } };
    let info = &page.report.run.info;
    html! {
        header {
            p.tool { a href=(INDEX) { "All bugs" } " of the catalogue of iov-regress" }
            h1 { (bug.id) }
            p.more { (sentence(&bug.title)) }
            @if !page.report.run.cells.is_empty() {
                nav {
                    a href="#fails" { "What fails" }
                    a href="#matrix" { "All results" }
                    a href="#cells" { "Cells" }
                    a href="#legend" { "Legend" }
                }
            }
            dl.facts {
                dt { "Shows as" } dd { (bug.shows_as()) " (" (chance(bug)) ")" }
                @for cycle in &bug.cycles { dt { "Closed by" } dd { ul.plain { @for wait in cycle { li { (wait) } } } } }
                @if let Some(why) = &bug.unproven { dt { "No cycle proves it" } dd { (why) } }
                @for reference in &bug.references { dt { "See" } dd { (linked(reference)) } }
                dt { "Kernels that have it" } dd { (names(&entry.have)) }
                dt { "Kernels without it" } dd { (names(&entry.have_not)) }
                dt { "Scenarios that show it" } dd { (names(&entry.shown_by)) }
                dt { "Measured" } dd { @match measured { Some(measured) => (measured), None => "not yet" } }
                dt { "In this run" } dd { (in_run(page.report, bug)) @if !info.started.is_empty() { " (" (info.started) ")" } }
            }
        }
        @if !page.report.run.cells.is_empty() { (head::fails(page)) }
    }
}

/// In how many cells of a run a bug showed, and on which kernels.
fn in_run(report: &Report, bug: &Bug) -> Markup {
    let cells = seen(report, bug);
    let kernels = super::distinct(cells.iter().map(|cell| cell.record.cell.variant.as_str()));
    html! {
        @match (report.run.cells.len(), cells.len()) {
            (0, _) => "none of its scenarios ran on a kernel that has it",
            (_, 0) => "it did not show",
            (_, seen) => { "it showed in " (counted(seen, "cell", "cells")) " on " (kernels.join(", ")) },
        }
    }
}

/// The list of all bugs.
fn index(report: &Report, bugs: &[(&Bug, Vec<&RunCell>, usize)]) -> Markup {
    let shown = bugs.iter().filter(|(_, seen, _)| !seen.is_empty()).count();
    let title = format!("{} of {} showed in this run", shown, counted(bugs.len(), "known bug", "known bugs"));
    let body = html! {
        header {
            p.tool { "The catalogue of iov-regress" }
            h1 { (title) "." }
            @if !report.run.info.started.is_empty() { p.quiet { "Run of " (report.run.info.started) "." } }
        }
        main { div.wide { table.bugs {
            thead { tr { th { "bug" } th { "in this run" } th { "what it is" } th { "shows as" } } }
            tbody { @for (bug, seen, cells) in bugs { tr {
                td { a href=(file(bug)) { (bug.id) } }
                td {
                    @match (seen.first(), cells) {
                        (Some(cell), _) => { span.word.(super::class(cell)) { (words::shown(&cell.record)) } " in " (counted(seen.len(), "cell", "cells")) },
                        (None, 0) => span.quiet { "did not run" },
                        (None, _) => span.quiet { "did not show" },
                    }
                }
                td { (sentence(&bug.title)) }
                td.shows { (bug.shows_as()) }
            } } }
        } } }
    };
    document(&title, &body)
}
