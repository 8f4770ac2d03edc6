//! What the command line says about scripts. Nothing is built, and no guest runs.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn xtask(cache: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args(arguments).env("IOV_REGRESS_CACHE", cache).stdin(Stdio::null());
    command.output().unwrap()
}

/// The text on stderr of a command that must end with exit code 2.
fn error_of(output: &Output) -> String {
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{message}");
    message
}

#[test]
fn a_wrong_script_is_a_usage_error_that_names_what_is_wrong() {
    let cache = tempfile::tempdir().unwrap();
    let path = cache.path().join("repro.sh");
    let error = |text: &str, arguments: &[&str]| {
        fs::write(&path, text).unwrap();
        let given = [&["run", "--kernel", "stock", "--script", path.to_str().unwrap()], arguments].concat();
        error_of(&xtask(cache.path(), &given)).replace(&*cache.path().to_string_lossy(), "DIR")
    };
    assert!(error("#!/bin/bash\n", &[]).contains("DIR/repro.sh: its first line asks for /bin/bash"));
    assert!(
        error("# iov: triggers = yakn\n", &[]).contains("line 1: there is no trigger `yakn`; did you mean `yank`?")
    );
    let detects = error("# iov: detects = numvfs-show-bystandr\n", &[]);
    assert!(detects.contains("did you mean `numvfs-show-bystander`?"), "{detects}");
    assert!(error("", &["--file", "/no/such/file"]).contains("cannot read /no/such/file"));
    let several = error("# iov: triggers = yank, device-del\n", &[]);
    assert!(several.contains("script::repro::igb::yank::stock") && several.contains("--trigger"), "{several}");
    assert!(error("", &["owner_rescans_on_removal"]).contains("cannot be used with"));
    let plain = error_of(&xtask(cache.path(), &["run", "--kernel", "stock", "pf_uevent", "--file", "x"]));
    assert!(plain.contains("--file, --within and --root are for a script"), "{plain}");
}

#[test]
fn a_folder_of_scripts_is_planned_like_scenarios() {
    let cache = tempfile::tempdir().unwrap();
    let folder = cache.path().join("repros");
    fs::create_dir(&folder).unwrap();
    let head = "# iov: triggers = yank, device-del\n# iov: detects = numvfs-show-bystander\n";
    fs::write(folder.join("a.sh"), head).unwrap();
    fs::write(folder.join("b.sh"), "echo\n").unwrap();
    let arguments = ["run-matrix", "--dry-run", "--format", "json", "--kernels", "stock,candidate", "--script"];
    let output = xtask(cache.path(), &[&arguments[..], &[folder.to_str().unwrap()]].concat());
    let cells: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
    let words = cells.iter().map(|cell| {
        let id = &cell["cell"];
        format!("{} {} {} {}", id["scenario"], id["trigger"], id["variant"], cell["expected"]).replace('"', "")
    });
    insta::assert_snapshot!(words.collect::<Vec<_>>().join("\n"), @r"
    script::a yank stock fail
    script::a yank candidate pass
    script::a device-del stock fail
    script::a device-del candidate pass
    script::b null stock none
    script::b null candidate none
    ");
}
