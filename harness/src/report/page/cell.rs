//! A cell, in one line, short, or whole.

use maud::{Markup, html};

use super::super::grid::GridRow;
use super::super::timeline::{self, Timeline};
use super::super::words;
use super::picture::{self, cut};
use super::stories::Reference;
use super::{Page, capital, class, head, link, stacks, values, waits};
use crate::evidence::{Details, RunCell};
use crate::verdict::Verdict;

/// The files that people read first.
const READ_FIRST: &[&str] = &["console.log", "output.log", "repro.sh", "stacks.txt", "waits.txt"];

/// The most letters of a reason, such as the log of a failed build.
const LONGEST: usize = 6000;

/// A cell in one line. The attributes by which cells are filtered are in the words of the matrix.
pub fn line(page: &Page<'_>, cell: &RunCell) -> Markup {
    let record = &cell.record;
    html! {
        p.cell id=(page.id(cell)) data-kernel=(record.cell.variant) data-verdict=(words::shown(record)) data-unexpected[stands_out(cell)] {
            span.word.(class(cell)) { (words::shown(record)) }
            " on " b { (record.cell.variant) } @if record.cell.repeat > 1 { ", repeat " (record.cell.repeat) }
            @match &cell.evidence {
                Some(folder) => { ", " (format!("{:.1} s", record.seconds)) ": " a href=(page.address(folder)) { "files" } },
                None => @if let Some(why) = record.verdict.reason() { ": " (cut(why, 300)) },
            }
            @for why in &record.retries { span.quiet { "; tried again: " (cut(why, 300)) } }
        }
    }
}

/// A cell without what its files say.
pub fn short(page: &Page<'_>, cell: &RunCell) -> Markup {
    let more = html! {
        (repeat(cell))
        @if let Some(folder) = &cell.evidence {
            p.quiet { "Told short. " a href=(page.address(folder)) { "Its files" } " have the rest." }
        }
    };
    article(page, cell, &more)
}

/// All of a cell, beside the same cell on a kernel that passes.
pub fn whole(page: &Page<'_>, cell: &RunCell, reference: Option<&Reference<'_>>) -> Markup {
    let record = &cell.record;
    let details = cell.details();
    let graph = details.graph.as_ref();
    let more = html! {
        @if let Some(graph) = graph.filter(|graph| !graph.waits.is_empty()) {
            @let drawn = waits::draw(graph);
            @if !drawn.0.is_empty() { h5 { "Who waits for whom" } (drawn) }
        }
        (values::draw(record))
        @match timeline::of(record, &details) {
            Some(drawn) => (timelines(cell, reference, &drawn, &details)),
            None => @if cell.evidence.is_some() { p.quiet { "There is no timeline, because the transcript of the guest's agent has nothing." } },
        }
        (stacks::draw(record, graph))
        (repeat(cell))
        (files(page, cell, &details))
    };
    article(page, cell, &more)
}

/// The head of a cell and its verdict, and then the rest.
fn article(page: &Page<'_>, cell: &RunCell, more: &Markup) -> Markup {
    let record = &cell.record;
    html! {
        article.cell.(class(cell)) id=(page.id(cell)) data-kernel=(record.cell.variant)
            data-verdict=(words::shown(record)) data-unexpected[stands_out(cell)] {
            h4 {
                span.word.(class(cell)) { (words::shown(record)) @if words::is_unexpected(cell) { " !" } }
                " on " (record.cell.variant) @if record.cell.repeat > 1 { ", repeat " (record.cell.repeat) }
                " " a.self href=(page.link(cell)) title="link to this cell" { "#" }
            }
            (verdict(page, cell))
            (more)
        }
    }
}

/// Whether it is one of those that a reader looks for first.
fn stands_out(cell: &RunCell) -> bool {
    words::is_unexpected(cell) || (words::is_own(cell) && !cell.record.is_as_expected())
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
            @let stack = if splat.trace.is_empty() { &splat.frames } else { &splat.trace };
            @if !stack.is_empty() {
                details {
                    summary { "The stack of this report" @if let Some(task) = &splat.task { ", in " (task) } }
                    pre.stack { @for frame in stack { (frame) "\n" } }
                }
            }
        }
        @for why in &record.retries { p.quiet { "Tried again, because of the test bed: " (cut(why, 600)) } }
    }
}

/// The timeline of the cell, and below it that of the same cell on a kernel that passes.
fn timelines(cell: &RunCell, reference: Option<&Reference<'_>>, drawn: &Timeline, details: &Details) -> Markup {
    let name = &cell.record.cell.variant;
    html! {
        h5 { "What happened on " (name) }
        (picture::draw(drawn, &format!("timeline of {}", head::name(cell))))
        @if let Some(other) = reference {
            @let kernel = &other.cell.record.cell.variant;
            h5 { "The same cell on " (kernel) ", where it passes" }
            (other.picture.here(&format!("timeline of {}", head::name(other.cell))))
            (values::differences((name, &values::said(details)), (kernel, &other.said)))
        }
    }
}

/// The same cell on another kernel, if it passed there: on the reference of the run, or else on the first such kernel.
pub fn reference<'a>(page: &Page<'_>, cell: &RunCell, row: &GridRow<'a>) -> Option<&'a RunCell> {
    let kernel = page.report.against.as_ref().and_then(super::super::Against::kernel_of_run);
    let failed = matches!(cell.record.verdict, Verdict::Fail(_));
    let passed = |other: &&&RunCell| other.record.verdict == Verdict::Pass && other.evidence.is_some();
    let mut others = row.cells.iter().flatten().filter(passed).copied();
    let preferred = others.clone().find(|other| Some(other.record.cell.variant.as_str()) == kernel);
    preferred.or_else(|| others.next()).filter(|_| failed)
}

/// How to repeat the cell.
fn repeat(cell: &RunCell) -> Markup {
    html! {
        @if cell.evidence.is_some() {
            h5 { "To repeat it, in a checkout of iov-regress" }
            pre.command { (shell_words::join(cell.record.cell.command(&cell.own))) }
        }
    }
}

fn files(page: &Page<'_>, cell: &RunCell, details: &Details) -> Markup {
    let Some(folder) = &cell.evidence else { return html! {} };
    html! {
        p.quiet {
            @if let Some(kernel) = details.start.as_ref().and_then(|start| start.kernel.as_ref()) {
                "Linux " (kernel.release) ". "
            }
            "It took " (format!("{:.1} s", cell.record.seconds)) ". " a href=(page.address(folder)) { "All files" }
            @for name in details.files.iter().filter(|name| READ_FIRST.contains(&name.as_str())) {
                ", " a href=(page.address(&folder.join(name))) { (name) }
            }
            "."
        }
        @for what in &details.missing { p.missing { "Not known: " (what) } }
    }
}
