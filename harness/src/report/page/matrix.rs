//! The matrix: kernels across, scenarios down, each result a link to its cell.

use maud::{Markup, html};

use super::super::grid::{GridRow, distinct};
use super::super::{Change, words};
use super::{Page, class, link};
use crate::evidence::RunCell;

pub fn draw(page: &Page<'_>) -> Markup {
    let grid = &page.grid;
    let several = distinct(grid.rows.iter().map(|row| row.topology)).len() > 1;
    let families = distinct(grid.rows.iter().map(GridRow::family));
    html! {
        section #matrix {
            h2 { "All results" }
            (filters(page))
            p.families {
                @for family in &families { a href=(format!("#{}", link::id("f", family))) { (family) } " " }
            }
            div.wide.tall {
                table.matrix {
                    thead {
                        tr {
                            th { "scenario" }
                            th { "trigger" }
                            @for variant in &grid.variants { th { a href=(format!("#{}", link::id("k", variant))) { (variant) } } }
                        }
                    }
                    @for family in &families {
                        tbody id=(link::id("f", family)) {
                            tr.family { th colspan=(2 + grid.variants.len()) scope="rowgroup" { (family) } }
                            @for row in grid.rows.iter().filter(|row| row.family() == *family) {
                                (one(page, row, several))
                            }
                        }
                    }
                }
            }
        }
    }
}

fn one(page: &Page<'_>, row: &GridRow<'_>, several: bool) -> Markup {
    let name = row.scenario.split_once("::").map_or(row.scenario, |(_, name)| name);
    html! {
        tr data-family=(row.family()) {
            th scope="row" { (name) @if several { span.quiet { " " (row.topology) } } }
            td.trigger { @if row.trigger != "none" { (row.trigger) } }
            @for (cells, variants) in fields(row, &page.grid.variants) {
                @match (cells, variants) {
                    ([], [_]) => td {},
                    ([], _) => td colspan=(variants.len()) {},
                    _ => td data-kernel=(variants[0]) { (results(page, cells)) },
                }
            }
        }
    }
}

/// The fields of a row: the cells of a kernel, or none of several kernels side by side. A row of a long run has results of a
/// few kernels, and a field for each of the others would be most of the page.
fn fields<'r, 'a, 'v>(row: &'r GridRow<'a>, variants: &'v [&'v str]) -> Vec<(&'r [&'a RunCell], &'v [&'v str])> {
    let same = |one: &Vec<&RunCell>, other: &Vec<&RunCell>| one.is_empty() && other.is_empty();
    let mut begin = 0;
    let field = |cells: &'r [Vec<&'a RunCell>]| {
        let field = (cells[0].as_slice(), &variants[begin..begin + cells.len()]);
        begin += cells.len();
        field
    };
    row.cells.chunk_by(same).map(field).collect()
}

/// The results of the repeats of a cell: each word once, with the number of repeats.
fn results(page: &Page<'_>, cells: &[&RunCell]) -> Markup {
    let word = |cell: &RunCell| (words::shown(&cell.record), words::is_unexpected(cell));
    html! {
        @for shown in distinct(cells.iter().map(|cell| word(cell))) {
            @let here: Vec<_> = cells.iter().filter(|cell| word(cell) == shown).collect();
            @if let Some(cell) = here.first() {
                a.word.(class(cell)) href=(page.link(cell)) title=(format!("{} on {}", words::ended(&cell.record.verdict), cell.record.cell.variant)) {
                    @if cells.len() > 1 { (here.len()) "/" (cells.len()) " " }
                    (shown.0)
                    @if shown.1 { " !" }
                }
                @if let Some(change) = page.change(cell) {
                    span.change.regressed[change == Change::Regressed] { (change.words()) }
                }
            }
        }
    }
}

/// Only with scripts: what is shown of matrix and cells.
fn filters(page: &Page<'_>) -> Markup {
    let cells = &page.report.run.cells;
    let choice = |name: &str, all: &str, values: Vec<String>| {
        html! {
            select data-filter=(name) aria-label=(all) {
                option value="" { (all) }
                @for value in values { option { (value) } }
            }
        }
    };
    let own = |values: Vec<&str>| values.into_iter().map(str::to_owned).collect::<Vec<_>>();
    html! {
        form.filters hidden {
            input type="search" data-filter="text" placeholder="text" aria-label="text";
            (choice("kernel", "all kernels", own(page.grid.variants.clone())))
            (choice("family", "all families", own(distinct(page.grid.rows.iter().map(GridRow::family)))))
            (choice("verdict", "all results", own(distinct(cells.iter().map(|cell| words::shown(&cell.record))))))
            label { input type="checkbox" data-filter="unexpected"; " only unexpected" }
            span.count {}
        }
    }
}
