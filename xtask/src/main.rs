//! The command line of iov-regress: `cargo xtask`.

mod against;
mod busy;
mod chosen;
mod commands;
#[cfg(test)]
mod examples;
mod interrupt;
mod judging;
mod kernel;
mod machine;
mod names;
mod out;
mod own;
mod pace;
mod patched;
mod posted;
mod results;
mod scripts;
mod select;
mod slurm;
mod terminal;
mod ui;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

/// Test what Linux does when PCI devices are removed while in use: boot each kernel in QEMU, and report deadlocks and
/// wrong answers.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Start with:
  cargo xtask run-matrix --setup     install what is missing, build the kernels, run the scenarios, print the table
  cargo xtask test                   run all tests of the harness, and every cell as a test

A scenario is one test. A trigger is one way to remove a device. A topology is the PCI hardware of the guest. A cell is one
scenario with one trigger, on one topology and one kernel.

Exit codes: 0 as expected, 1 not as expected, 2 usage or infrastructure error (no answer about a kernel), 130 interrupted.
Where a subcommand differs, its own --help says so.";

#[derive(Subcommand)]
enum Command {
    /// Build kernels, run scenarios on them, and compare each verdict with the expected one.
    RunMatrix(commands::run_matrix::Args),
    /// Build kernels and the guest image into the cache, and run nothing.
    Build(commands::build::Args),
    /// Cut the cells of a run into parts that take about the same time, and print them as jobs of a CI system.
    Plan(commands::plan::Args),
    /// Run one scenario on one kernel, and show the guest's console on the terminal.
    Run(commands::run::Args),
    /// Open a shell in a guest, with the same hardware as the scenarios have.
    Shell(commands::shell::Args),
    /// Test each patch of a posted series: what it fixes, leaves broken, and breaks.
    Series(commands::series::Args),
    /// Find the first commit (or patch of a series) on which a scenario fails, or the first that fixes it.
    Bisect(commands::bisect::Args),
    /// Judge the commit that is checked out in a kernel tree. For use with `git bisect run`.
    BisectStep(commands::bisect_step::Args),
    /// List kernels, scenarios, triggers, bugs, profiles and cells.
    List(commands::list::Args),
    /// Draw the report of any run again: as a table, as a page with pictures, for CI systems, for programs.
    Report(commands::report::Args),
    /// Write docs/catalogue.md: all bugs, and the last measurement of each.
    Catalogue(commands::catalogue::Args),
    /// Say what the kernel of any log reports: faults, stalls, leaks, and the function at fault.
    Classify(commands::classify::Args),
    /// Make one run of the parts that several machines ran with --partition.
    Merge(commands::merge::Args),
    /// Say which functions and lines of the kernel's drivers no cell of a run executed.
    Coverage(commands::coverage::Args),
    /// Open the dump of a cell's guest in drgn, and print the stacks of the tasks that wait for each other.
    Debug(commands::debug::Args),
    /// Check that this machine has what a run needs. Prints one line per check, with the fix. Changes nothing.
    Doctor(commands::doctor::Args),
    /// Install what is missing on this machine, with apt.
    Setup(commands::setup::Args),
    /// Remove old entries from the cache.
    Gc(commands::gc::Args),
    /// Measure the harness itself: boots, runs, builds, leaked resources.
    Bench(commands::bench::Args),
    /// Run all tests: those of the harness, and every cell as a test.
    Test(commands::test::Args),
    /// Print a completion script for a shell.
    Completions(commands::completions::Args),
    /// Write manual pages, one for each subcommand.
    Man(commands::man::Args),
}

/// The whole command line, as clap knows it.
fn command_line() -> clap::Command {
    Cli::command()
}

/// The exit code of a usage or infrastructure error: no answer about a kernel.
const ERROR: u8 = 2;

fn main() -> ExitCode {
    // `git bisect run` takes every exit code from 1 to 124 for a bad commit. An error in a step must not end with one.
    let is_step = std::env::args().nth(1).is_some_and(|name| name == commands::bisect_step::NAME);
    let code = if is_step { commands::bisect_step::STOP } else { ERROR };
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if is_step && error.use_stderr() => {
            // Nothing can be done if the terminal is gone.
            let _ = error.print();
            return ExitCode::from(code);
        }
        Err(error) => error.exit(),
    };
    let result = match cli.command {
        Command::RunMatrix(args) => commands::run_matrix::run(args),
        Command::Build(args) => commands::build::run(args),
        Command::Plan(args) => commands::plan::run(args),
        Command::Run(args) => commands::run::run(args),
        Command::Shell(args) => commands::shell::run(args),
        Command::Series(args) => commands::series::run(args),
        Command::Bisect(args) => commands::bisect::run(args),
        Command::BisectStep(args) => commands::bisect_step::run(args),
        Command::List(args) => commands::list::run(args),
        Command::Report(args) => commands::report::run(args),
        Command::Catalogue(args) => commands::catalogue::run(args),
        Command::Classify(args) => commands::classify::run(args),
        Command::Coverage(args) => commands::coverage::run(args),
        Command::Merge(args) => commands::merge::run(args),
        Command::Debug(args) => commands::debug::run(args),
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
        ExitCode::from(code)
    })
}
