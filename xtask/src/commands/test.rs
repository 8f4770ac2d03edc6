//! `cargo xtask test`: runs all tests of the workspace.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use super::setup;
use crate::machine::{self, Machine};

/// Which tests to run.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask test --setup
  cargo xtask test -- yank::stock         only tests whose names contain this
  cargo test -p scenarios -- --list       list every cell as a test

Exit codes: 0 all tests pass, 1 a test fails or does not compile, 2 usage or infrastructure error.")]
pub struct Args {
    /// First install what is missing on this machine, as `cargo xtask setup` does
    #[arg(long)]
    setup: bool,
    /// Arguments for `cargo test --workspace`
    #[arg(last = true, value_name = "ARGS")]
    cargo: Vec<String>,
}

/// Runs `cargo test --workspace`. The exit code is 0 or 1, as its own is zero or not.
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
    // A failed test is a result. Cargo killed by a signal is not.
    Ok(match status.code() {
        Some(0) => ExitCode::SUCCESS,
        Some(_) => ExitCode::FAILURE,
        None => ExitCode::from(crate::ERROR),
    })
}
