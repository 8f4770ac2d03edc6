//! The mutants in `mutants/`: each has the header of a patch, touches one file, and is in the table of its README.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Of fewer mutants no rate says much.
const AT_LEAST: usize = 60;

/// A mutant by its name.
type Mutants = BTreeMap<String, String>;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("mutants")
}

/// All patches of the folder, by their names without `.patch`.
fn mutants() -> Mutants {
    let mut mutants = Mutants::new();
    for entry in fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("patch") => assert!(mutants.insert(name, fs::read_to_string(&path).unwrap()).is_none()),
            _ => assert_eq!(name, "README", "{} is no patch", path.display()),
        }
    }
    mutants
}

/// The files that a patch touches, as the lines that begin with `prefix` name them.
fn touched<'a>(diff: &'a str, prefix: &str) -> Vec<&'a str> {
    diff.lines().filter_map(|line| line.strip_prefix(prefix)).collect()
}

/// The second column of each row of the index, by the name in the first one.
fn index() -> BTreeMap<String, String> {
    let text = fs::read_to_string(folder().join("README.md")).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    let mut index = BTreeMap::new();
    for row in rows {
        let cells: Vec<&str> = row.split(" | ").map(|cell| cell.trim_matches([' ', '|'])).collect();
        let [name, place, kind, seen] = cells[..] else { panic!("{row}: not four columns") };
        assert!(!kind.is_empty() && !seen.is_empty(), "{row}: an empty column");
        let doubled = index.insert(name.trim_matches('`').to_owned(), place.to_owned());
        assert_eq!(doubled, None, "{name} is in the index twice");
    }
    index
}

#[test]
fn there_are_enough_mutants() {
    assert!(mutants().len() >= AT_LEAST, "{} mutants", mutants().len());
}

#[test]
fn every_mutant_has_a_header_and_touches_one_file() {
    for (name, patch) in mutants() {
        let (header, diff) = patch.split_once("\n---\n").unwrap_or_else(|| panic!("{name}: no line of dashes"));
        let subject = header.strip_prefix("SPDX-License-Identifier: GPL-2.0-only\nSubject: ");
        let (subject, about) =
            subject.and_then(|rest| rest.split_once("\n\n")).unwrap_or_else(|| panic!("{name}: no header"));
        assert!(subject.contains(": ") && !subject.contains('\n'), "{name}: {subject}");
        assert!(
            about.ends_with("This brings a bug in, to see whether it is found."),
            "{name}: does not say that it is a bug"
        );
        let old = touched(diff, "--- a/");
        assert_eq!(old.len(), 1, "{name} touches {old:?}");
        assert_eq!((&old, 1), (&touched(diff, "+++ b/"), touched(diff, "diff --git ").len()), "{name}");
    }
}

#[test]
fn the_index_has_every_mutant_with_its_file_and_nothing_else() {
    let (mutants, index) = (mutants(), index());
    let names = |names: Vec<&String>| names.into_iter().cloned().collect::<Vec<_>>();
    assert_eq!(names(mutants.keys().collect()), names(index.keys().collect()));
    for (name, patch) in mutants {
        let file = touched(&patch, "--- a/drivers/").concat();
        assert!(
            index[&name].starts_with(&format!("`{file}`: `")),
            "{name}: {file}, and the index has {}",
            index[&name]
        );
    }
}
