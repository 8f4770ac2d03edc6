//! `cargo xtask test`: all tests of the workspace.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use super::setup;
use crate::machine::{self, Machine};

/// What to test.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask test --setup
  cargo xtask test -- yank::stock         only tests with this in their names
  cargo test -p scenarios -- --list       every cell, as a test")]
pub struct Args {
    /// Install what is missing first.
    #[arg(long)]
    setup: bool,
    /// Passed on to `cargo test --workspace`.
    #[arg(last = true, value_name = "ARGS")]
    cargo: Vec<String>,
}

/// Runs `cargo test --workspace`, and ends as it ends.
pub fn run(args: Args) -> Result<ExitCode> {
    if args.setup {
        setup::first(&Machine::look()?, false)?;
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["test", "--workspace"])
        .args(&args.cargo)
        .current_dir(machine::workspace())
        .status()
        .context("cannot run cargo")?;
    // A test that fails is a result. Cargo that dies is not.
    Ok(match status.code() {
        Some(0) => ExitCode::SUCCESS,
        Some(_) => ExitCode::FAILURE,
        None => ExitCode::from(crate::TROUBLE),
    })
}
