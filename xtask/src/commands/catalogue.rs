//! `cargo xtask catalogue`: writes the page of all bugs.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use harness::evidence::read_run;
use harness::report::{self, measured_in, measured_of, updated};
use kernels::Manifest;
use scenarios::proposals::PROPOSALS;

use crate::machine::workspace;
use crate::out;

/// The measurements to write.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask catalogue --from target/runs/latest
  cargo xtask catalogue --from target/runs/20260102-*
  cargo xtask catalogue --check

Without --from, the measurements on the page stay, and its text is made anew from kernels.toml and the scenarios.

Exit codes: 0 written or up to date, 1 out of date (--check), 2 error.")]
pub struct Args {
    /// The folder of a run. Its measurements of a kernel replace those on the page. Several runs are added up
    #[arg(long, value_name = "RUN", num_args = 1..)]
    from: Vec<PathBuf>,
    /// Write nothing; only check whether the page is up to date
    #[arg(long)]
    check: bool,
}

fn path() -> PathBuf {
    workspace().join("docs/catalogue.md")
}

/// The present text of the page; empty if the file does not exist.
pub fn page() -> Result<String> {
    match fs::read_to_string(path()) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        read => read.with_context(|| format!("cannot read {}", path().display())),
    }
}

/// Writes docs/catalogue.md.
pub fn run(args: Args) -> Result<ExitCode> {
    let path = path();
    let manifest = Manifest::of_project()?;
    let scenarios = scenarios::all();
    let before = page()?;
    let mut measured = measured_in(&before);
    if let Some((first, others)) = args.from.split_first() {
        let mut run = read_run(first)?;
        for other in others {
            run = run.join(read_run(other)?);
        }
        measured = updated(measured, measured_of(&run, &manifest.bugs, &scenarios, PROPOSALS));
    }
    let now = report::catalogue_page(&manifest, &scenarios, PROPOSALS, &measured);
    if args.check {
        let is = if now == before { "is up to date" } else { "is not up to date: `cargo xtask catalogue` writes it" };
        out::print(&format!("{} {is}", path.display()))?;
        return Ok(ExitCode::from(u8::from(now != before)));
    }
    fs::write(&path, now).with_context(|| format!("cannot write {}", path.display()))?;
    out::print(&format!("wrote {}", path.display()))?;
    Ok(ExitCode::SUCCESS)
}
