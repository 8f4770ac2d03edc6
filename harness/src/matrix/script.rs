//! The evidence of cells whose scenario is a script.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;

use guest_protocol::{Message, Progress, decode};

use crate::evidence::ScriptNote;
use crate::script::Script;
use crate::vm::transcript::{Recorder, Speaker};

/// How a message says that something was printed. Only lines with it are parsed.
const PRINTED: &str = "\"printed\"";

/// The words that name a script without options: `--script PATH`.
const PLAIN: usize = 2;

/// What the evidence has of a script. A command, or a script with options or files, does not run again by its copy alone.
pub(super) fn note(script: &Script) -> ScriptNote {
    let text = String::from_utf8_lossy(&script.text).into_owned();
    let is_command = script.again.iter().any(|word| word == "--");
    let is_plain = !is_command && script.again.len() == PLAIN && script.files.is_empty();
    let again = (!is_plain).then(|| script.again.clone());
    ScriptNote { copy: format!("{}.sh", script.name), text, again }
}

/// A recorder of the agent's channel that also writes what the script prints into a file, and passes it to `echo`.
pub(super) fn followed(record: Recorder, output: File, echo: Option<Recorder>) -> Recorder {
    Arc::new(move |speaker, line| {
        record(speaker, line);
        if speaker != Speaker::Guest || !line.contains(PRINTED) {
            return;
        }
        if let Ok(Message::Progress { progress: Progress::Printed { text }, .. }) = decode(line) {
            // As with transcripts, a full disk must not end the cell.
            let _ = (&output).write_all(text.as_bytes());
            if let Some(echo) = &echo {
                text.lines().for_each(|line| echo(speaker, line));
            }
        }
    })
}
