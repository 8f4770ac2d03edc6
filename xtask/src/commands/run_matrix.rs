//! `cargo xtask run-matrix`: the main job.

use std::cell::OnceCell;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use harness::cell::PlannedCell;
use harness::host::accel;
use harness::lab::Lab;
use harness::matrix::coverage::Coverage;
use harness::matrix::plan::{Selection, plan};
use harness::matrix::{Request, Runner, command_of};
use harness::report::{Report, Terminal, disagreements};
use harness::vm::argv;

use super::setup;
use crate::interrupt::until_interrupted;
use crate::machine::Machine;
use crate::out;
use crate::own::Own;
use crate::select::{Accel, Format, How, Which};
use crate::ui::Ui;

/// What to run, and how.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask run-matrix --setup
  cargo xtask run-matrix --all
  cargo xtask run-matrix --kernels stock,v2-series --scenarios 'numvfs_events::*'
  cargo xtask run-matrix --scenarios 'owner*' --triggers yank --repeat 10 --fail-fast
  cargo xtask run-matrix --profile debug --kernels stock --scenarios 'numvfs_read::*'
  cargo xtask run-matrix --tree ~/src/linux --rev v6.11 --rev HEAD --kernels stock
  cargo xtask run-matrix --kernel-image linux-image-6.1.0-50-amd64_6.1.176-1_amd64.deb
  cargo xtask run-matrix --dry-run

Exit codes: 0 every cell as expected, 1 some not, 2 usage or infrastructure, 130 interrupted.")]
pub struct Args {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    own: Own,
    /// Install what is missing first
    #[arg(long)]
    setup: bool,
    /// Cells at a time [default: as many as cores and memory allow]
    #[arg(short, long, value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// Run every cell this often
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    #[command(flatten)]
    how: How,
    /// Run everything twice, from snapshots and then from boots, and compare the verdicts; exits with 1 if any differ
    #[arg(long, conflicts_with = "no_snapshots")]
    verify_snapshots: bool,
    /// Begin no cell after the first that is not as expected
    #[arg(long)]
    fail_fast: bool,
    /// Print the cells, what is expected of each, and its QEMU command; build and run nothing
    #[arg(long)]
    dry_run: bool,
    /// How to print the results
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Tell more: when each cell begins, what apt prints
    #[arg(short, long)]
    verbose: bool,
}

/// Builds, runs, and prints the table.
pub fn run(args: Args) -> Result<ExitCode> {
    let (lab, own) = args.own.lab(args.how.profile.as_deref())?;
    let scenarios = scenarios::all();
    let which = args.which.clone();
    let selection = Selection::from(Which { kernels: Own::kernels(own, which.kernels), ..which });
    let cells = plan(lab.manifest(), &scenarios, &selection, args.repeat)?;
    let every = plan(lab.manifest(), &scenarios, &Selection { all: true, ..selection }, args.repeat)?.len();
    let request = Request {
        jobs: args.jobs.map(usize::from),
        fail_fast: args.fail_fast,
        ..args.how.clone().request(cells.clone())
    };
    let coverage = Coverage::of(&request, every, |kernel: &str| lab.find(kernel).is_some());
    let ui = Arc::new(Ui::new(args.verbose));
    ui.say(&coverage.to_string());
    if args.dry_run {
        return show(&lab, &cells, &args);
    }
    if args.setup {
        let variants = lab.manifest().variants.iter();
        let run: Vec<_> = variants.filter(|variant| cells.iter().any(|cell| cell.id.variant == variant.name)).collect();
        let machine = Machine::for_bases(|base| run.iter().any(|variant| variant.base == base.name))?;
        setup::first(&machine, args.verbose)?;
    }
    let folder = OnceCell::new();
    until_interrupted(&lab, &folder, async {
        let report = carry_out(&lab, &request, &ui, &folder).await?;
        if args.verify_snapshots {
            let booted = Request { snapshots: false, ..request.clone() };
            let booted = carry_out(&lab, &booted, &ui, &OnceCell::new()).await?;
            return compare(&report, &booted);
        }
        out::print(&match args.format {
            Format::Human => report.table(Terminal::of_stdout(&std::io::stdout())),
            Format::Json => format!("{:#}", report.results()),
        })?;
        Ok(ExitCode::from(report.exit_code()))
    })
}

async fn carry_out(lab: &Lab, request: &Request, ui: &Arc<Ui>, folder: &OnceCell<PathBuf>) -> Result<Report> {
    let runner = Runner::prepare(lab, &scenarios::all(), request, ui.clone()).await?;
    // Set once for each run: there is no other.
    let _ = folder.set(runner.folder().to_owned());
    runner.run(request, &**ui).await?;
    let report = Report::of(runner.folder())?;
    report.write_files()?;
    Ok(report)
}

/// Whether cells say the same from snapshots as from boots.
fn compare(restored: &Report, booted: &Report) -> Result<ExitCode> {
    let differences = disagreements(restored.run(), booted.run());
    let mut lines: Vec<_> = differences.iter().map(|difference| format!("! {difference}")).collect();
    let cells = booted.run().cells.len();
    lines.push(format!(
        "{cells} cells: {} differ between snapshots ({}) and boots ({})",
        differences.len(),
        restored.run().path.display(),
        booted.run().path.display()
    ));
    out::print(&lines.join("\n"))?;
    Ok(if differences.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn show(lab: &Lab, cells: &[PlannedCell], args: &Args) -> Result<ExitCode> {
    let accel = match args.how.accel {
        Accel::Kvm => argv::Accel::Kvm,
        Accel::Tcg => argv::Accel::Tcg,
        Accel::Auto => accel::last(lab.cache()).map_or(argv::Accel::Tcg, |decision| decision.accel),
    };
    let scenarios = scenarios::all();
    let commands = cells.iter().map(|cell| command_of(lab, &scenarios, cell, accel).unwrap_or_default());
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
