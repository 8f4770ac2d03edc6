mod damage;
mod ktap;
mod schema;

use std::fs;

use kernels::{Bug, Chance, Fails, FailureKind};

use super::*;
use crate::cell::{CellId, PlannedCell};
pub(super) use crate::evidence::tests::id;
use crate::evidence::tests::{record, start};
use crate::evidence::{PartNote, RunDir, RunInfo, ScenarioNote, VariantNote};
use crate::trigger::Trigger;
use crate::verdict::{Expected, Signature};

const OWNER: &str = "numvfs_read::owner_rescans_on_removal";
const UEVENT: &str = "numvfs_events::pf_uevent";

fn deadlock() -> Verdict {
    let summary =
        "agent:37 in D state in sriov_numvfs_show for 3.1 s, waits for a lock that\nits own release would free";
    Verdict::fail(FailureKind::Deadlock, "sriov_numvfs_show", summary.to_owned())
}

pub(super) fn stale() -> Verdict {
    Verdict::fail(FailureKind::StaleRead, "sriov_numvfs", "read 0 on the event, not 4".to_owned())
}

fn has(bug: &str, kind: FailureKind, function: &str) -> Expected {
    Expected::Fail(vec![Signature {
        bug: bug.to_owned(),
        kind,
        function: function.to_owned(),
        cycles: Vec::new(),
        chance: Chance::Certain,
        without_lockdep: false,
    }])
}

fn must_deadlock() -> Expected {
    has("numvfs-show-vfio-remove", FailureKind::Deadlock, "sriov_numvfs_show")
}

/// A random bug.
fn may_splat() -> Expected {
    let Expected::Fail(mut signatures) = has("pf-unbind-vs-rescan-readd", FailureKind::KernelSplat, "proc_register")
    else {
        unreachable!("a bug is expected to fail")
    };
    signatures[0].chance = Chance::Random;
    Expected::Fail(signatures)
}

fn must_be_stale() -> Expected {
    has("numvfs-stale-pf-uevent", FailureKind::StaleRead, "sriov_numvfs")
}

type Cell = (CellId, Expected, Verdict);

fn info(planned: Vec<PlannedCell>) -> RunInfo {
    let variant = |name: &str, about: &str, bugs: &[&str]| VariantNote {
        name: name.to_owned(),
        about: about.to_owned(),
        bugs: bugs.iter().map(|&bug| bug.to_owned()).collect(),
    };
    RunInfo {
        part: None,
        merged: None,
        started: "2026-05-14T10:15:00Z".to_owned(),
        command: ["cargo", "xtask", "run-matrix"].map(str::to_owned).to_vec(),
        harness: "0.1.0".to_owned(),
        qemu: "10.0.2".to_owned(),
        accel: "tcg".to_owned(),
        accel_reason: "no guest came up under KVM".to_owned(),
        clock: "guest".to_owned(),
        jobs: 2,
        variants: vec![
            variant("stock", "6.12 as it is", &["numvfs-show-vfio-remove"]),
            variant("revert-only", "sriov_numvfs_show() reads without a lock", &["numvfs-stale-pf-uevent"]),
        ],
        scenarios: vec![ScenarioNote {
            script: None,
            name: OWNER.to_owned(),
            about: "the owner reads, then releases".to_owned(),
            detects: vec!["numvfs-show-vfio-remove".to_owned()],
        }],
        bugs: vec![Bug {
            id: "numvfs-show-vfio-remove".to_owned(),
            title: "reading sriov_numvfs deadlocks the owner of a device that is removed".to_owned(),
            fails: vec![Fails { kind: FailureKind::Deadlock, function: "sriov_numvfs_show".to_owned() }],
            ..Bug::default()
        }],
        planned,
    }
}

/// A run with these cells, as the harness writes it. The folder lives as long as the guard.
pub(super) fn run(cells: &[Cell], not_begun: &[CellId]) -> (tempfile::TempDir, Report) {
    let out = tempfile::tempdir().unwrap();
    let ids = cells.iter().map(|(id, expected, _)| (id, expected.clone()));
    let planned = ids.chain(not_begun.iter().map(|id| (id, Expected::Pass)));
    let planned = planned.map(|(id, expected)| PlannedCell { id: id.clone(), expected }).collect();
    let run = RunDir::create(out.path(), info(planned)).unwrap();
    for (number, (id, expected, verdict)) in cells.iter().enumerate() {
        let start = start(id.clone(), expected.clone());
        let cell = run.cell(&start).unwrap();
        let mut record = record(&start, verdict.clone(), 1.5 + number as f64);
        if matches!(verdict, Verdict::Infra(_)) {
            record.retries = vec!["QEMU ended (signal: 6 (SIGABRT))".to_owned()];
        }
        cell.finish(&record).unwrap();
    }
    let report = Report::of(run.path()).unwrap();
    (out, report)
}

pub(super) fn good() -> Vec<Cell> {
    let yank = Some(Trigger::Yank);
    let button = Some(Trigger::DeviceDel);
    vec![
        (id(OWNER, yank, "stock", 1), must_deadlock(), deadlock()),
        (id(OWNER, yank, "revert-only", 1), Expected::Pass, Verdict::Pass),
        (id(OWNER, button, "stock", 1), must_deadlock(), deadlock()),
        (id(OWNER, button, "revert-only", 1), Expected::Pass, Verdict::Pass),
        (id(UEVENT, None, "stock", 1), Expected::Pass, Verdict::Pass),
        (id(UEVENT, None, "revert-only", 1), must_be_stale(), stale()),
    ]
}

/// The user's own kernel, beside one that is known.
pub(super) fn own() -> Vec<Cell> {
    let yank = Some(Trigger::Yank);
    vec![
        (id(OWNER, yank, "stock", 1), must_deadlock(), deadlock()),
        (id(OWNER, yank, "mine", 1), Expected::None, deadlock()),
        (id(UEVENT, None, "stock", 1), Expected::Pass, Verdict::Pass),
        (id(UEVENT, None, "mine", 1), Expected::None, Verdict::Pass),
    ]
}

#[test]
fn cells_of_the_users_own_kernel_pass_or_fail() {
    let table = |cells: &[Cell]| {
        let (_out, report) = run(cells, &[]);
        assert_eq!(report.exit_code(), 1);
        report.table(Terminal::default()).replace(&report.run().path.display().to_string(), "RUN")
    };
    insta::assert_snapshot!("own-table", table(&own()));
    let (_out, report) = run(&own(), &[]);
    insta::assert_snapshot!("own-ktap", stable(&super::ktap::render(&report), &report));
    insta::assert_snapshot!("own-markdown", stable(&markdown::render(&report), &report));
    let alone: Vec<_> = own().into_iter().filter(|(_, expected, _)| *expected == Expected::None).collect();
    insta::assert_snapshot!("own-alone-table", table(&alone));
}

pub(super) fn bad() -> Vec<Cell> {
    let yank = Some(Trigger::Yank);
    let infra = || Verdict::Infra("QEMU ended: Aborted <core dumped>".to_owned());
    let mut cells = vec![
        (id(OWNER, yank, "stock", 1), must_deadlock(), Verdict::Pass),
        (id(OWNER, yank, "revert-only", 1), Expected::Pass, deadlock()),
        (id(UEVENT, None, "stock", 1), Expected::Pass, Verdict::Skip("QEMU has no igb".to_owned())),
        (id(UEVENT, None, "mine", 1), Expected::None, Verdict::BuildFailed("drivers/pci/iov.c:42: error".to_owned())),
        (id(OWNER, yank, "mine", 1), Expected::None, Verdict::BootFailed("the kernel panicked".to_owned())),
    ];
    for repeat in 1..=4 {
        let verdict = if repeat < 3 {
            stale()
        } else if repeat == 3 {
            Verdict::Pass
        } else {
            infra()
        };
        cells.push((id(UEVENT, None, "revert-only", repeat), must_be_stale(), verdict));
    }
    cells
}

/// A report without what differs between runs.
fn stable(text: &str, report: &Report) -> String {
    text.replace(report.run.path.to_str().unwrap(), "[run]")
}

#[test]
fn a_good_run() {
    let (_out, report) = run(&good(), &[]);
    insta::assert_snapshot!("good-table", stable(&report.table(Terminal::default()), &report));
    insta::assert_snapshot!("good-results", stable(&format!("{:#}", report.results()), &report));
    insta::assert_snapshot!("good-junit", stable(&report.junit(), &report));
    insta::assert_snapshot!("good-ktap", stable(&super::ktap::render(&report), &report));
    insta::assert_snapshot!("good-markdown", stable(&markdown::render(&report), &report));
}

#[test]
fn a_bad_run() {
    let (_out, report) = run(&bad(), &[id(OWNER, None, "stock", 1)]);
    insta::assert_snapshot!("bad-table", stable(&report.table(Terminal::default()), &report));
    insta::assert_snapshot!("bad-results", stable(&format!("{:#}", report.results()), &report));
    insta::assert_snapshot!("bad-junit", stable(&report.junit(), &report));
    insta::assert_snapshot!("bad-ktap", stable(&super::ktap::render(&report), &report));
    insta::assert_snapshot!("bad-markdown", stable(&markdown::render(&report), &report));
}

#[test]
fn the_reason_why_a_kernel_was_not_built_comes_once() {
    let why = "the kernel's configuration refuses what was asked for:\n  IGB is not set: it needs NET\n";
    let cell = |variant: &str, repeat, verdict| (id(UEVENT, None, variant, repeat), Expected::Pass, verdict);
    let no_build = || Verdict::BuildFailed(why.to_owned());
    let mut cells: Vec<_> = (1..=40).map(|repeat| cell("stock", repeat, no_build())).collect();
    cells.extend((1..=50).map(|repeat| cell("revert-only", repeat, no_build())));
    cells.push(cell("mine", 1, Verdict::BuildFailed("does not compile".to_owned())));
    let (_out, report) = run(&cells, &[]);
    let table = report.table(Terminal::default());
    assert_eq!(table.matches("refuses what was asked for").count(), 1, "{table}");
    let lines: Vec<_> = table.lines().skip_while(|line| !line.contains("not built")).take(5).collect();
    insta::assert_snapshot!(lines.join("\n"), @r"
    ! stock, revert-only: not built, so 90 cells have no result:
        the kernel's configuration refuses what was asked for:
          IGB is not set: it needs NET
    ! mine: not built, so 1 cell has no result:
        does not compile
    ");
}

#[test]
fn a_table_fits_a_narrow_terminal() {
    let (_out, report) = run(&bad(), &[]);
    let table = report.table(Terminal { width: Some(60), color: false, whole: false });
    let drawn: Vec<_> = table.lines().filter(|line| line.starts_with(['│', '┌', '╞', '└', '├'])).collect();
    assert!(drawn.len() > 5, "{table}");
    for line in drawn {
        assert!(line.chars().count() <= 60, "{line}");
    }
    insta::assert_snapshot!("narrow-table", stable(&table, &report));
}

/// A run with one family that fails and two that pass, in more rows than fit a screen.
fn long() -> Vec<Cell> {
    let name = |family: &str, number: usize| format!("{family}::scenario_{number}");
    let mut cells: Vec<Cell> = (0..15)
        .flat_map(|number| ["slot", "port"].map(|family| name(family, number)))
        .map(|name| (id(&name, None, "stock", 1), Expected::Pass, Verdict::Pass))
        .collect();
    cells.push((id(OWNER, None, "stock", 1), must_deadlock(), deadlock()));
    cells.push((id(UEVENT, None, "stock", 1), Expected::Pass, stale()));
    cells
}

#[test]
fn in_a_long_table_families_that_pass_have_one_line() {
    let (_out, report) = run(&long(), &[]);
    let table = report.table(Terminal::default());
    assert!(table.contains("\n30 cells pass, all of 2 families (-v shows them): slot, port\n"), "{table}");
    assert!(!table.contains("scenario_3") && table.contains("owner_rescans_on_removal"), "{table}");
    assert!(table.starts_with(
        "! numvfs_events::pf_uevent::igb::none::stock fails with a stale read at sriov_numvfs, and should pass: "
    ));
    let whole = report.table(Terminal { whole: true, ..Terminal::default() });
    assert!(whole.contains("scenario_3") && !whole.contains("-v shows them"), "{whole}");
    let brief = report.brief();
    assert_eq!(brief.lines().filter(|line| !line.is_empty()).count(), 2, "{brief}");
}

#[test]
fn colours_do_not_change_the_text() {
    let (_out, report) = run(&bad(), &[]);
    let color = report.table(Terminal { width: Some(90), color: true, whole: false });
    assert!(color.contains("\x1b[1;31mDEADLOCK !\x1b[0m"), "{color}");
    let codes = regex::Regex::new("\x1b\\[[0-9;]*m").unwrap();
    assert_eq!(codes.replace_all(&color, ""), report.table(Terminal { width: Some(90), color: false, whole: false }));
}

#[test]
fn every_form_is_written_beside_the_evidence() {
    let (_out, report) = run(&good(), &[]);
    report.write_files().unwrap();
    let written = |name: &str| fs::read_to_string(report.run.path.join(name)).unwrap();
    for form in FORMS {
        assert_eq!(written(form.file), (form.render)(&report), "{}", form.file);
    }
    assert_eq!(serde_json::from_str::<serde_json::Value>(&written("results.json")).unwrap(), report.results());
    assert_eq!(written("junit.xml"), report.junit());
    // The files of a report are not cells of the run.
    assert_eq!(Report::of(&report.run.path).unwrap().counts(), report.counts());
}

#[test]
fn every_form_has_its_own_file_and_is_on_the_page_on_verdicts() {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/verdicts.md")).unwrap();
    let mut files: Vec<_> =
        FORMS.iter().map(|form| form.file).chain(SERIES_FORMS.iter().map(|form| form.file)).collect();
    for Form { file, about, .. } in FORMS {
        assert!(page.contains(&format!("- `{file}`, {about}")), "docs/verdicts.md does not have {file}");
    }
    files.sort_unstable();
    files.dedup();
    assert_eq!(files.len(), FORMS.len() + SERIES_FORMS.len(), "two forms have the same file");
}

#[test]
fn a_random_bug_that_did_not_reproduce_is_reported_and_counted() {
    let splat = || Verdict::fail(FailureKind::KernelSplat, "proc_register", "WARNING: ...".to_owned());
    let cells: Vec<_> = [Verdict::Pass, splat(), Verdict::Pass]
        .into_iter()
        .zip(1..)
        .map(|(verdict, repeat)| (id("rescan_race::unbind", None, "stock", repeat), may_splat(), verdict))
        .collect();
    let (_out, report) = run(&cells, &[]);
    assert_eq!(report.counts(), Counts { cells: 3, as_expected: 3, missed: 2, ..Counts::default() });
    assert_eq!(report.exit_code(), 0);
    let table = report.table(Terminal::default());
    assert!(table.contains("2/3 missed") && table.contains("1/3 KERNEL SPLAT"), "{table}");
    assert!(table.contains("3 as expected (2 of them missed)"), "{table}");
    assert_eq!(report.results()["summary"]["missed"], 2);
    assert_eq!(report.results()["cells"][0]["missed"], true);
    assert_eq!(report.results()["cells"][1]["missed"], false);
    assert!(report.junit().contains("which did not reproduce"), "{}", report.junit());
}

#[test]
fn exit_codes() {
    let cell = |expected: Expected, verdict: Verdict| (expected, verdict);
    let text = String::new;
    for (cells, code) in [
        (vec![], 2),
        (vec![cell(Expected::Pass, Verdict::Pass)], 0),
        (vec![cell(must_deadlock(), deadlock())], 0),
        (vec![cell(Expected::Pass, Verdict::Skip(text()))], 0),
        (vec![cell(Expected::None, Verdict::Pass)], 0),
        (vec![cell(Expected::None, deadlock())], 1),
        (vec![cell(must_deadlock(), Verdict::Pass)], 1),
        (vec![cell(must_deadlock(), stale())], 1),
        (vec![cell(Expected::Pass, Verdict::BuildFailed(text()))], 1),
        (vec![cell(Expected::None, Verdict::BootFailed(text()))], 1),
        (vec![cell(Expected::Pass, Verdict::Infra(text()))], 2),
        (vec![cell(Expected::Pass, Verdict::Pass), cell(Expected::Pass, Verdict::Infra(text()))], 2),
        (vec![cell(Expected::Pass, deadlock()), cell(Expected::Pass, Verdict::Infra(text()))], 1),
    ] {
        let cells: Vec<_> = cells
            .into_iter()
            .enumerate()
            .map(|(number, (expected, verdict))| (id("a::b", None, "stock", number as u32 + 1), expected, verdict))
            .collect();
        let (_out, report) = run(&cells, &[]);
        assert_eq!(report.exit_code(), code, "{cells:?}");
    }
    let (_out, report) = run(&good(), &[id(OWNER, None, "stock", 1)]);
    assert_eq!(report.exit_code(), 2, "a cell that did not begin");
}

#[test]
fn a_part_is_compared_only_when_it_is_merged() {
    let out = tempfile::tempdir().unwrap();
    let part = |against: bool, ended: &[Verdict]| {
        let info = RunInfo { part: Some(part_note()), ..RunInfo::default() };
        let run = RunDir::create(out.path(), info).unwrap();
        for (number, verdict) in (1..).zip(ended) {
            let start = start(id("a::b", None, "mine", number), Expected::None);
            run.cell(&start).unwrap().finish(&record(&start, verdict.clone(), 1.0)).unwrap();
        }
        if against {
            let note = AgainstNote { asked: "stock".to_owned(), kernel: "stock".to_owned(), earlier: None };
            note.write(run.path()).unwrap();
        }
        let report = Report::of(run.path()).unwrap();
        (report.awaits_merge(), report.comparison().is_some(), report.exit_code())
    };
    let failed = Verdict::fail(kernels::FailureKind::Deadlock, "f", String::new());
    assert_eq!(part(true, std::slice::from_ref(&failed)), (true, false, 0));
    assert_eq!(part(true, &[failed.clone(), Verdict::Infra(String::new())]), (true, false, 2));
    assert_eq!(part(false, &[failed]), (false, false, 1));
    assert_eq!(part(false, &[]), (false, false, 0), "a part may have no cells");
}

fn part_note() -> PartNote {
    PartNote { digest: "d".to_owned(), by: "hash".to_owned(), part: 1, parts: 2 }
}
