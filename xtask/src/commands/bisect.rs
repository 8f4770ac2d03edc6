//! `cargo xtask bisect`: finds the commit that broke a scenario, or that fixed it.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use harness::bisect::{self, Answer, Asked, Cells, Event, Found, History, Kernels, Place, Question, Revision};
use harness::evidence::{PATCHES, write_whole};
use harness::matrix::series;
use harness::report::Report;
use harness::text::counted;
use kernels::CancelToken;

use crate::interrupt::until_interrupted;
use crate::judging::{Judging, verdict_line};
use crate::names;
use crate::out;
use crate::posted;
use crate::ui::Ui;

/// What to look for, and where.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask bisect --tree ~/src/linux --good v6.1 --bad v6.12 --scenario owner_rescans_on_removal --trigger yank
  cargo xtask bisect --tree ~/src/linux --good HEAD --bad v6.12 --reverse --scenario pf_uevent -- drivers/pci
  cargo xtask bisect --tree ~/src/linux --good v6.1 --bad v6.12 --script repro.sh
  cargo xtask bisect --tree . --good v6.9 --bad v6.10 --scenario rescan_race::enable_and_disable --runs 5
  cargo xtask bisect --series v2.mbox --reverse --scenario owner_rescans_on_removal --trigger yank

Both ends are judged first. The bisection searches for the failure of the bad end. A commit that fails in another way is
skipped. So is a commit that does not build or boot. The ends of a series are its base and the whole series.

Verdicts are remembered. After an interruption, run the same command again to continue.

Exit codes: 0 found, 2 not found (either only skipped commits are left, which are listed, or there was an error),
130 interrupted.")]
#[command(group(clap::ArgGroup::new("over").required(true).multiple(true).args(["tree", "series"])))]
pub struct Args {
    /// Bisect over the patches of a posted series: an mbox, a mail, a patch, a folder of them, a maildir, or - for
    /// stdin. The base is the good end, and the whole series the bad end (with --reverse the other way round)
    #[arg(long, id = "series", value_name = "FILE", conflicts_with_all = ["good", "bad", "paths"])]
    series: Option<PathBuf>,
    #[command(flatten)]
    posted: posted::Reading,
    /// A revision on which the scenario passes
    // clap ignores `requires = "series"` where a conflict rules the series out. So this names the group of the options
    // that need a series.
    #[arg(long, value_name = "REV", required_unless_present = "series", conflicts_with = "Reading")]
    good: Option<String>,
    /// A revision on which the scenario fails
    #[arg(long, value_name = "REV", required_unless_present = "series")]
    bad: Option<String>,
    /// The scenario that judges each commit: `family::scenario`, or `scenario` alone
    #[arg(long, value_parser = names::scenarios(), hide_possible_values = true)]
    #[arg(required_unless_present = "script", conflicts_with = "script")]
    scenario: Option<String>,
    /// Find the commit that fixed it: the good revision is newer than the bad one
    #[arg(long)]
    reverse: bool,
    /// Skip a revision, a range A..B, or a patch of the series (by its number). May be given several times
    #[arg(long, value_name = "REV")]
    skip: Vec<String>,
    #[command(flatten)]
    judging: Judging,
    /// Consider only commits that touch one of these paths of the tree
    #[arg(last = true, value_name = "PATHS")]
    paths: Vec<String>,
}

/// Bisects, and prints the answer.
pub fn run(args: Args) -> Result<ExitCode> {
    match &args.series {
        Some(from) => over_series(&args, from),
        None => over_commits(&args),
    }
}

fn over_commits(args: &Args) -> Result<ExitCode> {
    let ui = Arc::new(Ui::new(false));
    let (tree, good, bad) = (args.judging.own.open()?, args.good.clone(), args.bad.clone());
    let (tree, good, bad) = tree
        .zip(good)
        .zip(bad)
        .map(|((t, g), b)| (t, g, b))
        .context("--tree, --good and --bad are needed unless --series is given")?;
    // Report unknown revisions before anything is built, with the nearest known names.
    for end in [&good, &bad] {
        tree.revision(end, &CancelToken::new())?;
    }
    let question = question(args, tree.path(), good, bad, args.skip.clone());
    let (cells, asked) = args.judging.cells_of(tree, args.scenario.as_deref(), &ui)?;
    let place = args.judging.place();
    until_interrupted(&cells.lab, &OnceCell::new(), answer(args, &cells, &question, &asked, &place, &ui))
}

fn over_series(args: &Args, from: &Path) -> Result<ExitCode> {
    let ui = Arc::new(Ui::new(false));
    let posted = args.posted.read(from, &args.judging.own, args.judging.profile())?;
    until_interrupted(&posted.lab, &OnceCell::new(), async {
        let placed = posted.place(&ui).await?;
        let note = &placed.note;
        if !note.is_whole() {
            bail!("not all of it applies, so there is no kernel with the whole series; {}", placed.elsewhere());
        }
        if note.tried().next().is_none() {
            bail!(placed.nothing_to_test(&ui).await?);
        }
        let numbers: Vec<_> = note.tried().map(|(number, _)| number).collect();
        let skip = args.skip.iter().map(|patch| skipped(patch, &numbers)).collect::<Result<_>>()?;
        let history = History::of_series(&placed.lab, note).await?;
        let place = args.judging.place().join(format!("series-{}", history.id()));
        let patches = place.join(PATCHES);
        placed.keep(&patches)?;
        let kernels = Kernels::OfSeries { options: series::options(&placed.lab, &patches) };
        let lab = placed.lab.with(placed.lab.manifest().clone());
        let (cells, asked) = args.judging.cells(lab, kernels, args.scenario.as_deref(), &ui)?;
        let (base, whole) = (History::revision(series::BASE), history.last());
        let (good, bad) = if args.reverse { (whole, base) } else { (base, whole) };
        let question = question(args, history.path(), good, bad, skip);
        answer(args, &cells, &question, &asked, &place, &ui).await
    })
}

fn question(args: &Args, repository: &Path, good: String, bad: String, skip: Vec<String>) -> Question {
    Question {
        repository: repository.to_owned(),
        good,
        bad,
        reverse: args.reverse,
        skip,
        paths: args.paths.clone(),
        runs: args.judging.runs.into(),
        any_failure: args.judging.any_failure,
    }
}

/// The revision of a patch to skip, by its number: `3`, or `patch-3` as in reports.
fn skipped(patch: &str, numbers: &[usize]) -> Result<String> {
    let number = patch.strip_prefix("patch-").unwrap_or(patch).parse::<usize>().ok();
    let number = number.filter(|number| numbers.contains(number));
    let known = || numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
    let number = number
        .with_context(|| format!("--skip takes the number of a patch of the series ({}), not `{patch}`", known()));
    Ok(History::revision(&series::with_patches(number?)))
}

/// Bisects, prints the answer, and writes it into a folder below `place`.
async fn answer(
    args: &Args,
    cells: &Cells,
    question: &Question,
    asked: &Asked,
    place: &Path,
    ui: &Ui,
) -> Result<ExitCode> {
    let memory = args.judging.memory(cells)?;
    let judge = async |revision: &Revision| cells.run(revision).await;
    let answer = bisect::bisect(question, &memory, judge, |event| ui.say(&words(&event))).await?;
    let text = bisect::render(&answer, asked);
    out::print(&text)?;
    let path = place.join(name(&answer));
    std::fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
    write_whole(&path.join("answer.txt"), text.as_bytes())?;
    write_whole(&path.join("bisect.log"), answer.log.as_bytes())?;
    bisect::note(&answer, asked).write(&path)?;
    Report::of(&path)?.write_files()?;
    ui.say(&format!("wrote answer.txt, report.html and bisect.log into {}", path.display()));
    Ok(match answer.found {
        Found::First(_) => ExitCode::SUCCESS,
        Found::OneOf(_) => ExitCode::from(crate::ERROR),
    })
}

/// The name of the folder of an answer. It is made from the commits, so the same answer has the same folder.
fn name(answer: &Answer) -> String {
    let short = match &answer.found {
        Found::First(revision) => revision.short.clone(),
        Found::OneOf(revisions) => format!("one-of-{}", revisions.len()),
    };
    format!("{}-{short}", if answer.reverse { "first-fixed" } else { "first-bad" })
}

fn words(event: &Event<'_>) -> String {
    match event {
        Event::Judging { place, revision } => format!("{}: {revision}", at(place)),
        Event::Judged { place, judged } => format!("{}: {}", at(place), verdict_line(judged)),
    }
}

fn at(place: &Place) -> String {
    match place {
        Place::BadEnd => "bad end".to_owned(),
        Place::GoodEnd => "good end".to_owned(),
        Place::Step { number, left: None } => format!("step {number}"),
        Place::Step { number, left: Some(left) } => {
            let revisions = counted(left.revisions as usize, "revision", "revisions");
            format!("step {number} of about {}, {revisions} left", number + left.steps)
        }
    }
}
