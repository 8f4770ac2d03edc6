//! The values that were read, beside those that were expected; and what two cells differ in.

use std::collections::BTreeSet;

use guest_protocol::Message;
use maud::{Markup, html};

use super::picture::{cut, seconds};
use crate::classify::errors;
use crate::evidence::{CellRecord, Details, Spoken};
use crate::notes::{Note, Read, Rounds, Seen, TestRun};
use crate::text::counted;

/// The most rows of a table.
const MOST: usize = 12;

pub fn draw(record: &CellRecord) -> Markup {
    html! {
        @for note in record.observations.iter() {
            @match note {
                Note::Read(Read::Compared { value, expected, waited }) => (compared(&[("the attribute".to_owned(), value, expected, *waited)])),
                Note::Rounds(Rounds::Watched(rounds)) => {
                    @let wrong: Vec<&Seen> = rounds.iter().flat_map(|round| &round.events).filter(|seen| seen.value != seen.expected).collect();
                    @let shown = if wrong.is_empty() { rounds.iter().flat_map(|round| &round.events).collect() } else { wrong };
                    @let rows: Vec<_> = shown.iter().map(|seen| (format!("on the event of {}", seen.of), &seen.value, &seen.expected, seen.waited)).collect();
                    (compared(&rows))
                },
                Note::Waits(waits) => {
                    h5 { "Accesses that waited" }
                    ul { @for wait in waits.iter().take(MOST) { li { code { (wait.attribute) } " in " code { (wait.function) } } } }
                    (rest(waits.len()))
                },
                Note::Tests(runs) => @for run in runs { (tests(run)) },
                Note::Written(errno) if !errno.is_empty() => p { "The write gave " code { (errno) } "." },
                Note::Bind(errno) if !errno.is_empty() => p { "Binding the driver gave " code { (errno) } "." },
                Note::NoGraph(why) => p.quiet { "Nobody looked for who waits for whom: " (why) },
                Note::NoLines(why) => p.quiet { "There are no source lines: " (why) },
                _ => {},
            }
        }
    }
}

fn compared(rows: &[(String, &String, &String, f64)]) -> Markup {
    html! {
        h5 { "What was read" }
        div.wide { table {
            tr { th { "where" } th { "read" } th { "expected" } th { "the read took" } }
            @for (of, value, expected, waited) in rows.iter().take(MOST) {
                tr {
                    td { (of) }
                    td.wrong[value != expected] { code { (cut(value, 80)) } @if value != expected { " (wrong)" } }
                    td { code { (cut(expected, 80)) } }
                    td { (seconds(*waited)) }
                }
            }
        } }
        (rest(rows.len()))
    }
}

fn rest(count: usize) -> Markup {
    html! { @if count > MOST { p.quiet { "And " (count - MOST) " more: verdict.json has all." } } }
}

fn tests(run: &TestRun) -> Markup {
    html! {
        p { (run.program) " of " (run.of) ": " (run.passed) " passed, " (run.failed.len()) " failed, " (run.skipped.len()) " skipped" }
        ul { @for failed in run.failed.iter().take(MOST) { li { (cut(failed, 400)) } } }
    }
}

/// The messages that only one of two kernels said in the same cell, without their numbers.
pub fn differences((name, here): (&str, &BTreeSet<String>), (other, there): (&str, &BTreeSet<String>)) -> Markup {
    let only_here: Vec<_> = here.difference(there).collect();
    let only_there: Vec<_> = there.difference(here).collect();
    html! {
        @for (kernel, lines) in [(name, &only_here), (other, &only_there)] {
            @if !lines.is_empty() {
                details {
                    summary { "Only " (kernel) " says " (counted(lines.len(), "line", "lines")) " in its kernel log" }
                    pre { @for line in lines.iter().take(30) { (cut(line, 200)) "\n" } @if lines.len() > 30 { "…" } }
                }
            }
        }
    }
}

/// What a kernel said since the scenario began, with `#` for numbers and addresses.
pub fn said(details: &Details) -> BTreeSet<String> {
    let said = &details.transcript.agent;
    let messages = said.iter().filter_map(|line| match &line.what {
        Spoken::Message(message) => Some(&**message),
        Spoken::Request(_) => None,
    });
    let mut lines = BTreeSet::new();
    for message in messages {
        match message {
            Message::Hello { .. } => lines.clear(),
            Message::Kmsg { text, .. } => drop(lines.insert(errors::normal(text))),
            _ => {}
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::tests::{id, record, start};
    use crate::notes::{Notes, Round};
    use crate::verdict::{Expected, Verdict};

    #[test]
    fn a_wrong_value_stands_beside_the_right_one() {
        let mut record = record(&start(id("a::b", None, "stock", 1), Expected::Pass), Verdict::Pass, 1.0);
        let seen = |value: &str| Seen {
            of: "PF".to_owned(),
            value: value.to_owned(),
            expected: "4".to_owned(),
            after_write_began: 0.5,
            waited: 0.25,
        };
        let round = Round { vfs: 4, write_took: 1.5, events: vec![seen("4"), seen("<0>")] };
        let read = Read::Compared { value: "1".to_owned(), expected: "2".to_owned(), waited: 0.5 };
        record.observations = Notes::from_iter([Note::Rounds(Rounds::Watched(vec![round])), Note::Read(read)]);
        let text = draw(&record).into_string();
        assert_eq!(text.matches("(wrong)").count(), 2, "{text}");
        assert!(text.contains("<code>&lt;0&gt;</code> (wrong)") && text.contains("on the event of PF"), "{text}");
    }
}
