use kernels::{Bug, Chance, Fails, FailureKind};

use super::*;
use crate::cell::PlannedCell;
use crate::evidence::tests::{id, record, start};
use crate::evidence::{CellRecord, EarlierKernel, RunDir, RunInfo, ScenarioNote, VariantNote};
use crate::report::{Report, Terminal};
use crate::trigger::Trigger;
use crate::verdict::{Expected, Verdict};

const OWNER: &str = "numvfs_read::owner_rescans_on_removal";
const UEVENT: &str = "numvfs_events::pf_uevent";
const RACE: &str = "rescan_race::unbind";

fn deadlock() -> Verdict {
    Verdict::fail(FailureKind::Deadlock, "sriov_numvfs_show", "owner in D state,\nfor ever".to_owned())
}

fn stale() -> Verdict {
    Verdict::fail(FailureKind::StaleRead, "sriov_numvfs", "read 0 on the event, not 4".to_owned())
}

/// The failure of a random bug.
fn splat() -> Verdict {
    Verdict::fail(FailureKind::KernelSplat, "proc_register", "WARNING: ...".to_owned())
}

fn infra() -> Verdict {
    Verdict::Infra("QEMU ended".to_owned())
}

fn broken() -> Verdict {
    Verdict::BuildFailed("iov.c:42: error:\n'x' undeclared".to_owned())
}

fn note() -> AgainstNote {
    AgainstNote { asked: "v6.11".to_owned(), kernel: "v6.11".to_owned(), earlier: None }
}

type Cell = (CellId, Expected, Verdict);

/// The report of a run with these cells. The folder lives as long as the guard.
fn run(note: &AgainstNote, cells: &[Cell]) -> (tempfile::TempDir, Report) {
    run_that_says(note, cells, |_| None)
}

/// The report of a run with these cells, in which the kernels say these error messages.
fn run_that_says(
    note: &AgainstNote,
    cells: &[Cell],
    errors: impl Fn(&CellId) -> Option<Vec<String>>,
) -> (tempfile::TempDir, Report) {
    let out = tempfile::tempdir().unwrap();
    let planned = cells.iter().map(|(id, expected, _)| PlannedCell { id: id.clone(), expected: expected.clone() });
    let scenario = ScenarioNote {
        name: RACE.to_owned(),
        about: String::new(),
        detects: vec!["readd-race".to_owned()],
        script: None,
    };
    let bug = Bug {
        id: "readd-race".to_owned(),
        fails: vec![Fails { kind: FailureKind::KernelSplat, function: "proc_register".to_owned() }],
        chance: Chance::Random,
        ..Bug::default()
    };
    let variant = |name: &str| VariantNote { name: name.to_owned(), about: format!("{name} it is"), bugs: Vec::new() };
    let info = RunInfo {
        planned: planned.collect(),
        scenarios: vec![scenario],
        bugs: vec![bug],
        variants: ["topic", "other", "v6.11"].map(variant).to_vec(),
        ..RunInfo::default()
    };
    let folder = RunDir::create(out.path(), info).unwrap();
    note.write(folder.path()).unwrap();
    for (id, expected, verdict) in cells {
        let start = start(id.clone(), expected.clone());
        let record = CellRecord { errors: errors(id), ..record(&start, verdict.clone(), 1.0) };
        folder.cell(&start).unwrap().finish(&record).unwrap();
    }
    let report = Report::of(folder.path()).unwrap();
    (out, report)
}

/// A row of cells of unknown kernels.
fn row(scenario: &str, trigger: Option<Trigger>, cells: &[(&str, Verdict)]) -> Vec<Cell> {
    cells.iter().map(|(kernel, verdict)| (id(scenario, trigger, kernel, 1), Expected::None, verdict.clone())).collect()
}

/// A row of the reference and of one kernel.
fn pair(scenario: &str, before: Verdict, after: Verdict) -> Vec<Cell> {
    row(scenario, None, &[("v6.11", before), ("topic", after)])
}

/// A text without what differs between runs.
fn stable(text: &str, report: &Report) -> String {
    text.replace(report.run().path.to_str().unwrap(), "[run]")
}

fn told(note: &AgainstNote, cells: &[Cell]) -> (String, u8) {
    let (_out, report) = run(note, cells);
    (stable(&report.comparison().unwrap(), &report), report.exit_code())
}

/// Most cells fail on both kernels.
fn the_bugs_of_the_base() -> Vec<Cell> {
    [Trigger::Yank, Trigger::DeviceDel]
        .into_iter()
        .flat_map(|trigger| row(OWNER, Some(trigger), &[("v6.11", deadlock()), ("topic", deadlock())]))
        .collect()
}

#[test]
fn the_only_regression_comes_first() {
    let cells = [the_bugs_of_the_base(), pair(UEVENT, Verdict::Pass, stale())].concat();
    let (text, code) = told(&note(), &cells);
    insta::assert_snapshot!(text, @r"
    REGRESSED (1 cell):
      numvfs_events::pf_uevent (igb) passes on v6.11, and fails on topic with stale-read at sriov_numvfs: read 0 on the event, not 4
        evidence: [run]/numvfs_events.pf_uevent.igb.none.topic

    topic, compared with v6.11: 1 REGRESSED, 2 still broken; evidence in [run]
    ");
    assert_eq!(code, 1);
}

#[test]
fn new_error_messages_are_listed_and_do_not_count() {
    let cells = [pair(UEVENT, Verdict::Pass, Verdict::Pass), pair(RACE, Verdict::Pass, Verdict::Pass)].concat();
    let says = |id: &CellId| {
        let known = "igb #: reset failed".to_owned();
        let new = (id.variant == "topic").then(|| "pcieport #: Slot(#): Cannot add device".to_owned());
        Some(std::iter::once(known).chain(new).collect())
    };
    let (_out, report) = run_that_says(&note(), &cells, says);
    insta::assert_snapshot!(stable(&report.comparison().unwrap(), &report), @r#"
    new error messages on topic in cells that pass, which do not count:
      "pcieport #: Slot(#): Cannot add device" in numvfs_events::pf_uevent (igb), and 1 more

    topic, compared with v6.11: all 2 cells are unchanged; evidence in [run]
    "#);
    assert_eq!(report.exit_code(), 0);
    // The results of this run say the same as a reference.
    let earlier = Earlier::read(&report.run().path).unwrap();
    let (kernel, earlier) = earlier.kernel(Some("v6.11")).unwrap();
    let note = AgainstNote { asked: "base.json".to_owned(), kernel, earlier: Some(earlier) };
    let (_out, report) = run_that_says(&note, &cells, says);
    assert_eq!(report.changes("topic")[1].new_errors, ["pcieport #: Slot(#): Cannot add device"]);
    assert!(report.changes("v6.11").iter().all(|cell| cell.new_errors.is_empty()));
}

#[test]
fn unchanged_cells_are_one_line() {
    let passes = pair(UEVENT, Verdict::Pass, Verdict::Pass);
    let (text, code) = told(&note(), &passes);
    insta::assert_snapshot!(text, @"topic, compared with v6.11: the only cell is unchanged; evidence in [run]");
    assert_eq!(code, 0);
    let (text, code) = told(&note(), &[passes, the_bugs_of_the_base()].concat());
    insta::assert_snapshot!(text, @"topic, compared with v6.11: nothing REGRESSED, 2 still broken, 1 unchanged; evidence in [run]");
    assert_eq!(code, 0, "failures of the reference do not count");
}

/// Two kernels, and a change of each kind.
fn all_kinds() -> Vec<Cell> {
    let three = |scenario, trigger, before: Verdict, topic: Verdict, other: Verdict| {
        row(scenario, trigger, &[("topic", topic), ("other", other), ("v6.11", before)])
    };
    [
        three(OWNER, Some(Trigger::Yank), deadlock(), Verdict::Pass, broken()),
        three(UEVENT, None, Verdict::Pass, Verdict::Pass, broken()),
        three(RACE, None, Verdict::Pass, splat(), broken()),
        three("reset::flr", Some(Trigger::SysfsRemove), deadlock(), stale(), broken()),
        three("slot::power", None, stale(), deadlock(), broken()),
        three("aer::error", None, Verdict::Pass, infra(), broken()),
        three("aer::other", None, infra(), stale(), broken()),
        three("unbind::pf", None, Verdict::Skip("no".to_owned()), stale(), broken()),
    ]
    .concat()
}

#[test]
fn regressions_come_first_and_each_change_has_its_heading() {
    let (_out, report) = run(&note(), &all_kinds());
    insta::assert_snapshot!("kinds-text", stable(&report.comparison().unwrap(), &report));
    insta::assert_snapshot!("kinds-results", stable(&format!("{:#}", report.results()["against"]), &report));
    assert_eq!(report.exit_code(), 1);
    assert_eq!(report.results()["summary"]["exit_code"], 1);
    let header = report.table(Terminal::default());
    let header = header.lines().find(|line| line.contains("scenario") && line.contains("trigger")).unwrap();
    assert!(header.find("v6.11").unwrap() < header.find("topic").unwrap(), "the reference comes first: {header}");
}

#[test]
fn in_junit_only_what_is_worse_fails() {
    let (_out, report) = run(&note(), &all_kinds());
    insta::assert_snapshot!("kinds-junit", stable(&report.junit(), &report));
    let (_out, report) = run(&note(), &the_bugs_of_the_base());
    assert!(!report.junit().contains("<failure") && !report.junit().contains("<skipped"), "{}", report.junit());
}

#[test]
fn exit_codes() {
    for (before, after, code) in [
        (Verdict::Pass, Verdict::Pass, 0),
        (deadlock(), deadlock(), 0),
        (deadlock(), Verdict::Pass, 0),
        (deadlock(), stale(), 0),
        (Verdict::Pass, splat(), 0),
        (Verdict::Pass, stale(), 1),
        (stale(), deadlock(), 1),
        (Verdict::Pass, broken(), 1),
        (deadlock(), Verdict::BootFailed(String::new()), 1),
        (Verdict::Pass, infra(), 2),
        (infra(), Verdict::Pass, 2),
        (broken(), broken(), 2),
        (Verdict::Skip(String::new()), stale(), 2),
    ] {
        let (_out, report) = run(&note(), &pair(RACE, before.clone(), after.clone()));
        assert_eq!(report.exit_code(), code, "{before:?} {after:?}");
    }
    let (_out, report) =
        run(&note(), &[pair(UEVENT, Verdict::Pass, infra()), pair(OWNER, Verdict::Pass, stale())].concat());
    assert_eq!(report.exit_code(), 1, "a regression counts even if another cell has no verdict");
    let alone = [(id(UEVENT, None, "v6.11", 1), Expected::None, Verdict::Pass)];
    assert_eq!(run(&note(), &alone).1.exit_code(), 2, "nothing was compared");
}

#[test]
fn with_repeats_a_failure_that_the_reference_never_had_is_worse() {
    let repeats = |kernel: &str, verdicts: [Verdict; 2]| {
        let repeat = |(verdict, repeat)| (id(UEVENT, None, kernel, repeat), Expected::None, verdict);
        verdicts.into_iter().zip(1..).map(repeat).collect::<Vec<_>>()
    };
    let code =
        |before, after| run(&note(), &[repeats("v6.11", before), repeats("topic", after)].concat()).1.exit_code();
    let (pass, flaky) = (|| [Verdict::Pass, Verdict::Pass], || [Verdict::Pass, stale()]);
    assert_eq!(code(pass(), flaky()), 1);
    assert_eq!(code(flaky(), flaky()), 0);
    assert_eq!(code(flaky(), pass()), 0);
    assert_eq!(code(flaky(), [Verdict::Pass, deadlock()]), 1);
    assert_eq!(code(pass(), [Verdict::Pass, infra()]), 0, "one answer is enough");
    let (text, _) = told(&note(), &[repeats("v6.11", pass()), repeats("topic", flaky())].concat());
    insta::assert_snapshot!(text, @r"
    REGRESSED (1 cell):
      numvfs_events::pf_uevent (igb) passes on v6.11, and fails on topic with stale-read at sriov_numvfs in 1 of 2 runs: read 0 on the event, not 4
        evidence: [run]/numvfs_events.pf_uevent.igb.none.topic#2

    topic, compared with v6.11: 1 REGRESSED; evidence in [run]
    ");
}

/// The project's own kernels are expected to fail in their ways. A comparison ignores that.
#[test]
fn expected_failures_do_not_count_with_a_reference() {
    let cell = |kernel, verdict| (id(UEVENT, None, kernel, 1), Expected::Pass, verdict);
    let (text, code) = told(&note(), &[cell("v6.11", stale()), cell("topic", stale())]);
    insta::assert_snapshot!(text, @r"
    2 cells did not end as the manifest expects; with a reference, only REGRESSED cells fail the run
    topic, compared with v6.11: nothing REGRESSED, 1 still broken; evidence in [run]
    ");
    assert_eq!(code, 0);
}

/// A run of v6.11 and another kernel; its results are the reference of another run.
fn earlier() -> (tempfile::TempDir, Report) {
    let cells = [
        row(UEVENT, None, &[("v6.11", Verdict::Pass), ("old", stale())]),
        row(OWNER, Some(Trigger::Yank), &[("v6.11", deadlock()), ("old", infra())]),
    ];
    let (out, report) = run(&note(), &cells.concat());
    report.write_files().unwrap();
    (out, report)
}

fn against(kernel: &str) -> AgainstNote {
    let (_out, report) = earlier();
    let (kernel, earlier) = Earlier::read(&report.run().path).unwrap().kernel(Some(kernel)).unwrap();
    let earlier = EarlierKernel { results: "/ci/results.json".into(), ..earlier };
    AgainstNote { asked: "/ci/results.json".to_owned(), kernel, earlier: Some(earlier) }
}

#[test]
fn an_earlier_run_is_a_reference_and_is_not_run_again() {
    let topic = |verdicts: [Verdict; 3]| {
        let [uevent, owner, new] = verdicts;
        [
            row(UEVENT, None, &[("topic", uevent)]),
            row(OWNER, Some(Trigger::Yank), &[("topic", owner)]),
            row("new::scenario", None, &[("topic", new)]),
        ]
        .concat()
    };
    let (text, code) = told(&against("v6.11"), &topic([stale(), deadlock(), infra()]));
    insta::assert_snapshot!(text, @r"
    REGRESSED (1 cell):
      numvfs_events::pf_uevent (igb) passes on the earlier v6.11, and fails on topic with stale-read at sriov_numvfs: read 0 on the event, not 4
        evidence: [run]/numvfs_events.pf_uevent.igb.none.topic

    topic, compared with v6.11 in /ci/results.json: 1 REGRESSED, 1 still broken, 1 not compared; evidence in [run]
    ");
    assert_eq!(code, 1);
    let (text, code) = told(&against("old"), &topic([stale(), Verdict::Pass, deadlock()]));
    insta::assert_snapshot!(text, @r"
    not compared: fails, and the reference has no verdict (1 cell):
      new::scenario (igb) has no verdict on the earlier old, and fails on topic with deadlock at sriov_numvfs_show: owner in D state, for ever
        evidence: [run]/new.scenario.igb.none.topic

    topic, compared with old in /ci/results.json: nothing REGRESSED, 1 still broken, 2 not compared; evidence in [run]
    ");
    assert_eq!(code, 0, "on two of the cells the reference has no verdict");
    let new = row("new::scenario", None, &[("topic", Verdict::Pass)]);
    assert_eq!(told(&against("v6.11"), &new).1, 2, "nothing was compared");
}

#[test]
fn a_kernel_may_have_the_name_of_the_reference_of_an_earlier_run() {
    let (text, code) = told(&against("v6.11"), &row(UEVENT, None, &[("v6.11", stale())]));
    assert!(text.contains("passes on the earlier v6.11, and fails on v6.11 with") && code == 1, "{text}");
}

#[test]
fn results_are_read_for_one_kernel() {
    let (_out, report) = earlier();
    let path = &report.run().path;
    let read = Earlier::read(&path.join("results.json")).unwrap();
    assert_eq!(read.kernels(), ["v6.11", "old"]);
    let said = |error: EarlierError| stable(&error.to_string(), &report);
    insta::assert_snapshot!(said(read.kernel(None).unwrap_err()), @"[run]/results.json has the results of 2 kernels; name one of them: [run]/results.json:v6.11, [run]/results.json:old");
    insta::assert_snapshot!(said(read.kernel(Some("new")).unwrap_err()), @"[run]/results.json has no results for a kernel `new`; it has: v6.11, old");
    let (name, kernel) = read.kernel(Some("old")).unwrap();
    assert_eq!((name.as_str(), kernel.cells.len(), kernel.bugs), ("old", 1, None));
    // An interrupted run may have no results.json. Its evidence gives the same results.
    std::fs::remove_file(path.join("results.json")).unwrap();
    assert_eq!(Earlier::read(path).unwrap().kernel(Some("old")).unwrap().1.cells, kernel.cells);
}

#[test]
fn unknown_cells_of_other_versions_are_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("old.json");
    let cell = |scenario: &str, outcome: &str, failure: Value| {
        json!({"scenario": scenario, "variant": "stock+debug", "topology": "igb", "trigger": "none", "outcome": outcome,
               "failure": failure, "expected": "pass"})
    };
    let failed = |kind: &str| json!({"kind": kind, "function": "f", "summary": "s", "new": 1});
    let cells = [
        cell("a::b", "pass", Value::Null),
        cell("a::c", "fail", failed("deadlock")),
        cell("a::d", "fail", failed("a-kind-of-tomorrow")),
        cell("a::e", "an-outcome-of-tomorrow", Value::Null),
        json!({"a": "cell of tomorrow"}),
    ];
    let results = json!({"schema": 1, "run": {"variants": [{"name": "stock+debug", "bugs": ["b"]}]}, "cells": cells});
    std::fs::write(&path, results.to_string()).unwrap();
    let (name, kernel) = Earlier::read(&path).unwrap().kernel(Some("stock")).unwrap();
    assert_eq!((name.as_str(), kernel.bugs), ("stock+debug", Some(vec!["b".to_owned()])));
    let known: Vec<_> = kernel.cells.iter().map(|cell| cell.scenario.as_str()).collect();
    assert_eq!(known, ["a::b", "a::c"]);
}

#[test]
fn a_path_without_results_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let said =
        |path: &Path| Earlier::read(path).unwrap_err().to_string().replace(folder.path().to_str().unwrap(), "[folder]");
    insta::assert_snapshot!(said(folder.path()), @"[folder] is not the folder of a run: it has neither results.json nor run.json");
    insta::assert_snapshot!(said(&folder.path().join("none.json")), @"cannot read [folder]/none.json: No such file or directory (os error 2)");
    let file = folder.path().join("other.json");
    std::fs::write(&file, "{").unwrap();
    insta::assert_snapshot!(said(&file), @"[folder]/other.json is not the results.json of a run: EOF while parsing an object at line 1 column 1");
    std::fs::write(&file, "{}").unwrap();
    insta::assert_snapshot!(said(&file), @"[folder]/other.json is not the results.json of a run: missing field `cells`");
    std::fs::create_dir(folder.path().join("latest")).unwrap();
    insta::assert_snapshot!(said(folder.path()), @"[folder] is not the folder of a run: it has neither results.json nor run.json; the newest run there is [folder]/latest");
}
