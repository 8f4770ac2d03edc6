//! What was said in a cell, read back from its transcripts, and who waited for whom at its end.

use std::fs;
use std::io;
use std::path::Path;

use guest_protocol::{Message, Request};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::cell_dir::{AGENT, QMP, START, WAITS};
use super::{CellStart, RunCell, file};
use crate::text::counted;
use crate::waits::Graph;

/// What was said in a cell, in the order in which it was said: with the agent since its last hello, and to QEMU without its
/// answers. What comes before is the kernel's boot, or an earlier try.
#[derive(Clone, Debug, Default)]
pub struct Transcript {
    /// Between host and agent.
    pub agent: Vec<Said<Spoken>>,
    /// Between host and QEMU.
    pub qmp: Vec<Said<Value>>,
}

/// One line of a transcript.
#[derive(Clone, Debug, PartialEq)]
pub struct Said<T> {
    /// When it was written down, in seconds since the cell began.
    pub t: f64,
    /// Whether the host said it.
    pub by_host: bool,
    /// What was said.
    pub what: T,
}

/// What host and agent say to each other.
#[derive(Clone, Debug, PartialEq)]
pub enum Spoken {
    /// By the host.
    Request(Box<Request>),
    /// By the guest.
    Message(Box<Message>),
}

/// All that the files of a cell say beside its verdict.
#[derive(Clone, Debug, Default)]
pub struct Details {
    /// Its description. None if it cannot be read.
    pub start: Option<CellStart>,
    /// What was said.
    pub transcript: Transcript,
    /// Who waited for whom at the end. None if nobody looked.
    pub graph: Option<Graph>,
    /// The names of its files, sorted.
    pub files: Vec<String>,
    /// What could not be read. A line each.
    pub missing: Vec<String>,
}

/// How the agent's hello is written.
const HELLO: &str = r#""message":{"type":"hello""#;
/// How QEMU's answers are written. They are most of a transcript.
const ANSWER: &str = r#""message":{"return""#;
/// A line has its time, its sender, and the name of its message within so many bytes.
const HEAD: usize = 80;

#[derive(Deserialize)]
struct Line<'a> {
    t: f64,
    from: &'a str,
    #[serde(borrow)]
    message: &'a RawValue,
}

impl RunCell {
    /// Reads the files of the cell, as far as they can be read. Nothing is missing in a cell that did not begin.
    pub fn details(&self) -> Details {
        let mut details = Details::default();
        let Some(folder) = &self.evidence else { return details };
        details.files = names(folder, &mut details.missing);
        let missing = &mut details.missing;
        details.start = kept(file::read_json(&folder.join(START)), missing);
        details.graph = kept(file::read_json(&folder.join(WAITS)), missing);
        details.transcript.qmp = lines(&folder.join(QMP), missing, |_, line| serde_json::from_str(line).ok());
        details.transcript.agent = lines(&folder.join(AGENT), missing, |by_host, line| match by_host {
            true => serde_json::from_str(line).ok().map(|request| Spoken::Request(Box::new(request))),
            false => serde_json::from_str(line).ok().map(|message| Spoken::Message(Box::new(message))),
        });
        details
    }
}

fn names(folder: &Path, missing: &mut Vec<String>) -> Vec<String> {
    let entries = fs::read_dir(folder).map_err(|error| missing.push(format!("{}: {error}", folder.display())));
    let entries = entries.into_iter().flatten().filter_map(Result::ok);
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| !name.starts_with('.'));
    names.sort();
    names
}

fn kept<T>(read: Result<Option<T>, super::EvidenceError>, missing: &mut Vec<String>) -> Option<T> {
    read.unwrap_or_else(|error| {
        missing.push(error.to_string());
        None
    })
}

/// Whether a line is such a message. Most lines are not wanted, and parsing them all takes long.
fn has(line: &[u8], begin: &str) -> bool {
    String::from_utf8_lossy(&line[..line.len().min(HEAD)]).contains(begin)
}

/// The lines of a transcript. Lines that cannot be read are counted.
fn lines<T>(path: &Path, missing: &mut Vec<String>, read: impl Fn(bool, &str) -> Option<T>) -> Vec<Said<T>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            missing.push(format!("{}: {error}", path.display()));
            return Vec::new();
        }
    };
    let mut unread = 0;
    let mut said = Vec::new();
    let all: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    let begin = all.iter().rposition(|line| has(line, HELLO)).unwrap_or(0);
    for line in all[begin..].iter().filter(|line| !has(line, ANSWER)) {
        let one = serde_json::from_slice::<Line<'_>>(line).ok().and_then(|Line { t, from, message }| {
            let by_host = from == "host";
            Some(Said { t, by_host, what: read(by_host, message.get())? })
        });
        match one {
            Some(one) if one.t.is_finite() => said.push(one),
            _ => unread += 1,
        }
    }
    if unread > 0 {
        let lines = counted(unread, "line is", "lines are");
        missing.push(format!("{}: {lines} garbled, or of another version", path.display()));
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::tests::{id, record, start};
    use crate::evidence::{RunDir, RunInfo, read_run};
    use crate::verdict::{Expected, Verdict};

    #[test]
    fn transcripts_are_read_as_far_as_they_can_be_read() {
        let out = tempfile::tempdir().unwrap();
        let run = RunDir::create(out.path(), RunInfo::default()).unwrap();
        let start = start(id("a::b", None, "stock", 1), Expected::Pass);
        let cell = run.cell(&start).unwrap();
        let (agent, qmp) = (cell.agent().unwrap(), cell.qmp().unwrap());
        agent.write_line("host", r#"{"id":7,"command":"inventory"}"#).unwrap();
        agent.write_line("guest", r#"{"type":"started","id":7,"pid":50,"at":1000}"#).unwrap();
        agent.write_line("guest", r#"{"type":"of-another-version"}"#).unwrap();
        agent.write_line("guest", "no JSON").unwrap();
        qmp.write_line("host", r#"{"execute":"stop"}"#).unwrap();
        cell.finish(&record(&start, Verdict::Pass, 1.0)).unwrap();

        let read = || read_run(run.path()).unwrap().cells[0].details();
        let details = read();
        assert_eq!(details.start, Some(start));
        assert_eq!((details.transcript.agent.len(), details.transcript.qmp.len()), (2, 1));
        assert!(matches!(&details.transcript.agent[1].what, Spoken::Message(message) if message.at() == 1000));
        assert_eq!(details.missing.len(), 1, "{:?}", details.missing);
        assert!(details.missing[0].ends_with("agent.jsonl: 2 lines are garbled, or of another version"));
        assert!(details.files.contains(&"repro.sh".to_owned()) && details.graph.is_none());

        let folder = run.path().join("a.b.igb.none.stock");
        fs::remove_file(folder.join("agent.jsonl")).unwrap();
        fs::write(folder.join("waits.json"), "{").unwrap();
        let details = read();
        assert!(details.transcript.agent.is_empty() && details.missing[0].contains("waits.json"));
    }
}
