//! The layers of ARCHITECTURE.md: which crate may use which, which room of `harness` may use which, and that no two
//! modules of a crate use each other.
//!
//! Without a check, layers erode after a few changes. The tests parse the sources with the crate `syn`: `use` lines,
//! paths in the code, and paths within macros. Code for tests does not count.

mod cycles;
mod paths;
mod rules;

use std::path::{Path, PathBuf};

use paths::Use;
use rules::{CRATES, ROOMS};

/// The top of the workspace.
fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All that the sources of a crate use.
fn uses_of(folder: &str) -> Vec<Use> {
    let uses = paths::read(&top().join(folder).join("src"), folder).unwrap_or_else(|error| panic!("{error}"));
    assert!(!uses.is_empty(), "no source in {folder}/src uses anything: was it read?");
    uses
}

fn fail_if_any(broken: Vec<String>) {
    assert!(broken.is_empty(), "{} violations of the layers in ARCHITECTURE.md:\n{}", broken.len(), broken.join("\n"));
}

#[test]
fn a_crate_uses_only_crates_below_it() {
    let broken = CRATES.iter().enumerate().flat_map(|(rank, (name, folder))| {
        let above = &CRATES[rank + 1..];
        let wrong = move |used: &Use| above.iter().any(|(other, _)| used.path[0] == *other);
        uses_of(folder).into_iter().filter(wrong).map(move |used| format!("{used}, which is above {name}"))
    });
    fail_if_any(broken.collect());
}

#[test]
fn a_room_of_the_harness_uses_only_what_it_may_know() {
    fail_if_any(rules::broken_rooms(&uses_of("harness")));
}

#[test]
fn every_room_has_a_rule_and_the_rules_have_no_cycle() {
    let mut rooms: Vec<_> = std::fs::read_dir(top().join("harness/src"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .filter(|name| name != "lib")
        .collect();
    rooms.sort();
    let mut ruled: Vec<_> = ROOMS.iter().map(|(room, _)| (*room).to_owned()).collect();
    ruled.sort();
    assert_eq!(rooms, ruled, "the rooms in harness/src and in xtask/tests/layers/rules.rs differ");
    for (index, (room, may_use)) in ROOMS.iter().enumerate() {
        for used in *may_use {
            let below = ROOMS[..index].iter().any(|(other, _)| other == used);
            assert!(below, "{room} may use {used}, which does not come before it");
        }
    }
}

#[test]
fn the_table_in_the_page_equals_the_rules() {
    let page = std::fs::read_to_string(top().join("ARCHITECTURE.md")).unwrap();
    for (room, may_use) in ROOMS {
        let line = page.lines().find(|line| rows(room).iter().any(|row| line.starts_with(row)));
        let line = line.unwrap_or_else(|| panic!("ARCHITECTURE.md has no row for `{room}`"));
        let in_page = line.rsplit('|').nth(1).unwrap_or_default().trim();
        let rule = if may_use.is_empty() { "nothing".to_owned() } else { may_use.join(", ") };
        assert_eq!(
            in_page, rule,
            "what `{room}` may use differs between ARCHITECTURE.md and xtask/tests/layers/rules.rs"
        );
    }
}

/// How the row of a room begins: a folder or a single file.
fn rows(room: &str) -> [String; 2] {
    [format!("| `{room}/` |"), format!("| `{room}` |")]
}

#[test]
fn no_two_modules_of_a_crate_use_each_other() {
    fail_if_any(CRATES.iter().flat_map(|(name, folder)| cycles::among(name, &uses_of(folder))).collect());
}

#[test]
fn the_harness_names_no_scenario() {
    let scenarios = scenarios::all();
    // A name of one word may mean something else, so it counts only together with its family.
    let short =
        scenarios.iter().filter_map(|scenario| scenario.name.split("::").nth(1)).filter(|name| name.contains('_'));
    let names: Vec<_> = scenarios.iter().map(|scenario| scenario.name).chain(short).collect();
    let literals = paths::literals(&top().join("harness/src"), "harness").unwrap_or_else(|error| panic!("{error}"));
    let naming = literals.into_iter().filter(|(_, text)| names.iter().any(|name| text.contains(name)));
    fail_if_any(naming.map(|(place, text)| format!("{place}: {text:?} names a scenario")).collect());
}

#[test]
fn a_use_that_breaks_a_layer_is_found() {
    let uses = |file: &str, code: &str| paths::of_source("harness", Path::new(file), code).unwrap();
    let broken = |file: &str, code: &str| rules::broken_rooms(&uses(file, code));
    let in_vm = broken("vm/agent.rs", "use std::fmt;\nuse crate::{cell::CellId, guest::{Guest, Pf}};\n");
    assert_eq!(in_vm.len(), 3, "{in_vm:?}");
    assert!(in_vm[1].starts_with("harness/src/vm/agent.rs:2: ") && in_vm[1].contains("guest"), "{in_vm:?}");
    assert_eq!(broken("guest/sriov.rs", "fn f() -> super::super::lab::Lab { crate::matrix::run!() }").len(), 2);
    assert_eq!(broken("report/mod.rs", "fn f() { println!(\"{}\", crate::vm::x()) }").len(), 1);
    assert!(broken("report/mod.rs", "use crate::verdict::Verdict;\nuse super::evidence::Run;").is_empty());
    assert!(broken("report/mod.rs", "#[cfg(test)]\nmod tests { use crate::vm::Vm; }").is_empty());
    assert!(broken("vm/mod.rs", "mod a { use super::super::guest::Guest; }").len() == 1);
}

#[test]
fn a_cycle_is_found_with_a_source_line_for_each_use() {
    let uses = |file: &str, code: &str| paths::of_source("kernels", Path::new(file), code).unwrap();
    let there = uses("a.rs", "use crate::b::B;");
    let back = uses("b/mod.rs", "use crate::c;");
    let round = uses("c.rs", "\nuse crate::a::A;");
    assert!(cycles::among("kernels", &[there.clone(), back.clone()].concat()).is_empty());
    let found = cycles::among("kernels", &[there, back, round].concat());
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(["a.rs:1", "b/mod.rs:1", "c.rs:2"].iter().all(|place| found[0].contains(place)), "{found:?}");
    // An item that the top of the crate re-exports belongs to its module.
    let top = uses("lib.rs", "pub use a::{A, Other};");
    let round = uses("b.rs", "use crate::A;");
    let found = cycles::among("kernels", &[top, uses("a.rs", "use crate::b::B;"), round].concat());
    assert_eq!(found.len(), 1, "{found:?}");
}
