//! The summary of a series: plain text for a mail.

use std::fmt::Write as _;

use kernels::series::Version;

use super::{Bisectable, SeriesReport};
use crate::classify::Splat;
use crate::evidence::{Applies, RunCell, SeriesStep};
use crate::notes::Notes;
use crate::report::change::{Change, State};
use crate::report::errors;
use crate::report::mail::{WIDTH, quote_script, wrap};
use crate::report::rows::Row;
use crate::text::counted;
use crate::verdict::Verdict;

/// How many failures are shown with their evidence.
const SHOWN: usize = 6;
/// How many tasks are shown of a failure.
const TASKS: usize = 3;
/// How many frames of a stack are shown.
const FRAMES: usize = 4;
/// How many lines are shown of what a patch expects and the tree has instead.
const LINES: usize = 24;
/// The order in which the changes of a patch are listed.
const ORDER: [Change; 9] = [
    Change::Fixed,
    Change::Regressed,
    Change::FailsOtherwise,
    Change::StillBroken,
    Change::Flaky,
    Change::ByChance,
    Change::NoAnswer,
    Change::NotCompared,
    Change::Unchanged,
];
/// The order in which the changes of the whole series are counted.
const COUNTED: [Change; 9] = [
    Change::Fixed,
    Change::StillBroken,
    Change::Regressed,
    Change::Unchanged,
    Change::FailsOtherwise,
    Change::Flaky,
    Change::ByChance,
    Change::NoAnswer,
    Change::NotCompared,
];
/// How many of [`COUNTED`] are listed even if their count is 0.
const ALWAYS: usize = 4;

pub fn render(series: &SeriesReport) -> String {
    let mut text = String::new();
    head(series, &mut text);
    for (index, step) in series.note.steps.iter().enumerate() {
        patch(series, index + 1, step, &mut text);
    }
    end(series, &mut text);
    evidence(series, &mut text);
    scripts(series, &mut text);
    // The first line says why the base was taken. The others are for the terminal.
    for note in series.note.bases.first().into_iter().chain(&series.note.notes) {
        wrap(&mut text, "Note: ", "  ", note);
    }
    text
}

/// The scripts that are scenarios, so that others can run them.
fn scripts(series: &SeriesReport, text: &mut String) {
    for scenario in &series.report.run.info.scenarios {
        if let Some(script) = &scenario.script {
            quote_script(text, &scenario.name, script);
        }
    }
}

fn head(series: &SeriesReport, text: &mut String) {
    let (note, info) = (&series.note, &series.report.run.info);
    let version = if note.version > Version::FIRST { format!(" v{}", note.version) } else { String::new() };
    let number = if note.steps.len() > 1 { format!(" 0/{}", note.steps.len()) } else { String::new() };
    wrap(text, "", "  ", &format!("[PATCH{version}{number}] {}", note.subject));
    text.push('\n');
    let repeats = series.report.run.cells.iter().map(|cell| cell.record.cell.repeat).max().unwrap_or(1);
    let scenarios = series.groups(|_| true).len();
    let often = if repeats > 1 { format!(", {repeats} times each") } else { String::new() };
    let qemu = info.qemu.trim_start_matches("QEMU emulator version ").split(' ').next().unwrap_or_default();
    let tested = format!(
        "Tested with iov-regress {} on {}, in QEMU {qemu} under {}: {} of {} on each of {}{often}.",
        info.harness,
        note.base_about,
        info.accel.to_uppercase(),
        counted(series.rows.len(), "cell", "cells"),
        counted(scenarios, "scenario", "scenarios"),
        counted(series.note.tried().count() + 1, "kernel", "kernels"),
    );
    wrap(text, "", "", &tested);
    text.push('\n');
}

fn patch(series: &SeriesReport, number: usize, step: &SeriesStep, text: &mut String) {
    wrap(text, &format!("{} ", series.numbered(number)), "    ", &step.subject);
    match &step.applies {
        Applies::NotTried => wrap(text, "  ", "  ", "not tested: a patch before it does not apply"),
        Applies::Already { base } => wrap(text, "  ", "  ", &format!("not tested: it is already in {base}")),
        Applies::No { why, lines } => {
            wrap(text, "  DOES NOT APPLY: ", "    ", why);
            lines.iter().take(LINES).for_each(|line| cut(text, line));
        }
        Applies::Yes => {
            let tried = series.steps().find(|(_, of, _)| *of == number).map(|(tried, _, _)| tried);
            if let Some(tried) = tried {
                changes(series, tried, text);
            }
        }
    }
    text.push('\n');
}

/// A line of code. It is cut, not wrapped.
fn cut(text: &mut String, line: &str) {
    let line = line.replace('\t', "        ");
    let shown: String = line.chars().take(WIDTH - 4).collect();
    let _ = writeln!(text, "    {}", shown.trim_end());
}

/// What a patch fixes and breaks, and what it does not change.
fn changes(series: &SeriesReport, step: usize, text: &mut String) {
    if let Some((what, why)) = series.rows.iter().find_map(|row| row.state(step).not_there()) {
        wrap(text, &format!("  {}: ", what.to_uppercase()), "    ", why);
        return;
    }
    if series.is_without_effect(step) {
        wrap(text, "  ", "    ", "does not change the built kernel: only comments, or code that is not compiled");
    }
    for change in ORDER {
        let is = |row: &Row| row.change(step) == change;
        let found = series.rows.iter().filter(|row| is(row)).count();
        match change {
            _ if found == 0 => {}
            Change::Unchanged => wrap(text, "  unchanged: ", "    ", &counted(found, "cell", "cells")),
            Change::Fixed => list(series, step, change, is, |row| ended(row.before(step)), text),
            Change::ByChance => list(series, step, change, is, |row| by_chance(row, step), text),
            _ => list(series, step, change, is, |row| ended(row.state(step)), text),
        }
    }
    let messages: Vec<_> = series.rows.iter().map(|row| (row.name(), row.new_errors(step))).collect();
    for line in errors::by_message(messages.iter().map(|(cell, messages)| (cell.clone(), messages.as_slice()))) {
        wrap(text, "  new error message, in cells that pass: ", "    ", &line);
    }
}

/// The result in a few words.
fn ended(state: &State) -> String {
    match state {
        State::Unknown(verdict) => verdict.reason().unwrap_or_default().to_owned(),
        other => other.words(),
    }
}

/// A random bug, and with which of the two kernels it showed.
fn by_chance(row: &Row, step: usize) -> String {
    match (row.before(step).failure(), row.state(step).failure()) {
        (Some(failure), None) => format!("{failure}, before, not with this patch"),
        (_, Some(failure)) => format!("{failure}, with this patch, not before"),
        (None, None) => String::new(),
    }
}

/// The rows of one change. Rows with the same result are together.
fn list(
    series: &SeriesReport,
    step: usize,
    change: Change,
    is: impl Fn(&Row) -> bool,
    ended: impl Fn(&Row) -> String,
    text: &mut String,
) {
    let mut ways: Vec<String> = Vec::new();
    for row in series.rows.iter().filter(|row| is(row)) {
        let way = ended(row);
        if !ways.contains(&way) {
            ways.push(way);
        }
    }
    for way in ways {
        wrap(text, &format!("  {}: ", change.words()), "    ", &way);
        for (name, triggers) in series.groups(|row| is(row) && ended(row) == way) {
            let others =
                series.rows.iter().find(|row| row.scenario == name && is(row)).map(|row| before(row, step, change));
            wrap(text, "    ", "      ", &format!("{name}{triggers}{}", others.unwrap_or_default()));
        }
    }
}

/// How a cell failed before, if it now fails in another way.
fn before(row: &Row, step: usize, change: Change) -> String {
    let before = row.before(step);
    match change {
        Change::StillBroken | Change::FailsOtherwise | Change::Regressed
            if before.failure().is_some() && before.words() != row.state(step).words() =>
        {
            format!(" (before: {})", before.words())
        }
        _ => String::new(),
    }
}

fn end(series: &SeriesReport, text: &mut String) {
    match series.bisectable() {
        Bisectable::Yes => wrap(text, "Bisectable: ", "  ", "yes, no step is worse than the one before."),
        Bisectable::No(why) => wrap(text, "Bisectable: NO. ", "  ", &format!("{}.", why.join("; "))),
        Bisectable::Unknown(why) => {
            let why = format!("not known: no step is worse, but some cells have no answer ({}).", why.join("; "));
            wrap(text, "Bisectable: ", "  ", &why);
        }
    }
    let last = series.steps().last().map(|(_, number, _)| number);
    let Some(last) = last else {
        wrap(text, "Result: ", "  ", "no patch could be tested.");
        text.push('\n');
        return;
    };
    let counts = COUNTED.map(|change| (change, series.rows.iter().filter(|row| row.in_all() == change).count()));
    let told = counts.iter().enumerate().filter(|(at, (_, count))| *count > 0 || *at < ALWAYS).map(|(_, told)| told);
    let told: Vec<_> = told.map(|(change, count)| format!("{count} {}", change.words().to_lowercase())).collect();
    let with = match last == series.note.steps.len() {
        true => "with all patches".to_owned(),
        false => format!("with patches up to {}", series.numbered(last)),
    };
    wrap(text, "Result: ", "  ", &format!("{with}, compared to the base: {}.", told.join(", ")));
    text.push('\n');
}

/// For each failure that was fixed or is new, the key lines of one cell. The failures that are left follow. At most
/// [`SHOWN`] in all.
fn evidence(series: &SeriesReport, text: &mut String) {
    let mut examples: Vec<(usize, &Row)> = Vec::new();
    let mut add = |at: usize, row| {
        let known = |(other, of): &(usize, &Row)| *other == at && way(of, at) == way(row, at);
        if way(row, at).is_some() && !examples.iter().any(known) {
            examples.push((at, row));
        }
    };
    for (step, _, _) in series.steps() {
        series.rows.iter().filter(|row| row.change(step) == Change::Fixed).for_each(|row| add(failing(row, step), row));
        series.rows.iter().filter(|row| row.change(step) == Change::Regressed).for_each(|row| add(step, row));
    }
    let last = series.steps().count();
    let left = |row: &&Row| matches!(row.in_all(), Change::StillBroken | Change::FailsOtherwise);
    series.rows.iter().filter(left).for_each(|row| add(last, row));
    if examples.is_empty() {
        return;
    }
    text.push_str("Evidence:\n\n");
    for (at, row) in examples.iter().take(SHOWN) {
        example(series, *at, row, text);
    }
    if examples.len() > SHOWN {
        wrap(text, "", "", &format!("(The evidence has {} more kinds of failure.)", examples.len() - SHOWN));
        text.push('\n');
    }
}

/// The last kernel before a step on which a cell failed.
fn failing(row: &Row, step: usize) -> usize {
    (0..step).rev().find(|&at| row.state(at).failure().is_some()).unwrap_or(0)
}

fn way(row: &Row, at: usize) -> Option<String> {
    row.state(at).failure().map(ToString::to_string)
}

fn example(series: &SeriesReport, at: usize, row: &Row, text: &mut String) {
    let (name, variant) = match at {
        0 => ("base".to_owned(), series.note.base.as_str()),
        _ => match series.steps().nth(at - 1) {
            Some((_, number, step)) => (series.numbered(number), step.variant.as_str()),
            None => return,
        },
    };
    let failed = |cell: &&RunCell| matches!(cell.record.verdict, Verdict::Fail(_));
    let Some(cell) = row.cells(&series.report.run, variant).find(failed) else { return };
    let Verdict::Fail(failure) = &cell.record.verdict else { return };
    let trigger = if row.trigger == "none" { String::new() } else { format!(", {}", row.trigger) };
    wrap(text, "", "  ", &format!("{name}, {}{trigger}: {failure}", row.scenario));
    for line in failure.lines() {
        wrap(text, "  ", "    ", line);
    }
    // A cycle says more of its tasks than their stacks do.
    if !failure.is_proven() {
        for stack in stacks(&cell.record.observations) {
            wrap(text, "  ", "    ", &stack);
        }
    }
    for wait in cell.record.splats.iter().filter_map(Splat::wait) {
        wrap(text, "  ", "    ", &wait);
    }
    // Reports about stuck tasks are left out: the stacks above show the same.
    if let Some(splat) = cell.record.splats.iter().find(|splat| splat.is_fatal()) {
        let frames: Vec<_> = splat.frames.iter().take(FRAMES).map(String::as_str).collect();
        wrap(text, "  ", "    ", &format!("{}: {}", splat.title, frames.join(" < ")));
    }
    text.push('\n');
}

/// The first tasks that a scenario noted, with the innermost frames of their stacks.
fn stacks(observations: &Notes) -> Vec<String> {
    let shown = observations.tasks().into_iter().take(TASKS).map(|(_, task)| {
        let frames: Vec<_> = task.stack.iter().take(FRAMES).map(String::as_str).collect();
        format!("{} ({}): {}", task.comm, task.state, frames.join(" < "))
    });
    shown.collect()
}
