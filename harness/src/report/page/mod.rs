//! `report.html`: one static page. It needs no network, and no scripts: with them, it can be filtered.

mod bugs;
mod cell;
mod head;
mod link;
mod matrix;
mod picture;
mod stacks;
mod steps;
mod stories;
mod values;
mod waits;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use maud::{DOCTYPE, Markup, PreEscaped, html};

use self::stories::Stories;
use super::answer::sentences;
use super::grid::{Grid, GridRow, distinct, grid};
use super::{Change, Changed, Report, words};
use crate::evidence::RunCell;
use crate::verdict::Verdict;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// A report, and where things are on its page.
struct Page<'a> {
    report: &'a Report,
    grid: Grid<'a>,
    /// The number of each cell, by where it is in memory.
    numbers: HashMap<*const RunCell, usize>,
    /// How cells changed: scenario, topology, trigger and kernel.
    changes: HashMap<Changed, Change>,
    /// The folder of the page.
    place: PathBuf,
}

pub use bugs::pages as of_bugs;

pub fn render(report: &Report) -> String {
    let page = Page::of(report);
    let sentences = sentences(report);
    page.markup(&sentences[0], head::draw(&page, &sentences)).into_string()
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// A whole document.
fn document(title: &str, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "iov-regress: " (title) }
                style { (PreEscaped(STYLE)) }
            }
            body { (body) }
        }
    }
}

impl<'a> Page<'a> {
    fn of(report: &'a Report) -> Page<'a> {
        let cells = report.run.cells.iter().zip(1..);
        let numbers = cells.map(|(cell, number)| (std::ptr::from_ref(cell), number)).collect();
        let place = absolute(report.place.as_ref().unwrap_or(&report.run.path));
        Page { report, grid: grid(report), numbers, changes: report.marked_changes(), place }
    }

    /// The page under a head: the matrix, the cells, and what words mean.
    fn markup(&self, title: &str, head: Markup) -> Markup {
        let (matrix, legend) = (matrix::draw(self), self.legend());
        let stories = Stories::of(self, head.0.len() + matrix.0.len() + legend.0.len());
        let body = html! {
            (head)
            (matrix)
            main {
                h2 #cells { "Cells" }
                p.quiet {
                    "In the timelines, time is the guest's, and begins with the scenario. Time in which nothing happens "
                    "is drawn shorter. A dot is a moment, a bar an operation of a task; point at one to read it. A bar "
                    "with a broken edge has not ended. What waits at the end is red. Tasks whose names begin with iov- are programs "
                    "of the scenario, and others belong to the kernel."
                }
                (stories.note(self))
                @for row in &self.grid.rows { (self.row(row, &stories)) }
            }
            (legend)
            script { (PreEscaped(SCRIPT)) }
        };
        document(title, &body)
    }

    /// The cells of a scenario, with what the scenario does.
    fn row(&self, row: &GridRow<'_>, stories: &Stories) -> Markup {
        let about = self.report.run.info.scenarios.iter().find(|scenario| scenario.name == row.scenario);
        html! {
            section.row data-family=(row.family()) {
                h3 {
                    (row.scenario)
                    span.quiet { " on " (row.topology) @if let Some(trigger) = row.of() { ", " abbr title=(trigger.about()) { (trigger.name()) } } }
                }
                @if let Some(scenario) = about { p { (sentence(&scenario.about)) } }
                (stories.row(self, row))
            }
        }
    }

    /// The link to a cell on the page.
    fn link(&self, cell: &RunCell) -> String {
        format!("#{}", self.id(cell))
    }

    fn id(&self, cell: &RunCell) -> String {
        let number = self.numbers.get(&std::ptr::from_ref(cell)).copied().unwrap_or_default();
        format!("c{number}")
    }

    /// How a cell changed from the kernel before it, if a reader must know.
    fn change(&self, cell: &RunCell) -> Option<Change> {
        let id = &cell.record.cell;
        let key = (id.scenario.clone(), id.topology.clone(), id.trigger_name(), id.variant.clone());
        self.changes.get(&key).copied()
    }

    /// The address of a file.
    fn address(&self, file: &Path) -> String {
        link::to(&self.place, &absolute(file))
    }

    /// The cells that show a bug.
    fn shown_in(&self, bug: &str) -> Markup {
        let cells: Vec<_> = self.report.run.cells.iter().filter(|cell| bugs::shows(cell, bug)).collect();
        html! {
            @if !cells.is_empty() {
                br;
                "Seen in "
                @for (cell, number) in cells.iter().zip(0..) {
                    @if number > 0 { ", " }
                    a href=(self.link(cell)) { (head::name(cell)) }
                }
                "."
            }
        }
    }

    /// What the words on this page mean, and which bugs its kernels are expected to have.
    fn legend(&self) -> Markup {
        let cells = &self.report.run.cells;
        let used = distinct(cells.iter().map(|cell| words::shown(&cell.record)));
        let bugs = &self.report.run.info.bugs;
        let shown = |id: &str| cells.iter().any(|cell| cell.record.expected.bugs().any(|bug| bug == id));
        html! {
            section.legend #legend {
                h2 { "What the words mean" }
                dl {
                    @for word in used {
                        dt { span.word.(word_class(word)) { (word) } }
                        dd { (sentence(words::meaning(word))) }
                    }
                    @if cells.iter().any(words::is_unexpected) {
                        dt { span.mark { "!" } }
                        dd { "Another result was expected." }
                    }
                    @if cells.iter().any(|cell| matches!(cell.record.verdict, Verdict::Fail(_))) {
                        dt { "[D], [S], [R]" }
                        dd { "The state of a task: it sleeps and no signal wakes it, it sleeps and a signal wakes it, it runs." }
                    }
                }
                @let triggers = distinct(cells.iter().filter_map(|cell| cell.record.cell.trigger));
                @if !triggers.is_empty() {
                    h2 { "How the device is removed" }
                    dl { @for trigger in triggers { dt { (trigger.name()) } dd { (sentence(trigger.about())) } } }
                }
                @if bugs.iter().any(|bug| shown(&bug.id)) {
                    h2 #bugs { "Known bugs of these kernels" }
                    dl {
                        @for bug in bugs.iter().filter(|bug| shown(&bug.id)) {
                            dt id=(link::id("b", &bug.id)) { (bug.id) }
                            dd {
                                (sentence(&bug.title)) " It shows as " (bug.shows_as()) "."
                                (self.shown_in(&bug.id))
                                @if !bug.references.is_empty() {
                                    br;
                                    @for (reference, number) in bug.references.iter().zip(0..) {
                                        @if number > 0 { "; " }
                                        (linked(reference))
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The class that colours a word of the matrix.
fn word_class(word: &str) -> &'static str {
    match word {
        "pass" => "pass",
        "missed" => "missed",
        "skipped" => "skip",
        "NO BUILD" | "NO BOOT" | "NO RESULT" => "none",
        _ => "fail",
    }
}

/// The class of a cell: its word's, and whether it is unexpected.
fn class(cell: &RunCell) -> String {
    let unexpected = if cell.record.is_as_expected() { "" } else { " bad" };
    format!("{}{unexpected}", word_class(words::shown(&cell.record)))
}

/// The first letter in upper case, unless the word is a name of code.
fn capital(text: &str) -> String {
    let word = text.split(' ').next().unwrap_or_default();
    if word.chars().any(|c| !c.is_ascii_lowercase()) {
        return text.to_owned();
    }
    let mut letters = text.chars();
    letters.next().map(|first| first.to_ascii_uppercase().to_string() + letters.as_str()).unwrap_or_default()
}

/// A text as a sentence: with a capital, and one full stop.
fn sentence(text: &str) -> String {
    capital(text.trim().trim_end_matches('.')) + "."
}

/// A text, as a link if it is an address.
fn linked(text: &str) -> Markup {
    let is_address = text.starts_with("https://") || text.starts_with("http://");
    html! { @if is_address { a href=(text) { (text) } } @else { (text) } }
}

#[cfg(test)]
mod tests;
