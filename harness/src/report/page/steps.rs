//! The steps of a bisection: how each commit was judged, and why.

use maud::{Markup, html};

use super::{Page, capital};
use crate::evidence::{BisectionStep, Mark};

/// Draws the steps, if the runs are those of a bisection.
pub fn draw(page: &Page<'_>) -> Markup {
    let Some(note) = &page.report.bisection else { return html! {} };
    html! {
        section #steps {
            h2 { "Steps" }
            p { "Looked for: " (note.wanted) " in " (note.cell) ". The ends were judged first. Each other commit lies between those "
                "that were known before it to be good and bad." }
            div.wide { table.steps {
                thead { tr { th { "step" } th { "judged" } th { "commit" } th { "why" } } }
                tbody { @for (step, number) in note.steps.iter().zip(0_usize..) { (row(page, step, number)) } }
            } }
            details { summary { "git bisect log" } pre { (note.log) } }
        }
    }
}

fn row(page: &Page<'_>, step: &BisectionStep, number: usize) -> Markup {
    let (class, word) = match step.mark {
        Mark::Good => ("pass", "good"),
        Mark::Bad => ("bad", "bad"),
        Mark::Skip => ("skip", "skipped"),
    };
    let of_it =
        |cell: &&crate::evidence::RunCell| cell.evidence.as_ref().is_some_and(|folder| step.cells.contains(folder));
    let mut cells = page.report.run.cells.iter().filter(of_it);
    html! {
        tr.found[step.found] {
            // The bad end is judged first, because its failure is the one to look for.
            td { @match number { 0 => "bad end", 1 => "good end", _ => (number - 1) } }
            td { span.word.(class) { (word) } @if step.flaky { " flaky" } }
            td { code { (step.commit) } " " (step.subject) @if step.found { b { " (the answer)" } } }
            td {
                @match cells.next() {
                    Some(cell) => a href=(page.link(cell)) { (capital(&step.why)) },
                    None => (capital(&step.why)),
                }
                @if step.remembered { span.quiet { " (judged before)" } }
            }
        }
    }
}
