use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::json;

use super::*;
use crate::cell::{CellId, PlannedCell};
use crate::trigger::Trigger;
use crate::verdict::{Expected, Verdict};

pub(crate) fn id(scenario: &str, trigger: Option<Trigger>, variant: &str, repeat: u32) -> CellId {
    CellId { scenario: scenario.to_owned(), topology: "igb".to_owned(), trigger, variant: variant.to_owned(), repeat }
}

pub(crate) fn start(cell: CellId, expected: Expected) -> CellStart {
    CellStart {
        script: None,
        cell,
        expected,
        argv: ["qemu-system-x86_64", "-append", "console=ttyS0 panic=-1", "-no-reboot"].map(str::to_owned).to_vec(),
        kernel: Some(KernelNote { key: "0123".to_owned(), release: "6.12.117".to_owned() }),
        own: Vec::new(),
        accel: "tcg".to_owned(),
        versions: [("qemu".to_owned(), "10.0.2".to_owned())].into(),
    }
}

pub(crate) fn record(start: &CellStart, verdict: Verdict, seconds: f64) -> CellRecord {
    CellRecord {
        cell: start.cell.clone(),
        expected: start.expected.clone(),
        verdict,
        seconds,
        trigger_proof: None,
        splats: Vec::new(),
        retries: Vec::new(),
        said: None,
        errors: None,
        observations: json!({"waited": 0.25}).into(),
    }
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn a_cell_is_read_as_it_was_written() {
    let out = tempfile::tempdir().unwrap();
    let run = RunDir::create(&out.path().join("evidence"), RunInfo::default()).unwrap();
    let start = start(id("numvfs_read::owner", Some(Trigger::Yank), "stock", 1), Expected::Pass);
    let cell = run.cell(&start).unwrap();
    let folder = run.path().join(start.cell.folder());
    assert_eq!(
        read(folder.join("argv.txt")),
        "qemu-system-x86_64 \\\n    -append 'console=ttyS0 panic=-1' \\\n    -no-reboot\n"
    );
    assert_eq!(fs::metadata(folder.join("repro.sh")).unwrap().permissions().mode() & 0o777, 0o755);
    assert!(
        read(folder.join("repro.sh"))
            .contains("exec cargo xtask run numvfs_read::owner --kernel stock --topology igb --trigger yank")
    );
    let written = record(&start, Verdict::Pass, 1.5);
    cell.finish(&written).unwrap();

    let back = read_run(&out.path().join("evidence/latest")).unwrap();
    assert!(back.info.started.ends_with('Z'), "{}", back.info.started);
    assert_eq!(back.cells.len(), 1);
    assert_eq!(back.cells[0].record, written);
    assert_eq!(back.cells[0].evidence.as_ref().unwrap().canonicalize().unwrap(), folder);
}

#[test]
fn no_verdict_is_unexpected_if_no_result_is_expected() {
    let ended = |expected: Expected| {
        let failed = Verdict::fail(kernels::FailureKind::Deadlock, "f", String::new());
        record(&start(id("a::b", None, "mine", 1), expected), failed, 1.5)
    };
    assert!(ended(Expected::Pass).is_unexpected());
    assert!(!ended(Expected::None).is_unexpected());
    assert!(!ended(Expected::None).is_as_expected(), "it still fails the run");
}

#[test]
fn transcripts_have_a_line_per_message() {
    let out = tempfile::tempdir().unwrap();
    let run = RunDir::create(out.path(), RunInfo::default()).unwrap();
    let start = start(id("a::b", None, "stock", 1), Expected::Pass);
    let cell = run.cell(&start).unwrap();
    let qmp = cell.qmp().unwrap();
    qmp.write("host", &json!({"execute": "stop"})).unwrap();
    qmp.clone().write_line("qemu", r#"{"z": 1, "a": 2}"#).unwrap();
    qmp.write_line("qemu", "not \"JSON\"").unwrap();
    let text = read(run.path().join(start.cell.folder()).join("qmp.jsonl"));
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["message"], json!({"execute": "stop"}));
    assert_eq!(lines[0]["from"], "host");
    assert!(text.contains(r#""message":{"z": 1, "a": 2}"#), "JSON is not verbatim: {text}");
    assert_eq!(lines[2]["message"], "not \"JSON\"");
    assert!(lines[0]["t"].as_f64().unwrap() <= lines[2]["t"].as_f64().unwrap());
}

#[test]
fn a_cell_without_a_verdict_did_not_complete() {
    let out = tempfile::tempdir().unwrap();
    let ids = [id("z::first", None, "stock", 1), id("a::second", None, "stock", 1), id("m::third", None, "stock", 1)];
    let planned = ids.clone().map(|id| PlannedCell { id, expected: Expected::Pass }).to_vec();
    let run = RunDir::create(out.path(), RunInfo { planned, ..RunInfo::default() }).unwrap();
    let first = start(ids[0].clone(), Expected::Pass);
    run.cell(&first).unwrap().finish(&record(&first, Verdict::Pass, 1.0)).unwrap();
    run.cell(&start(ids[1].clone(), Expected::Pass)).unwrap();
    // The temporary folder that a killed harness leaves of a cell that was about to begin.
    fs::create_dir(run.path().join(".new-abc")).unwrap();

    let back = read_run(run.path()).unwrap();
    let order: Vec<_> = back.cells.iter().map(|cell| cell.record.cell.clone()).collect();
    assert_eq!(order, ids);
    assert_eq!(back.cells[0].record.verdict, Verdict::Pass);
    assert!(matches!(&back.cells[1].record.verdict, Verdict::Infra(why) if why.contains("did not complete")));
    assert!(back.cells[1].evidence.is_some());
    assert!(matches!(&back.cells[2].record.verdict, Verdict::Infra(why) if why.contains("did not begin")));
    assert!(back.cells[2].evidence.is_none());
}

#[test]
fn runs_that_begin_in_the_same_second_have_different_folders() {
    let out = tempfile::tempdir().unwrap();
    let runs: Vec<_> = (0..3).map(|_| RunDir::create(out.path(), RunInfo::default()).unwrap()).collect();
    assert!(runs[0].path() != runs[1].path() && runs[1].path() != runs[2].path());
    let latest = out.path().join("latest").canonicalize().unwrap();
    assert_eq!(latest, runs[2].path());
}

#[test]
fn a_cell_cannot_begin_twice() {
    let out = tempfile::tempdir().unwrap();
    let run = RunDir::create(out.path(), RunInfo::default()).unwrap();
    let start = start(id("a::b", None, "stock", 1), Expected::Pass);
    run.cell(&start).unwrap();
    let error = run.cell(&start).unwrap_err().to_string();
    assert!(error.starts_with("cannot move into place"), "{error}");
}

#[test]
fn a_folder_that_is_not_a_run_is_refused() {
    let out = tempfile::tempdir().unwrap();
    let error = read_run(out.path()).unwrap_err().to_string();
    assert!(error.contains("run.json"), "{error}");
    fs::write(out.path().join("run.json"), "7").unwrap();
    let error = read_run(out.path()).unwrap_err().to_string();
    assert!(error.contains("was not written by this version"), "{error}");
}
