//! The effect of each patch of a series, made from the evidence of a run: for people, for programs, and for a reply to
//! a mailing list.

mod table;
mod text;

use std::path::Path;

use serde_json::{Value, json};

use super::change::Change;
use super::form::{self, Form};
use super::rows::{Column, Row, rows};
use super::{Report, Terminal};
use crate::evidence::{Applies, EvidenceError, SeriesNote, SeriesStep};

/// The report of a run of a series.
#[derive(Clone, Debug)]
pub struct SeriesReport {
    report: Report,
    note: SeriesNote,
    rows: Vec<Row>,
}

/// Whether a series is bisectable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bisectable {
    /// Yes: no step is worse than the one before.
    Yes,
    /// No: these steps are worse, and how.
    No(Vec<String>),
    /// No step is known to be worse, but these cells have no verdict.
    Unknown(Vec<String>),
}

/// The forms of the report of a series, in addition to [`FORMS`](super::FORMS) for its cells.
pub const SERIES_FORMS: &[Form<SeriesReport>] = &[
    Form {
        name: "series-json",
        file: "series-results.json",
        about: "for programs",
        render: |series| form::json(&series.results()),
    },
    Form { name: "mail", file: "summary.txt", about: "for a reply to a mailing list", render: text::render },
];

impl SeriesReport {
    /// The report of the run in a folder.
    ///
    /// # Errors
    /// If the folder is not that of a run of a series.
    pub fn of(run: &Path) -> Result<SeriesReport, EvidenceError> {
        let (report, note) = (Report::of(run)?, SeriesNote::read(run)?);
        let tried = note.tried().map(|(_, step)| step.variant.as_str());
        let columns: Vec<_> = std::iter::once(note.base.as_str()).chain(tried).map(Column::Kernel).collect();
        let rows = rows(&report.run, &columns);
        Ok(SeriesReport { report, note, rows })
    }

    /// The table for people: a column for each kernel, and what changes there. Cells that pass on all kernels have no
    /// row.
    pub fn table(&self, terminal: Terminal) -> String {
        table::render(self, terminal)
    }

    /// The summary to paste into a reply: plain text of at most 72 columns.
    pub fn summary(&self) -> String {
        text::render(self)
    }

    /// The results for programs.
    pub fn results(&self) -> Value {
        let row = |row: &Row, step: usize| {
            json!({
                "scenario": row.scenario,
                "topology": row.topology,
                "trigger": row.trigger,
                "before": row.before(step).words(),
                "after": row.state(step).words(),
                "change": row.change(step),
            })
        };
        let tried: Vec<_> = self.note.tried().map(|(number, _)| number).collect();
        let steps = self.note.steps.iter().zip(1..).map(|(step, number)| {
            let index = tried.iter().position(|tried| *tried == number).map(|index| index + 1);
            let cells = self.rows.iter().filter_map(|one| Some(row(one, index?)));
            json!({"number": number, "patch": step, "cells": cells.collect::<Vec<_>>()})
        });
        let (bisectable, why) = match self.bisectable() {
            Bisectable::Yes => (Some(true), Vec::new()),
            Bisectable::No(why) => (Some(false), why),
            Bisectable::Unknown(why) => (None, why),
        };
        json!({
            "schema": 1,
            "series": self.note,
            "steps": steps.collect::<Vec<_>>(),
            "bisectable": bisectable,
            "bisectable_why": why,
            "in_all": self.rows.iter().map(|row| json!({
                "scenario": row.scenario,
                "topology": row.topology,
                "trigger": row.trigger,
                "change": row.in_all(),
            })).collect::<Vec<_>>(),
            "exit_code": self.exit_code(),
        })
    }

    /// Writes all [`SERIES_FORMS`] into the folder of the run, and what [`Report::write_files`] writes.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write_files(&self) -> Result<(), EvidenceError> {
        self.report.write_files()?;
        form::write_all(SERIES_FORMS, self, &self.report.run.path)
    }

    /// Whether the series is bisectable.
    pub fn bisectable(&self) -> Bisectable {
        let (mut worse, mut unknown) = (Vec::new(), Vec::new());
        for (index, (number, _)) in self.note.tried().enumerate() {
            let step = index + 1;
            let of = self.numbered(number);
            if let Some(word) = self.not_there(step) {
                worse.push(format!("{of} {word}"));
                continue;
            }
            let names = |change| self.names(|row| row.change(step) == change);
            if let Some(names) = names(Change::Regressed) {
                worse.push(format!("{of} breaks {names}"));
            }
            if let Some(names) = names(Change::NoAnswer) {
                unknown.push(format!("{of}, {names}"));
            }
        }
        for (index, step) in self.note.steps.iter().enumerate() {
            if matches!(step.applies, Applies::No { .. }) {
                worse.push(format!("{} does not apply", self.numbered(index + 1)));
            }
        }
        match (worse.is_empty(), unknown.is_empty()) {
            (false, _) => Bisectable::No(worse),
            (true, false) => Bisectable::Unknown(unknown),
            (true, true) => Bisectable::Yes,
        }
    }

    /// The exit status: 0 if the series is bisectable and makes nothing worse, 1 if not, 2 if too little is known to
    /// say so. With [`SeriesNote::answers_for_base`], a cell that fails with and without the series counts too.
    /// Otherwise it does not count: no series fixes everything that the scenarios find, and the exit status would
    /// always be 1.
    pub fn exit_code(&self) -> u8 {
        let ends = |change| self.rows.iter().any(|row| row.in_all() == change);
        let bisectable = self.bisectable();
        if matches!(bisectable, Bisectable::No(_))
            || [Change::Regressed, Change::Flaky].into_iter().any(ends)
            || (self.note.answers_for_base && [Change::StillBroken, Change::FailsOtherwise].into_iter().any(ends))
        {
            return 1;
        }
        let known = self.rows.iter().any(|row| row.in_all() != Change::NoAnswer);
        if known && !ends(Change::NoAnswer) && bisectable == Bisectable::Yes { 0 } else { 2 }
    }

    /// `does not build` or `does not boot`, if that is the result of the kernel with patch `step` of those tried.
    fn not_there(&self, step: usize) -> Option<&'static str> {
        self.rows.iter().find_map(|row| row.state(step).not_there()).map(|(what, _)| what)
    }

    /// Whether the kernel with patch `step` of those tried is identical to the kernel before it.
    fn is_without_effect(&self, step: usize) -> bool {
        let variants: Vec<_> = std::iter::once(self.note.base.as_str())
            .chain(self.note.tried().map(|(_, step)| step.variant.as_str()))
            .collect();
        let key = |at: usize| {
            let mut cells = self.report.run.cells.iter().filter(|cell| cell.record.cell.variant == variants[at]);
            cells.find_map(|cell| cell.kernel.as_deref())
        };
        key(step).is_some() && key(step) == key(step - 1)
    }

    /// The number of a patch in texts: `1/2`.
    fn numbered(&self, number: usize) -> String {
        format!("{number}/{}", self.note.steps.len())
    }

    /// The scenarios of the wanted rows, each with its triggers; none if there is no such row.
    fn names(&self, wanted: impl Fn(&Row) -> bool) -> Option<String> {
        let groups = self.groups(wanted);
        let names: Vec<_> = groups.into_iter().map(|(name, triggers)| format!("{name}{triggers}")).collect();
        (!names.is_empty()).then(|| names.join(", "))
    }

    /// The scenarios of the wanted rows. Each comes with the triggers of these rows in brackets, or with an empty text
    /// if these are all its rows.
    fn groups(&self, wanted: impl Fn(&Row) -> bool) -> Vec<(String, String)> {
        let several = self.rows.iter().any(|row| row.topology != self.rows[0].topology);
        let name = |row: &Row| match several {
            true => format!("{} on {}", row.scenario, row.topology),
            false => row.scenario.clone(),
        };
        let mut groups: Vec<(String, Vec<&'static str>)> = Vec::new();
        for row in self.rows.iter().filter(|row| wanted(row)) {
            match groups.iter_mut().find(|(of, _)| *of == name(row)) {
                Some((_, triggers)) => triggers.push(row.trigger),
                None => groups.push((name(row), vec![row.trigger])),
            }
        }
        let all = |of: &String| self.rows.iter().filter(|row| name(row) == *of).count();
        let shown = |(of, triggers): (String, Vec<&str>)| {
            let triggers = match triggers.len() {
                count if count == all(&of) => String::new(),
                _ => format!(" ({})", triggers.join(", ")),
            };
            (of, triggers)
        };
        groups.into_iter().map(shown).collect()
    }

    /// The patches that were tried, in order: the step among those tried, from 1, and the number in the series.
    fn steps(&self) -> impl Iterator<Item = (usize, usize, &SeriesStep)> {
        self.note.tried().enumerate().map(|(index, (number, step))| (index + 1, number, step))
    }
}

#[cfg(test)]
mod tests;
