//! The cells of a row of the matrix. A cell that passed as it should has one line; of any other, everything is told.

use maud::{Markup, html};

use super::super::grid::GridRow;
use super::super::timeline::{self, Timeline};
use super::super::words;
use super::picture::{self, cut};
use super::{Page, capital, class, head, is_told, link, sentence, stacks, values, waits};
use crate::evidence::{Details, RunCell};
use crate::verdict::Verdict;

/// The most letters of a reason, such as the log of a failed build.
const LONGEST: usize = 6000;

pub fn row(page: &Page<'_>, row: &GridRow<'_>) -> Markup {
    let about = page.report.run.info.scenarios.iter().find(|scenario| scenario.name == row.scenario);
    let cells = || row.cells.iter().flatten();
    html! {
        section.row data-family=(row.family()) {
            h3 {
                (row.scenario)
                span.quiet { " on " (row.topology) @if row.trigger != "none" { ", " (row.trigger) } }
            }
            @if let Some(scenario) = about { p { (sentence(&scenario.about)) } }
            @for cell in cells().filter(|cell| is_told(cell)) { (told(page, cell, row)) }
            @for cell in cells().filter(|cell| !is_told(cell)) { (passed(page, cell)) }
        }
    }
}

/// The attributes by which cells are filtered are in the words of the matrix.
fn passed(page: &Page<'_>, cell: &RunCell) -> Markup {
    let record = &cell.record;
    html! {
        p.cell id=(page.id(cell)) data-kernel=(record.cell.variant) data-verdict=(words::shown(record)) {
            span.word.(class(cell)) { (words::shown(record)) }
            " on " b { (record.cell.variant) } @if record.cell.repeat > 1 { ", repeat " (record.cell.repeat) }
            ", " (format!("{:.1} s", record.seconds))
            @if let Some(folder) = &cell.evidence { ": " a href=(page.address(folder)) { "files" } }
            @for why in &record.retries { span.quiet { "; tried again: " (cut(why, 300)) } }
        }
    }
}

fn told(page: &Page<'_>, cell: &RunCell, row: &GridRow<'_>) -> Markup {
    let record = &cell.record;
    let details = cell.details();
    let drawn = timeline::of(record, &details);
    let graph = details.graph.as_ref();
    html! {
        article.cell.(class(cell)) id=(page.id(cell)) data-kernel=(record.cell.variant)
            data-verdict=(words::shown(record)) data-unexpected[words::is_unexpected(cell) || (words::is_own(cell) && !record.is_as_expected())] {
            h4 {
                span.word.(class(cell)) { (words::shown(record)) @if words::is_unexpected(cell) { " !" } }
                " on " (record.cell.variant) @if record.cell.repeat > 1 { ", repeat " (record.cell.repeat) }
                " " a.self href=(page.link(cell)) title="link to this cell" { "#" }
            }
            (verdict(page, cell))
            @if let Some(graph) = graph.filter(|graph| !graph.waits.is_empty()) {
                @let drawn = waits::draw(graph);
                @if !drawn.0.is_empty() { h5 { "Who waits for whom" } (drawn) }
            }
            (values::draw(record))
            @match &drawn {
                Some(drawn) => (timelines(page, cell, row, drawn, &details)),
                None => @if cell.evidence.is_some() { p.quiet { "There is no timeline, because the transcript of the guest's agent has nothing." } },
            }
            (stacks::draw(record, graph))
            (more(page, cell, &details))
        }
    }
}

/// What happened, in sentences: what ended how, what was expected, and why.
fn verdict(page: &Page<'_>, cell: &RunCell) -> Markup {
    let record = &cell.record;
    let bugs: Vec<&str> = match &record.verdict {
        Verdict::Fail(failure) => record.expected.shown_by(failure).collect(),
        _ => Vec::new(),
    };
    let bug = bugs.iter().find_map(|id| page.report.run.info.bugs.iter().find(|bug| bug.id == *id));
    let expected = words::expected(&record.expected);
    html! {
        p.verdict {
            b { (capital(&words::ended(&record.verdict))) }
            @match (bug, expected) {
                (Some(bug), _) if record.is_as_expected() => {
                    ", as expected: this kernel has the bug "
                    a href=(format!("#{}", link::id("b", &bug.id))) { (bug.id) } " (" (bug.title) ")."
                },
                (_, Some(expected)) if !record.is_as_expected() => { ", but this was expected: " (expected) "." },
                _ => ".",
            }
        }
        @if let Some(reason) = record.verdict.reason() {
            @if reason.contains('\n') { pre { (cut(reason, LONGEST)) } }
            @else { ul.reason { @for part in reason.split("; ") { li { (cut(part, LONGEST)) } } } }
        }
        @if let Some(proof) = &record.trigger_proof {
            p.quiet { "Proof that the removal took this path: " @for line in proof.lines() { code { (line) } " " } }
        }
        @for splat in &record.splats {
            p { "The kernel reported: " code { (splat.title) }
                @if let Some(known) = &splat.known { span.quiet { " (does not count: " (known) ")" } } }
        }
        @for why in &record.retries { p.quiet { "Tried again, because of the test bed: " (cut(why, 600)) } }
    }
}

/// The timeline of the cell, and above each other that of the same cell on a kernel that passes.
fn timelines(page: &Page<'_>, cell: &RunCell, row: &GridRow<'_>, drawn: &Timeline, details: &Details) -> Markup {
    let name = &cell.record.cell.variant;
    let reference = reference(page, cell, row);
    let other = reference.map(|other| (other, other.details()));
    let other =
        other.as_ref().and_then(|(other, details)| Some((*other, timeline::of(&other.record, details)?, details)));
    html! {
        h5 { "What happened on " (name) }
        (picture::draw(drawn, &format!("timeline of {}", head::name(cell))))
        @if let Some((other, timeline, others)) = other {
            h5 { "The same cell on " (other.record.cell.variant) ", where it passes" }
            (picture::draw(&timeline, &format!("timeline of {}", head::name(other))))
            (values::differences(name, details, &other.record.cell.variant, others))
        }
    }
}

/// The same cell on another kernel, if it passed there: on the reference of the run, or else on the first such kernel.
fn reference<'a>(page: &Page<'a>, cell: &RunCell, row: &GridRow<'a>) -> Option<&'a RunCell> {
    let kernel = page.report.against.as_ref().and_then(super::super::Against::kernel_of_run);
    let failed = matches!(cell.record.verdict, Verdict::Fail(_));
    let passed = |other: &&&RunCell| other.record.verdict == Verdict::Pass && other.evidence.is_some();
    let mut others = row.cells.iter().flatten().filter(passed).copied();
    let preferred = others.clone().find(|other| Some(other.record.cell.variant.as_str()) == kernel);
    preferred.or_else(|| others.next()).filter(|_| failed)
}

/// How to repeat the cell, and its files.
fn more(page: &Page<'_>, cell: &RunCell, details: &Details) -> Markup {
    let Some(folder) = &cell.evidence else { return html! {} };
    let command = shell_words::join(cell.record.cell.command(&cell.own));
    html! {
        h5 { "To repeat it" }
        pre.command { (command) }
        p.quiet {
            @if let Some(kernel) = details.start.as_ref().and_then(|start| start.kernel.as_ref()) {
                "Linux " (kernel.release) ". "
            }
            "It took " (format!("{:.1} s", cell.record.seconds)) ". Files: "
            @for (name, number) in details.files.iter().zip(0..) {
                @if number > 0 { ", " }
                a href=(page.address(&folder.join(name))) { (name) }
            }
        }
        @for what in &details.missing { p.missing { "Not known: " (what) } }
    }
}
