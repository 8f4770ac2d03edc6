//! Finds the diff in the text of a mail, and checks it before `git apply` sees it.
//!
//! `git apply` skips lines that it does not know. Here, the diff is parsed by the line counts of its hunks, so that a
//! diff which a mail program wrapped or cut off is an error that says so.

use std::collections::BTreeSet;

use super::SeriesError;

/// A diff, without the text around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diff {
    /// The bytes that are applied.
    pub text: Vec<u8>,
    /// The files that it changes, in the order of the diff.
    pub files: Vec<FileDiff>,
}

/// The changes of a diff to one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileDiff {
    /// Its old path. None if the file is new.
    pub old: Option<String>,
    /// Its new path. None if the file is deleted.
    pub new: Option<String>,
    /// Its hunks.
    pub hunks: Vec<Hunk>,
}

/// One hunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hunk {
    /// Its `@@ -1,2 +1,3 @@ function` line.
    pub header: String,
    /// The line of the old file that its header names, from 1.
    pub start: usize,
    /// The lines that the old file must have, without their first character (space or `-`) and line end.
    pub wants: Vec<Vec<u8>>,
}

/// Why a diff is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Objection {
    /// Its text was damaged on the way.
    Damaged(String),
    /// It does something that no patch to a kernel needs to do, and that may do harm.
    Unsafe(String),
}

impl Objection {
    /// The error for a patch at this place, with this subject.
    pub(super) fn at(self, place: String, subject: &str) -> SeriesError {
        let subject = subject.to_owned();
        match self {
            Objection::Damaged(why) => SeriesError::Damaged { place, subject, why },
            Objection::Unsafe(why) => SeriesError::Unsafe { place, subject, why },
        }
    }
}

impl Diff {
    /// Finds the diff in the text of a mail. None if there is none.
    pub(super) fn find(text: &[u8]) -> Result<Option<Diff>, Objection> {
        let mut reader = Reader { lines: text.split_inclusive(|&byte| byte == b'\n').collect(), at: 0 };
        let mut diff = Diff { text: Vec::new(), files: Vec::new() };
        while reader.at < reader.lines.len() {
            if let Some((old, new)) = reader.names_of_git() {
                let begin = reader.at;
                let file = reader.file(FileDiff { old, new, hunks: Vec::new() })?;
                diff.add(file, &reader.lines[begin..reader.at]);
            } else if reader.is_plain_header() {
                let begin = reader.at;
                let file = reader.file(FileDiff::default())?;
                diff.add(file, &reader.lines[begin..reader.at]);
            } else {
                reader.belongs_nowhere(&diff)?;
                reader.at += 1;
            }
        }
        diff.files.iter().try_for_each(FileDiff::check)?;
        Ok((!diff.files.is_empty()).then_some(diff))
    }

    fn add(&mut self, file: FileDiff, lines: &[&[u8]]) {
        self.files.push(file);
        self.text.extend(lines.concat());
        // The last line of a mail may have no line end.
        if self.text.last().is_some_and(|&last| last != b'\n') {
            self.text.push(b'\n');
        }
    }

    /// The old and new paths that a patch touches. None if it has no diff that can be read.
    pub(crate) fn paths_of(patch: &[u8]) -> Option<BTreeSet<String>> {
        let diff = Diff::find(patch).ok()??;
        Some(diff.paths().into_iter().map(str::to_owned).collect())
    }

    /// The old and new paths that it touches.
    pub fn paths(&self) -> BTreeSet<&str> {
        self.files.iter().flat_map(|file| file.old.iter().chain(&file.new)).map(String::as_str).collect()
    }
}

impl FileDiff {
    /// Its path, for messages.
    pub fn path(&self) -> &str {
        self.new.as_deref().or(self.old.as_deref()).unwrap_or("a file without a name")
    }

    fn check(&self) -> Result<(), Objection> {
        self.old.iter().chain(&self.new).try_for_each(|path| match stays_inside(path) {
            true => Ok(()),
            false => {
                Err(Objection::Unsafe(format!("its path `{}` is no plain path within the tree", path.escape_debug())))
            }
        })
    }
}

/// Whether a path is that of a file in the tree, and has no characters that git would quote.
fn stays_inside(path: &str) -> bool {
    let is_plain =
        |part: &str| !part.is_empty() && part != "." && part != ".." && !part.to_ascii_lowercase().starts_with(".git/");
    let is_gits = |part: &str| part.eq_ignore_ascii_case(".git");
    path.split('/').all(|part| is_plain(part) && !is_gits(part)) && !path.contains(['"', '\\', '\0', '\r', '\n'])
}

struct Reader<'a> {
    lines: Vec<&'a [u8]>,
    at: usize,
}

impl Reader<'_> {
    /// A line as text, without its end. Only headers are compared with it, and they are ASCII.
    fn text(&self, at: usize) -> Option<String> {
        let line = self.lines.get(at)?;
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        Some(String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line)).into_owned())
    }

    /// The names in a line `diff --git a/OLD b/NEW`, if this is such a line. If the names differ, they are left open
    /// here, because the lines after it have them.
    fn names_of_git(&self) -> Option<(Option<String>, Option<String>)> {
        let line = self.text(self.at)?;
        let names = line.strip_prefix("diff --git ")?;
        let middle = names.len() / 2;
        let old = without_first_part(names.get(..middle).unwrap_or_default());
        let new = without_first_part(names.get(middle + 1..).unwrap_or_default());
        if old.is_some() && old == new { Some((old, new)) } else { Some((None, None)) }
    }

    /// Whether a diff begins here that was not made by git.
    fn is_plain_header(&self) -> bool {
        let begins = |at: usize, with: &str| self.text(self.at + at).is_some_and(|line| line.starts_with(with));
        begins(0, "--- ") && begins(1, "+++ ") && begins(2, "@@ -")
    }

    /// Fails if this line is the header of a hunk: the hunk before it ended too early, because a line was wrapped.
    fn belongs_nowhere(&self, diff: &Diff) -> Result<(), Objection> {
        let header = self.text(self.at).filter(|line| counts(line).is_some());
        match (header, diff.files.last()) {
            (Some(header), Some(file)) => {
                let why = "does not follow the one before it; was that wrapped by a mail program?";
                Err(Objection::Damaged(format!("the hunk `{header}` of {} {why}", file.path())))
            }
            _ => Ok(()),
        }
    }

    /// Reads the part of the diff for one file, from its first line.
    fn file(&mut self, mut file: FileDiff) -> Result<FileDiff, Objection> {
        if self.names_of_git().is_some() {
            self.at += 1;
            self.extended(&mut file)?;
        }
        let names = (self.text(self.at), self.text(self.at + 1));
        if let (Some(old), Some(new)) = names
            && let (Some(old), Some(new)) = (old.strip_prefix("--- "), new.strip_prefix("+++ "))
        {
            (file.old, file.new) = (name(old), name(new));
            self.at += 2;
            while let Some(header) = self.text(self.at).filter(|line| line.starts_with("@@ -")) {
                let number = file.hunks.len() + 1;
                let hunk = self.hunk(header);
                let damaged = |why| Objection::Damaged(format!("hunk {number} of {} {why}", file.path()));
                file.hunks.push(hunk.map_err(damaged)?);
            }
            if file.hunks.is_empty() {
                return Err(Objection::Damaged(format!("{} has no hunk", file.path())));
            }
        }
        if file.old.is_none() && file.new.is_none() {
            return Err(Objection::Damaged("it does not say which file it changes".to_owned()));
        }
        Ok(file)
    }

    /// Reads git's extended headers of a file, which come before its hunks.
    fn extended(&mut self, file: &mut FileDiff) -> Result<(), Objection> {
        const WORDS: &[&str] = &["index ", "old mode ", "similarity index ", "dissimilarity index "];
        while let Some(line) = self.text(self.at) {
            if let Some(name) = line.strip_prefix("rename from ").or_else(|| line.strip_prefix("copy from ")) {
                file.old = Some(name.to_owned());
            } else if let Some(name) = line.strip_prefix("rename to ").or_else(|| line.strip_prefix("copy to ")) {
                file.new = Some(name.to_owned());
            } else if let Some(mode) = line.strip_prefix("new file mode ").or_else(|| line.strip_prefix("new mode ")) {
                if !mode.starts_with("100") {
                    let what = format!("it makes {} a link or a submodule (mode {mode})", file.path());
                    return Err(Objection::Unsafe(what));
                }
                file.old = file.old.take().filter(|_| line.starts_with("new mode "));
            } else if line.starts_with("deleted file mode ") {
                file.new = None;
            } else if line.starts_with("GIT binary patch") || line.starts_with("Binary files ") {
                return Err(Objection::Unsafe(format!("it changes {}, a binary file", file.path())));
            } else if !WORDS.iter().any(|word| line.starts_with(word)) {
                break;
            }
            self.at += 1;
        }
        Ok(())
    }

    /// Reads a hunk, by the line counts in its header.
    fn hunk(&mut self, header: String) -> Result<Hunk, String> {
        let (start, mut old, mut new) = counts(&header).ok_or_else(|| format!("has a malformed header: `{header}`"))?;
        self.at += 1;
        let mut wants = Vec::new();
        while old > 0 || new > 0 {
            let Some(line) = self.lines.get(self.at) else {
                return Err(format!(
                    "(`{header}`) is cut off: {old} of its old lines and {new} of its new are missing"
                ));
            };
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            let (both, taken) = match line.split_first() {
                // Programs that remove spaces at the end of lines turn an unchanged empty line into this.
                None => (true, &[][..]),
                Some((b' ', rest)) => (true, rest),
                Some((b'-', rest)) if old > 0 => (false, rest),
                Some((b'+', _)) if new > 0 => {
                    new -= 1;
                    self.at += 1;
                    continue;
                }
                Some((b'\\', _)) => {
                    self.at += 1;
                    continue;
                }
                _ => return Err(self.breaks(&header)),
            };
            if old == 0 || (both && new == 0) {
                return Err(self.breaks(&header));
            }
            old -= 1;
            new -= usize::from(both);
            wants.push(taken.to_vec());
            self.at += 1;
        }
        if self.text(self.at).is_some_and(|line| line.starts_with('\\')) {
            self.at += 1;
        }
        let goes_on =
            |line: &String| line.starts_with(['+', ' ']) || (line.starts_with('-') && !line.starts_with("--"));
        if self.text(self.at).filter(goes_on).is_some() {
            return Err(format!("(`{header}`) has more lines than its header says"));
        }
        Ok(Hunk { header, start, wants })
    }

    /// The error for a line that does not belong into a hunk.
    fn breaks(&self, header: &str) -> String {
        let line = self.text(self.at).unwrap_or_default();
        let shown: String = line.chars().take(60).collect();
        format!("(`{header}`) breaks off at the line `{shown}`; was it wrapped by a mail program?")
    }
}

/// The first old line, and the counts of old and new lines, of `@@ -1,2 +3,4 @@`.
fn counts(header: &str) -> Option<(usize, usize, usize)> {
    let (ranges, _) = header.strip_prefix("@@ -")?.split_once(" @@")?;
    let (old, new) = ranges.split_once(" +")?;
    let range = |text: &str| -> Option<(usize, usize)> {
        match text.split_once(',') {
            Some((start, count)) => Some((start.parse().ok()?, count.parse().ok()?)),
            None => Some((text.parse().ok()?, 1)),
        }
    };
    let ((start, old), (_, new)) = (range(old)?, range(new)?);
    Some((start, old, new))
}

/// The path in a `---` or `+++` line. None for `/dev/null`.
fn name(text: &str) -> Option<String> {
    let path = text.split('\t').next().unwrap_or(text).trim_end();
    if path == "/dev/null" { None } else { Some(without_first_part(path).unwrap_or_else(|| path.to_owned())) }
}

/// The path without its first part: `drivers/pci/iov.c` of `a/drivers/pci/iov.c`.
fn without_first_part(path: &str) -> Option<String> {
    let (first, rest) = path.split_once('/')?;
    (!first.is_empty() && !first.starts_with('"')).then(|| rest.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATCH: &str = "\
diff --git a/d/f b/d/f
index 1234567..89abcde 100644
--- a/d/f
+++ b/d/f
@@ -1,3 +1,3 @@ f()
 one
-two
+2
 three
@@ -8,2 +8,3 @@
 eight
+8.5
 nine
";

    fn find(text: &str) -> Option<Diff> {
        Diff::find(text.as_bytes()).unwrap()
    }

    fn objection(text: &str) -> String {
        match Diff::find(text.as_bytes()).unwrap_err() {
            Objection::Damaged(why) => format!("damaged: {why}"),
            Objection::Unsafe(why) => format!("unsafe: {why}"),
        }
    }

    #[test]
    fn a_diff_is_found_in_the_text_of_a_mail() {
        let mail = format!("Words.\n---\n d/f | 2 +-\n\n{PATCH}-- \n2.47.0\n\nbase-commit: 12\n");
        let diff = find(&mail).unwrap();
        assert_eq!(diff.text, PATCH.as_bytes());
        let [file] = &diff.files[..] else { panic!("{diff:?}") };
        assert_eq!((file.path(), file.hunks.len(), file.hunks[1].start), ("d/f", 2, 8));
        assert_eq!(file.hunks[0].wants, [&b"one"[..], b"two", b"three"]);
        assert_eq!(find("Words, and\n--- more words\nof them\n"), None);
        assert_eq!(find("> diff --git a/f b/f\n> --- a/f\n> +++ b/f\n"), None);
    }

    #[test]
    fn created_deleted_and_renamed_files_are_read() {
        let text = "\
diff --git a/new b/new
new file mode 100644
--- /dev/null
+++ b/new
@@ -0,0 +1 @@
+x
diff --git a/old b/old
deleted file mode 100644
--- a/old
+++ /dev/null
@@ -1 +0,0 @@
-x
\\ No newline at end of file
--- linux-6.12/plain.c\t2024-01-01
+++ linux/plain.c\t2024-01-02
@@ -1 +1 @@
-x
+y
diff --git a/from/a b/to/bc
similarity index 100%
rename from from/a
rename to to/bc
";
        let diff = find(text).unwrap();
        assert_eq!(diff.text, text.as_bytes());
        let names: Vec<_> = diff.files.iter().map(|file| (file.old.as_deref(), file.new.as_deref())).collect();
        assert_eq!(
            names,
            [
                (None, Some("new")),
                (Some("old"), None),
                (Some("plain.c"), Some("plain.c")),
                (Some("from/a"), Some("to/bc"))
            ]
        );
    }

    #[test]
    fn a_damaged_diff_is_refused() {
        let wrapped = PATCH.replace(" three\n", " th\nree\n");
        insta::assert_snapshot!(objection(&wrapped), @"damaged: the hunk `@@ -8,2 +8,3 @@` of d/f does not follow the one before it; was that wrapped by a mail program?");
        let cut = PATCH.replace(" nine\n", "");
        insta::assert_snapshot!(objection(&cut), @"damaged: hunk 2 of d/f (`@@ -8,2 +8,3 @@`) is cut off: 1 of its old lines and 1 of its new are missing");
        let longer = PATCH.replace("+2\n", "+2\n+3\n");
        insta::assert_snapshot!(objection(&longer), @"damaged: hunk 1 of d/f (`@@ -1,3 +1,3 @@ f()`) breaks off at the line ` three`; was it wrapped by a mail program?");
        let odd = PATCH.replace("-1,3", "-1;3");
        insta::assert_snapshot!(objection(&odd), @"damaged: hunk 1 of d/f has a malformed header: `@@ -1;3 +1,3 @@ f()`");
        insta::assert_snapshot!(objection("diff --git a/d/f b/d/f\n--- a/d/f\n+++ b/d/f\n"), @"damaged: d/f has no hunk");
        insta::assert_snapshot!(objection(&PATCH.replace("-two\n", "two\n")), @"damaged: hunk 1 of d/f (`@@ -1,3 +1,3 @@ f()`) breaks off at the line `two`; was it wrapped by a mail program?");
    }

    #[test]
    fn paths_that_lead_out_of_the_tree_are_refused() {
        for path in
            ["../../etc/passwd", "d/../../f", "/etc/passwd", ".git/hooks/post-checkout", "d/.GIT/config", "a//f"]
        {
            let told = objection(&PATCH.replace("d/f", path));
            assert!(told.starts_with("unsafe: its path `"), "{path}: {told}");
        }
        let quoted = PATCH.replace("a/d/f", "\"a/\\056\\056/f\"").replace("b/d/f", "\"b/\\056\\056/f\"");
        assert!(objection(&quoted).starts_with("unsafe: "), "{}", objection(&quoted));
        let link = "diff --git a/l b/l\nnew file mode 120000\n--- /dev/null\n+++ b/l\n@@ -0,0 +1 @@\n+/etc\n";
        insta::assert_snapshot!(objection(link), @"unsafe: it makes l a link or a submodule (mode 120000)");
        let moved = "diff --git a/f b/../f\nsimilarity index 100%\nrename from f\nrename to ../f\n";
        assert!(objection(moved).starts_with("unsafe: "));
    }
}
