//! Taking notes during a scenario, for the reports.

use std::sync::PoisonError;

use guest_protocol::{Access, TaskState};

use super::Guest;
use crate::notes::{Note, Notes, Read, TestRun};

impl Guest {
    /// Adds a note. It replaces an earlier note of the same kind.
    pub fn note(&self, note: Note) {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).add(note);
    }

    /// Adds a note of a kind that lists tasks with their stacks.
    pub fn note_tasks(&self, kind: fn(Vec<TaskState>) -> Note, tasks: &[TaskState]) {
        self.note(kind(tasks.to_vec()));
    }

    /// Notes the value that a read returned, and the value that was `expected`.
    pub fn note_read(&self, access: &Access, expected: &str) {
        let (value, expected) = (access.shown().to_owned(), expected.to_owned());
        self.note(Note::Read(Read::Compared { value, expected, waited: access.latency().as_secs_f64() }));
    }

    /// Notes the results of a test program, beside those of the programs before.
    pub fn note_test_run(&self, run: TestRun) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut runs = notes.iter().find_map(|note| match note {
            Note::Tests(runs) => Some(runs.clone()),
            _ => None,
        });
        runs.get_or_insert_default().push(run);
        notes.add(Note::Tests(runs.unwrap_or_default()));
    }

    /// All notes so far.
    pub fn notes(&self) -> Notes {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
