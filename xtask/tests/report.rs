//! `cargo xtask report` on runs that are whole, damaged, and none.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

fn report(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.arg("report").args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn printed(arguments: &[&str]) -> String {
    let output = report(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn error(arguments: &[&str]) -> String {
    let output = report(arguments);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    String::from_utf8(output.stderr).unwrap()
}

const CELL: &str = "numvfs_events.pf_uevent.igb.none.stock";

/// A run with one cell that passed, as an older version wrote it: without the keys that came later.
fn run() -> TempDir {
    let run = tempfile::tempdir().unwrap();
    let id = r#"{"scenario":"numvfs_events::pf_uevent","topology":"igb","trigger":null,"variant":"stock","repeat":1}"#;
    let cell = run.path().join(CELL);
    fs::create_dir(&cell).unwrap();
    fs::write(run.path().join("run.json"), r#"{"started":"2026-01-02T10:15:00Z","qemu":"10.0.2"}"#).unwrap();
    let start = format!(
        r#"{{"cell":{id},"expected":"pass","argv":[],"kernel":{{"key":"0123","release":"6.12"}},"accel":"tcg","versions":{{}}}}"#
    );
    fs::write(cell.join("start.json"), start).unwrap();
    let verdict = format!(r#"{{"cell":{id},"expected":"pass","verdict":{{"outcome":"pass"}},"seconds":1.5}}"#);
    fs::write(cell.join("verdict.json"), verdict).unwrap();
    run
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_run_is_drawn_in_each_form() {
    let run = run();
    let folder = text(run.path());
    for (format, wanted) in [
        ("text", "1 cell: 1 as expected; evidence in"),
        ("json", "\"as_expected\": 1"),
        ("html", "<h1>The cell is as expected.</h1>"),
        ("junit", "<testsuites name=\"iov-regress\" tests=\"1\""),
        ("ktap", "    ok 1 numvfs_events::pf_uevent::igb::none::stock\nok 1 numvfs_events\n"),
        ("markdown", "# The cell is as expected."),
    ] {
        let text = printed(&[folder, "--format", format]);
        assert!(text.contains(wanted), "{format}: {text}");
    }
    let out = tempfile::tempdir().unwrap();
    assert!(printed(&[folder, "--format", "junit", "--out", text(out.path())]).starts_with("wrote "));
    assert!(out.path().join("junit.xml").is_file());
    let named = out.path().join("both.md");
    printed(&[folder, text(&run.path().join("run.json")), "--format", "markdown", "--out", text(&named)]);
    assert!(fs::read_to_string(named).unwrap().contains("2/2 pass"));
}

#[test]
fn some_cells_of_a_run_are_drawn() {
    let run = run();
    let folder = text(run.path());
    assert!(printed(&[folder, "--only", "*::stock", "other"]).contains("1 cell: 1 as expected"));
    assert!(error(&[folder, "--only", "*::other"]).contains("no cell of this run has such a name"));
}

#[test]
fn each_bug_has_a_page_in_a_folder() {
    let (run, out) = (run(), tempfile::tempdir().unwrap());
    let folder = out.path().join("bugs");
    let wrote = printed(&[text(run.path()), "--bugs", "--out", text(&folder)]);
    let files = fs::read_dir(&folder).unwrap().count();
    assert!(wrote.starts_with(&format!("wrote index.html and {} pages", files - 1)), "{wrote}");
    assert!(error(&[text(run.path()), "--bugs"]).contains("--out"));
}

#[test]
fn damaged_evidence_is_named_and_no_error() {
    let run = run();
    fs::write(run.path().join(CELL).join("verdict.json"), "{\"cell\":").unwrap();
    let text = printed(&[text(run.path())]);
    assert!(text.contains("not known: the verdict of numvfs_events.pf_uevent.igb.none.stock"), "{text}");
}

#[test]
fn what_is_no_run_is_refused_with_the_right_name() {
    let run = run();
    let cell = error(&[text(&run.path().join(CELL))]);
    assert!(cell.contains("is the folder of a cell. Name the folder of its run"), "{cell}");
    let above = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(run.path(), above.path().join("latest")).unwrap();
    assert!(error(&[text(above.path())]).contains("is a folder of runs. Name one of them, such as"));
    assert!(error(&["no-such-run"]).contains("cannot find a run: "));
    assert!(error(&[text(run.path()), "--format", "pdf"]).contains("text, json, html, junit, ktap, markdown"));
}
