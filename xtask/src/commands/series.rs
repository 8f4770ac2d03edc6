//! `cargo xtask series`: what a posted series does, patch by patch.

use std::cell::OnceCell;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use harness::coverage::Coverage;
use harness::evidence::{Applies, PATCHES, SeriesNote};
use harness::lab::Lab;
use harness::matrix::{Request, Runner};
use harness::plan::Selection;
use harness::report::{SeriesReport, Terminal};
use harness::series;
use kernels::series::Series;

use crate::interrupt::until_interrupted;
use crate::out;
use crate::own::OwnTree;
use crate::patched::Base;
use crate::select::{Format, How};
use crate::ui::Ui;

/// Which series, and how it is tried.
#[derive(clap::Args)]
#[command(after_help = "\
Builds the base and every prefix of the series, runs the scenarios on each, and answers per patch what is fixed, still
broken, regressed and unchanged, and whether one can bisect through it. Ends with a summary for a reply to the list.

FILE is an mbox (from lore.kernel.org, or `b4 am -o- MESSAGE-ID`), a single mail or patch, a folder of *.patch or *.eml,
or a maildir; `-` reads an mbox from stdin. Of several versions the newest complete one is taken; replies are left out.

Examples:
  b4 am -o- MESSAGE-ID | cargo xtask series -
  cargo xtask series v2.mbox --scenarios 'numvfs_*' --triggers yank
  cargo xtask series patches/ --base 6.1
  cargo xtask series v2.mbox --tree ~/linux --3way --repeat 3

Building a series runs its makefiles on this machine, as building a kernel does: read it first.

Exit codes: 0 it makes nothing worse and one can bisect through it, 1 something regressed, does not build or does not
apply, or, if you name --scenarios, is still broken with all of it; 2 usage or infrastructure (nothing was learned, or too little), 130 interrupted.")]
pub struct Args {
    /// The series: an mbox, a mail, a patch, a folder of them, a maildir, or - for stdin
    #[arg(value_name = "FILE")]
    from: PathBuf,
    /// What it applies to: a base of kernels.toml, or with --tree a revision [default: the first base; with --tree the
    /// commit that the series names, or HEAD]
    #[arg(long, value_name = "REV")]
    base: Option<String>,
    #[command(flatten)]
    own: OwnTree,
    /// Merge a patch that does not fit, by the files of the tree that it was made on
    #[arg(long = "3way", requires = "tree")]
    three_way: bool,
    /// Take diffs in replies too, after the patches of the series
    #[arg(long)]
    inline: bool,
    /// Run it even if it touches nothing that the scenarios exercise
    #[arg(long)]
    force: bool,
    /// Scenarios, by glob over `family::scenario` or over `scenario` alone [default: all that can tell something of a kernel
    /// of which nothing is known]
    #[arg(long, value_name = "GLOB", value_delimiter = ',')]
    scenarios: Vec<String>,
    /// Triggers, by glob: device-del, device-del-acpi, yank, sysfs-remove; none for scenarios that remove nothing
    /// [default: all]
    #[arg(long, value_name = "GLOB", value_delimiter = ',')]
    triggers: Vec<String>,
    /// Cells at a time [default: as many as cores and memory allow]
    #[arg(short, long, value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// Run every cell this often: one that passes and fails is called flaky, and neither fixed nor regressed
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    #[command(flatten)]
    how: How,
    /// Look whether it applies and say what would be run; build and run nothing
    #[arg(long)]
    dry_run: bool,
    /// How to print the answers
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Tell more: when each cell begins
    #[arg(short, long)]
    verbose: bool,
}

/// Reads, builds, runs, and prints the answers.
pub fn run(args: Args) -> Result<ExitCode> {
    let series = read(&args)?;
    let scratch = tempfile::tempdir().context("cannot make a temporary folder")?;
    let files = series.write(scratch.path()).context("cannot write the patches into a temporary folder")?;
    let lab = lab(&args, &series, &files)?;
    let ui = Arc::new(Ui::new(args.verbose));
    let folder = OnceCell::new();
    until_interrupted(&lab, &folder, async {
        let mut note = series::look(&lab, &series, &files, args.three_way, ui.clone()).await?;
        introduce(&note, &ui);
        if note.tried().next().is_none() {
            bail!("no patch applies, so there is nothing to run; {}", elsewhere(&args, &series));
        }
        let request = request(&args, &lab, &note)?;
        let coverage = Coverage::of(&request, request.cells.len(), |kernel: &str| lab.find(kernel).is_some());
        ui.say(&coverage.to_string());
        if args.dry_run {
            return Ok(ExitCode::SUCCESS);
        }
        let runner = Runner::prepare(&lab, &scenarios::all(), &request, ui.clone()).await?;
        let _ = folder.set(runner.folder().to_owned());
        let patches = runner.folder().join(PATCHES);
        keep(&files, &patches).context("cannot write the patches beside the evidence")?;
        note.base_about = describe(&lab, &note);
        note.answers_for_base = !args.scenarios.is_empty();
        note.options = series::options(&lab, &patches);
        let runner = runner.of_series(&note.options);
        note.write(runner.folder())?;
        runner.run(&request, &*ui).await?;
        let report = SeriesReport::of(runner.folder())?;
        report.write_files()?;
        out::print(&match args.format {
            Format::Human => {
                let table = report.table(Terminal::of_stdout(&std::io::stdout()));
                let rule = "-".repeat(72);
                let place = runner.folder().display();
                format!(
                    "{table}\nevidence in {place}; for a reply (summary.txt there):\n{rule}\n{}{rule}",
                    report.summary()
                )
            }
            Format::Json => format!("{:#}", report.results()),
        })?;
        Ok(ExitCode::from(report.exit_code()))
    })
}

/// Copies the patches to the evidence, as they were applied.
fn keep(files: &[PathBuf], folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let copy = |file: &PathBuf| std::fs::copy(file, folder.join(file.file_name().unwrap_or_default())).map(drop);
    files.iter().try_for_each(copy)
}

fn read(args: &Args) -> Result<Series> {
    let series = if args.from == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::stdin().lock().read_to_end(&mut bytes).context("cannot read stdin")?;
        Series::of_bytes(&bytes, "stdin", args.inline)?
    } else {
        Series::read(&args.from, args.inline)?
    };
    if !args.force {
        series.within_reach()?;
    }
    Ok(series)
}

/// The lab with the kernels of the series.
fn lab(args: &Args, series: &Series, files: &[PathBuf]) -> Result<Lab> {
    let named = series.base_commit.as_deref().filter(|_| args.own.path.is_some());
    let rev = args.base.as_deref().or(named);
    let base = Base { tree: &args.own, rev, profile: args.how.profile.as_deref() };
    let titles = series.patches.iter().map(|patch| patch.subject.clone());
    base.lab(&titles.zip(files.iter().cloned()).collect::<Vec<_>>())
}

/// What is known before anything is built.
fn introduce(note: &SeriesNote, ui: &Ui) {
    let version = if note.version > 1 { format!("version {}, ", note.version) } else { String::new() };
    let count = note.steps.len();
    ui.say(&format!(
        "\"{}\": {version}{count} patch{} on {}",
        note.subject,
        if count == 1 { "" } else { "es" },
        note.base_about
    ));
    for (number, step) in note.steps.iter().enumerate() {
        ui.say(&format!("  {}/{count} {} ({})", number + 1, step.subject, step.author));
        match &step.applies {
            Applies::Yes => {}
            Applies::NotTried => ui.say("      not tried: a patch before it does not apply"),
            Applies::No { why, lines } => {
                ui.say(&format!("      does not apply: {why}"));
                lines.iter().for_each(|line| ui.say(&format!("      {line}")));
            }
        }
    }
    note.notes.iter().for_each(|line| ui.say(&format!("  {line}")));
}

/// Where a series may apply that does not here.
fn elsewhere(args: &Args, series: &Series) -> String {
    match (&series.base_commit, &args.own.path) {
        (Some(commit), None) => format!("it says it is based on {commit}: --tree PATH takes that from a git tree"),
        (_, None) => "--base takes another base, --tree PATH --base REV a revision of a git tree".to_owned(),
        (_, Some(_)) => "--base REV takes another revision".to_owned(),
    }
}

fn request(args: &Args, lab: &Lab, note: &SeriesNote) -> Result<Request> {
    let selection =
        Selection { scenarios: args.scenarios.clone(), triggers: args.triggers.clone(), ..Selection::default() };
    let cells = series::cells(lab.manifest(), note, &scenarios::all(), &selection, args.repeat)?;
    Ok(Request { jobs: args.jobs.map(usize::from), ..args.how.clone().request(cells) })
}

/// What the base is, now that it is built.
fn describe(lab: &Lab, note: &SeriesNote) -> String {
    match lab.find(&note.base) {
        Some(image) => format!("Linux {} ({})", image.release, image.source),
        None => note.base_about.clone(),
    }
}
