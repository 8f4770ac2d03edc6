use guest_protocol::TaskState;
use kernels::series::Version;
use kernels::{Bug, Chance, Fails, FailureKind};

use super::*;
use crate::cell::{CellId, PlannedCell};
use crate::evidence::tests::{id, record, start};
use crate::evidence::{RunDir, RunInfo, ScenarioNote};
use crate::notes::{Note, Notes};
use crate::trigger::Trigger;
use crate::verdict::{Expected, Failure, Verdict};

const OWNER: &str = "numvfs_read::owner_rescans_on_removal";
const UEVENT: &str = "numvfs_events::pf_uevent";

/// A deadlock that a cycle proves.
fn deadlock() -> Verdict {
    let summary = "irq/25-pciehp (pid 39) [S] waits in vfio_unregister_group_dev (drivers/vfio/vfio_main.c:420) for user \
                   space to close vfio device 0000:02:00.0, open in iov-own (pid 53); iov-own (pid 53) [D] waits in \
                   sriov_numvfs_show (drivers/pci/iov.c:411) for device_lock of 0000:02:00.0, held by irq/25-pciehp (pid 39)";
    let cycle =
        ["irq/25-pciehp waits in vfio_unregister_group_dev for user space", "iov-own waits in sriov_numvfs_show"];
    Verdict::Fail(Failure {
        kind: FailureKind::Deadlock,
        function: Some("sriov_numvfs_show".to_owned()),
        summary: summary.to_owned(),
        cycle: Some(cycle.map(str::to_owned).into()),
    })
}

/// The same deadlock in a guest that nobody could look at.
fn deadlock_by_samples() -> Verdict {
    let summary = "stuck in D state: iov-own (pid 53) in sriov_numvfs_show";
    Verdict::fail(FailureKind::Deadlock, "sriov_numvfs_show", summary.to_owned())
}

fn stale() -> Verdict {
    let summary = "3 of 3 event-driven reads were stale: read 0 on the event of PF, expected 2";
    Verdict::fail(FailureKind::StaleRead, "sriov_numvfs", summary.to_owned())
}

fn step(number: usize, subject: &str, applies: Applies) -> SeriesStep {
    SeriesStep {
        variant: format!("patch-{number}"),
        subject: subject.to_owned(),
        author: "A U Thor <a@example.org>".to_owned(),
        message_id: Some(format!("{number}@example.org")),
        applies,
    }
}

fn note(applies: [Applies; 2]) -> SeriesNote {
    let [one, two] = applies;
    SeriesNote {
        subject: "PCI/IOV: Let readers of sriov_numvfs go".to_owned(),
        version: Version::of(2),
        base: "base".to_owned(),
        base_about: "Linux 6.12.117 (linux-source-6.12 6.12.117-1)".to_owned(),
        bases: Vec::new(),
        steps: vec![
            step(1, "PCI/IOV: Read num_VFs without a lock in sriov_numvfs_show()", one),
            step(2, "PCI/IOV: Set num_VFs before the uevent in sriov_enable()", two),
        ],
        notes: vec!["left out: version 1, which version 2 replaces".to_owned()],
        options: Vec::new(),
        answers_for_base: true,
    }
}

/// The observations of such a cell.
fn observed(verdict: &Verdict) -> Notes {
    let task = |comm: &str, state: char, tid: i32, stack: &[&str]| TaskState {
        pid: tid,
        tid,
        comm: comm.to_owned(),
        state,
        wchan: String::new(),
        stack: stack.iter().map(|&frame| frame.to_owned()).collect(),
    };
    let reader = task(
        "iov-own",
        'D',
        53,
        &["sriov_numvfs_show", "dev_attr_show", "sysfs_kf_seq_show", "kernfs_seq_show", "seq_read_iter"],
    );
    let remover = task("irq/25-pciehp", 'S', 39, &["vfio_unregister_group_dev", "vfio_pci_remove"]);
    match verdict {
        Verdict::Fail(failure) if failure.kind == FailureKind::Deadlock => {
            let [stuck, in_d_state] = [Note::Stuck, Note::TasksInDState].map(|kind| kind(vec![reader.clone()]));
            Notes::from_iter([Note::Removers(vec![remover]), stuck, in_d_state])
        }
        _ => Notes::from_iter([Note::TasksInDState(Vec::new())]),
    }
}

const RACE: &str = "rescan_race::unbind";

fn race() -> ScenarioNote {
    ScenarioNote { name: RACE.to_owned(), about: String::new(), detects: vec!["readd-race".to_owned()], script: None }
}

/// The random bug that [`RACE`] detects.
fn random_bug() -> Bug {
    let fails = vec![Fails { kind: FailureKind::KernelSplat, function: "proc_register".to_owned() }];
    let (title, references, under) = Default::default();
    Bug { id: "readd-race".to_owned(), title, references, fails, under, chance: Chance::Random, ..Bug::default() }
}

/// A run of a series with these cells, as the harness writes it. The folder lives as long as the guard.
fn run(note: &SeriesNote, cells: &[(CellId, Verdict)]) -> (tempfile::TempDir, SeriesReport) {
    let out = tempfile::tempdir().unwrap();
    let planned =
        cells.iter().map(|(id, _)| PlannedCell { id: id.clone(), expected: Expected::None }).collect::<Vec<_>>();
    let info = RunInfo {
        harness: "0.1.0".to_owned(),
        qemu: "QEMU emulator version 10.0.2 (Debian 1:10.0.2)".to_owned(),
        accel: "tcg".to_owned(),
        planned,
        scenarios: vec![race()],
        bugs: vec![random_bug()],
        ..RunInfo::default()
    };
    let folder = RunDir::create(out.path(), info).unwrap();
    note.write(folder.path()).unwrap();
    for (id, verdict) in cells {
        let start = start(id.clone(), Expected::None);
        let mut record = record(&start, verdict.clone(), 1.0);
        record.observations = observed(verdict);
        folder.cell(&start).unwrap().finish(&record).unwrap();
    }
    let report = SeriesReport::of(folder.path()).unwrap();
    (out, report)
}

/// A row of cells: on the base, then with each patch.
fn row(scenario: &str, trigger: Option<Trigger>, verdicts: &[Verdict]) -> Vec<(CellId, Verdict)> {
    let variants = ["base", "patch-1", "patch-2"];
    variants
        .iter()
        .zip(verdicts)
        .map(|(variant, verdict)| (id(scenario, trigger, variant, 1), verdict.clone()))
        .collect()
}

fn the_series_of_the_list() -> Vec<(CellId, Verdict)> {
    let triggers = [Trigger::DeviceDel, Trigger::Yank];
    let owner = triggers.map(|trigger| row(OWNER, Some(trigger), &[deadlock(), Verdict::Pass, Verdict::Pass]));
    let uevent = row(UEVENT, None, &[Verdict::Pass, stale(), Verdict::Pass]);
    let other = row("autoprobe::lie", None, &[Verdict::Pass, Verdict::Pass, Verdict::Pass]);
    [owner.concat(), uevent, other].concat()
}

fn fits_a_mail(summary: &str) {
    for line in summary.lines() {
        assert!(line.chars().count() <= 72, "{line}");
        assert!(!line.ends_with(' '), "{line:?}");
    }
}

#[test]
fn a_short_script_is_quoted_in_the_summary() {
    let (_out, mut series) = run(&note([Applies::Yes, Applies::Yes]), &the_series_of_the_list());
    let before = series.summary();
    let script = Some("PF=$(iov pf)\n\tiov remove $PF\n".to_owned());
    series.report.run.info.scenarios.push(ScenarioNote { name: "script::repro".to_owned(), script, ..race() });
    let summary = series.summary();
    let added = "\nscript::repro:\n\n    PF=$(iov pf)\n    \tiov remove $PF\n";
    assert_eq!(summary.replace(added, ""), before, "{summary}");
    assert!(summary.contains(added), "{summary}");
}

#[test]
fn a_series_that_breaks_something_in_the_middle() {
    let (_out, report) = run(&note([Applies::Yes, Applies::Yes]), &the_series_of_the_list());
    fits_a_mail(&report.summary());
    insta::assert_snapshot!("middle-table", report.table(Terminal::default()));
    insta::assert_snapshot!("middle-summary", report.summary());
    insta::assert_snapshot!("middle-results", format!("{:#}", report.results()));
    assert_eq!(report.exit_code(), 1, "it is not bisectable");
    report.write_files().unwrap();
    let written = |name: &str| std::fs::read_to_string(report.report.run().path.join(name)).unwrap();
    for form in SERIES_FORMS {
        assert_eq!(written(form.file), (form.render)(&report), "{}", form.file);
    }
    assert_eq!(written("summary.txt"), report.summary());
    assert_eq!(serde_json::from_str::<Value>(&written("series-results.json")).unwrap(), report.results());
    assert_eq!(written(crate::report::RESULTS), form::json(&report.report.results()));
}

#[test]
fn the_page_of_a_series_marks_what_each_patch_changes() {
    let (_out, report) = run(&note([Applies::Yes, Applies::Yes]), &the_series_of_the_list());
    report.write_files().unwrap();
    let page = std::fs::read_to_string(report.report.run().path.join("report.html")).unwrap();
    assert!(page.contains("to the next, 1 cell gets worse and 3 are fixed.</h1>"), "{page}");
    for (mark, count) in [(">REGRESSED<", 1), (">fixed<", 3)] {
        assert_eq!(page.matches(mark).count(), count, "{mark}");
    }
}

#[test]
fn a_patch_that_does_not_apply() {
    let lines = ["the patch wants (-), and from line 5 on the tree has (+):", " \tline five;", "-\tsix;", "+\t6;"];
    let no = Applies::No {
        why: "hunk 1 of 1 (`@@ -681,8 +681,8 @@ static int sriov_enable()`) does not fit drivers/pci/iov.c".to_owned(),
        lines: lines.map(str::to_owned).to_vec(),
    };
    let cells: Vec<_> = row(OWNER, Some(Trigger::Yank), &[deadlock(), Verdict::Pass]);
    let (_out, report) = run(&note([Applies::Yes, no]), &cells);
    fits_a_mail(&report.summary());
    insta::assert_snapshot!("misfit-summary", report.summary());
    assert_eq!(report.exit_code(), 1);
}

#[test]
fn a_patch_that_the_base_has_already_is_not_compared() {
    let already = Applies::Already { base: "6.12".to_owned() };
    let bases =
        ["base 6.12: the newest to which all patches apply that it does not have already", "7.3: no patch applies"];
    let note = SeriesNote { bases: bases.map(str::to_owned).to_vec(), ..note([already, Applies::Yes]) };
    let mut cells = row(OWNER, Some(Trigger::Yank), &[deadlock(), Verdict::Pass, Verdict::Pass]);
    cells.retain(|(id, _)| id.variant != "patch-1");
    let (_out, report) = run(&note, &cells);
    let summary = report.summary();
    fits_a_mail(&summary);
    assert!(summary.contains("sriov_numvfs_show()\n  not tested: it is already in 6.12\n"), "{summary}");
    assert!(summary.contains("of 2\nkernels") && summary.contains("Bisectable: yes"), "{summary}");
    assert!(summary.contains("Note: base 6.12: the newest to which") && !summary.contains("7.3"), "{summary}");
    assert_eq!(report.exit_code(), 0);
}

#[test]
fn failures_of_all_kinds() {
    let broken = Verdict::BuildFailed("drivers/pci/iov.c:401:2: error: 'nothing' undeclared".to_owned());
    let infra = || Verdict::Infra("QEMU ended: Aborted <core dumped>".to_owned());
    let mut cells = row(OWNER, Some(Trigger::Yank), &[deadlock_by_samples(), broken.clone(), deadlock()]);
    cells.extend(row(UEVENT, None, &[Verdict::Pass, broken.clone(), infra()]));
    cells.extend(row("slot::power", None, &[stale(), broken.clone(), deadlock_by_samples()]));
    for (variant, verdicts) in
        [("base", [stale(), stale()]), ("patch-1", [broken.clone(), broken]), ("patch-2", [Verdict::Pass, stale()])]
    {
        let repeats = verdicts.into_iter().zip(1..);
        cells.extend(repeats.map(|(verdict, repeat)| (id("reset::flr", None, variant, repeat), verdict)));
    }
    let (_out, report) = run(&note([Applies::Yes, Applies::Yes]), &cells);
    fits_a_mail(&report.summary());
    insta::assert_snapshot!("trouble-table", report.table(Terminal::default()));
    insta::assert_snapshot!("trouble-summary", report.summary());
}

#[test]
fn other_failures_and_random_bugs_are_listed_by_themselves() {
    let splat = Verdict::fail(FailureKind::KernelSplat, "proc_register", "WARNING: ...".to_owned());
    let mut cells = row(OWNER, Some(Trigger::Yank), &[deadlock(), stale(), stale()]);
    cells.extend(row(RACE, None, &[Verdict::Pass, splat, Verdict::Pass]));
    let (_out, report) = run(&SeriesNote { answers_for_base: false, ..note([Applies::Yes, Applies::Yes]) }, &cells);
    let summary = report.summary();
    fits_a_mail(&summary);
    let part =
        |from: &str, to: &str| summary[summary.find(from).unwrap()..].split(to).next().unwrap().trim_end().to_owned();
    insta::assert_snapshot!(part("  fails", "2/2"), @r"
    fails otherwise: stale-read at sriov_numvfs
      numvfs_read::owner_rescans_on_removal (before: deadlock at
        sriov_numvfs_show)
    random: kernel-splat at proc_register, with this patch, not before
      rescan_race::unbind
    ");
    insta::assert_snapshot!(part("Result", "Evidence"), @r"
    Result: with all patches, compared to the base: 0 fixed, 0 still broken,
      0 regressed, 1 unchanged, 1 fails otherwise.
    ");
    assert!(report.table(Terminal::default()).contains("(fails otherwise)"));
    assert_eq!(report.exit_code(), 0, "neither is worse");
}

/// Without `answers_for_base`, the series does not fail for what was broken before.
#[test]
fn what_was_broken_before_counts_only_if_scenarios_were_named() {
    let cells = row(OWNER, Some(Trigger::Yank), &[deadlock(), deadlock(), deadlock()]);
    for (answers_for_base, code) in [(true, 1), (false, 0)] {
        let (_out, report) = run(&SeriesNote { answers_for_base, ..note([Applies::Yes, Applies::Yes]) }, &cells);
        assert_eq!(report.exit_code(), code);
    }
}

#[test]
fn exit_codes() {
    let infra = || Verdict::Infra(String::new());
    for (verdicts, code) in [
        ([Verdict::Pass, Verdict::Pass, Verdict::Pass], 0),
        ([deadlock(), deadlock(), Verdict::Pass], 0),
        ([deadlock(), deadlock(), deadlock()], 1),
        ([Verdict::Pass, stale(), Verdict::Pass], 1),
        ([Verdict::Pass, Verdict::Pass, stale()], 1),
        ([Verdict::Pass, Verdict::BuildFailed(String::new()), Verdict::Pass], 1),
        ([Verdict::Pass, Verdict::Pass, infra()], 2),
        ([infra(), infra(), infra()], 2),
    ] {
        let (_out, report) = run(&note([Applies::Yes, Applies::Yes]), &row(UEVENT, None, &verdicts));
        assert_eq!(report.exit_code(), code, "{verdicts:?}");
    }
}
