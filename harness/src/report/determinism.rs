//! Compares what held guests said in two runs. The same cells must say the same, however busy the host was.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;

use serde_json::Value;

use crate::cell::CellId;
use crate::evidence::{AGENT, CONSOLE, Run, RunCell};

/// A cell whose guest did not say the same in two runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deviation {
    /// Which cell.
    pub cell: CellId,
    /// The first difference, in words.
    pub what: String,
}

impl fmt::Display for Deviation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.cell, self.what)
    }
}

/// The maximum number of characters of a line that is shown.
const SHOWN: usize = 200;

/// The cells that both runs have and whose guests did not say the same, and the number of cells that were compared. A
/// cell whose guest was on the host's clock is not compared.
pub fn deviations(first: &Run, second: &Run) -> (Vec<Deviation>, usize) {
    let others: BTreeMap<_, _> = second.cells.iter().map(|cell| (&cell.record.cell, cell)).collect();
    let pairs = first.cells.iter().filter_map(|cell| Some((cell, *others.get(&cell.record.cell)?)));
    let held = pairs.filter(|(one, other)| one.record.said.is_some() && other.record.said.is_some());
    let (mut found, mut compared) = (Vec::new(), 0);
    for (one, other) in held {
        compared += 1;
        if one.record.said != other.record.said {
            found.push(Deviation { cell: one.record.cell.clone(), what: first_difference(one, other) });
        }
    }
    (found, compared)
}

/// The first line that differs: of the agent's messages, else of the console.
fn first_difference(one: &RunCell, other: &RunCell) -> String {
    let messages = |cell: &RunCell| guest_lines(&read(cell, AGENT));
    let console = |cell: &RunCell| -> Vec<String> { read(cell, CONSOLE).lines().map(str::to_owned).collect() };
    between("message", &messages(one), &messages(other))
        .or_else(|| between("line of the console", &console(one), &console(other)))
        .unwrap_or_else(|| "the evidence is the same, but the hashes differ".to_owned())
}

fn between(what: &str, one: &[String], other: &[String]) -> Option<String> {
    let at = one.iter().zip(other).position(|(one, other)| one != other);
    let at = at.or_else(|| (one.len() != other.len()).then(|| one.len().min(other.len())))?;
    let shown = |lines: &[String]| match lines.get(at) {
        Some(line) => line.chars().take(SHOWN).collect(),
        None => "nothing more".to_owned(),
    };
    Some(format!("{what} {}: {} | {}", at + 1, shown(one), shown(other)))
}

/// A file of a cell's evidence. Empty if there is none.
fn read(cell: &RunCell, file: &str) -> String {
    let path = cell.evidence.as_ref().map(|folder| folder.join(file));
    let bytes = path.and_then(|path| fs::read(path).ok()).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The guest's messages in a transcript, without the host's time.
fn guest_lines(transcript: &str) -> Vec<String> {
    let message = |line: &str| {
        let line: Value = serde_json::from_str(line).ok()?;
        (line["from"] == "guest").then(|| line["message"].to_string())
    };
    transcript.lines().filter_map(message).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_is_shown() {
        let lines = |lines: &[&str]| lines.iter().map(|&line| line.to_owned()).collect::<Vec<_>>();
        let (one, other) = (lines(&["a", "b", "c"]), lines(&["a", "x"]));
        assert_eq!(between("line", &one, &other).unwrap(), "line 2: b | x");
        assert_eq!(between("line", &one, &one), None);
        assert_eq!(between("line", &one[..2], &one).unwrap(), "line 3: nothing more | c");
    }

    #[test]
    fn only_what_the_guest_says_counts() {
        let one =
            "{\"t\":1.5,\"from\":\"guest\",\"message\":{\"at\":7}}\n{\"t\":1.6,\"from\":\"host\",\"message\":{}}\n";
        assert_eq!(guest_lines(one), ["{\"at\":7}"]);
        assert_eq!(guest_lines("no transcript"), Vec::<String>::new());
    }
}
