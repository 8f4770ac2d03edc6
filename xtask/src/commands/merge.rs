//! `cargo xtask merge`: makes one run of the parts of a plan, and prints its results.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use harness::report::Report;
use harness::spread::{Told, merge};
use harness::text::counted;

use super::series::of_whole;
use crate::machine::workspace;
use crate::results::{self, Extent};
use crate::select::Format;
use crate::ui::Ui;

/// Which parts to merge.
#[derive(clap::Args)]
#[command(after_help = "\
The parts are the runs of `run-matrix`, `series` or `test` with --partition on any number of machines. PART is the folder of
a run, a folder with runs in it (of several in one --out, the newest counts), or an archive of either: .tar, .tar.gz, .tar.zst
or .zip, as CI systems give them.

All parts must be of one plan, which the digest in their evidence proves, and each must be there once. Then the run that they
make has every report, as if it had been one run on one machine. The parts are not changed.

Examples:
  cargo xtask merge part-1/ part-2/ part-3/ part-4/ --out whole
  cargo xtask merge artifacts/
  cargo xtask merge part-1.zip part-3.zip --partial

Exit codes: those of the command that ran the parts, as if it had run the whole: 0 as expected, 1 not as expected, 2 usage or
infrastructure error, for example a part that is missing, is there twice or is of another plan.")]
pub struct Args {
    /// A part: the folder of a run, a folder with runs in it, or an archive of either
    #[arg(value_name = "PART", required = true)]
    parts: Vec<PathBuf>,
    /// Write the folder of the run here, and a link `latest` to it [default: target/runs]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Merge what is there. The report says which parts are missing, and their cells have no result
    #[arg(long)]
    partial: bool,
    /// How to print the results
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Merges, and prints the results of the whole.
pub fn run(args: Args) -> Result<ExitCode> {
    let ui = Ui::new(false);
    let out = args.out.unwrap_or_else(|| workspace().join("target/runs"));
    let command = std::env::args().skip(1).collect();
    let merged = merge(&args.parts, &out, args.partial, command, |told| match told {
        Told::Reads(path) => ui.say(&format!("reading {}", path.display())),
        Told::Copies { part, parts, cells } => {
            ui.say(&format!("part {part} of {parts}: {}", counted(cells, "cell", "cells")));
        }
    })?;
    merged.differences.iter().for_each(|line| ui.say(&format!("note: {line}")));
    if merged.is_series {
        return of_whole(&merged.run, args.format);
    }
    let report = Report::of(&merged.run)?;
    report.write_files()?;
    results::print(&report, args.format, Extent::Usual)?;
    Ok(ExitCode::from(report.exit_code()))
}
