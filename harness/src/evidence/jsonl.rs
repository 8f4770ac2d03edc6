//! The transcript of a channel: one JSON object per line, each with a time.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde::Serialize;
use serde_json::value::RawValue;

use super::EvidenceError;

/// Appends to a transcript. Clones append to the same file.
#[derive(Clone, Debug)]
pub struct JsonlWriter {
    file: Arc<Mutex<File>>,
    began: Instant,
}

#[derive(Serialize)]
struct Line<'a, T: ?Sized> {
    /// Seconds since the cell began.
    t: f64,
    from: &'a str,
    message: &'a T,
}

impl JsonlWriter {
    pub(super) fn create(path: &Path, began: Instant) -> Result<JsonlWriter, EvidenceError> {
        let file = File::options().create(true).append(true).open(path).map_err(EvidenceError::io("create", path))?;
        Ok(JsonlWriter { file: Arc::new(Mutex::new(file)), began })
    }

    /// Appends `{"t": SECONDS, "from": SENDER, "message": ...}`. The seconds count from the start of the cell. The line
    /// is in the file when this returns.
    ///
    /// # Errors
    /// Those of the file, and of serializing.
    pub fn write(&self, from: &str, message: &(impl Serialize + ?Sized)) -> io::Result<()> {
        let t = (self.began.elapsed().as_secs_f64() * 1e6).round() / 1e6;
        let mut line = serde_json::to_vec(&Line { t, from, message })?;
        line.push(b'\n');
        // One write per line: the file has only whole lines even if the harness is killed.
        self.file.lock().unwrap_or_else(PoisonError::into_inner).write_all(&line)
    }

    /// Appends a line of a channel: verbatim if it is JSON, else as a string.
    ///
    /// # Errors
    /// As [`JsonlWriter::write`].
    pub fn write_line(&self, from: &str, line: &str) -> io::Result<()> {
        match serde_json::from_str::<&RawValue>(line) {
            Ok(json) => self.write(from, json),
            Err(_) => self.write(from, line),
        }
    }
}
