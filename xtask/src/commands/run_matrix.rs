//! `cargo xtask run-matrix`: runs scenarios on kernels, and prints the table of verdicts.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Result, bail};
use harness::cell::PlannedCell;
use harness::evidence::AgainstNote;
use harness::host::accel::{self, Choice};
use harness::host::clock;
use harness::lab::Lab;
use harness::matrix::extent::Extent;
use harness::matrix::trace::Tracer;
use harness::matrix::{Request, Runner, command_of};
use harness::report::{RESULTS, Report, deviations, disagreements};
use harness::scenario::Scenario;
use harness::text::counted;
use harness::vm::{argv, process};

use super::{build, setup};
use crate::busy::BusyHost;
use crate::chosen::{Chosen, Planned};
use crate::interrupt::until_interrupted;
use crate::machine::Machine;
use crate::out;
use crate::results;
use crate::select::{Accel, Format, How, Part};
use crate::slurm::{On, Task};
use crate::ui::{AWAITS_MERGE, Ui};

/// What to run, and how.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask run-matrix --setup
  cargo xtask run-matrix --all
  cargo xtask run-matrix --base 7.3
  cargo xtask run-matrix --kernels stock,v2-series --scenarios 'numvfs_events::*'
  cargo xtask run-matrix --scenarios 'owner*' --triggers yank --repeat 10 --fail-fast
  cargo xtask run-matrix --profile debug --kernels stock --scenarios 'numvfs_read::*'
  cargo xtask run-matrix --tree ~/src/linux --rev v6.11 --rev HEAD --kernels stock
  cargo xtask run-matrix --kernel-image linux-image-6.1.0-50-amd64_6.1.176-1_amd64.deb
  cargo xtask run-matrix --kernels stock --coverage
  cargo xtask run-matrix --script repro.sh --tree ~/src/linux --rev v6.12 --rev topic
  cargo xtask run-matrix --partition hash:2/4
  cargo xtask run-matrix --all --on slurm --parts 16 -- -p long --cpus-per-task=8
  cargo xtask run-matrix --dry-run

To see only what is worse than on another kernel:
  cargo xtask run-matrix --tree ~/src/linux --rev topic --against v6.11
  cargo xtask run-matrix --tree ~/src/linux --rev topic --against base/results.json
  cargo xtask run-matrix --kernel-image new.deb --kernel-image old.deb --against 6.1.0-49-amd64
  cargo xtask run-matrix --kernels candidate --against stock

With --against, each cell is compared with the same cell of the reference. The groups are printed in this order:
  REGRESSED        the cell passes on the reference and fails here; or it ends in a deadlock or a kernel splat here, and in
                   a lesser failure on the reference; or the kernel does not build or boot
  fixed            the cell fails on the reference and passes here
  fail otherwise   the cell fails in another way than on the reference, but not in a worse one
  random           one of the two shows a known bug that reproduces only randomly: neither REGRESSED nor fixed
  flaky            the cell passes and fails with --repeat, and is no worse than on the reference
  no answer        the cell has no verdict, here or on the reference
Then come the numbers of cells that are still broken (they fail as on the reference), unchanged, and not compared (skipped,
or not in the earlier run). -v also prints the table of all cells. With --against, the exit code and junit.xml depend only
on REGRESSED cells, not on what the manifest expects of a kernel.

Exit codes: 0 every cell as expected, 1 some not as expected, 2 usage or infrastructure error, 130 interrupted.
Exit codes with --against: 0 nothing REGRESSED; 1 something REGRESSED; 2 usage error, or nothing REGRESSED but some cells
have no answer, or no cell could be compared; 130 interrupted.")]
#[command(mut_arg("script", |script| script.conflicts_with("scenarios")))]
pub struct Args {
    #[command(flatten)]
    chosen: Chosen,
    #[command(flatten)]
    part: Part,
    #[command(flatten)]
    on: On,
    /// First install what is missing on this machine, as `cargo xtask setup` does
    #[arg(long)]
    setup: bool,
    /// Cells that run at the same time [default: as many as cores and memory allow]
    #[arg(short, long, value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    #[command(flatten)]
    how: How,
    /// Run everything twice, first from snapshots and then from boots, and compare the verdicts. Exit code 1 if any
    /// differ
    #[arg(long, conflicts_with_all = ["no_snapshots", "against"])]
    verify_snapshots: bool,
    /// Run everything twice, the second time with all CPUs of the host kept busy, and compare the verdicts and everything
    /// that the guests said. Exit code 1 if any differ
    #[arg(long, conflicts_with_all = ["verify_snapshots", "against"])]
    verify_determinism: bool,
    /// Note which functions and lines of drivers/pci, drivers/vfio and the devices' drivers each cell executes (not on KVM).
    /// `cargo xtask coverage RUN` shows them
    #[arg(long)]
    coverage: bool,
    /// Stop at the first unexpected cell: start no cell after it
    #[arg(long, conflicts_with = "against")]
    fail_fast: bool,
    /// Print the cells, the expected result of each, and its QEMU command. Build and run nothing
    #[arg(long)]
    dry_run: bool,
    /// How to print the results
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Also print when each cell begins, the output of apt, and the rows of families of which every cell passes
    #[arg(short, long)]
    verbose: bool,
    /// Print no progress, and of the results only the unexpected cells and the summary
    #[arg(short, long, conflicts_with = "verbose")]
    quiet: bool,
}

/// Builds, runs, and prints the table.
pub fn run(args: Args) -> Result<ExitCode> {
    let Planned { lab, scenarios, own, cells, every, note } = args.chosen.plan(args.how.profile.as_deref())?;
    let share = args.part.share(&cells)?;
    let cells = share.as_ref().map_or(cells, |(share, _)| share.cells());
    let (share, part) = share.unzip();
    let request = Request {
        share,
        jobs: args.jobs.map(usize::from),
        fail_fast: args.fail_fast,
        accel: if args.coverage { traceable(args.how.engine.accel)? } else { args.how.engine.accel.into() },
        ..args.how.clone().request(cells.clone())
    };
    let extent = Extent::of(&request, every, |kernel: &str| lab.find(kernel).is_some());
    let ui = Arc::new(if args.quiet { Ui::quiet() } else { Ui::new(args.verbose) });
    part.iter().for_each(|line| ui.say(line));
    ui.say(&extent.to_string());
    if let Some(note) = note.as_ref().filter(|_| !cells.is_empty()) {
        ui.say(&comparable(note, &cells)?);
    }
    if args.on.is_elsewhere() {
        let task = Task { cells: &cells, out: &request.out, dry_run: args.dry_run };
        return until_interrupted(&lab, &OnceCell::new(), async {
            match args.on.run(task, &ui).await? {
                Some(run) => finish(&Report::of(&run)?, &args, &own, &ui),
                None => Ok(ExitCode::SUCCESS),
            }
        });
    }
    if args.dry_run {
        return show(&lab, &scenarios, &cells, &args);
    }
    if args.setup {
        setup::first(&Machine::for_cells(&lab, &cells)?, args.verbose)?;
    }
    if args.on.build_only {
        return until_interrupted(&lab, &OnceCell::new(), build::build(&lab, &cells, &ui));
    }
    let folder = OnceCell::new();
    until_interrupted(&lab, &folder, async {
        let tracer = || args.coverage.then(|| Tracer::prepare(&lab, &request)).transpose();
        let report = carry_out(&lab, &scenarios, &request, note.as_ref(), tracer()?, &ui, &folder).await?;
        if args.verify_snapshots {
            let booted = Request { snapshots: false, ..request.clone() };
            let booted = carry_out(&lab, &scenarios, &booted, None, tracer()?, &ui, &OnceCell::new()).await?;
            return compare(&report, &booted);
        }
        if args.verify_determinism {
            let busy = BusyHost::new();
            let again = carry_out(&lab, &scenarios, &request, None, None, &ui, &OnceCell::new()).await?;
            drop(busy);
            return compare_all(&report, &again);
        }
        finish(&report, &args, &own, &ui)
    })
}

/// Prints the results of a run, and what to do next. The exit code is that of the run.
fn finish(report: &Report, args: &Args, own: &[String], ui: &Ui) -> Result<ExitCode> {
    let extent = if args.quiet { results::Extent::Brief } else { results::Extent::of(args.verbose) };
    results::print(report, args.format, extent)?;
    if !own.is_empty() && args.chosen.against.is_none() && args.format == Format::Human {
        out::print(&format!("\n{}", hint(&report.run().path, args.chosen.own.tree.path.as_deref())))?;
    }
    if args.coverage {
        ui.say(&coverage_hint(report));
    }
    if report.awaits_merge() {
        ui.say(AWAITS_MERGE);
    }
    Ok(ExitCode::from(report.exit_code()))
}

/// Says what is compared with what, before anything is built.
///
/// # Errors
/// Nothing can be compared.
fn comparable(note: &AgainstNote, cells: &[PlannedCell]) -> Result<String> {
    let kernel = &note.kernel;
    let Some(earlier) = &note.earlier else {
        return Ok(format!("each kernel is compared with {kernel}, which runs the same cells"));
    };
    let is_there = |cell: &&PlannedCell| earlier.has(&cell.id);
    let (there, place) = (cells.iter().filter(is_there).count(), earlier.results.display());
    if there == 0 {
        bail!("{place} has no verdict of {kernel} on any cell of this run, so there is nothing to compare");
    }
    Ok(format!(
        "each kernel is compared with {kernel} in {place}, which has a verdict on {there} of {}",
        counted(cells.len(), "cell", "cells")
    ))
}

/// How to compare a user's own kernel with another.
fn hint(run: &Path, tree: Option<&Path>) -> String {
    let rev = tree.map(|tree| format!("--against REV (a revision of {}), ", tree.display())).unwrap_or_default();
    let results = run.join(RESULTS);
    format!(
        "to see only what is worse than on another kernel: {rev}--against stock, or, in a later run, --against {}",
        results.display()
    )
}

async fn carry_out(
    lab: &Lab,
    scenarios: &[Scenario],
    request: &Request,
    note: Option<&AgainstNote>,
    tracer: Option<Tracer>,
    ui: &Arc<Ui>,
    folder: &OnceCell<PathBuf>,
) -> Result<Report> {
    let runner = Runner::prepare(lab, scenarios, request, ui.clone()).await?;
    let runner = match tracer {
        Some(tracer) => runner.traced(tracer)?,
        None => runner,
    };
    // Each run sets it once.
    let _ = folder.set(runner.folder().to_owned());
    if let Some(note) = note {
        note.write(runner.folder())?;
    }
    runner.run(request, &**ui).await?;
    let report = Report::of(runner.folder())?;
    report.write_files()?;
    Ok(report)
}

/// The accelerator of a run with coverage.
fn traceable(accel: Accel) -> Result<Choice> {
    match accel {
        Accel::Auto | Accel::Tcg => Ok(Choice::Tcg),
        Accel::Kvm => bail!(
            "--coverage and --accel kvm exclude each other: only TCG, which translates each instruction, knows what a guest \
             executes"
        ),
    }
}

/// How much the cells executed, and how to see the rest.
fn coverage_hint(report: &Report) -> String {
    let run = report.run();
    match harness::report::Coverage::of(std::slice::from_ref(run), None) {
        Ok(sum) => format!("{}; to see the others: cargo xtask coverage {}", sum.total(), run.path.display()),
        Err(error) => format!("no coverage: {error}"),
    }
}

/// Compares the verdicts from snapshots with those from boots. The exit code is 1 if any differ.
fn compare(restored: &Report, booted: &Report) -> Result<ExitCode> {
    let differences = disagreements(restored.run(), booted.run());
    let mut lines: Vec<_> = differences.iter().map(|difference| format!("! {difference}")).collect();
    let cells = booted.run().cells.len();
    lines.push(format!(
        "{}: {} between snapshots ({}) and boots ({})",
        counted(cells, "cell", "cells"),
        counted(differences.len(), "differs", "differ"),
        restored.run().path.display(),
        booted.run().path.display()
    ));
    out::print(&lines.join("\n"))?;
    Ok(if differences.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Compares the verdicts of two runs, and everything that the guests said in them. The exit code is 1 if any differ.
fn compare_all(first: &Report, second: &Report) -> Result<ExitCode> {
    let verdicts = disagreements(first.run(), second.run());
    let (said, compared) = deviations(first.run(), second.run());
    if compared == 0 {
        bail!("no guest ran on its own clock, so there is nothing to compare: why, the line \"clock:\" above says");
    }
    let mut lines: Vec<_> = verdicts.iter().map(|difference| format!("! {difference}")).collect();
    lines.extend(said.iter().map(|difference| format!("~ {difference}")));
    lines.push(format!(
        "{} twice, the second time on a busy host: {}; {} not say the same ({}, {})",
        counted(compared, "cell", "cells"),
        counted(verdicts.len(), "verdict differs", "verdicts differ"),
        counted(said.len(), "guest did", "guests did"),
        first.run().path.display(),
        second.run().path.display()
    ));
    out::print(&lines.join("\n"))?;
    Ok(if verdicts.is_empty() && said.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn show(lab: &Lab, scenarios: &[Scenario], cells: &[PlannedCell], args: &Args) -> Result<ExitCode> {
    let accel = match args.how.engine.accel {
        Accel::Kvm => argv::Accel::Kvm,
        Accel::Tcg => argv::Accel::Tcg,
        Accel::Auto => accel::last(lab.cache()).map_or(argv::Accel::Tcg, |decision| decision.accel),
    };
    let (engine, _) = clock::decide(args.how.engine.clock.into(), accel, lab.cache(), &process::program());
    let commands = cells.iter().map(|cell| command_of(lab, scenarios, cell, engine.clone()).unwrap_or_default());
    let shown = cells.iter().zip(commands);
    out::print(&match args.format {
        Format::Human => {
            let text = |(cell, argv): (&PlannedCell, _)| {
                format!(
                    "{} (expected: {})\n    {}\n",
                    cell.id,
                    cell.expected.word(),
                    shell_words::join::<Vec<String>, _>(argv)
                )
            };
            shown.map(text).collect()
        }
        Format::Json => {
            let json = |(cell, argv): (&PlannedCell, _)| serde_json::json!({"cell": cell.id, "expected": cell.expected.word(), "argv": argv});
            format!("{:#}", shown.map(json).collect::<serde_json::Value>())
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hint_names_a_revision_only_with_a_tree() {
        let text = |tree: Option<&str>| hint(Path::new("/runs/latest"), tree.map(Path::new));
        assert_eq!(
            text(Some("/src/linux")),
            "to see only what is worse than on another kernel: --against REV (a revision of /src/linux), --against stock, \
             or, in a later run, --against /runs/latest/results.json"
        );
        assert!(!text(None).contains("REV"), "a revision needs a tree");
    }
}
