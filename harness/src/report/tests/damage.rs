//! Evidence that is missing, cut off, or garbled.

use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;

/// What happens to a file.
#[derive(Clone, Debug)]
enum Damage {
    Lost,
    CutAt(usize),
    Garbled(usize, Vec<u8>),
    Replaced(Vec<u8>),
    Folder,
}

fn damage() -> impl Strategy<Value = Damage> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..40);
    // Pieces of JSON of another shape come further than noise.
    let json =
        prop::sample::select(vec!["null", "[]", "{}", "7", "\"\"", "{\"cell\":null}", "[[[[", "{\"t\":1e999}\n{}"]);
    prop_oneof![
        Just(Damage::Lost),
        any::<usize>().prop_map(Damage::CutAt),
        (any::<usize>(), bytes()).prop_map(|(at, bytes)| Damage::Garbled(at, bytes)),
        bytes().prop_map(Damage::Replaced),
        json.prop_map(|json| Damage::Replaced(json.as_bytes().to_vec())),
        Just(Damage::Folder),
    ]
}

fn apply(path: &Path, damage: &Damage) {
    let content = || fs::read(path).unwrap_or_default();
    match damage {
        Damage::Lost => drop(fs::remove_file(path)),
        Damage::CutAt(at) => {
            let content = content();
            let end = at % (content.len() + 1);
            fs::write(path, &content[..end]).unwrap();
        }
        Damage::Garbled(at, bytes) => {
            let mut content = content();
            let at = at % (content.len() + 1);
            let end = (at + bytes.len()).min(content.len());
            content.splice(at..end, bytes.iter().copied());
            fs::write(path, content).unwrap();
        }
        Damage::Replaced(bytes) => fs::write(path, bytes).unwrap(),
        Damage::Folder => {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        }
    }
}

/// The files of a run, in a fixed order.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(self::files(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]
    #[test]
    fn damaged_evidence_is_drawn_as_far_as_it_goes(
        damages in prop::collection::vec((any::<prop::sample::Index>(), damage()), 1..5),
    ) {
        let (_out, report) = run(&bad(), &[]);
        for (which, damage) in damages {
            let files = files(&report.run.path);
            if !files.is_empty() {
                apply(&files[which.index(files.len())], &damage);
            }
        }
        if let Ok(report) = Report::of(&report.run.path) {
            for form in FORMS {
                prop_assert!(!(form.render)(&report).is_empty(), "{}", form.name);
            }
            prop_assert!(!report.table(Terminal::default()).is_empty());
        }
    }
}

#[test]
fn what_cannot_be_read_is_named() {
    let scenario = "numvfs_events.pf_uevent.igb.none.stock";
    for (file, damage, named) in [
        ("run.json", Damage::Lost, "run.json, so it is not known with which programs"),
        ("run.json", Damage::CutAt(40), "run.json, so it is not known with which programs"),
        (
            "start.json",
            Damage::Lost,
            "on which kernel numvfs_events.pf_uevent.igb.none.stock ran: it has no start.json",
        ),
        ("start.json", Damage::CutAt(9), "how numvfs_events.pf_uevent.igb.none.stock was begun"),
        (
            "verdict.json",
            Damage::CutAt(90),
            "the verdict of numvfs_events.pf_uevent.igb.none.stock: its verdict cannot be read",
        ),
        (
            "verdict.json",
            Damage::Replaced(b"\xff\xfe".to_vec()),
            "the verdict of numvfs_events.pf_uevent.igb.none.stock",
        ),
        ("verdict.json", Damage::Folder, "the verdict of numvfs_events.pf_uevent.igb.none.stock"),
    ] {
        let (_out, whole) = run(&good(), &[]);
        let folder = if file == "run.json" { whole.run.path.clone() } else { whole.run.path.join(scenario) };
        apply(&folder.join(file), &damage);
        let report = Report::of(&whole.run.path).unwrap();
        assert_eq!(report.run.missing.len(), 1, "{file}: {:?}", report.run.missing);
        assert!(report.run.missing[0].contains(named), "{:?}", report.run.missing);
        assert_eq!(report.counts().cells, whole.counts().cells, "{file}");
        assert_eq!(report.counts().infra, usize::from(file == "verdict.json"), "{file}");
        assert!(report.table(Terminal::default()).contains("\nnot known: "), "{file}");
    }
}

#[test]
fn a_cell_of_which_only_the_folder_is_left_is_found_by_its_name() {
    let (_out, whole) = run(&good(), &[]);
    let folder = whole.run.path.join("numvfs_events.pf_uevent.igb.none.stock");
    apply(&folder.join("start.json"), &Damage::Lost);
    apply(&folder.join("verdict.json"), &Damage::CutAt(10));
    let report = Report::of(&whole.run.path).unwrap();
    let cell = report.run.cells.iter().find(|cell| cell.record.cell.scenario == UEVENT).unwrap();
    assert!(matches!(&cell.record.verdict, Verdict::Infra(why) if why.contains("cannot be read")));
    assert!(cell.evidence.is_some() && report.counts().cells == whole.counts().cells);
}
