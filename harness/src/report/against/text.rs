//! The comparison for people. What is worse comes first.

use std::fmt::Write as _;

use super::{Against, KERNEL, OfKernel, REFERENCE, change, evidence};
use crate::evidence::Run;
use crate::report::change::{Change, State};
use crate::report::errors;
use crate::report::rows::Row;

/// The changes that are listed cell by cell after the regressions, with their headings.
const TOLD: [(Change, &str); 5] = [
    (Change::Fixed, "fixed"),
    (Change::FailsOtherwise, "fails otherwise: in another way than the reference, which is not worse"),
    (Change::ByChance, "random: a known bug that reproduces only randomly; neither REGRESSED nor fixed"),
    (Change::Flaky, "flaky: passes and fails, and is not worse than on the reference"),
    (Change::NoAnswer, "no answer: no verdict on the kernel or on the reference"),
];

pub fn render(against: &Against, run: &Run) -> String {
    let mut text = String::new();
    list(against, run, "REGRESSED", |row| change(row) == Change::Regressed, &mut text);
    for (told, heading) in TOLD {
        list(against, run, heading, |row| change(row) == told, &mut text);
    }
    let fails = |row: &Row| change(row) == Change::NotCompared && row.state(KERNEL).failure().is_some();
    list(against, run, "not compared: fails, and the reference has no verdict", fails, &mut text);
    new_errors(against, &mut text);
    counts(against, run, &mut text);
    text
}

/// What a kernel says at level "error" and above in cells that pass on it and on the reference, which does not say it.
fn new_errors(against: &Against, text: &mut String) {
    for kernel in &against.kernels {
        let messages: Vec<_> = kernel.rows.iter().map(|row| (row.name(), row.new_errors(KERNEL))).collect();
        let lines = errors::by_message(messages.iter().map(|(cell, messages)| (cell.clone(), messages.as_slice())));
        if lines.is_empty() {
            continue;
        }
        let _ = writeln!(text, "new error messages on {} in cells that pass, which do not count:", kernel.variant);
        for line in lines {
            let _ = writeln!(text, "  {line}");
        }
        text.push('\n');
    }
}

fn cells(count: usize) -> String {
    crate::text::counted(count, "cell", "cells")
}

/// The cells for which `is_listed` holds, under a heading. A kernel that does not build or boot is listed once.
fn list(against: &Against, run: &Run, heading: &str, is_listed: impl Fn(&Row) -> bool, text: &mut String) {
    let rows = against.kernels.iter().flat_map(|kernel| kernel.rows.iter().map(move |row| (kernel, row)));
    let told: Vec<_> = rows.filter(|(_, row)| is_listed(row)).collect();
    if told.is_empty() {
        return;
    }
    let _ = writeln!(text, "{heading} ({}):", cells(told.len()));
    let mut untried: Vec<(String, usize)> = Vec::new();
    for (kernel, row) in told {
        match self::untried(against, kernel, row) {
            None => line(against, kernel, row, run, text),
            Some(why) => match untried.iter_mut().find(|(known, _)| *known == why) {
                Some((_, count)) => *count += 1,
                None => untried.push((why, 1)),
            },
        }
    }
    for (why, count) in untried {
        let _ = writeln!(text, "  {}: {why}", cells(count));
    }
    text.push('\n');
}

/// Why a cell was not tried, if the kernel or the reference does not build or boot.
fn untried(against: &Against, kernel: &OfKernel, row: &Row) -> Option<String> {
    let of = |state: &State, name: &str| {
        let (what, why) = state.not_there()?;
        Some(format!("{name} {what}: {}", on_a_line(why)))
    };
    of(row.state(KERNEL), &kernel.variant).or_else(|| of(row.state(REFERENCE), &against.reference()))
}

fn on_a_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A cell: what the reference and the kernel did, and the folder of the evidence.
fn line(against: &Against, kernel: &OfKernel, row: &Row, run: &Run, text: &mut String) {
    let _ = writeln!(text, "  {}", against.sentence(row, &kernel.variant));
    if let Some(folder) = evidence(row, run, KERNEL, &kernel.variant) {
        let _ = writeln!(text, "    evidence: {}", folder.display());
    }
}

/// `numvfs_events::pf_uevent (igb) passes on v6.11, and fails on topic with lost-event at sriov_numvfs: no event ...`
pub fn sentence(row: &Row, reference: &str, variant: &str) -> String {
    let (before, after) = (row.state(REFERENCE), row.state(KERNEL));
    let ((does, how), (does_now, how_now)) = (does(before), does(after));
    let does_now = if does_now == does { String::new() } else { format!("{does_now} ") };
    let mut text = format!("{} {does} on {reference}{how}, and {does_now}on {variant}{how_now}", row.name());
    let why = match after {
        State::Unknown(verdict) => verdict.reason(),
        state => state.failure().map(|failure| failure.summary.as_str()),
    };
    if let Some(why) = why.filter(|why| !why.is_empty()) {
        text += &format!(": {}", on_a_line(why));
    }
    text
}

/// What a kernel does in a cell, and how.
fn does(state: &State) -> (&'static str, String) {
    match state {
        State::Pass => ("passes", String::new()),
        State::Fail(failure) => ("fails", format!(" with {failure}")),
        State::Flaky { failure, failed, of } => ("fails", format!(" with {failure} in {failed} of {of} runs")),
        State::Skipped => ("is skipped", String::new()),
        State::Unknown(_) | State::Absent => ("has no verdict", String::new()),
    }
}

/// A line for each kernel: the number of cells for each change.
fn counts(against: &Against, run: &Run, text: &mut String) {
    let reference = &against.note.kernel;
    let earlier = against.note.earlier.as_ref();
    let of = earlier.map(|earlier| format!(" in {}", earlier.results.display())).unwrap_or_default();
    let unexpected = run.cells.iter().filter(|cell| cell.record.is_unexpected()).count();
    if unexpected > 0 {
        let _ = writeln!(
            text,
            "{} did not end as the manifest expects; with a reference, only REGRESSED cells fail the run",
            cells(unexpected)
        );
    }
    let line = |kernel: &OfKernel| format!("{}, compared with {reference}{of}: {}", kernel.variant, counted(kernel));
    let lines: Vec<_> = against.kernels.iter().map(line).collect();
    let _ = writeln!(text, "{}; evidence in {}", lines.join("\n"), run.path.display());
}

/// `nothing REGRESSED, 12 still broken, 71 unchanged`
fn counted(kernel: &OfKernel) -> String {
    let is_worse = kernel.rows.iter().any(|row| change(row) == Change::Regressed);
    let counts: Vec<_> = kernel.counts().collect();
    match counts.as_slice() {
        [(Change::Unchanged, 1)] => "the only cell is unchanged".to_owned(),
        [(Change::Unchanged, count)] => format!("all {count} cells are unchanged"),
        counts => {
            let nothing = (!is_worse).then(|| "nothing REGRESSED".to_owned());
            let told = counts.iter().map(|(change, count)| format!("{count} {}", change.words()));
            nothing.into_iter().chain(told).collect::<Vec<_>>().join(", ")
        }
    }
}
