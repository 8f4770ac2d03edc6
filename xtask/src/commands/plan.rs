//! `cargo xtask plan`: cuts the cells of a run into parts of about the same time, and prints them as jobs.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::ValueEnum;
use harness::evidence::{SplitNote, write_whole};
use harness::matrix::Times;
use harness::matrix::balance::balance;
use harness::text::counted;
use serde_json::json;

use crate::chosen::Chosen;
use crate::machine::workspace;
use crate::names;
use crate::out;

/// How the parts are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Jobs {
    /// A matrix for `strategy.matrix: ${{ fromJSON(...) }}`, on one line
    Github,
    /// Jobs of a child pipeline, each of which `extends: .part`
    Gitlab,
    /// The plan itself: what `--partition PLAN.json:K/N` reads
    Json,
}

/// What to divide, and how to print it.
#[derive(clap::Args)]
#[command(after_help = "\
Takes the options of `run-matrix` that choose cells. Give `run-matrix` the same ones in each part, and --partition PLAN:K/N,
which the printed jobs have ready. The cells of a part stay on as few kernels as the times allow: no part takes a fifth longer
than the mean by the times of an earlier run.

Examples:
  cargo xtask plan --parts 8 --format github
  cargo xtask plan --parts 8 --format gitlab > parts.yml
  cargo xtask plan --parts 4 --kernels stock,candidate --times old/results.json --format json > plan.json

Exit codes: 0 printed, 2 usage or infrastructure error.")]
pub struct Args {
    #[command(flatten)]
    chosen: Chosen,
    /// Plan for kernels with the configuration of a profile. `cargo xtask list profiles` lists them
    #[arg(long, value_name = "NAME", value_parser = names::profiles())]
    profile: Option<String>,
    /// The number of parts
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=256))]
    parts: u32,
    /// How to print the parts
    #[arg(long, value_enum)]
    format: Jobs,
    /// The earlier run whose times count: its folder, or its results.json. Cells that it does not have count as the mean
    #[arg(long, value_name = "RUN", default_value_os_t = workspace().join("target/runs/latest"))]
    times: PathBuf,
    /// Where the plan is written that the jobs of `github` and `gitlab` name
    #[arg(long, value_name = "FILE", default_value = "plan.json")]
    plan: PathBuf,
}

/// Divides, and prints.
pub fn run(args: Args) -> Result<ExitCode> {
    let planned = args.chosen.plan(args.profile.as_deref())?;
    let times = if args.times.is_dir() { Times::of(&args.times) } else { Times::of_results(&args.times) };
    let split = balance(&planned.cells, &scenarios::all(), args.parts, &times);
    eprintln!("{}", about(&split, &times, &args.times));
    let json = format!("{}\n", serde_json::to_string_pretty(&split).context("cannot write the plan as JSON")?);
    if args.format != Jobs::Json {
        write_whole(&args.plan, json.as_bytes())?;
    }
    out::print(&match args.format {
        Jobs::Json => json,
        Jobs::Github => github(&split, &args.plan),
        Jobs::Gitlab => gitlab(&split, &args.plan),
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The seconds of a part's cells, one after the other.
fn seconds(split: &SplitNote, part: u32) -> f64 {
    split.cells.iter().filter(|cell| cell.part == part).filter_map(|cell| cell.seconds).sum()
}

/// One line for people.
fn about(split: &SplitNote, times: &Times, from: &Path) -> String {
    let all: Vec<_> = (1..=split.parts).map(|part| seconds(split, part)).collect();
    let (least, most) = (all.iter().copied().fold(f64::INFINITY, f64::min), all.iter().copied().fold(0.0, f64::max));
    let known = match times.count() {
        0 => format!("no times in {}, so every cell counts the same", from.display()),
        count => format!("times of {} from {}", counted(count, "cell", "cells"), from.display()),
    };
    format!(
        "plan {}: {} in {} of {least:.0} to {most:.0} s, if cells run one after the other; {known}",
        split.digest,
        counted(split.cells.len(), "cell", "cells"),
        counted(split.parts as usize, "part", "parts")
    )
}

/// The matrix of a workflow: one line, as the output of a step must be.
fn github(split: &SplitNote, plan: &Path) -> String {
    let part = |part: u32| {
        json!({
            "part": part,
            "parts": split.parts,
            "partition": format!("{}:{part}/{}", plan.display(), split.parts),
            "cells": split.of_part(part).len(),
            "kernels": split.kernels_of(part).len(),
            "seconds": seconds(split, part).ceil(),
        })
    };
    json!({"include": (1..=split.parts).map(part).collect::<Vec<_>>()}).to_string()
}

/// The jobs of a child pipeline. A text in JSON is a text in YAML.
fn gitlab(split: &SplitNote, plan: &Path) -> String {
    let parts = split.parts;
    let cells = counted(split.cells.len(), "cell", "cells");
    let mut text = format!("# {cells} in {} of plan {}\n", counted(parts as usize, "part", "parts"), split.digest);
    for part in 1..=parts {
        let name = json!(format!("iov-regress {part}/{parts}"));
        let partition = json!(format!("{}:{part}/{parts}", plan.display()));
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "{name}:\n  extends: .part\n  variables:\n    PARTITION: {partition}\n  # {}, {:.0} s if run one after the \
             other\n",
            counted(split.of_part(part).len(), "cell", "cells"),
            seconds(split, part)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use harness::cell::{CellId, PlannedCell};
    use harness::verdict::Expected;

    use super::*;

    fn split() -> SplitNote {
        let cell = |variant: &str| {
            let (scenario, topology) = ("a::b".to_owned(), "igb".to_owned());
            let id = CellId { scenario, topology, trigger: None, variant: variant.to_owned(), repeat: 1 };
            PlannedCell { id, expected: Expected::Pass }
        };
        balance(&["x", "y", "z"].map(cell), &[], 2, &Times::default())
    }

    #[test]
    fn the_matrix_is_one_line() {
        let text = github(&split(), Path::new("plan.json"));
        insta::assert_snapshot!(text, @r#"{"include":[{"cells":2,"kernels":2,"part":1,"partition":"plan.json:1/2","parts":2,"seconds":20.0},{"cells":1,"kernels":1,"part":2,"partition":"plan.json:2/2","parts":2,"seconds":10.0}]}"#);
    }

    #[test]
    fn the_jobs_extend_one_that_the_user_has() {
        let text = gitlab(&split(), Path::new("plan.json"));
        let jobs = text.split_once('\n').unwrap().1;
        insta::assert_snapshot!(jobs, @r#"
        "iov-regress 1/2":
          extends: .part
          variables:
            PARTITION: "plan.json:1/2"
          # 2 cells, 20 s if run one after the other
        "iov-regress 2/2":
          extends: .part
          variables:
            PARTITION: "plan.json:2/2"
          # 1 cell, 10 s if run one after the other
        "#);
    }
}
