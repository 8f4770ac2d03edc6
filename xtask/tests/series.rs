//! `cargo xtask series` with invalid input: each gives a clear error, and nothing is built or run.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

fn change(file: &str) -> String {
    format!("words\n---\ndiff --git a/{file} b/{file}\n--- a/{file}\n+++ b/{file}\n@@ -1 +1 @@\n-a\n+b\n")
}

fn mail(subject: &str, kind: &str, text: &str) -> String {
    format!("From a@z Thu Jan  1 00:00:00 1970\nSubject: {subject}\nContent-Type: {kind}\n\n{text}\n")
}

/// The text on stderr for an mbox on stdin, and the exit code. The cache is empty, and must stay empty.
fn series(mbox: &str, arguments: &[&str]) -> (String, Option<i32>) {
    let folder = tempfile::tempdir().unwrap();
    let (cache, out) = (folder.path().join("cache"), folder.path().join("out"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args(["series", "-", "--out"]).arg(&out).args(arguments).env("IOV_REGRESS_CACHE", &cache);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A command that ends before it reads stdin closes it: the write may fail.
    let _ = child.stdin.take().unwrap().write_all(mbox.as_bytes());
    let output = child.wait_with_output().unwrap();
    let is_empty = |path: &Path| fs::read_dir(path).map_or(true, |mut entries| entries.next().is_none());
    assert!(is_empty(&cache) && is_empty(&out), "something was built or run");
    (String::from_utf8_lossy(&output.stderr).into_owned(), output.status.code())
}

#[test]
fn invalid_input_is_reported_and_nothing_is_done() {
    let plain = "text/plain";
    let outside = mail("[PATCH] PCI: a", plain, &change("../../etc/passwd"));
    let of_two = mail("[PATCH v3 2/2] PCI: b", plain, &change("drivers/pci/iov.c"));
    for (mbox, wanted) in [
        (String::new(), "stdin holds nothing"),
        (mail("Hello", plain, "words"), "no patch in 1 mail"),
        (mail("[PATCH] drm: a", plain, &change("drivers/gpu/drm/a.c")), "--force runs them anyway"),
        (mail("[PATCH] PCI: a", "text/html", "<pre>--- a/f</pre>"), "is HTML only"),
        (outside, "is refused: its path `../../etc/passwd` is no plain path within the tree"),
        (of_two, "there is no patch 1 of 2"),
    ] {
        let (message, code) = series(&mbox, &[]);
        assert!(message.starts_with("error: ") && message.contains(wanted), "{mbox}\n{message}");
        assert_eq!(code, Some(2), "{message}");
    }
}

#[test]
fn an_unknown_base_is_reported_with_the_options_for_a_revision() {
    let mbox = mail("[PATCH] PCI: a", "text/plain", &change("drivers/pci/iov.c"));
    let (message, code) = series(&mbox, &["--base", "v6.13"]);
    assert!(message.contains("--tree PATH --base v6.13"), "{message}");
    assert_eq!(code, Some(2));
    let (message, code) = series(&mbox, &["--tree", "/nonexistent"]);
    assert!(message.contains("/nonexistent"), "{message}");
    assert_eq!(code, Some(2));
}

#[test]
fn running_a_kernel_of_a_series_needs_its_patches_and_a_kernel_name() {
    let folder = tempfile::tempdir().unwrap();
    let run = |patches: &Path, arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command.args(["run", "owner_rescans_on_removal", "--trigger", "yank", "--series"]).arg(patches).args(arguments);
        let output = command.env("IOV_REGRESS_CACHE", folder.path().join("cache")).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let patches = folder.path().join("patches");
    let gone = run(&patches, &["--kernel", "patch-1"]);
    assert!(gone.contains("the folder `patches` of a run of `cargo xtask series`"), "{gone}");
    fs::create_dir(&patches).unwrap();
    assert!(run(&patches, &["--kernel", "patch-1"]).contains("there is no *.patch in"));
    fs::write(patches.join("0001-a.patch"), change("drivers/pci/iov.c")).unwrap();
    let beyond = run(&patches, &["--kernel", "patch-2"]);
    assert!(beyond.contains("there is no kernel `patch-2`; did you mean `patch-1`?"), "{beyond}");
    let base = run(&patches, &["--kernel", "patch-1", "--base", "6.13"]);
    assert!(base.contains("--tree PATH --base 6.13"), "{base}");
    assert!(run(&patches, &[]).contains("--kernel <VARIANT>"));
}

#[test]
fn a_series_that_a_revision_has_already_is_named_with_the_revision_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let script = "git init -q -b main linux; cd linux; mkdir -p scripts/kconfig drivers/pci; echo a > drivers/pci/iov.c; \
                  touch Kbuild scripts/kconfig/conf.c; git add .; \
                  commit() { git -c user.name=n -c user.email=n@example.org commit -qam \"$1\"; }; commit first; \
                  echo b > drivers/pci/iov.c; commit 'PCI: a'; echo c > Kbuild; commit last; git rev-parse --short=12 HEAD~1";
    let made = Command::new("sh").args(["-ec", script]).current_dir(folder.path()).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let merged = String::from_utf8(made.stdout).unwrap();
    let tree = folder.path().join("linux");
    let mbox = mail("[PATCH] PCI: a", "text/plain", &change("drivers/pci/iov.c"));
    let (message, code) = series(&mbox, &["--tree", tree.to_str().unwrap()]);
    assert!(message.contains("      already in "), "{message}");
    let advice = format!("already, so there is nothing to test; use --base {}~1, the parent", merged.trim());
    assert!(message.contains(&advice), "{message}");
    assert_eq!(code, Some(2));
}

#[test]
fn an_impossible_bisection_over_a_series_is_refused_before_anything_is_built() {
    let folder = tempfile::tempdir().unwrap();
    let script = "git init -q -b main linux; cd linux; mkdir -p scripts/kconfig drivers/pci; echo a > drivers/pci/iov.c; \
                  touch Kbuild scripts/kconfig/conf.c; git add .; \
                  git -c user.name=n -c user.email=n@example.org commit -qm first";
    assert!(Command::new("sh").args(["-ec", script]).current_dir(folder.path()).status().unwrap().success());
    let (tree, mbox, cache) = (folder.path().join("linux"), folder.path().join("mbox"), folder.path().join("cache"));
    let bisect = |change: String, arguments: &[&str]| {
        fs::write(&mbox, mail("[PATCH] PCI: a", "text/plain", &change)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command.args(["bisect", "--scenario", "owner_rescans_on_removal", "--trigger", "yank", "--series"]).arg(&mbox);
        command.arg("--tree").arg(&tree).args(arguments).env("IOV_REGRESS_CACHE", &cache).stdin(Stdio::null());
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(!cache.join("outputs").exists(), "something was built");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let fits = change("drivers/pci/iov.c");
    let misfit = bisect(fits.replace("\n-a\n", "\n-c\n"), &[]);
    assert!(misfit.contains("error: not all of it applies") && misfit.contains("--base REV"), "{misfit}");
    let skip = bisect(fits, &["--skip", "patch-2"]);
    assert!(skip.contains("--skip takes the number of a patch of the series (1), not `patch-2`"), "{skip}");
}
