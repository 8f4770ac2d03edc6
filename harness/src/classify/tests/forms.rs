//! One log in the forms in which people have it.

use regex::{Captures, Regex};

use super::fixture;
use crate::classify::{Splat, SplatKind, classify};

/// The log with another prefix for each line. The function gets the time in seconds and the text.
pub fn with_prefix(log: &str, form: impl Fn(&str, &str) -> String) -> String {
    let stamp = Regex::new(r"(?m)^\[ *(\d+\.\d+)\] (.*)$").unwrap();
    stamp.replace_all(log, |line: &Captures<'_>| form(&line[1], &line[2])).into_owned()
}

/// The log as a mail program breaks it: lines of 72 characters at most, broken at blanks.
fn wrapped(log: &str) -> String {
    let mut text = String::new();
    for line in log.lines() {
        let mut rest = line;
        while let Some(blank) = rest.get(..72).and_then(|head| head.rfind(' ')).filter(|blank| *blank > 20) {
            text += &rest[..blank];
            text.push('\n');
            rest = &rest[blank + 1..];
        }
        text += rest;
        text.push('\n');
    }
    text
}

fn micros(seconds: &str) -> String {
    seconds.replace('.', "").trim_start_matches('0').to_owned()
}

type Form = (&'static str, fn(&str) -> String);

const FORMS: &[Form] = &[
    ("serial console with CRLF", |log| log.replace('\n', "\r\n")),
    ("without times", |log| with_prefix(log, |_, text| text.to_owned())),
    ("with caller ids", |log| with_prefix(log, |at, text| format!("[{at:>12}][   T41] {text}"))),
    ("with levels", |log| with_prefix(log, |at, text| format!("<4>[{at:>12}] {text}"))),
    ("/dev/kmsg", |log| with_prefix(log, |at, text| format!("4,339,{},-;{text}", micros(at)))),
    ("netconsole", |log| with_prefix(log, |at, text| format!("6.12.117,4,339,{},-,caller=T41;{text}", micros(at)))),
    ("dmesg -T", |log| with_prefix(log, |_, text| format!("[Sun Dec 22 19:30:00 2024] {text}"))),
    ("dmesg -H", |log| with_prefix(log, |_, text| format!("[  +0.000012] {text}"))),
    ("dmesg -x", |log| with_prefix(log, |at, text| format!("kern  :warn  : [{at:>12}] {text}"))),
    ("dmesg -d", |log| with_prefix(log, |at, text| format!("[{at:>12} <    0.000012>] {text}"))),
    ("dmesg with colours", |log| {
        with_prefix(log, |at, text| format!("\x1b[32m[{at:>12}] \x1b[0m\x1b[31m{text}\x1b[0m"))
    }),
    ("dmesg with ISO times", |log| with_prefix(log, |_, text| format!("2024-12-22T19:30:00,817077+01:00 {text}"))),
    ("journalctl", |log| with_prefix(log, |_, text| format!("Dec 22 19:30:00 host kernel: {text}"))),
    ("journalctl -o short-monotonic", |log| with_prefix(log, |at, text| format!("[{at:>12}] host kernel: {text}"))),
    ("journalctl -o short-full", |log| {
        with_prefix(log, |_, text| format!("Sun 2024-12-22 19:30:00 CET host kernel: {text}"))
    }),
    ("syslog with kernel times", |log| {
        with_prefix(log, |at, text| format!("Dec 22 19:30:00 host kernel: [{at:>12}] {text}"))
    }),
    ("syslog with ISO times", |log| {
        with_prefix(log, |_, text| format!("2024-12-22T19:30:00.817077+01:00 host kernel: {text}"))
    }),
    ("log of a CI system", |log| {
        with_prefix(log, |at, text| format!("2026-05-28T12:24:00.8170777Z [{at:>12}] {text}"))
    }),
    ("quoted in a mail", |log| with_prefix(log, |at, text| format!("> > [{at:>12}] {text}"))),
    ("indented in a mail", |log| with_prefix(log, |at, text| format!("    [{at:>12}] {text}"))),
];

/// What must be the same of a splat in all forms: kind, function, task; and its frames.
type Told = ((SplatKind, Option<String>, Option<String>), Vec<String>);

fn told(splats: Vec<Splat>) -> Vec<Told> {
    splats.into_iter().map(|splat| ((splat.kind, splat.function, splat.task), splat.frames)).collect()
}

#[test]
fn the_form_of_a_log_changes_nothing() {
    for name in ["oops", "kasan", "lockdep-circular", "soft-lockup", "hung-task-numvfs", "irq-nobody-cared", "ubsan"] {
        let log = fixture(name);
        let expected = told(classify(&log));
        for (form, convert) in FORMS {
            assert_eq!(told(classify(&convert(&log))), expected, "{name} as {form}");
        }
        // A function at the end of a long line may be in the next line, which looks like a frame then.
        let without_frames = |splats| told(splats).into_iter().map(|(what, _)| what);
        let wrapped = without_frames(classify(&wrapped(&log)));
        assert!(wrapped.eq(without_frames(classify(&log))), "{name} wrapped by a mail program");
    }
}

/// Titles and lines are the same too, if each line of the log remains one.
#[test]
fn line_ends_and_missing_times_change_nothing() {
    for name in ["oops", "kasan", "lockdep-circular", "soft-lockup"] {
        let log = fixture(name);
        let expected = classify(&log);
        assert_eq!(classify(&log.replace('\n', "\r\n")), expected, "{name}");
        assert_eq!(classify(&with_prefix(&log, |_, text| text.to_owned())), expected, "{name}");
    }
}

#[test]
fn a_line_feed_in_a_name_is_escaped_in_kmsg() {
    let log = fixture("task-named-with-a-line-feed");
    let kmsg = "3,1,90100000,-;INFO: task two\\x0alines:44 blocked for more than 10 seconds.\n\
        6,2,90101400,-;Call Trace:\n6,3,90101500,-; pci_reset_function+0x3e/0x70\n";
    let task = |log: &str| classify(log).first().and_then(|splat| splat.task.clone());
    assert_eq!(task(&log).as_deref(), Some("two\nlines:44"));
    assert_eq!(task(kmsg), task(&log));
}
