//! Applies patches with `git apply`. A patch applies as a whole or not at all, and one that changes nothing is refused.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{BuildError, PatchError};
use crate::event::CancelToken;
use crate::job::{Job, JobError, says_disk_full};

/// The contents of files. `None` for a file that does not exist.
type Contents = BTreeMap<PathBuf, Option<Vec<u8>>>;

/// Applies a series of patches to a tree. Changed files are replaced, not overwritten, so the tree may have hard links
/// in common with another tree. Returns the files that the patches touched.
///
/// If a patch fails, the patches before it stay applied: the caller must discard the tree.
pub(crate) fn apply(tree: &Path, patches: &[PathBuf], cancel: &CancelToken) -> Result<Vec<PathBuf>, BuildError> {
    let mut before_all = Contents::new();
    for patch in patches {
        let before = contents(tree, touched(tree, patch, cancel)?)?;
        git(tree, ["apply", "--whitespace=nowarn"], patch).run(cancel).map_err(|error| explain(patch, error))?;
        let after = contents(tree, before.keys().cloned())?;
        if before == after {
            return Err(PatchError::Empty { patch: patch.clone() }.into());
        }
        for (file, content) in before {
            before_all.entry(file).or_insert(content);
        }
    }
    let after_all = contents(tree, before_all.keys().cloned())?;
    if !patches.is_empty() && before_all == after_all {
        return Err(PatchError::Circle { patches: patches.to_vec() }.into());
    }
    Ok(before_all.into_keys().collect())
}

/// Applies what a series of patches changes in these parts of a tree, of which the tree has only some. The caller must
/// discard the tree if a patch fails.
pub(crate) fn apply_part(
    tree: &Path,
    patches: &[PathBuf],
    parts: &[&str],
    cancel: &CancelToken,
) -> Result<(), BuildError> {
    for patch in patches {
        let include = parts.iter().map(|part| format!("--include={part}*"));
        let job = git(tree, ["apply", "--whitespace=nowarn"], patch).args(include);
        job.run(cancel).map_err(|error| explain(patch, error))?;
    }
    Ok(())
}

/// git with a patch in a tree that is no repository.
fn git<const N: usize>(tree: &Path, arguments: [&str; N], patch: &Path) -> Job {
    let absolute = std::path::absolute(patch).unwrap_or_else(|_| patch.to_owned());
    outside(tree).args(arguments).arg(absolute)
}

/// git in a tree that is no repository. The tree may lie inside of a repository: git must not use that one.
pub(crate) fn outside(tree: &Path) -> Job {
    Job::new("git").within(tree).env("GIT_CEILING_DIRECTORIES", tree.parent().unwrap_or(tree))
}

/// The files that a patch touches, as its headers say.
fn touched(tree: &Path, patch: &Path, cancel: &CancelToken) -> Result<Vec<PathBuf>, BuildError> {
    let output =
        git(tree, ["apply", "--summary", "--numstat"], patch).output(cancel).map_err(|error| explain(patch, error))?;
    let mut files: Vec<PathBuf> =
        output.lines().filter_map(|line| line.splitn(3, '\t').nth(2)).map(PathBuf::from).collect();
    // --numstat shows a rename as `{old => new}`, so take the names from the headers as well.
    let text = fs::read_to_string(patch).unwrap_or_default();
    files.extend(text.lines().filter_map(|line| line.strip_prefix("--- a/")).map(PathBuf::from));
    files.extend(text.lines().filter_map(|line| line.strip_prefix("+++ b/")).map(PathBuf::from));
    files.extend(text.lines().filter_map(|line| line.strip_prefix("rename to ")).map(PathBuf::from));
    Ok(files)
}

fn contents(tree: &Path, files: impl IntoIterator<Item = PathBuf>) -> Result<Contents, BuildError> {
    let read = |file: PathBuf| match fs::read(tree.join(&file)) {
        Ok(content) => Ok((file, Some(content))),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok((file, None))
        }
        Err(error) => Err(BuildError::io("read", &tree.join(&file))(error)),
    };
    files.into_iter().map(read).collect()
}

/// Turns the error of `git apply` into one that names the hunk and the file, if it is about a hunk.
fn explain(patch: &Path, error: JobError) -> BuildError {
    let tail = match &error {
        // A full disk is not an error in the patch.
        JobError::Failed { tail, .. } if !says_disk_full(tail) => tail,
        _ => return BuildError::job("git apply")(error),
    };
    let patch = patch.to_owned();
    if let Some((file, line)) = failed_hunk(tail) {
        let text = fs::read_to_string(&patch).unwrap_or_default();
        let hunk = describe_hunk(&text, file, line);
        return PatchError::Hunk { hunk, line, file: file.to_owned(), patch }.into();
    }
    if tail.contains("No valid patches in input") {
        return PatchError::Empty { patch }.into();
    }
    let reasons: Vec<&str> = tail.lines().map(|line| line.trim_start_matches("error: ")).collect();
    PatchError::Refused { patch, reason: reasons.join("; ") }.into()
}

/// File and line of the first `error: patch failed: FILE:LINE`.
fn failed_hunk(output: &str) -> Option<(&str, usize)> {
    let place = output.lines().find_map(|line| line.strip_prefix("error: patch failed: "))?;
    let (file, line) = place.rsplit_once(':')?;
    Some((file, line.parse().ok()?))
}

/// Describes the hunk of a file that starts at a line: "hunk 2 of 3 (@@ -397,8 +397,8 @@ ...)".
fn describe_hunk(patch: &str, file: &str, line: usize) -> String {
    let hunks: Vec<&str> = patch
        .lines()
        .skip_while(|text| text.strip_prefix("--- a/") != Some(file))
        .skip(1)
        .take_while(|text| !text.starts_with("diff --git ") && !text.starts_with("--- a/"))
        .filter(|text| text.starts_with("@@ -"))
        .collect();
    let starts_there = |hunk: &&str| {
        let digits: String = hunk.trim_start_matches("@@ -").chars().take_while(char::is_ascii_digit).collect();
        digits.parse() == Ok(line)
    };
    match hunks.iter().position(starts_there) {
        Some(index) => format!("hunk {} of {} (`{}`)", index + 1, hunks.len(), hunks[index]),
        None => format!("the hunk for line {line}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "one\ntwo\nthree\nfour\nfive\nsix\nseven\neight\nnine\nten\neleven\ntwelve\n";

    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new() -> Tree {
            let folder = tempfile::tempdir().unwrap();
            fs::create_dir_all(folder.path().join("tree/d")).unwrap();
            fs::write(folder.path().join("tree/d/f"), FILE).unwrap();
            fs::hard_link(folder.path().join("tree/d/f"), folder.path().join("original")).unwrap();
            Tree(folder)
        }

        fn patch(&self, name: &str, text: &str) -> PathBuf {
            let path = self.0.path().join(name);
            fs::write(&path, text).unwrap();
            path
        }

        fn apply(&self, patches: &[PathBuf]) -> Result<String, String> {
            apply(&self.0.path().join("tree"), patches, &CancelToken::new())
                .map_err(|error| error.to_string().replace(&format!("{}/", self.0.path().display()), ""))?;
            Ok(fs::read_to_string(self.0.path().join("tree/d/f")).unwrap())
        }
    }

    #[test]
    fn a_series_applies_in_order_and_keeps_hard_linked_files() {
        let tree = Tree::new();
        let one = tree
            .patch("1.patch", "Subject: words\n---\n--- a/d/f\n+++ b/d/f\n@@ -1,3 +1,3 @@\n one\n-two\n+2\n three\n");
        let two = tree.patch("2.patch", "--- a/d/f\n+++ b/d/f\n@@ -1,3 +1,3 @@\n one\n-2\n+II\n three\n");
        assert!(tree.apply(&[one, two]).unwrap().starts_with("one\nII\nthree\n"));
        assert_eq!(fs::read_to_string(tree.0.path().join("original")).unwrap(), FILE);
    }

    #[test]
    fn a_patch_can_create_a_file() {
        let tree = Tree::new();
        let patch = tree.patch(
            "1.patch",
            "diff --git a/new b/new\nnew file mode 100644\n--- /dev/null\n+++ b/new\n@@ -0,0 +1 @@\n+x\n",
        );
        tree.apply(&[patch]).unwrap();
        assert_eq!(fs::read_to_string(tree.0.path().join("tree/new")).unwrap(), "x\n");
    }

    #[test]
    fn the_hunk_that_does_not_fit_is_named_and_nothing_is_changed() {
        let tree = Tree::new();
        let text = "diff --git a/d/f b/d/f\n--- a/d/f\n+++ b/d/f\n\
            @@ -1,3 +1,3 @@\n one\n-two\n+2\n three\n@@ -8,3 +8,3 @@ f\n eight\n-99\n+9\n ten\n";
        let error = tree.apply(&[tree.patch("1.patch", text)]).unwrap_err();
        insta::assert_snapshot!(error, @"1.patch does not apply: hunk 2 of 2 (`@@ -8,3 +8,3 @@ f`) does not fit d/f");
        assert_eq!(fs::read_to_string(tree.0.path().join("tree/d/f")).unwrap(), FILE);
    }

    #[test]
    fn a_patch_for_a_file_that_is_not_there_is_refused() {
        let tree = Tree::new();
        let text = "--- a/gone\n+++ b/gone\n@@ -1,3 +1,3 @@\n one\n-two\n+2\n three\n";
        insta::assert_snapshot!(tree.apply(&[tree.patch("1.patch", text)]).unwrap_err(), @"1.patch does not apply: gone: No such file or directory");
    }

    #[test]
    fn a_patch_that_changes_nothing_is_refused() {
        let tree = Tree::new();
        insta::assert_snapshot!(tree.apply(&[tree.patch("1.patch", "Subject: nothing\n")]).unwrap_err(), @"1.patch changes nothing");
        let same = "--- a/d/f\n+++ b/d/f\n@@ -1,3 +1,3 @@\n one\n-two\n+two\n three\n";
        insta::assert_snapshot!(tree.apply(&[tree.patch("2.patch", same)]).unwrap_err(), @"2.patch changes nothing");
    }

    #[test]
    fn a_series_that_undoes_itself_is_refused() {
        let tree = Tree::new();
        let there = tree.patch("there.patch", "--- a/d/f\n+++ b/d/f\n@@ -1,3 +1,3 @@\n one\n-two\n+2\n three\n");
        let back = tree.patch("back.patch", "--- a/d/f\n+++ b/d/f\n@@ -1,3 +1,3 @@\n one\n-2\n+two\n three\n");
        insta::assert_snapshot!(tree.apply(&[there, back]).unwrap_err(), @"the patches together change nothing: there.patch, back.patch");
    }

    #[test]
    fn a_tree_inside_a_repository_is_patched_too() {
        let tree = Tree::new();
        Job::new("git").args(["init", "-q"]).within(tree.0.path()).run(&CancelToken::new()).unwrap();
        let one = tree.patch("1.patch", "--- a/d/f\n+++ b/d/f\n@@ -1,3 +1,3 @@\n one\n-two\n+2\n three\n");
        assert!(tree.apply(&[one]).unwrap().starts_with("one\n2\n"));
    }
}
