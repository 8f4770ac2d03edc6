//! `cargo xtask list`: what there is.

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
  cargo xtask list cells --all --format json")]
pub struct Args {
    /// Just one of the lists
    what: Option<What>,
    /// The same as `list bugs`
    #[arg(long, conflicts_with = "what")]
    bugs: bool,
    /// List the cells of every kernel with every scenario, not only those that `run-matrix` runs by default
    #[arg(long)]
    all: bool,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Kernels, and the bugs that each has
    Kernels,
    /// Scenarios, and the bugs that each detects
    Scenarios,
    /// Bugs: how a kernel that has one fails, which have it, what shows it, and what was last measured
    Bugs,
    /// Profiles: other configurations of the kernels
    Profiles,
    /// Cells of `run-matrix`, and what is expected of each
    Cells,
}

/// Prints the lists.
pub fn run(args: Args) -> Result<ExitCode> {
    let lab = Lab::open(None)?;
    let (manifest, scenarios) = (lab.manifest(), scenarios::all());
    let cells = plan(manifest, &scenarios, &Selection { all: args.all, ..Selection::default() }, 1)?;
    let lists = [
        (What::Kernels, "kernels", kernels(manifest)),
        (What::Scenarios, "scenarios", scenarios.iter().map(scenario).collect()),
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

/// One thing of a list: for people, and for programs.
type Shown = (String, Value);

fn kernels(manifest: &Manifest) -> Vec<Shown> {
    let width = manifest.variants.iter().map(|variant| variant.name.len()).max().unwrap_or(0);
    let kernel = |variant: &Variant| {
        let Variant { name, about, base, bugs, .. } = variant;
        let has = if bugs.is_empty() { "none that is known".to_owned() } else { bugs.join(", ") };
        let text = format!("  {name:<width$} {about} (base {base})\n  {:<width$}   has: {has}", "");
        (text, json!({"name": name, "about": about, "base": base, "bugs": bugs}))
    };
    manifest.variants.iter().map(kernel).collect()
}

fn scenario(scenario: &Scenario) -> Shown {
    let Scenario { name, about, detects, topology, also, .. } = scenario;
    let triggers: Vec<_> = scenario.each_trigger().into_iter().map(Trigger::name_of).collect();
    let further: String = also.iter().map(|name| format!(", {name} (if asked for)")).collect();
    let text = format!(
        "  {name}\n      {about}\n      detects: {}; triggers: {}; topologies: {topology}{further}",
        detects.join(", "),
        triggers.join(", ")
    );
    let json = json!({"name": name, "about": about, "detects": detects, "topology": topology, "also": also,
                      "triggers": triggers});
    (text, json)
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
