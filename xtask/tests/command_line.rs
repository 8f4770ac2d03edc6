//! What the command line prints when something is wrong.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use kernels::cache::{Cache, KeyMaker};
use kernels::{Manifest, Source};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

fn xtask(cache: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args(arguments).env("IOV_REGRESS_CACHE", cache).stdin(Stdio::null());
    command
}

/// The text on stderr of a command that must end with exit code 2.
fn error_of(output: Output) -> String {
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{message}");
    message
}

#[test]
fn unknown_names_are_usage_errors_with_the_nearest_known_name() {
    let cache = tempfile::tempdir().unwrap();
    for (option, wrong, near) in
        [("--kernels", "stok", "stock"), ("--scenarios", "pf_uevnt", "pf_uevent"), ("--triggers", "yankk", "yank")]
    {
        let message = error_of(xtask(cache.path(), &["run-matrix", option, wrong]).output().unwrap());
        assert!(message.contains(wrong) && message.contains(&format!("{near}`?")), "{message}");
    }
}

#[test]
fn without_qemu_nothing_is_built_and_the_error_names_the_fix() {
    let cache = tempfile::tempdir().unwrap();
    let out = cache.path().join("out");
    for command in [
        &["run-matrix", "--out", out.to_str().unwrap()][..],
        &["run", "pf_uevent", "-k", "stock", "--out", out.to_str().unwrap()],
    ] {
        let message = error_of(xtask(cache.path(), command).env("IOV_REGRESS_QEMU", "/no/such/qemu").output().unwrap());
        assert!(message.contains("/no/such/qemu") && message.contains("correct IOV_REGRESS_QEMU"), "{message}");
        assert!(!out.exists() && !cache.path().join("images").exists(), "it did not stop: {message}");
    }
}

#[test]
fn an_unwritable_cache_is_reported_once() {
    // Root can write anywhere but into /proc.
    let message = error_of(xtask(Path::new("/proc/no-cache"), &["run-matrix", "--kernels", "stock"]).output().unwrap());
    assert!(message.contains("/proc/no-cache") && message.matches("os error").count() == 1, "{message}");
}

#[test]
fn a_run_without_coverage_says_how_to_make_one_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().to_str().unwrap();
    let error = || error_of(xtask(folder.path(), &["coverage", run]).output().unwrap());
    assert!(error().contains("cannot find a run: "), "{}", error());
    std::fs::write(folder.path().join("run.json"), "{}").unwrap();
    assert!(error().contains("without coverage; `cargo xtask run-matrix --coverage`"), "{}", error());
    std::fs::create_dir(folder.path().join("coverage")).unwrap();
    assert!(error().contains("it is not known of any cell what it executed"), "{}", error());
}

#[test]
fn coverage_on_kvm_is_a_usage_error() {
    let cache = tempfile::tempdir().unwrap();
    let message = error_of(xtask(cache.path(), &["run-matrix", "--coverage", "--accel", "kvm"]).output().unwrap());
    assert!(message.contains("--coverage and --accel kvm exclude each other"), "{message}");
}

#[test]
fn an_error_in_a_bisect_step_is_never_reported_as_a_bad_commit() {
    let cache = tempfile::tempdir().unwrap();
    let nowhere = cache.path().to_str().unwrap();
    let own = tempfile::tempdir().unwrap();
    assert!(Command::new("git").args(["init", "--quiet"]).current_dir(own.path()).status().unwrap().success());
    let own = own.path().to_str().unwrap();
    for (arguments, why) in [
        (&["--no-such-option"][..], "unexpected argument"),
        (&["no-such-scenario", "--tree", own], "there is no scenario `no-such-scenario`"),
        (&["owner_rescans_on_removal", "--tree", own], "one cell judges a commit"),
        (&["pf_uevent", "--trigger", "yak", "--tree", own], "'yank'"),
        (&["pf_uevent", "--failure", "hang"], "`hang` is no kind of failure"),
        (&["pf_uevent", "--tree", nowhere], "is not in a git repository"),
        (&["pf_uevent", "--tree", own], "HEAD"),
    ] {
        let output = xtask(cache.path(), &[&["bisect-step"], arguments].concat()).output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(128), "{arguments:?}: {message}");
        assert!(message.contains(why), "{arguments:?}: {message}");
    }
}

#[test]
fn an_impossible_bisection_is_refused_before_anything_is_built() {
    let cache = tempfile::tempdir().unwrap();
    let own = tempfile::tempdir().unwrap();
    for words in [&["init", "--quiet"][..], &["commit", "--quiet", "--allow-empty", "-m", "nothing"]] {
        let mut git = Command::new("git");
        git.args(["-c", "user.name=n", "-c", "user.email=n@example.org"]).args(words).current_dir(own.path());
        assert!(git.status().unwrap().success());
    }
    let (nowhere, own) = (cache.path().to_str().unwrap(), own.path().to_str().unwrap());
    for (tree, good, wanted) in [
        (nowhere, "HEAD", "not in a git repository"),
        (own, "no-such-revision", "no-such-revision"),
        (own, "HEAD", "no Linux"),
    ] {
        let question = ["bisect", "--tree", tree, "--good", good, "--bad", "HEAD", "--scenario", "pf_uevent"];
        let message = error_of(xtask(cache.path(), &question).output().unwrap());
        assert!(message.contains(wanted), "{message}");
    }
    assert!(!cache.path().join("trees").exists() && !cache.path().join("bisect").exists());
}

#[test]
fn a_bisection_takes_two_revisions_or_a_series() {
    let cache = tempfile::tempdir().unwrap();
    let bisect = |arguments: &[&str]| {
        let words = [&["bisect", "--scenario", "pf_uevent"], arguments].concat();
        error_of(xtask(cache.path(), &words).output().unwrap())
    };
    for (arguments, wanted) in [
        (&[][..], "--tree <PATH>|--series <FILE>"),
        (&["--tree", "."], "--good <REV>"),
        (&["--series", "a.mbox", "--good", "HEAD"], "cannot be used with '--good <REV>'"),
        (&["--series", "a.mbox", "--", "drivers"], "cannot be used with"),
        (&["--tree", ".", "--good", "a", "--bad", "b", "--base", "c"], "cannot be used with"),
        (&["--series", "a.mbox", "--3way"], "--tree <PATH>"),
        (&["--series", "/no/such.mbox"], "/no/such.mbox"),
    ] {
        let message = bisect(arguments);
        assert!(message.contains(wanted), "{arguments:?}: {message}");
    }
    assert!(!cache.path().join("trees").exists());
}

#[test]
fn the_catalogue_of_bugs_is_up_to_date() {
    let cache = tempfile::tempdir().unwrap();
    let check = xtask(cache.path(), &["catalogue", "--check"]).output().unwrap();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
}

#[test]
fn a_log_is_classified_from_a_file_and_from_stdin() {
    let folder = tempfile::tempdir().unwrap();
    let (bad, good) = (folder.path().join("bad.log"), folder.path().join("good.log"));
    std::fs::write(&bad, "Dec 22 19:30:00 host kernel: BUG: unable to handle page fault\n").unwrap();
    std::fs::write(&good, "[    1.000000] hello\n").unwrap();
    let ended = |arguments: &[&str]| {
        let output = xtask(folder.path(), arguments).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (bad, good) = (bad.to_str().unwrap(), good.to_str().unwrap());
    let (code, text) = ended(&["classify", good, bad]);
    assert_eq!(code, Some(1));
    assert_eq!(text.lines().next(), Some(&*format!("{good}: the kernel reported no fault")));
    let (code, json) = ended(&["classify", "--format", "json", bad]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(code, Some(1));
    assert_eq!(json["logs"][0]["splats"][0]["kind"], "oops");
    assert_eq!(json["logs"][0]["splats"][0]["severity"], "fatal");
    assert_eq!(ended(&["classify", good]).0, Some(0));
    let mut stdin = xtask(folder.path(), &["classify", "-"]);
    let output = stdin.stdin(std::fs::File::open(bad).unwrap()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    error_of(xtask(folder.path(), &["classify", "no.log"]).output().unwrap());
}

#[test]
fn bugs_are_listed_with_kernels_scenarios_and_measurements() {
    let cache = tempfile::tempdir().unwrap();
    let list = |arguments: &[&str]| {
        let output = xtask(cache.path(), arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let all = list(&["list", "--bugs"]);
    assert_eq!(all, list(&["list", "bugs"]));
    let bug = all.split("\n  nested-pciehp-subtree\n").nth(1).unwrap();
    for known in [
        "shows as: deadlock at pci_lock_rescan_remove (every time)\n",
        "kernels that have it: stock, stock-6.1, stock-7.3\n",
        "kernels without it: give-up-on-removed-port, give-up-on-removed-port-7.3\n",
        "nested_hotplug::button_below_removed_port, ",
        "last measured: stock ",
    ] {
        assert!(bug.contains(known), "{known:?} is not in: {bug}");
    }
}

/// A tree that looks like Linux, with two commits. The branch `stock` and the tag `v1` name the first one.
fn linux() -> TempDir {
    let tree = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(tree.path().join("scripts/kconfig")).unwrap();
    std::fs::write(tree.path().join("Kbuild"), "").unwrap();
    std::fs::write(tree.path().join("scripts/kconfig/conf.c"), "").unwrap();
    for words in [
        &["init", "--quiet", "-b", "stock"][..],
        &["add", "."],
        &["commit", "--quiet", "-m", "first"],
        &["tag", "v1"],
        &["checkout", "--quiet", "-b", "topic"],
        &["commit", "--quiet", "--allow-empty", "-m", "second"],
    ] {
        let mut git = Command::new("git");
        git.args(["-c", "user.name=n", "-c", "user.email=n@example.org"]).args(words).current_dir(tree.path());
        assert!(git.status().unwrap().success());
    }
    tree
}

/// Writes `results.json` of a run of these kernels into a folder.
fn results(folder: &Path, kernels: &[&str]) -> String {
    let cell = |kernel: &&str| {
        format!(
            r#"{{"scenario": "numvfs_events::pf_uevent", "variant": "{kernel}", "topology": "igb", "trigger": "none", "outcome": "pass"}}"#
        )
    };
    let cells: Vec<_> = kernels.iter().map(cell).collect();
    let path = folder.join("results.json");
    std::fs::write(&path, format!(r#"{{"cells": [{}]}}"#, cells.join(", "))).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A dry run of `pf_uevent` with `--against` and the like, started in a folder.
fn compared(folder: &Path, tree: &Path, arguments: &[&str]) -> Output {
    let cache = tempfile::tempdir().unwrap();
    let tree = tree.to_str().unwrap();
    let all = [&["run-matrix", "--dry-run", "--scenarios", "pf_uevent", "--tree", tree], arguments].concat();
    xtask(cache.path(), &all).current_dir(folder).output().unwrap()
}

#[test]
fn an_unknown_reference_is_reported_with_what_was_tried() {
    let (tree, folder) = (linux(), tempfile::tempdir().unwrap());
    let wrong = |arguments: &[&str]| error_of(compared(folder.path(), tree.path(), arguments));
    let message = wrong(&["--against", "stokc"]);
    for tried in ["no file and no folder stokc", "did you mean `stock`?", "no revision `stokc`"] {
        assert!(message.contains(tried), "{tried:?} is not in: {message}");
    }
    let one = results(folder.path(), &["base"]);
    for (reference, wanted) in [
        ("/no/such/results.json", "no file and no folder /no/such/results.json"),
        (&format!("{one}:other"), "no results for a kernel `other`; it has: base"),
        ("kernel:v1", "there is no kernel `v1`"),
        (folder.path().parent().unwrap().to_str().unwrap(), "is not the folder of a run"),
    ] {
        let message = wrong(&["--against", reference]);
        assert!(message.contains(wanted), "{reference}: {message}");
    }
    let of_another = std::fs::read_to_string(&one).unwrap().replace("pf_uevent", "of_old");
    std::fs::write(&one, of_another).unwrap();
    assert!(wrong(&["--against", "./"]).contains("has no verdict of base on any cell of this run"));
    let several = results(folder.path(), &["base", "topic"]);
    let message = wrong(&["--against", "./"]);
    assert!(message.contains(&format!("name one of them: {several}:base, {several}:topic")), "{message}");
    std::fs::write(&several, "{}").unwrap();
    assert!(wrong(&["--against", "results.json"]).contains("is not the results.json of a run"));
    let message = wrong(&["--rev", "v1", "--against", "v1"]);
    assert!(message.contains("v1 would be compared with itself"), "{message}");
    let message = wrong(&["--against", "v1", "--fail-fast"]);
    assert!(message.contains("cannot be used with '--fail-fast'"), "{message}");
}

#[test]
fn an_ambiguous_reference_is_reported_with_an_unambiguous_form_of_each() {
    let (tree, folder) = (linux(), tempfile::tempdir().unwrap());
    std::fs::create_dir(folder.path().join("stock")).unwrap();
    results(&folder.path().join("stock"), &["base"]);
    let message = error_of(compared(folder.path(), tree.path(), &["--against", "stock"]));
    let ways: Vec<_> =
        message.lines().filter_map(|line| line.trim().strip_prefix("--against ")?.split(' ').next()).collect();
    let [results, kernel, revision] = ways.as_slice() else { panic!("{message}") };
    assert_eq!((*results, *kernel), ("./stock", "kernel:stock"));
    for (way, name) in [(results, "base"), (kernel, "stock"), (revision, *revision)] {
        let output = compared(folder.path(), tree.path(), &["--against", way]);
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && message.contains(&format!("compared with {name}")), "{way}: {message}");
    }
}

#[test]
fn a_reference_kernel_runs_the_same_cells() {
    let (tree, folder) = (linux(), tempfile::tempdir().unwrap());
    // A folder without results of a run is no reference, whatever its name.
    std::fs::create_dir(folder.path().join("v1")).unwrap();
    let cells = |arguments: &[&str]| {
        let output = compared(folder.path(), tree.path(), &[&["--triggers", "none"], arguments].concat());
        let message = String::from_utf8(output.stdout).unwrap();
        let names = message.lines().filter(|line| line.contains("(expected: "));
        names.map(|line| line.split([' ', ':']).nth(8).unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(cells(&["--rev", "topic", "--against", "v1"]), ["v1", "topic"]);
    assert_eq!(cells(&["--rev", "topic", "--rev", "v1", "--against", "topic~1"]), ["v1", "topic"], "topic~1 is v1");
    assert_eq!(
        cells(&["--rev", "topic", "--rev", "stock", "--against", "kernel:stock"]),
        ["stock", "topic", "stock-own1"]
    );
    assert_eq!(cells(&["--rev", "topic", "--against", &results(folder.path(), &["base"])]), ["topic"]);
}

#[test]
fn the_parts_of_a_matrix_are_the_whole() {
    let cache = tempfile::tempdir().unwrap();
    let cells = |arguments: &[&str]| {
        let all = [&["run-matrix", "--dry-run", "--kernels", "stock,candidate", "--scenarios", "numvfs_*"], arguments]
            .concat();
        let output = xtask(cache.path(), &all).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let names = text.lines().filter(|line| line.contains("(expected: ")).map(str::to_owned);
        (names.collect::<Vec<_>>(), String::from_utf8(output.stderr).unwrap())
    };
    let (mut whole, _) = cells(&[]);
    whole.sort();
    for by in ["hash", "count"] {
        let parts = (1..=3).map(|part| cells(&["--partition", &format!("{by}:{part}/3")]));
        let (names, said): (Vec<_>, Vec<_>) = parts.unzip();
        let mut together = names.concat();
        together.sort();
        assert_eq!(together, whole, "{by}");
        let digest = |said: &String| said.lines().next().unwrap().rsplit(' ').next().unwrap().to_owned();
        assert!(said.iter().all(|line| digest(line) == digest(&said[0])), "{said:?}");
    }
    let message = error_of(xtask(cache.path(), &["run-matrix", "--partition", "hash:4/3"]).output().unwrap());
    assert!(message.contains("hash:2/4 is the second of four parts"), "{message}");
}

#[test]
fn the_jobs_of_a_plan_are_parts_of_a_run() {
    let folder = tempfile::tempdir().unwrap();
    let plan = folder.path().join("plan.json");
    let which = ["--kernels", "stock,candidate", "--scenarios", "numvfs_events::*"];
    let done = |arguments: &[&str]| {
        let output = xtask(folder.path(), &[arguments, &which[..]].concat()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let matrix = done(&["plan", "--parts", "2", "--format", "github", "--plan", plan.to_str().unwrap()]);
    let matrix: serde_json::Value = serde_json::from_str(&matrix).unwrap();
    let jobs = matrix["include"].as_array().unwrap();
    assert_eq!(jobs.len(), 2);
    for job in jobs {
        let part = done(&["run-matrix", "--dry-run", "--partition", job["partition"].as_str().unwrap()]);
        assert_eq!(part.matches("(expected: ").count() as u64, job["cells"].as_u64().unwrap());
    }
    let other =
        ["run-matrix", "--dry-run", "--kernels", "stock", "--partition", jobs[0]["partition"].as_str().unwrap()];
    let message = error_of(xtask(folder.path(), &other).output().unwrap());
    assert!(message.contains("select other cells than"), "{message}");
}

#[test]
fn what_is_no_part_is_not_merged() {
    let folder = tempfile::tempdir().unwrap();
    let (out, none) = (folder.path().join("out"), folder.path().join("none"));
    let merge = || {
        error_of(
            xtask(folder.path(), &["merge", none.to_str().unwrap(), "--out", out.to_str().unwrap()]).output().unwrap(),
        )
    };
    assert!(merge().contains(&format!("there is no run in {}", none.display())));
    std::fs::create_dir(&none).unwrap();
    std::fs::write(none.join("run.json"), "{}").unwrap();
    assert!(merge().contains("is no part: it was run without --partition"));
}

#[test]
fn a_shelf_that_cannot_be_used_is_a_warning_of_doctor() {
    let cache = tempfile::tempdir().unwrap();
    let output = xtask(cache.path(), &["doctor"]).env("IOV_REGRESS_SHELF", "file:///no/such/folder").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find(|line| line.contains("shelf")).unwrap_or_default();
    assert!(line.starts_with("warn") && line.contains("/no/such/folder"), "{text}");
}

/// Starts a run, which waits for a kernel source: this process holds the lock, as if it were fetching the source.
fn waiting_run(cache: &Path) -> Child {
    let mut run = xtask(cache, &["run-matrix", "--kernels", "stock"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(run.stderr.take().unwrap()).lines();
    let message: Vec<_> =
        lines.by_ref().map_while(Result::ok).take_while(|line| !line.contains("waiting for")).collect();
    assert!(run.try_wait().unwrap().is_none(), "it ended: {message:#?}");
    // Keep reading, so that the run does not block on a full pipe.
    std::thread::spawn(move || lines.for_each(drop));
    run
}

#[test]
fn a_run_that_waits_for_another_process_can_be_interrupted() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = Manifest::of_project().unwrap();
    let Source::Package(package) = &manifest.bases[0].source else { panic!("no package") };
    let key = KeyMaker::new().with("package", &package.name).finish();
    let _lock = Cache::at(folder.path()).lock(&format!("sources-{}", key.as_str()), || {}).unwrap();
    for signal in [Signal::INT, Signal::TERM] {
        let mut run = waiting_run(folder.path());
        let began = Instant::now();
        kill_process(Pid::from_child(&run), signal).unwrap();
        while run.try_wait().unwrap().is_none() {
            if began.elapsed() > Duration::from_secs(30) {
                run.kill().unwrap();
                run.wait().unwrap();
                panic!("{signal:?} did not end it");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(run.wait().unwrap().code(), Some(130));
    }
}
