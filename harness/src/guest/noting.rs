//! Noting what was seen, for the reports.

use std::sync::PoisonError;

use guest_protocol::{Access, TaskState};

use super::Guest;
use crate::notes::{Note, Notes, Read};

impl Guest {
    /// Notes something seen. It replaces what was noted of its kind before.
    pub fn note(&self, note: Note) {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).add(note);
    }

    /// Notes tasks and their stacks, as one of the kinds of notes that are about tasks.
    pub fn note_tasks(&self, kind: fn(Vec<TaskState>) -> Note, tasks: &[TaskState]) {
        self.note(kind(tasks.to_vec()));
    }

    /// Notes what a read was answered that should have been `expected`.
    pub fn note_read(&self, access: &Access, expected: &str) {
        let (value, expected) = (access.shown().to_owned(), expected.to_owned());
        self.note(Note::Read(Read::Compared { value, expected, waited: access.latency().as_secs_f64() }));
    }

    /// All that was noted.
    pub fn notes(&self) -> Notes {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
