//! The mutants in `mutants/`: each has the header of a patch, touches one file, and is in the table of its README.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use kernels::Mutant;

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
    let (mutants, index) = (mutants(), Mutant::index(&folder()).unwrap());
    let names = |names: Vec<&String>| names.into_iter().cloned().collect::<Vec<_>>();
    assert_eq!(names(mutants.keys().collect()), names(index.keys().collect()));
    for (name, patch) in mutants {
        let file = touched(&patch, "--- a/drivers/").concat();
        assert_eq!(index[&name].file, file, "{name}");
    }
}

#[test]
fn a_sample_of_ten_is_of_ten_files() {
    let mutants = Mutant::read(&folder()).unwrap();
    assert!(mutants.iter().all(|one| one.function.is_some() && one.shows.is_some()));
    let files: BTreeSet<_> = Mutant::sample(mutants, 10).into_iter().map(|one| one.file).collect();
    assert_eq!(files.len(), 10);
}
