//! A collection of logs that people have posted, each with what is right to say of it. It is no part of the project. The
//! test passes without it.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::classify::{Splat, classify};

/// `NAME.expect.toml`, beside `NAME.log`.
#[derive(Deserialize)]
struct Expected {
    splat: Vec<Right>,
}

/// What is right to say of a splat. What is missing does not matter.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Right {
    kind: String,
    function: Option<String>,
    #[serde(default)]
    also_right: Vec<String>,
    task: Option<String>,
    severity: String,
}

impl Right {
    /// Why a splat is not right.
    fn objections(&self, splat: &Splat) -> Vec<String> {
        let mut objections = Vec::new();
        let mut compare = |what: &str, seen: &str, right: &[&str]| {
            if !right.contains(&seen) {
                objections.push(format!("{what} {seen}, not {}", right.join(" or ")));
            }
        };
        compare("kind", splat.kind.name(), &[&self.kind]);
        compare("severity", splat.severity().name(), &[&self.severity]);
        if let Some(function) = &self.function {
            let right: Vec<_> = [function].into_iter().chain(&self.also_right).map(String::as_str).collect();
            compare("function", splat.function.as_deref().unwrap_or("none"), &right);
        }
        if let Some(task) = &self.task {
            compare("task", splat.task.as_deref().unwrap_or("none"), &[task]);
        }
        objections
    }
}

/// The collection: `IOV_REGRESS_LOGS`, or a folder beside the project.
fn collection() -> PathBuf {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/logs");
    std::env::var_os("IOV_REGRESS_LOGS").map_or_else(beside, PathBuf::from)
}

/// The logs of a folder, each with its expectations. A folder with `expect.toml` has one for all its logs.
fn logs(folder: &Path) -> Vec<(PathBuf, PathBuf)> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut logs = Vec::new();
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            logs.extend(self::logs(&path));
        } else if path.extension().is_some_and(|extension| extension == "log") {
            let common = folder.join("expect.toml");
            let own = path.with_extension("expect.toml");
            logs.push((path, if common.exists() { common } else { own }));
        }
    }
    logs.sort();
    logs
}

fn objections(log: &Path, expected: &Path) -> Vec<String> {
    let read = |path: &Path| std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let expected: Expected = toml::from_slice(&read(expected)).unwrap();
    let found = classify(&String::from_utf8_lossy(&read(log)));
    let mut objections = Vec::new();
    if found.len() != expected.splat.len() {
        let titles: Vec<_> = found.iter().map(|splat| splat.title.as_str()).collect();
        objections.push(format!("{} splats, not {}: {}", found.len(), expected.splat.len(), titles.join("; ")));
    }
    objections.extend(expected.splat.iter().zip(&found).flat_map(|(right, splat)| right.objections(splat)));
    objections
}

#[test]
fn each_log_of_the_collection_is_understood() {
    let wrong: Vec<_> = logs(&collection())
        .iter()
        .map(|(log, expected)| (log, objections(log, expected)))
        .filter(|(_, objections)| !objections.is_empty())
        .map(|(log, objections)| format!("{}: {}", log.display(), objections.join(", ")))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The test of the collection fails if something is not as it should be.
#[test]
fn what_is_not_right_is_objected_to() {
    let log = "BUG: kernel NULL pointer dereference, address: 0000000000000000\nRIP: 0010:f+0x1/0x2\n";
    let splat = &classify(log)[0];
    let right = |text: &str| toml::from_str::<Right>(text).unwrap().objections(splat);
    assert!(right("kind = 'oops'\nfunction = 'g'\nalso-right = ['f']\nseverity = 'fatal'").is_empty());
    assert_eq!(right("kind = 'bug'\nfunction = 'g'\ntask = 'a:1'\nseverity = 'witness'").len(), 4);
}
