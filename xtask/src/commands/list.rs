//! `cargo xtask list`: lists kernels, scenarios, triggers, bugs, profiles and cells.

use std::fmt;
use std::process::ExitCode;

use anyhow::Result;
use clap::ValueEnum;
use harness::cell::{CellId, PlannedCell};
use harness::lab::Lab;
use harness::matrix::plan::{Selection, plan};
use harness::report::{Entry, chance, measured_in};
use harness::scenario::Scenario;
use harness::trigger::Trigger;
use kernels::{Bug, Manifest, Profile, Variant};
use scenarios::proposals::PROPOSALS;
use serde_json::{Map, Value, json};

use super::catalogue;
use crate::out;
use crate::select::Format;

/// What to show.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask list
  cargo xtask list bugs
  cargo xtask list cells --all --format json

Builds and runs nothing.

Exit codes: 0 printed, 2 usage or infrastructure error.")]
pub struct Args {
    /// Print only this list [default: all lists]
    what: Option<What>,
    /// The same as `list bugs`
    #[arg(long, conflicts_with = "what")]
    bugs: bool,
    /// List the cells of every kernel with every scenario, not only those that `run-matrix` runs by default
    #[arg(long)]
    all: bool,
    /// How to print the lists
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Kernels, and the bugs that each has
    Kernels,
    /// Scenarios, and the bugs that each detects
    Scenarios,
    /// Triggers: the ways to remove a device
    Triggers,
    /// Bugs: how an affected kernel fails, which kernels are affected, which scenarios detect it, the last measurement
    Bugs,
    /// Profiles: other configurations of the kernels
    Profiles,
    /// Cells of `run-matrix`, and the expected result of each
    Cells,
}

/// Prints the lists.
pub fn run(args: Args) -> Result<ExitCode> {
    let lab = Lab::open(None)?;
    let (manifest, scenarios) = (lab.manifest(), scenarios::all());
    let cells =
        plan(manifest, &scenarios, &Selection { all: args.all, compared: Some(PROPOSALS), ..Selection::default() }, 1)?;
    let lists = [
        (What::Kernels, "kernels", kernels(manifest)),
        (What::Scenarios, "scenarios", scenarios.iter().map(scenario).collect()),
        (What::Triggers, "triggers", Trigger::ALL.iter().map(trigger).collect()),
        (What::Bugs, "bugs", bugs(manifest, &scenarios)?),
        (What::Profiles, "profiles", manifest.profiles.iter().map(profile).collect()),
        (What::Cells, "cells", cells.iter().map(cell).collect()),
    ];
    let only = if args.bugs { Some(What::Bugs) } else { args.what };
    let shown = lists.into_iter().filter(|(what, ..)| only.is_none_or(|only| only == *what));
    out::print(&match args.format {
        Format::Json => {
            let lists: Map<_, _> = shown
                .map(|(_, name, list)| (name.to_owned(), list.into_iter().map(|(_, json)| json).collect()))
                .collect();
            format!("{:#}", Value::Object(lists))
        }
        Format::Human => {
            let list = |(_, name, list): (_, &str, Vec<Shown>)| {
                let texts: String = list.into_iter().map(|(text, _)| text + "\n").collect();
                format!("{name}\n{texts}")
            };
            shown.map(list).collect::<Vec<_>>().join("\n")
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

/// One entry of a list: as text, and as JSON.
type Shown = (String, Value);

fn kernels(manifest: &Manifest) -> Vec<Shown> {
    let width = manifest.variants.iter().map(|variant| variant.name.len()).max().unwrap_or(0);
    let kernel = |variant: &Variant| {
        let Variant { name, about, base, bugs, .. } = variant;
        let text =
            format!("  {name:<width$} {about} (base {base})\n  {:<width$}   bugs: {}", "", bugs_of(variant, manifest));
        (text, json!({"name": name, "about": about, "base": base, "bugs": bugs}))
    };
    manifest.variants.iter().map(kernel).collect()
}

/// The bugs of a kernel. Those of a patched kernel are shown as a difference from its unpatched base, those of an
/// unpatched base as a difference from the first base.
fn bugs_of(variant: &Variant, manifest: &Manifest) -> String {
    let first = manifest.bases.first().and_then(|first| plain(&first.name, manifest));
    let reference = if variant.is_plain() { first } else { plain(&variant.base, manifest) };
    let Some(reference) = reference.filter(|reference| reference.name != variant.name) else {
        return if variant.bugs.is_empty() { "none known".to_owned() } else { variant.bugs.join(", ") };
    };
    let change = Change::between(reference, variant);
    let immune = manifest.base(&variant.base).map_or(&[][..], |base| &base.immune);
    match first.zip(twin(variant, manifest)) {
        Some((first, twin)) if Change::between(first, twin).on(reference, immune) == change => {
            format!("as {}, changed as {} is from {}", reference.name, twin.name, first.name)
        }
        _ if variant.is_plain() && !immune.is_empty() => {
            format!("as {}{change}; no patch brings {}", reference.name, immune.join(", "))
        }
        _ => format!("as {}{change}", reference.name),
    }
}

/// The unpatched kernel of a base.
fn plain<'a>(base: &str, manifest: &'a Manifest) -> Option<&'a Variant> {
    manifest.variants.iter().find(|variant| variant.base == base && variant.is_plain())
}

/// The kernel of the first base with the same patches, if this one has patches and another base. Its name is this one's
/// without the name of the base.
fn twin<'a>(variant: &Variant, manifest: &'a Manifest) -> Option<&'a Variant> {
    let first = manifest.bases.first().filter(|first| first.name != variant.base && !variant.is_plain())?;
    let name = variant.name.strip_suffix(&variant.base)?.strip_suffix('-')?;
    manifest.variants.iter().find(|twin| twin.base == first.name && twin.name == name)
}

/// The difference between the bugs of two kernels.
#[derive(PartialEq, Eq)]
struct Change<'a> {
    without: Vec<&'a str>,
    with: Vec<&'a str>,
}

impl<'a> Change<'a> {
    fn between(reference: &'a Variant, variant: &'a Variant) -> Change<'a> {
        let only = |one: &'a Variant, other: &Variant| {
            one.bugs.iter().filter(|bug| !other.bugs.contains(bug)).map(String::as_str).collect()
        };
        Change { without: only(reference, variant), with: only(variant, reference) }
    }

    /// The same change applied to another kernel, on which some bugs cannot occur.
    fn on(self, other: &Variant, immune: &[String]) -> Change<'a> {
        let is_in = |bugs: &[String], bug: &str| bugs.iter().any(|other| other == bug);
        let comes = |bug: &&str| !is_in(&other.bugs, bug) && !is_in(immune, bug);
        Change {
            without: self.without.into_iter().filter(|bug| is_in(&other.bugs, bug)).collect(),
            with: self.with.into_iter().filter(comes).collect(),
        }
    }
}

impl fmt::Display for Change<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [("without", &self.without), ("with", &self.with)];
        let shown = parts.into_iter().filter(|(_, bugs)| !bugs.is_empty());
        let shown: Vec<_> = shown.map(|(word, bugs)| format!("{word} {}", bugs.join(", "))).collect();
        if shown.is_empty() { Ok(()) } else { write!(f, ", {}", shown.join("; ")) }
    }
}

fn scenario(scenario: &Scenario) -> Shown {
    let Scenario { name, about, detects, topology, also, .. } = scenario;
    let triggers: Vec<_> = scenario.each_trigger().into_iter().map(Trigger::name_of).collect();
    let further: String = also.iter().map(|name| format!(", {name} (on request)")).collect();
    let text = format!(
        "  {name}\n      {about}\n      detects: {}; triggers: {}; topologies: {topology}{further}",
        detects.join(", "),
        triggers.join(", ")
    );
    let json = json!({"name": name, "about": about, "detects": detects, "topology": topology, "also": also,
                      "triggers": triggers});
    (text, json)
}

fn trigger(trigger: &Trigger) -> Shown {
    let width = Trigger::ALL.iter().map(|trigger| trigger.name().len()).max().unwrap_or(0);
    let json = json!({"name": trigger.name(), "about": trigger.about()});
    (format!("  {trigger:<width$} {}", trigger.about()), json)
}

fn bugs(manifest: &Manifest, scenarios: &[Scenario]) -> Result<Vec<Shown>> {
    let measured = measured_in(&catalogue::page()?);
    let shown = |bug: &Bug| {
        let Entry { have, have_not, shown_by } = Entry::of(bug, manifest, scenarios);
        let measured = measured.get(&bug.id);
        let see: String = bug.references.iter().map(|reference| format!("\n      see: {reference}")).collect();
        let last = measured.map(|counts| format!("\n      last measured: {counts}")).unwrap_or_default();
        let text = format!(
            "  {}\n      {}\n      shows as: {} ({}){see}\n      kernels that have it: {}\n      \
             kernels without it: {}\n      scenarios that show it: {}{last}",
            bug.id,
            bug.title,
            bug.shows_as(),
            chance(bug),
            have.join(", "),
            have_not.join(", "),
            shown_by.join(", ")
        );
        let mut json = json!(bug);
        json["kernels"] = json!({"with": have, "without": have_not});
        json["scenarios"] = json!(shown_by);
        json["measured"] = json!(measured);
        (text, json)
    };
    Ok(manifest.bugs.iter().map(shown).collect())
}

fn profile(profile: &Profile) -> Shown {
    let Profile { name, about, slower, known, .. } = profile;
    let reports: String = known.iter().map(|known| format!("\n      known report: {}", known.why)).collect();
    let reasons: Vec<_> = known.iter().map(|known| &known.why).collect();
    let json = json!({"name": name, "about": about, "slower": slower, "known": reasons});
    (format!("  {name}\n      {about}{reports}"), json)
}

fn cell(cell: &PlannedCell) -> Shown {
    let (name, expected) = (cell.id.to_string(), cell.expected.word());
    let CellId { scenario, topology, variant, .. } = &cell.id;
    let json = json!({"name": name, "expected": expected, "scenario": scenario, "topology": topology,
                      "trigger": cell.id.trigger_name(), "variant": variant});
    (format!("  {expected:<5} {name}"), json)
}

#[cfg(test)]
mod tests {
    use kernels::{Base, Package, Source};

    use super::*;

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.to_owned()).collect()
    }

    fn manifest(variants: &[(&str, &str, &[&str])]) -> Manifest {
        let base = |name: &str, immune: &[&str]| Base {
            name: name.to_owned(),
            source: Source::Package(Package::default()),
            config: Vec::new(),
            asked: Vec::new(),
            bugs: Vec::new(),
            immune: strings(immune),
        };
        let variant = |&(name, base, bugs): &(&str, &str, &[&str])| Variant {
            name: name.to_owned(),
            about: format!("about {name}"),
            base: base.to_owned(),
            patches: if name.starts_with("stock") { Vec::new() } else { vec!["a.patch".into()] },
            config: Vec::new(),
            bugs: strings(bugs),
            concerns: Vec::new(),
            known: true,
        };
        Manifest {
            bases: vec![base("6.12", &[]), base("6.1", &["newer"])],
            variants: variants.iter().map(variant).collect(),
            bugs: Vec::new(),
            profiles: Vec::new(),
            profile: None,
            own: None,
            selftests: None,
        }
    }

    #[test]
    fn bugs_of_the_first_base_are_listed_and_others_as_differences() {
        let manifest = manifest(&[
            ("stock", "6.12", &["a", "b", "c"]),
            ("stock-6.1", "6.1", &["b", "c", "old"]),
            ("same", "6.12", &["a", "b", "c"]),
            ("same-6.1", "6.1", &["b", "c", "old"]),
            ("fixed", "6.12", &["c"]),
            ("fixed-6.1", "6.1", &["c", "old"]),
            ("traded", "6.12", &["a", "b", "new", "newer"]),
            ("traded-6.1", "6.1", &["b", "old", "new"]),
            ("other", "6.12", &["a", "b", "c", "new"]),
            ("other-6.1", "6.1", &["c", "old", "new"]),
            ("alone-6.1", "6.1", &["b", "c"]),
        ]);
        let shown: Vec<_> = kernels(&manifest).into_iter().map(|(text, _)| text).collect();
        insta::assert_snapshot!(shown.join("\n"), @r"
        stock      about stock (base 6.12)
                     bugs: a, b, c
        stock-6.1  about stock-6.1 (base 6.1)
                     bugs: as stock, without a; with old; no patch brings newer
        same       about same (base 6.12)
                     bugs: as stock
        same-6.1   about same-6.1 (base 6.1)
                     bugs: as stock-6.1, changed as same is from stock
        fixed      about fixed (base 6.12)
                     bugs: as stock, without a, b
        fixed-6.1  about fixed-6.1 (base 6.1)
                     bugs: as stock-6.1, changed as fixed is from stock
        traded     about traded (base 6.12)
                     bugs: as stock, without c; with new, newer
        traded-6.1 about traded-6.1 (base 6.1)
                     bugs: as stock-6.1, changed as traded is from stock
        other      about other (base 6.12)
                     bugs: as stock, with new
        other-6.1  about other-6.1 (base 6.1)
                     bugs: as stock-6.1, without b; with new
        alone-6.1  about alone-6.1 (base 6.1)
                     bugs: as stock-6.1, without old
        ");
        assert_eq!(kernels(&manifest)[4].1["bugs"], json!(["c"]), "JSON lists all bugs");
    }

    #[test]
    fn a_kernel_without_bugs_says_so() {
        let manifest = manifest(&[("stock", "6.12", &[])]);
        assert_eq!(bugs_of(&manifest.variants[0], &manifest), "none known");
    }
}
