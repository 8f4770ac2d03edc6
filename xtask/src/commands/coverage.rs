//! `cargo xtask coverage`: what no cell of a run executed of its kernel.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use harness::evidence::read_run;
use harness::report::Coverage;

use crate::out;
use crate::select::Format;

/// Which runs.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask run-matrix --kernels stock --coverage
  cargo xtask coverage target/runs/latest
  cargo xtask coverage --kernel stock --lines target/runs/20260102-*
  cargo xtask coverage --format json target/runs/latest

For each source file: how many of its functions and lines some cell executed, and the functions that none did. The files are
those of drivers/pci, drivers/vfio and the drivers of the devices. Inlined functions count. Code that only runs while the
kernel boots (__init) does not.

With several kernels, functions are added up by name. Lines are shown if all cells ran the same kernel; --kernel selects one.

Exit codes: 0 printed, 2 usage error, or a run without coverage.")]
pub struct Args {
    /// Folders of runs of `run-matrix --coverage`. Several are added up
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// Count only cells on this kernel
    #[arg(short, long, value_name = "KERNEL")]
    kernel: Option<String>,
    /// Also list the lines that no cell executed
    #[arg(long)]
    lines: bool,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Prints the coverage of the runs.
pub fn run(args: Args) -> Result<ExitCode> {
    let runs = args.runs.iter().map(|run| read_run(run)).collect::<Result<Vec<_>, _>>()?;
    let coverage = Coverage::of(&runs, args.kernel.as_deref())?;
    out::print(&match args.format {
        Format::Human => coverage.text(args.lines),
        Format::Json => serde_json::to_string_pretty(&coverage)?,
    })?;
    Ok(ExitCode::SUCCESS)
}
