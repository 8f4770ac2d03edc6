//! `cargo xtask report`: draws runs again from their evidence.

use std::fs;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use clap::builder::PossibleValuesParser;
use globset::Glob;
use harness::evidence::{LATEST, START};
use harness::report::{FORMS, Form, Report, SeriesReport, Terminal, measured_in, measured_of, updated};
use harness::text::counted;
use kernels::Manifest;
use scenarios::proposals::PROPOSALS;

use super::catalogue;
use crate::machine::workspace;
use crate::out;

/// The form that has no file: the table that `run-matrix` prints.
const TEXT: &str = "text";

/// Which runs, and in which form.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask report latest
  cargo xtask report latest --format html --out page.html
  cargo xtask report latest --format markdown
  cargo xtask report latest --format junit --out junit.xml
  cargo xtask report latest --only 'numvfs_read::*' --format html --out page.html
  cargo xtask report target/runs/20260102-* --format json --out both.json
  cargo xtask report latest --bugs --out bugs

A report is drawn from the evidence of a run and from nothing else, at any time: also while the run goes on, after it was
interrupted, and on another machine. Several runs are drawn as one. A cell that several of them have counts as repeated.

What is missing or damaged is named in the report. The rest is drawn.

Formats:
  text      what run-matrix prints: the unexpected cells, the table, a legend
  html      report.html, for people: one page with pictures, without network and without scripts
  json      results.json, for programs: docs/results.schema.json describes it
  junit     junit.xml, for CI systems
  ktap      KTAP version 1, for tools that read the results of kernel tests
  markdown  summary.md, for the page of a CI job or a comment

Exit codes: 0 drawn, whatever the verdicts are; 2 usage error, or no run there.")]
pub struct Args {
    /// The folder of a run, or its name in target/runs. `latest` is the last run there
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<String>,
    /// The form of the report
    #[arg(long, default_value = TEXT, value_parser = formats())]
    format: String,
    /// Write a page for each bug of the catalogue into the folder --out: what it is, and the cells that look for it
    #[arg(long, requires = "out", conflicts_with_all = ["format", "verbose"])]
    bugs: bool,
    /// With --format text, also show the rows of families of which every cell passes
    #[arg(short, long)]
    verbose: bool,
    /// Only the cells whose names match one of these globs, such as `numvfs_read::*`, `*::stock` or a whole name. A name is
    /// SCENARIO::TOPOLOGY::TRIGGER::KERNEL
    #[arg(long, value_name = "CELLS", num_args = 1..)]
    only: Vec<Glob>,
    /// Write it to this file, or into this folder. Without this, it goes to stdout
    #[arg(short, long, value_name = "PATH")]
    out: Option<PathBuf>,
}

fn formats() -> PossibleValuesParser {
    PossibleValuesParser::new(std::iter::once(TEXT).chain(FORMS.iter().map(|form| form.name)))
}

/// Draws the runs.
pub fn run(args: Args) -> Result<ExitCode> {
    let runs = args.runs.iter().map(|run| folder(run)).collect::<Result<Vec<_>>>()?;
    let report = Report::of_runs(&runs)?;
    let report = match args.only.as_slice() {
        [] => report,
        globs => {
            let globs: Vec<_> = globs.iter().map(Glob::compile_matcher).collect();
            let report = report.only(|cell| globs.iter().any(|glob| glob.is_match(cell.to_string())));
            ensure!(!report.run().cells.is_empty(), "no cell of this run has such a name");
            report
        }
    };
    let report = match &args.out {
        Some(path) => report.placed_in(&folder_of(path)),
        None => report,
    };
    if let (true, Some(folder)) = (args.bugs, &args.out) {
        return bugs(&report.placed_in(folder), folder);
    }
    let form = FORMS.iter().find(|form| form.name == args.format);
    match args.out {
        Some(path) => {
            let path = if path.is_dir() { path.join(file(form)) } else { path };
            let terminal = Terminal { whole: args.verbose, ..Terminal::default() };
            fs::write(&path, draw(&report, form, terminal))
                .with_context(|| format!("cannot write {}", path.display()))?;
            out::print(&format!("wrote {}", path.display()))?;
        }
        None => {
            let stdout = std::io::stdout();
            if stdout.is_terminal() && form.is_some_and(|form| form.file.ends_with(".html")) {
                bail!("a page is not for a terminal: write it to a file with --out PATH");
            }
            let terminal = Terminal { whole: args.verbose, ..Terminal::of_stdout(&stdout) };
            out::print(&draw(&report, form, terminal))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes the pages of the bugs into a folder.
fn bugs(report: &Report, folder: &Path) -> Result<ExitCode> {
    let (manifest, scenarios) = (Manifest::of_project()?, scenarios::all());
    let now = measured_of(report.run(), &manifest.bugs, &scenarios, PROPOSALS);
    let measured = updated(measured_in(&catalogue::page()?), now);
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let pages = report.bug_pages(&manifest, &scenarios, &measured);
    for (name, text) in &pages {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    out::print(&format!(
        "wrote index.html and {} into {}",
        counted(pages.len() - 1, "page", "pages"),
        folder.display()
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// The folder in which a file is written.
fn folder_of(path: &Path) -> PathBuf {
    let above = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if path.is_dir() { path.to_owned() } else { above.unwrap_or(Path::new(".")).to_owned() }
}

fn draw(report: &Report, form: Option<&Form<Report>>, terminal: Terminal) -> String {
    if let Some(form) = form {
        return (form.render)(report);
    }
    let series = SeriesReport::of(&report.run().path).ok().filter(|_| report.run().others.is_empty());
    let more = series.map(|series| series.table(terminal)).or_else(|| report.comparison());
    match more {
        Some(more) => format!("{}\n{more}", report.table(terminal)),
        None => report.table(terminal),
    }
}

fn file(form: Option<&Form<Report>>) -> &'static str {
    form.map_or("results.txt", |form| form.file)
}

/// The folder of a run, by its path, the path of a file in it, or its name in target/runs.
fn folder(run: &str) -> Result<PathBuf> {
    let path = Path::new(run);
    let of_file = path.parent().filter(|_| path.is_file()).map(Path::to_owned);
    let named = workspace().join("target/runs").join(run);
    let path = of_file.unwrap_or_else(|| if path.exists() { path.to_owned() } else { named });
    let latest = path.join(LATEST);
    if path.join(START).is_file() {
        bail!("{} is the folder of a cell. Name the folder of its run, which is one above", path.display());
    }
    if latest.exists() {
        bail!("{} is a folder of runs. Name one of them, such as {}", path.display(), latest.display());
    }
    Ok(path)
}
