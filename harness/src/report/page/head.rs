//! The top of the page: what ran on what, what it came to, what is unexpected, and what fails on which kernel.

use maud::{Markup, html};

use super::super::grid::distinct;
use super::super::outcome::{self, Outcome};
use super::super::words;
use super::picture::cut;
use super::{Page, link, steps};
use crate::evidence::{Applies, RunCell};
use crate::text::counted;
use crate::verdict::Verdict;

/// More kernels than these are listed only if a reader asks for them: what they did comes first.
const FEW: usize = 8;

/// The longest explanation in a list.
const LONGEST: usize = 420;

/// Draws the top, with the sentences of the answer.
pub fn draw(page: &Page<'_>, answer: &[String]) -> Markup {
    let (report, info) = (page.report, &page.report.run.info);
    let bad: Vec<_> = report
        .run
        .cells
        .iter()
        .map(|cell| (cell, outcome::of(report, cell)))
        .filter(|(cell, (outcome, _))| {
            matches!(outcome, Outcome::Failed(_) | Outcome::Broken(_)) && cell.evidence.is_some()
        })
        .collect();
    html! {
        header {
            p.tool { "iov-regress" @if !info.harness.is_empty() { " " (info.harness) } ": what Linux does when PCI devices are removed while in use" }
            @for (sentence, number) in answer.iter().zip(0..) {
                @if number == 0 { h1 { (sentence) } } @else { p.more { (sentence) } }
            }
            nav {
                @if !bad.is_empty() { a href="#unexpected" { "Not as expected" } }
                @if report.bisection.is_some() { a href="#steps" { "Steps" } }
                a href="#fails" { "What fails" }
                a href="#matrix" { "All results" }
                a href="#cells" { "Cells" }
                a href="#legend" { "Legend" }
            }
            (facts(page))
        }
        (steps::draw(page))
        @if !report.run.missing.is_empty() {
            section.missing {
                h2 { "What is not known" }
                ul { @for what in &report.run.missing { li { (what) } } }
            }
        }
        @if !bad.is_empty() {
            section #unexpected {
                h2 { @if report.against.is_some() { "Worse, or without an answer" } @else { "Not as expected" } }
                ul {
                    @for (cell, (_, why)) in &bad {
                        li {
                            span.word.(super::class(cell)) { (words::shown(&cell.record)) }
                            " " a href=(page.link(cell)) { (name(cell)) } ": " (cut(why, LONGEST))
                        }
                    }
                }
            }
        }
        (fails(page))
    }
}

fn facts(page: &Page<'_>) -> Markup {
    let (report, info) = (page.report, &page.report.run.info);
    let clock = match info.clock.as_str() {
        "guest" => "the guests' own clock",
        "host" => "the host's clock",
        other => other,
    };
    let seconds: f64 = report.run.cells.iter().map(|cell| cell.record.seconds).sum();
    html! {
        dl.facts {
            @if !info.command.is_empty() {
                dt { "Command" } dd { code { (shell_words::join(&info.command)) } }
            }
            @if !info.started.is_empty() { dt { "Started" } dd { (info.started) } }
            dt { "Ran on" }
            dd {
                @if info.qemu.is_empty() { "an unknown QEMU" } @else { "QEMU " (info.qemu.trim_start_matches("QEMU emulator version ")) }
                @if !info.accel.is_empty() { ", " (info.accel.to_uppercase()) }
                @if !clock.is_empty() { ", " (clock) }
                @if info.jobs > 0 { ", " (counted(info.jobs, "cell", "cells")) " at a time" }
                "; the cells took " (format!("{:.0} s", seconds)) " in all"
            }
            @if let Some(series) = &report.series {
                dt { "Series" }
                dd {
                    (series.subject)
                    ol.plain {
                        @for step in &series.steps {
                            li { (step.variant) ": " (step.subject) @if step.applies != Applies::Yes { " (" (applies(&step.applies)) ")" } }
                        }
                    }
                }
            }
            dt { "Kernels" }
            dd {
                @if page.grid.variants.len() > FEW {
                    details { summary { (page.grid.variants.len()) " kernels" } (kernels(page)) }
                } @else { (kernels(page)) }
            }
            dt { "Evidence" }
            dd {
                @for (folder, number) in report.run.folders().zip(0..) {
                    @if number > 0 { ", " }
                    a href=(page.address(folder)) { (folder.display()) }
                }
            }
        }
    }
}

/// Each kernel, and what it is.
fn kernels(page: &Page<'_>) -> Markup {
    html! {
        ul.plain {
            @for variant in &page.grid.variants {
                li {
                    a href=(format!("#{}", link::id("k", variant))) { (variant) }
                    @if let Some(known) = page.report.run.info.variants.iter().find(|known| known.name == *variant) {
                        ": " (known.about)
                    }
                }
            }
        }
    }
}

/// Why a patch of a series has no kernel.
fn applies(applies: &Applies) -> String {
    match applies {
        Applies::Yes => String::new(),
        Applies::Already { base } => format!("{base} has it already"),
        Applies::No { why, .. } => format!("does not apply: {why}"),
        Applies::NotTried => "not tried, because an earlier patch does not apply".to_owned(),
    }
}

/// The cells of a kernel.
struct OfKernel<'a> {
    name: &'a str,
    passed: usize,
    others: Vec<&'a RunCell>,
    not_begun: usize,
}

/// For each kernel, the ways in which it fails, with the cells. Kernels that do not fail come last, in a line.
pub fn fails(page: &Page<'_>) -> Markup {
    let of = |name| {
        let of_it = page.report.run.cells.iter().filter(|cell| cell.record.cell.variant == name);
        let (begun, not_begun): (Vec<_>, Vec<_>) = of_it.partition(|cell| cell.evidence.is_some());
        let (passed, others): (Vec<_>, Vec<_>) =
            begun.into_iter().partition(|cell| cell.record.verdict == Verdict::Pass);
        OfKernel { name, passed: passed.len(), others, not_begun: not_begun.len() }
    };
    let all = page.grid.variants.iter().map(|name| of(name));
    let (fail, quiet): (Vec<_>, Vec<_>) = all.partition(|kernel| !kernel.others.is_empty());
    html! {
        section #fails {
            h2 { "What fails on which kernel" }
            @for kernel in &fail {
                h3 id=(link::id("k", kernel.name)) { (kernel.name) }
                p.quiet { (counts(kernel)) "." }
                ul {
                    @for way in distinct(kernel.others.iter().map(|cell| way(cell))) {
                        (of_way(page, &way, &kernel.others))
                    }
                }
            }
            @if !quiet.is_empty() {
                h3 { "Kernels of which no cell fails" }
                ul.plain {
                    @for kernel in &quiet {
                        li id=(link::id("k", kernel.name)) { b { (kernel.name) } ": " (counts(kernel)) }
                    }
                }
            }
        }
    }
}

/// How many cells of a kernel came to what.
fn counts(kernel: &OfKernel<'_>) -> String {
    let OfKernel { passed, others, not_begun, .. } = kernel;
    let told = [
        (*passed, "cell passes", "cells pass"),
        (others.len(), "does not", "do not"),
        (*not_begun, "has not begun", "have not begun"),
    ];
    let told = told.into_iter().enumerate().filter(|(place, (count, ..))| *place == 0 || *count > 0);
    told.map(|(_, (count, one, several))| counted(count, one, several)).collect::<Vec<_>>().join(", ")
}

/// How a cell ended, and the known bugs that it shows.
pub fn way(cell: &RunCell) -> (String, Vec<&str>) {
    let bugs = match &cell.record.verdict {
        Verdict::Fail(failure) => distinct(cell.record.expected.shown_by(failure)),
        _ => Vec::new(),
    };
    (words::ended(&cell.record.verdict), bugs)
}

fn of_way(page: &Page<'_>, told: &(String, Vec<&str>), cells: &[&RunCell]) -> Markup {
    let here: Vec<_> = cells.iter().filter(|cell| way(cell) == *told).collect();
    let titles = told.1.iter().filter_map(|id| page.report.run.info.bugs.iter().find(|bug| bug.id == *id));
    html! {
        li {
            @if let Some(cell) = here.first() {
                span.word.(super::class(cell)) { (words::shown(&cell.record)) }
            }
            " " b { (told.0) }
            @for bug in titles {
                ": " (bug.title) " (" a href=(format!("#{}", link::id("b", &bug.id))) { (bug.id) } ")"
            }
            br;
            @for (cell, number) in here.iter().zip(0..) {
                @if number > 0 { ", " }
                a href=(page.link(cell)) { (short_name(cell)) @if !cell.record.is_as_expected() { " !" } }
            }
        }
    }
}

/// A cell on its kernel: `reset::of_pf (igb, yank) on stock`.
pub fn name(cell: &RunCell) -> String {
    format!("{} on {}", short_name(cell), cell.record.cell.variant)
}

/// A cell without its kernel: `reset::of_pf (igb, yank)`.
pub fn short_name(cell: &RunCell) -> String {
    let id = &cell.record.cell;
    let trigger = if id.trigger.is_some() { format!(", {}", id.trigger_name()) } else { String::new() };
    let repeat = if id.repeat > 1 { format!(", repeat {}", id.repeat) } else { String::new() };
    format!("{} ({}{trigger}{repeat})", id.scenario, id.topology)
}
