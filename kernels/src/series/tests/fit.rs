//! How series fit trees.

use std::fs;
use std::path::Path;

use super::{plain, read};
use crate::event::CancelToken;
use crate::job::Job;
use crate::series::{Fate, Fit, Manner, fit};
use crate::tree::{Revision, Tree};

/// A tree with a file of ten lines, and what becomes of patches to it.
fn tried(patches: &[(&str, &str)]) -> Fit {
    with(Manner::default(), patches).0
}

/// The same, tried in one way, and the files of the patches afterwards.
fn with(manner: Manner, patches: &[(&str, &str)]) -> (Fit, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let tree = folder.path().join("tree");
    fs::create_dir_all(tree.join("drivers/pci")).unwrap();
    let content: String = (1..=10).map(|number| format!("line {number};\n")).collect();
    fs::write(tree.join("drivers/pci/iov.c"), &content).unwrap();
    let mails: Vec<_> = patches
        .iter()
        .enumerate()
        .map(|(index, (header, lines))| {
            let file = "drivers/pci/iov.c";
            let text = format!("diff --git a/{file} b/{file}\n--- a/{file}\n+++ b/{file}\n{header}\n{lines}");
            plain(&format!("[PATCH {}/{}] PCI: {index}", index + 1, patches.len()), &index.to_string(), &text)
        })
        .collect();
    let series = read(&mails).unwrap();
    let files = series.write(&folder.path().join("patches")).unwrap();
    let fit = fit::fit(fit::Origin::Tree(&tree), &series.patches, &files, manner, &CancelToken::new()).unwrap();
    assert_eq!(fs::read_to_string(tree.join("drivers/pci/iov.c")).unwrap(), content, "the tree is only read");
    (fit, files.iter().map(|file| fs::read_to_string(file).unwrap()).collect())
}

/// A patch that changes the second line.
const TWO: (&str, &str) = ("@@ -1,3 +1,3 @@", " line 1;\n-line 2;\n+two;\n line 3;\n");

#[test]
fn a_series_is_tried_patch_by_patch() {
    let back = ("@@ -1,3 +1,3 @@", " line 1;\n-two;\n+2;\n line 3;\n");
    assert_eq!(tried(&[TWO, back]), Fit { fates: vec![Fate::Applies, Fate::Applies], misfit: None });
    let again = tried(&[TWO, TWO]);
    assert_eq!(again.fates, [Fate::Applies]);
    assert_eq!(again.misfit.unwrap().why, "the patches before it make this change already");
}

#[test]
fn a_patch_that_the_tree_has_already_is_no_misfit() {
    // The tree has both patches. The second one changes what the first one added.
    let first = ("@@ -1,3 +1,3 @@", " line 1;\n-two;\n+2;\n line 3;\n");
    let second = ("@@ -1,3 +1,3 @@", " line 1;\n-2;\n+line 2;\n line 3;\n");
    assert_eq!(tried(&[first, second]), Fit { fates: vec![Fate::Already, Fate::Already], misfit: None });
    let new = ("@@ -7,3 +7,3 @@", " line 7;\n-line 8;\n+eight;\n line 9;\n");
    let partly = tried(&[second, new]);
    assert_eq!(partly, Fit { fates: vec![Fate::Already, Fate::Applies], misfit: None });
    assert_eq!((partly.already(), partly.applied()), (1, 1));
}

#[test]
fn a_patch_that_fits_only_with_less_context_is_made_anew() {
    let lines = " line 3;\n line 4;\n line five;\n-line 6;\n+six;\n line 7;\n line 8;\n line nine;\n";
    let loose = ("@@ -3,7 +3,7 @@", lines);
    // One line around the change must fit, and there it does not.
    let wrong = tried(&[loose]);
    assert!(wrong.fates.is_empty() && wrong.misfit.unwrap().why.contains("does not fit drivers/pci/iov.c"));
    let lines = " line three;\n line 4;\n line 5;\n-line 6;\n+six;\n line 7;\n line 8;\n line 9;\n";
    let loose = ("@@ -3,7 +3,7 @@", lines);
    let (fit, files) = with(Manner::default(), &[loose, TWO]);
    let places = vec!["drivers/pci/iov.c:4".to_owned()];
    assert_eq!(fit, Fit { fates: vec![Fate::LessContext { lines: 2, places }, Fate::Applies], misfit: None });
    assert!(files[0].contains(" line 3;\n") && !files[0].contains("three"), "{}", files[0]);
    let strict = with(Manner { strict: true, merge: false }, &[loose, TWO]).0;
    assert!(strict.fates.is_empty() && strict.misfit.is_some());
}

#[test]
fn the_lines_of_the_tree_at_a_hunk_that_does_not_fit_are_shown() {
    let stale = ("@@ -3,4 +3,4 @@ f()", " line 5;\n-line six;\n+6;\n line 7;\n line 8;\n");
    let fit = tried(&[TWO, stale]);
    assert_eq!(fit.applied(), 1);
    let misfit = fit.misfit.unwrap();
    insta::assert_snapshot!(format!("{}\n{}", misfit.why, misfit.lines.join("\n")), @r"
    hunk 1 of 1 (`@@ -3,4 +3,4 @@ f()`) does not fit drivers/pci/iov.c
    the patch expects (-), and from line 5 on the tree has (+):
     line 5;
    -line six;
    +line 6;
     line 7;
     line 8;
    ");
}

/// git in a folder, with a user name.
fn git(folder: &Path, arguments: &[&str]) -> String {
    let who = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"];
    let job = Job::new("git").args(who).args(arguments).within(folder);
    job.output(&CancelToken::new()).unwrap().trim().to_owned()
}

#[test]
fn a_patch_that_was_made_on_another_revision_is_merged_if_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let tree = folder.path().join("tree");
    fs::create_dir_all(tree.join("scripts/kconfig")).unwrap();
    fs::create_dir_all(tree.join("drivers/pci")).unwrap();
    let content = |first: &str, sixth: &str| {
        let lines = (1..=10).map(|n| match n {
            5 => format!("{first};\n"),
            6 => format!("{sixth};\n"),
            n => format!("line {n};\n"),
        });
        lines.collect::<String>()
    };
    let file = tree.join("drivers/pci/iov.c");
    fs::write(tree.join("Kbuild"), "").unwrap();
    fs::write(tree.join("scripts/kconfig/conf.c"), "").unwrap();
    git(&tree, &["init", "-q"]);
    let commit = |text: &str| {
        fs::write(&file, text).unwrap();
        git(&tree, &["add", "-A"]);
        git(&tree, &["commit", "-q", "-m", "words"]);
    };
    commit(&content("line 5", "line 6"));
    // The patch is made before the tree changes a line above it and adds another one.
    commit(&content("line 5", "six"));
    let diff = git(&tree, &["diff", "HEAD~1", "HEAD"]) + "\n";
    git(&tree, &["checkout", "-q", "HEAD~1"]);
    commit(&content("line 5", "line 6").replace("line 3;", "three;\nand more;"));
    let series = read(&[plain("[PATCH 1/1] PCI: six", "1", &diff)]).unwrap();
    let cancel = CancelToken::new();
    let opened = Tree::open(&tree, &cancel).unwrap();
    let commit = opened.commit("HEAD", &cancel).unwrap();
    let revision = Revision { commit, tree: opened, describe: String::new() };
    let tried = |merge| {
        let files = series.write(&folder.path().join("patches")).unwrap();
        let manner = Manner { merge, strict: true };
        let fit = fit::fit(fit::Origin::Revision(&revision), &series.patches, &files, manner, &cancel).unwrap();
        (fit, fs::read_to_string(&files[0]).unwrap())
    };
    let status = git(&tree, &["status", "--porcelain"]);
    let (fit, _) = tried(false);
    assert_eq!(fit.applied(), 0);
    assert!(fit.misfit.unwrap().why.contains("does not fit drivers/pci/iov.c"));
    let (fit, merged) = tried(true);
    assert_eq!(fit, Fit { fates: vec![Fate::Merged], misfit: None });
    assert!(merged.contains("-line 6;\n+six;\n") && merged.contains(" and more;\n"), "{merged}");
    assert_eq!(git(&tree, &["status", "--porcelain"]), status);
}
