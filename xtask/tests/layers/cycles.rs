//! Cycles: modules at the top of a crate that use each other, directly or through others.

use std::collections::{BTreeMap, BTreeSet};

use crate::paths::Use;

/// Each cycle among the modules at the top of a crate, with a source line for each use in it.
pub fn among(krate: &str, uses: &[Use]) -> Vec<String> {
    let modules: BTreeSet<&str> = uses.iter().filter_map(|used| Some(used.from.get(1)?.as_str())).collect();
    let mut arrows: BTreeMap<&str, BTreeMap<&str, &Use>> = BTreeMap::new();
    let reexported = reexports(&modules, uses);
    for used in uses.iter().filter(|used| used.path[0] == krate) {
        let (Some(from), Some(named)) = (used.from.get(1), used.path.get(1)) else { continue };
        let to = reexported.get(named.as_str()).copied().unwrap_or(named);
        if from != to && modules.contains(to) {
            arrows.entry(from).or_default().entry(to).or_insert(used);
        }
    }
    let mut reported = BTreeSet::new();
    let mut cycles = Vec::new();
    for module in &modules {
        if reported.contains(module) {
            continue;
        }
        if let Some(way) = way_back(&arrows, module) {
            reported.extend(way.iter().map(|used| used.from[1].as_str()));
            let lines: Vec<_> = way.iter().map(|used| format!("  {used}")).collect();
            cycles.push(format!("a cycle of modules in {krate}:\n{}", lines.join("\n")));
        }
    }
    cycles
}

/// The items of modules that the top of the crate re-exports (`pub use bug::Bug;` in `lib.rs`), with the module of
/// each.
fn reexports<'a>(modules: &BTreeSet<&str>, uses: &'a [Use]) -> BTreeMap<&'a str, &'a str> {
    let at_the_top = uses.iter().filter(|used| used.from.len() == 1 && modules.contains(used.path[0].as_str()));
    at_the_top.filter_map(|used| Some((used.path.last()?.as_str(), used.path[0].as_str()))).collect()
}

/// The shortest way from a module back to itself.
fn way_back<'a>(arrows: &BTreeMap<&'a str, BTreeMap<&'a str, &'a Use>>, start: &'a str) -> Option<Vec<&'a Use>> {
    let mut ways: Vec<(&str, Vec<&Use>)> = vec![(start, Vec::new())];
    let mut seen = BTreeSet::new();
    while !ways.is_empty() {
        let mut further = Vec::new();
        for (at, way) in ways {
            for (to, used) in arrows.get(at).into_iter().flatten() {
                let way = [way.as_slice(), &[*used]].concat();
                if *to == start {
                    return Some(way);
                }
                if seen.insert(*to) {
                    further.push((*to, way));
                }
            }
        }
        ways = further;
    }
    None
}
