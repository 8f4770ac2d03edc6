//! `cargo xtask test`: runs all tests of the workspace.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use harness::matrix::partition::Partition;

use super::setup;
use crate::machine::{self, Machine};

/// Which tests to run.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask test --setup
  cargo xtask test -- yank::stock         only tests whose names contain this
  cargo test -p scenarios -- --list       list every cell as a test
  cargo xtask test --partition hash:2/4

Exit codes: 0 all tests pass, 1 a test fails or does not compile, 2 usage or infrastructure error.")]
pub struct Args {
    /// First install what is missing on this machine, as `cargo xtask setup` does
    #[arg(long)]
    setup: bool,
    /// Run only part K of N: `hash:K/N` or `count:K/N` of the cells, as `run-matrix` does. Part 1 also runs all other tests
    #[arg(long, value_name = "PARTITION")]
    partition: Option<Partition>,
    /// Arguments for `cargo test --workspace`
    #[arg(last = true, value_name = "ARGS")]
    cargo: Vec<String>,
}

/// The variable by which the tests of cells are told their part.
const PARTITION: &str = "IOV_REGRESS_PARTITION";

/// The arguments of cargo that select the tests of a part: all tests in the first, and only cells in the others.
fn selected(partition: Option<&Partition>) -> &'static [&'static str] {
    match partition {
        Some(partition) if partition.part() > 1 => &["test", "--package", "scenarios", "--test", "cells"],
        _ => &["test", "--workspace"],
    }
}

/// Runs `cargo test --workspace`. The exit code is 0 or 1, as its own is zero or not.
pub fn run(args: Args) -> Result<ExitCode> {
    if args.setup {
        setup::first(&Machine::look()?, false)?;
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(selected(args.partition.as_ref()))
        .args(&args.cargo)
        .envs(args.partition.iter().map(|partition| (PARTITION, partition.to_string())))
        .current_dir(machine::workspace())
        .status()
        .context("cannot run cargo")?;
    // A failed test is a result. Cargo killed by a signal is not.
    Ok(match status.code() {
        Some(0) => ExitCode::SUCCESS,
        Some(_) => ExitCode::FAILURE,
        None => ExitCode::from(crate::ERROR),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_part_runs_what_is_no_cell() {
        let words = |partition: &str| selected(Some(&partition.parse().unwrap())).join(" ");
        assert_eq!(words("hash:1/3"), selected(None).join(" "));
        assert_eq!(words("hash:2/3"), "test --package scenarios --test cells");
    }
}
