//! `cargo xtask bench mutants`: how many kernels with a mistake the scenarios tell from those without.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Result, bail};
use globset::Glob;
use harness::bench::mutants::{self, Comparison, Judged, Results, Task};
use harness::lab::Lab;
use harness::matrix::plan::Selection;
use harness::text::counted;
use kernels::{Mutant, near};
use serde_json::json;

use super::bench::whole_run;
use crate::machine::workspace;
use crate::names;
use crate::out;
use crate::select::{Engine, Format};
use crate::ui::Ui;

/// Which mutants to judge, and how.
#[derive(clap::Args)]
#[command(after_help = "\
A mutant is a kernel with one plausible mistake. A mutant is killed by a cell that fails, and passes on the kernel that the
mutant was made from. It survives if no cell is worse than there. There is no answer if it does not apply, build or boot, or
if a cell ended in infra and none killed it. infra kills nothing.

Each mutant is built on all-fixes, on which most scenarios pass, or on stock if its patch does not apply there. The cells
of all-fixes run first, while the first mutant is built. Then each mutant runs until a cell kills it, while the next
one is built. Each kernel and its snapshots are removed when it is judged.

The results are in mutants.json and mutants.md in a folder of target/mutants, and are written anew after each mutant.

Examples:
  cargo xtask bench mutants --sample 12
  cargo xtask bench mutants --only 'vfio-pci-*' --against target/mutants/latest
  cargo xtask run-matrix --kernels all-fixes --coverage
  cargo xtask bench mutants --coverage target/runs/latest

Exit codes: 0 measured (survivors are not a failure), 1 with --against: a mutant was killed before and is not now, 2 usage or
infrastructure error, 130 interrupted.")]
pub struct Args {
    /// Judge only this many mutants, spread over the files that they change. A hash of each patch gives the order, so the
    /// same patches give the same choice
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    sample: Option<u16>,
    /// Judge only the mutants that match, by glob over their names. May be given several times
    #[arg(long, value_name = "GLOB", value_delimiter = ',')]
    only: Vec<String>,
    /// Compare with earlier results: a mutants.json, or the folder that has it. Scenarios that killed mutants then come first
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// Run all cells of a mutant. By default its run ends with the first cell that kills it
    #[arg(long)]
    all_cells: bool,
    /// A run of `run-matrix --kernels all-fixes --coverage`. The cells that execute the function of a mutant come first,
    /// and what the run says of all-fixes is not run again
    #[arg(long, value_name = "DIR")]
    coverage: Option<PathBuf>,
    /// Run only the cells that execute the function of a mutant. The others can hardly notice it. If none does, all run
    #[arg(long, requires = "coverage")]
    reached: bool,
    /// Scenarios, by glob over `family::scenario` or over `scenario` alone [default: all]
    #[arg(long, value_name = "GLOB", value_delimiter = ',')]
    #[arg(value_parser = names::scenarios(), hide_possible_values = true)]
    scenarios: Vec<String>,
    /// Read the mutants from this folder: *.patch for the source of 6.12 [default: kernels/mutants]
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
    /// Cells that run at the same time [default: as many as cores and memory allow]
    #[arg(short, long, value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// Write the results and the runs here, and a link `latest` to them [default: target/mutants]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// The kernels that mutants are made from. Of the 160 cells that run on a mutant, the first fails about ten, and stock a
/// third.
const BASES: [&str; 2] = ["all-fixes", "stock"];

/// Judges mutants, and prints the results.
///
/// # Errors
/// The options name no mutant, or earlier results cannot be read. Errors of [`mutants::measure`].
pub async fn run(lab: &Lab, args: &Args, engine: Engine, format: Format, ui: &Arc<Ui>) -> Result<ExitCode> {
    let earlier = args.against.as_ref().map(|path| Results::read(path).map(|earlier| (path, earlier))).transpose()?;
    let mut task = task(args, engine)?;
    task.killers = earlier.iter().flat_map(|(_, earlier)| earlier.killers()).collect();
    if let Some(mutant) = task.mutants.iter().find(|mutant| lab.manifest().variant(&mutant.name).is_ok()) {
        bail!(
            "a mutant and a kernel of kernels.toml are both called `{}`: rename the patch of the mutant",
            mutant.name
        );
    }
    ui.say(&format!("{}: {}", count(task.mutants.len()), names_of(&task.mutants)));
    ui.say(&format!("results so far are in {}, also after Ctrl-C", task.how.out.join("latest").display()));
    ui.say(&format!("trying on which kernel each patch applies: {}", task.bases.join(", else ")));
    let tell = |judged: &Judged, results: &Results| {
        ui.say(&format!("({}/{}) {}", results.mutants.len(), results.planned, judged.line()));
    };
    let results = mutants::measure(lab, &scenarios::all(), &task, ui.clone(), &tell).await?;
    let comparison = earlier.map(|(path, earlier)| results.against(&earlier, path));
    out::print(&text(&results, comparison.as_ref(), format))?;
    let is_worse = comparison.is_some_and(|comparison| !comparison.lost.is_empty());
    Ok(if is_worse { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn text(results: &Results, comparison: Option<&Comparison>, format: Format) -> String {
    match format {
        Format::Human => {
            let compared = comparison.map(Comparison::text).unwrap_or_default();
            format!("{}{compared}results in {}\n", results.text(), results.folder.display())
        }
        Format::Json => format!("{:#}\n", json!({"results": results, "comparison": comparison})),
    }
}

fn task(args: &Args, engine: Engine) -> Result<Task> {
    let out = args.out.clone().unwrap_or_else(|| workspace().join("target/mutants"));
    Ok(Task {
        mutants: chosen(args)?,
        bases: BASES.map(str::to_owned).to_vec(),
        selection: Selection { scenarios: args.scenarios.clone(), ..Selection::default() },
        coverage: args.coverage.clone(),
        only_reached: args.reached,
        killers: BTreeSet::new(),
        all_cells: args.all_cells,
        how: whole_run(Vec::new(), args.jobs, engine, out),
    })
}

/// The mutants that the options name.
fn chosen(args: &Args) -> Result<Vec<Mutant>> {
    let mut mutants = Mutant::read(&args.from.clone().unwrap_or_else(Mutant::folder_of_project))?;
    let mut globs = Vec::new();
    for glob in &args.only {
        let matcher = Glob::new(glob)?.compile_matcher();
        if !mutants.iter().any(|mutant| matcher.is_match(&mutant.name)) {
            let near = near(glob, mutants.iter().map(|mutant| mutant.name.as_str()));
            let near = near.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
            bail!("there is no mutant `{glob}`{near}");
        }
        globs.push(matcher);
    }
    mutants.retain(|mutant| globs.is_empty() || globs.iter().any(|glob| glob.is_match(&mutant.name)));
    Ok(match args.sample {
        Some(count) => Mutant::sample(mutants, count.into()),
        None => mutants,
    })
}

fn count(mutants: usize) -> String {
    counted(mutants, "mutant", "mutants")
}

/// The names, if they are few.
fn names_of(mutants: &[Mutant]) -> String {
    const FEW: usize = 20;
    let names: Vec<_> = mutants.iter().take(FEW).map(|mutant| mutant.name.as_str()).collect();
    let more = if mutants.len() > FEW { ", ..." } else { "" };
    format!("{}{more}", names.join(", "))
}
