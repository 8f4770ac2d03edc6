//! `cargo xtask series`: tests each patch of a posted series.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Result, bail};
use harness::evidence::{PATCHES, SeriesNote};
use harness::lab::Lab;
use harness::matrix::extent::Extent;
use harness::matrix::plan::Selection;
use harness::matrix::series;
use harness::matrix::{Request, Runner};
use harness::report::{Report, SeriesReport};
use harness::scenario::Scenario;

use super::build;
use crate::interrupt::until_interrupted;
use crate::names;
use crate::own::OwnTree;
use crate::posted;
use crate::results;
use crate::scripts::Scripts;
use crate::select::{Format, How, Part};
use crate::slurm::{On, Task};
use crate::ui::{AWAITS_MERGE, Ui};

/// Which series, and how to test it.
#[derive(clap::Args)]
#[command(after_help = "\
Builds the base, and one kernel for each patch on top of the patches before it. Runs the scenarios on each kernel. Prints for
each patch what is fixed, still broken, regressed and unchanged, and whether the series is bisectable. Ends with a summary for
a reply to the mailing list.

FILE is an mbox (from lore.kernel.org, or `b4 am -o- MESSAGE-ID`), a single mail or patch, a folder of *.patch or *.eml,
or a maildir; `-` reads an mbox from stdin. If there are several versions, the newest complete one is used. Of a patch that was
sent again, the last mail is used. Replies are ignored.

The base is the newest one of kernels.toml to which the whole series applies, else the one to which most patches apply. What
becomes of the series on each base is printed first. Patches that the base has already are left out.

Examples:
  b4 am -o- MESSAGE-ID | cargo xtask series -
  cargo xtask series v2.mbox --scenarios 'numvfs_*' --triggers yank
  cargo xtask series patches/ --base 6.1
  cargo xtask series v3.mbox --script repro.sh
  cargo xtask series v2.mbox --tree ~/linux --3way --repeat 3
  cargo xtask series v2.mbox --partition hash:1/4

Building a series runs its makefiles on this machine, so read the series first.

Exit codes:
  0    nothing gets worse, and the series is bisectable
  1    something regressed, or does not build, or does not apply; or, with --scenarios or --script, is still broken with the whole series
  2    usage or infrastructure error: no answer, or too few
  130  interrupted")]
#[command(mut_arg("script", |script| script.conflicts_with("scenarios")))]
pub struct Args {
    /// The series: an mbox, a mail, a patch, a folder of them, a maildir, or - for stdin
    #[arg(id = "series", value_name = "FILE")]
    from: PathBuf,
    #[command(flatten)]
    posted: posted::Reading,
    #[command(flatten)]
    own: OwnTree,
    #[command(flatten)]
    scripts: Scripts,
    /// Scenarios, by glob over `family::scenario` or over `scenario` alone [default: all that are relevant for a kernel
    /// whose bugs are not known]
    #[arg(long, value_name = "GLOB", value_delimiter = ',')]
    #[arg(value_parser = names::scenarios(), hide_possible_values = true)]
    scenarios: Vec<String>,
    /// Triggers, by glob [default: all]
    #[arg(long, value_name = "GLOB", value_delimiter = ',', value_parser = names::trigger_globs())]
    triggers: Vec<String>,
    /// Cells that run at the same time [default: as many as cores and memory allow]
    #[arg(short, long, value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// Run every cell this many times. A cell that both passes and fails is flaky: it is neither fixed nor regressed
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    #[command(flatten)]
    part: Part,
    #[command(flatten)]
    on: On,
    #[command(flatten)]
    how: How,
    /// Check whether the series applies, and print what would run. Build and run nothing
    #[arg(long)]
    dry_run: bool,
    /// How to print the results
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Also print when each cell begins
    #[arg(short, long)]
    verbose: bool,
}

/// Reads the series, builds its kernels, runs the cells, and prints the results.
pub fn run(args: Args) -> Result<ExitCode> {
    if args.on.is_elsewhere() && args.from == Path::new("-") {
        bail!(
            "jobs cannot read the stdin of this command: write the series into a file that all nodes see, and name it"
        );
    }
    let posted = args.posted.read(&args.from, &args.own, args.how.profile.as_deref())?;
    let scenarios = args.scripts.scenarios(&[], posted.lab.manifest(), &args.triggers)?;
    let ui = Arc::new(Ui::new(args.verbose));
    let folder = OnceCell::new();
    until_interrupted(&posted.lab, &folder, async {
        let placed = posted.place(&ui).await?;
        let (lab, mut note) = (&placed.lab, placed.note.clone());
        if note.tried().next().is_none() {
            bail!(placed.nothing_to_test(&ui).await?);
        }
        let mut request = request(&args, lab, &scenarios, &note)?;
        if let Some((share, line)) = args.part.share(&request.cells)? {
            ui.say(&line);
            request = Request { cells: share.cells(), share: Some(share), ..request };
        }
        let extent = Extent::of(&request, request.cells.len(), |kernel: &str| lab.find(kernel).is_some());
        ui.say(&extent.to_string());
        if args.on.is_elsewhere() {
            let task = Task { cells: &request.cells, out: &request.out, dry_run: args.dry_run };
            return match args.on.run(task, &ui).await? {
                Some(run) => of_whole(&run, args.format),
                None => Ok(ExitCode::SUCCESS),
            };
        }
        if args.dry_run {
            return Ok(ExitCode::SUCCESS);
        }
        if args.on.build_only {
            return build::build(lab, &request.cells, &ui).await;
        }
        let runner = Runner::prepare(lab, &scenarios, &request, ui.clone()).await?;
        let _ = folder.set(runner.folder().to_owned());
        let patches = runner.folder().join(PATCHES);
        placed.keep(&patches)?;
        note.base_about = describe(lab, &note);
        note.answers_for_base = !args.scenarios.is_empty() || !args.scripts.script.is_empty();
        note.options = series::options(lab, &patches);
        let runner = runner.of_series(&note.options);
        note.write(runner.folder())?;
        runner.run(&request, &*ui).await?;
        if request.share.is_some() {
            return of_part(runner.folder(), args.format, &ui);
        }
        of_whole(runner.folder(), args.format)
    })
}

/// The report of a whole series.
pub fn of_whole(run: &Path, format: Format) -> Result<ExitCode> {
    let report = SeriesReport::of(run)?;
    report.write_files()?;
    results::print_series(&report, run, format)?;
    Ok(ExitCode::from(report.exit_code()))
}

/// The report of a part of a series, without the other parts: only its cells.
fn of_part(run: &Path, format: Format, ui: &Ui) -> Result<ExitCode> {
    let report = Report::of(run)?;
    report.write_files()?;
    results::print(&report, format, results::Extent::Usual)?;
    ui.say(AWAITS_MERGE);
    Ok(ExitCode::from(report.exit_code()))
}

fn request(args: &Args, lab: &Lab, scenarios: &[Scenario], note: &SeriesNote) -> Result<Request> {
    let selection =
        Selection { scenarios: args.scenarios.clone(), triggers: args.triggers.clone(), ..Selection::default() };
    let cells = series::cells(lab.manifest(), note, scenarios, &selection, args.repeat)?;
    Ok(Request { jobs: args.jobs.map(usize::from), ..args.how.clone().request(cells) })
}

/// A description of the base. It is precise only after the base is built.
fn describe(lab: &Lab, note: &SeriesNote) -> String {
    match lab.find(&note.base) {
        Some(image) => format!("Linux {} ({})", image.release, image.source),
        None => note.base_about.clone(),
    }
}
