//! The commands that take a script, and the shell, with real kernels in guests.
//!
//! Kernels that are not in the user's cache are built. They are `stock` and `revert-only`, which the tests of all cells need,
//! too: the patch that is tested as a series is that of `revert-only`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The bug of this script is fixed by [`PATCH`].
const SCRIPT: &str = "scenarios/scripts/owner_reads.sh";
/// A line of it.
const LINE: &str = "iov own $PF --on-request 'cat $SYSFS/sriov_numvfs' --release";
const PATCH: &str = "kernels/patches/numvfs-show-without-lock.patch";

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What a command with a script prints, which must end as expected.
fn answer(words: &[&str]) -> String {
    answer_to("", &[words, &["--script", SCRIPT]].concat())
}

/// The same of any command, with what is typed. Its evidence goes into a folder that is then removed.
fn answer_to(typed: &str, words: &[&str]) -> String {
    let out = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args(words).arg("--out").arg(out.path()).current_dir(workspace());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let (answer, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{answer}\n{said}");
    answer.into_owned()
}

#[test]
fn a_script_fails_in_the_way_of_its_bug() {
    let answer = answer(&["run", "--kernel", "stock", "--trigger", "yank"]);
    assert!(answer.contains("verdict:  fail") && answer.contains("held by irq/"), "{answer}");
    assert!(answer.contains("expected: yes"), "{answer}");
}

#[test]
fn a_series_fixes_a_script() {
    let answer = answer(&["series", PATCH, "--base", "6.12", "--triggers", "yank"]);
    assert!(answer.contains("fixed") && answer.contains("script::owner_reads"), "{answer}");
    assert!(answer.contains(LINE), "the script is not quoted in {answer}");
}

#[test]
fn a_bisection_over_a_series_finds_the_patch_that_fixes_a_script() {
    let over = ["bisect", "--series", PATCH, "--base", "6.12", "--reverse", "--trigger", "yank", "--restart"];
    let answer = answer(&over);
    assert!(answer.starts_with("patch-1 is the first fixed patch of the series"), "{answer}");
    assert!(answer.contains("deadlock at sriov_numvfs_show") && answer.contains(LINE), "{answer}");
}

#[test]
fn a_shell_runs_what_is_typed() {
    let answer = answer_to("echo the PF is $(iov pf)\nexit\n", &["shell", "--kernel", "stock"]);
    assert!(answer.contains("the PF is 0000:01:00.0"), "{answer}");
}

#[test]
fn the_guest_of_a_scenario_that_failed_is_kept_and_its_verdict_stays() {
    let words = ["run", "owner_rescans_on_removal", "--kernel", "stock", "--trigger", "yank", "--quiet"];
    // The kernel panics after the verdict.
    let typed = "echo waiting: $(cat /proc/[0-9]*/wchan)\necho c > /proc/sysrq-trigger\n";
    let answer = answer_to(typed, &[&words[..], &["--keep-on-failure"]].concat());
    let waiting = answer.lines().any(|line| line.contains("waiting: ") && line.contains("sriov_numvfs_show"));
    assert!(waiting, "{answer}");
    assert!(answer.contains("verdict:  fail") && answer.contains("expected: yes"), "{answer}");
}
