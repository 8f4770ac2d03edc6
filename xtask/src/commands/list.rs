//! `cargo xtask list`: what there is.

use std::process::ExitCode;

use anyhow::Result;
use clap::ValueEnum;
use harness::lab::Lab;
use harness::plan::{Selection, plan};
use harness::scenario::Scenario;
use kernels::Manifest;
use serde_json::{Value, json};

use crate::select::Format;

/// What to show.
#[derive(clap::Args)]
pub struct Args {
    /// Just one of the lists
    what: Option<What>,
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
    /// Bugs, and how a kernel that has one fails
    Bugs,
    /// Cells, and what is expected of each
    Cells,
}

/// Prints the lists.
pub fn run(args: Args) -> Result<ExitCode> {
    let lab = Lab::open()?;
    let (manifest, scenarios) = (lab.manifest(), scenarios::all());
    let cells = plan(manifest, &scenarios, &Selection::default(), 1)?;
    let shown = |what| args.what.is_none_or(|only| only == what);
    if args.format == Format::Json {
        let cells = cells.iter().map(|cell| {
            let mut json = json!({"name": cell.id.to_string(), "expected": cell.expected.word()});
            merge(&mut json, json!(cell.id));
            json
        });
        let mut all = json!({});
        for (what, name, list) in [
            (What::Kernels, "kernels", kernels(manifest)),
            (What::Scenarios, "scenarios", scenarios.iter().map(scenario).collect()),
            (What::Bugs, "bugs", manifest.bugs.iter().map(|bug| json!(bug)).collect()),
            (What::Cells, "cells", cells.collect()),
        ] {
            if shown(what) {
                merge(&mut all, json!({name: Value::Array(list)}));
            }
        }
        println!("{all:#}");
        return Ok(ExitCode::SUCCESS);
    }
    if shown(What::Kernels) {
        println!("Kernels");
        manifest.variants.iter().for_each(|variant| {
            println!("  {:<16} {} (base {})", variant.name, variant.about, variant.base);
            println!("  {:<16}   has: {}", "", none_or_list(&variant.bugs));
        });
    }
    if shown(What::Scenarios) {
        println!("Scenarios");
        scenarios.iter().for_each(|scenario| {
            println!("  {}\n      {}", scenario.name, scenario.about);
            println!("      detects: {}; triggers: {}", scenario.detects.join(", "), triggers(scenario).join(", "));
        });
    }
    if shown(What::Bugs) {
        println!("Bugs");
        manifest.bugs.iter().for_each(|bug| {
            println!("  {}\n      {}\n      shows as: {} at {}", bug.id, bug.title, bug.fails.kind, bug.fails.function);
            bug.references.iter().for_each(|reference| println!("      see: {reference}"));
        });
    }
    if shown(What::Cells) {
        println!("Cells, and what is expected of each");
        cells.iter().for_each(|cell| println!("  {:<5} {}", cell.expected.word(), cell.id));
    }
    Ok(ExitCode::SUCCESS)
}

fn kernels(manifest: &Manifest) -> Vec<Value> {
    let kernel = |variant: &kernels::Variant| json!({"name": variant.name, "about": variant.about, "base": variant.base, "bugs": variant.bugs});
    manifest.variants.iter().map(kernel).collect()
}

fn scenario(scenario: &Scenario) -> Value {
    json!({"name": scenario.name, "about": scenario.about, "detects": scenario.detects,
           "topology": scenario.topology, "triggers": triggers(scenario)})
}

fn triggers(scenario: &Scenario) -> Vec<&'static str> {
    match scenario.triggers {
        [] => vec!["none"],
        triggers => triggers.iter().map(|trigger| trigger.name()).collect(),
    }
}

fn none_or_list(names: &[String]) -> String {
    if names.is_empty() { "none that is known".to_owned() } else { names.join(", ") }
}

fn merge(into: &mut Value, from: Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        into.extend(from);
    }
}
