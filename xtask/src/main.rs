//! The command line of iov-regress: `cargo xtask`.

mod against;
mod commands;
#[cfg(test)]
mod examples;
mod interrupt;
mod judging;
mod machine;
mod names;
mod out;
mod own;
mod patched;
mod posted;
mod select;
mod ui;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

/// Pull PCI hardware out from under Linux, kernel by kernel, and say which ones deadlock and which give wrong answers.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Start with:
  cargo xtask run-matrix --setup     install what is missing, build the kernels, run everything, print the table
  cargo xtask test                   run all tests of the harness, and every cell as a test

Exit codes: 0 as expected, 1 not as expected, 2 usage or infrastructure (nothing was learned), 130 interrupted.";

#[derive(Subcommand)]
enum Command {
    /// Build kernels, run scenarios on them, and compare what happens with what should.
    RunMatrix(commands::run_matrix::Args),
    /// Run one scenario on one kernel, with the guest's console on the terminal.
    Run(commands::run::Args),
    /// Try a posted series: what each patch fixes, leaves broken, and breaks.
    Series(commands::series::Args),
    /// Find the commit of a kernel tree that broke a scenario, or the one that fixed it.
    Bisect(commands::bisect::Args),
    /// Judge the commit that is checked out in a kernel tree, for `git bisect run`.
    BisectStep(commands::bisect_step::Args),
    /// Show kernels, scenarios, bugs and cells.
    List(commands::list::Args),
    /// Write docs/catalogue.md: all bugs, and what was last measured of each.
    Catalogue(commands::catalogue::Args),
    /// Check this machine, one line per check, with the fix. Changes nothing.
    Doctor(commands::doctor::Args),
    /// Install what is missing.
    Setup(commands::setup::Args),
    /// Remove from the cache what was not used for a while.
    Gc(commands::gc::Args),
    /// Measure the harness itself: boots, runs, builds, leaks.
    Bench(commands::bench::Args),
    /// Run all tests: those of the harness, and every cell as one.
    Test(commands::test::Args),
    /// Print what a shell needs to complete this command line.
    Completions(commands::completions::Args),
    /// Write manual pages, one for each subcommand.
    Man(commands::man::Args),
}

/// The whole command line, as clap knows it.
fn command_line() -> clap::Command {
    Cli::command()
}

/// The exit code of wrong usage and of trouble that says nothing about a kernel.
const TROUBLE: u8 = 2;

fn main() -> ExitCode {
    // Whatever goes wrong in a step of a bisection must not pass for a bad commit, which any code below 125 does.
    let is_step = std::env::args().nth(1).is_some_and(|name| name == commands::bisect_step::NAME);
    let trouble = if is_step { commands::bisect_step::STOP } else { TROUBLE };
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if is_step && error.use_stderr() => {
            // Nothing can be done about a terminal that went away.
            let _ = error.print();
            return ExitCode::from(trouble);
        }
        Err(error) => error.exit(),
    };
    let result = match cli.command {
        Command::RunMatrix(args) => commands::run_matrix::run(args),
        Command::Run(args) => commands::run::run(args),
        Command::Series(args) => commands::series::run(args),
        Command::Bisect(args) => commands::bisect::run(args),
        Command::BisectStep(args) => commands::bisect_step::run(args),
        Command::List(args) => commands::list::run(args),
        Command::Catalogue(args) => commands::catalogue::run(args),
        Command::Doctor(args) => commands::doctor::run(args),
        Command::Setup(args) => commands::setup::run(args),
        Command::Gc(args) => commands::gc::run(args),
        Command::Bench(args) => commands::bench::run(args),
        Command::Test(args) => commands::test::run(args),
        Command::Completions(args) => commands::completions::run(args),
        Command::Man(args) => commands::man::run(args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(trouble)
    })
}
