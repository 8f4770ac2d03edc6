//! The table of a series for people.

use comfy_table::{ContentArrangement, Table, presets};

use super::{SeriesReport, Terminal};
use crate::report::change::{Change, State};
use crate::report::rows::Row;
use crate::report::words;

pub fn render(series: &SeriesReport, terminal: Terminal) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    if let Some(width) = terminal.width {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    }
    let steps: Vec<_> = series.steps().map(|(step, number, _)| (step, series.numbered(number))).collect();
    let numbers = steps.iter().map(|(_, number)| number.clone());
    table
        .set_header(["scenario".to_owned(), "trigger".to_owned(), series.note.base.clone()].into_iter().chain(numbers));
    let is_shown = |row: &&Row| row.seen.iter().any(|seen| !matches!(seen.state, State::Pass | State::Skipped));
    let mut before = None;
    for row in series.rows.iter().filter(is_shown) {
        let same = before.replace(&row.scenario) == Some(&row.scenario);
        let name = if same { String::new() } else { row.scenario.replace("::", "::\n  ") };
        let trigger = if row.trigger == "none" { "" } else { row.trigger };
        let changes = steps.iter().map(|&(step, _)| changed(row, step));
        let fixed = [name, trigger.to_owned(), shown(row.state(0))];
        table.add_row(fixed.into_iter().chain(changes));
    }
    let others = series.rows.iter().filter(|row| !is_shown(row)).count();
    let mut text = if others < series.rows.len() { format!("{table}\n") } else { String::new() };
    match others {
        0 => {}
        _ if others == series.rows.len() => text += "All cells pass on all kernels.\n",
        1 => text += "1 more cell passes on all kernels.\n",
        _ => text += &format!("{others} more cells pass on all kernels.\n"),
    }
    text
}

fn changed(row: &Row, step: usize) -> String {
    let state = shown(row.state(step));
    match row.change(step) {
        change @ (Change::Regressed | Change::Fixed | Change::FailsOtherwise | Change::ByChance) => {
            format!("{state}\n({})", change.words())
        }
        _ => state,
    }
}

fn shown(state: &State) -> String {
    match state {
        State::Pass => "pass".to_owned(),
        State::Fail(failure) => words::kind(failure.kind).to_owned(),
        State::Flaky { failure, failed, of } => format!("{failed}/{of} {}", words::kind(failure.kind)),
        State::Skipped => "skipped".to_owned(),
        State::Unknown(verdict) => words::outcome(verdict).to_owned(),
        State::Absent => String::new(),
    }
}
