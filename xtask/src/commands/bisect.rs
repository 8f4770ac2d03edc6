//! `cargo xtask bisect`: which commit broke it, or fixed it.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use harness::bisect::{self, Answer, Asked, Cells, Event, Found, History, Kernels, Place, Question, Revision};
use harness::evidence::{PATCHES, write_whole};
use harness::matrix::series;
use kernels::CancelToken;

use crate::interrupt::until_interrupted;
use crate::judging::{Judging, told};
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
  cargo xtask bisect --tree . --good v6.9 --bad v6.10 --scenario owner_reads_under_lock --runs 5
  cargo xtask bisect --series v2.mbox --reverse --scenario owner_rescans_on_removal --trigger yank

Both ends are judged first. The failure of the bad one is what is looked for: a commit that fails in another way is
skipped, as are those that do not build or boot. The ends of a series are its base and the whole of it. Interrupted, the
same command goes on: what was judged is remembered.
Exit codes: 0 found, 2 not found (among it: only skipped commits are left, which are listed), 130 interrupted.")]
#[command(group(clap::ArgGroup::new("over").required(true).multiple(true).args(["tree", "series"])))]
pub struct Args {
    /// Bisect over the patches of a series that was posted: an mbox, a mail, a patch, a folder of them, a maildir, or - for
    /// stdin. Its base is the good end, and the whole series the bad one
    #[arg(long, id = "series", value_name = "FILE", conflicts_with_all = ["good", "bad", "paths"])]
    series: Option<PathBuf>,
    #[command(flatten)]
    posted: posted::Reading,
    /// A revision that passes
    // clap asks for no series where one cannot be, so what goes with it only is told apart here, by the name of its group.
    #[arg(long, value_name = "REV", required_unless_present = "series", conflicts_with = "Reading")]
    good: Option<String>,
    /// A revision that fails
    #[arg(long, value_name = "REV", required_unless_present = "series")]
    bad: Option<String>,
    /// The scenario that judges: `family::scenario`, or `scenario` alone
    #[arg(long, value_parser = names::scenarios(), hide_possible_values = true)]
    scenario: String,
    /// Find the commit that fixed it: the good revision is the newer one
    #[arg(long)]
    reverse: bool,
    /// Do without a revision, a range A..B, or a patch of the series (by its number); may be given several times
    #[arg(long, value_name = "REV")]
    skip: Vec<String>,
    #[command(flatten)]
    judging: Judging,
    /// Only commits that touch one of these paths of the tree
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
        .context("without --series, --tree, --good and --bad are needed")?;
    // These errors come before anything is built, and know names that are near.
    for end in [&good, &bad] {
        tree.revision(end, &CancelToken::new())?;
    }
    let question = question(args, tree.path(), good, bad, args.skip.clone());
    let (cells, asked) = args.judging.cells_of(tree, &args.scenario, &ui)?;
    let place = args.judging.place();
    until_interrupted(&cells.lab, &OnceCell::new(), answer(args, &cells, &question, &asked, &place, &ui))
}

fn over_series(args: &Args, from: &Path) -> Result<ExitCode> {
    let ui = Arc::new(Ui::new(false));
    let posted = args.posted.read(from, &args.judging.own, args.judging.profile())?;
    until_interrupted(&posted.lab, &OnceCell::new(), async {
        let note = posted.look(&ui).await?;
        if note.tried().count() < note.steps.len() {
            bail!("not all of it applies, so it has no end; {}", posted.elsewhere());
        }
        let skip = args.skip.iter().map(|patch| skipped(patch, note.steps.len())).collect::<Result<_>>()?;
        let history = History::of_series(&posted.lab, &note).await?;
        let place = args.judging.place().join(format!("series-{}", history.id()));
        let patches = place.join(PATCHES);
        posted.keep(&patches)?;
        let kernels = Kernels::OfSeries { options: series::options(&posted.lab, &patches) };
        let lab = posted.lab.with(posted.lab.manifest().clone());
        let (cells, asked) = args.judging.cells(lab, kernels, &args.scenario, &ui)?;
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

/// The revision of a patch that is to be left out, by its number: `3`, or `patch-3` as it is called in reports.
fn skipped(patch: &str, count: usize) -> Result<String> {
    let number = patch.strip_prefix("patch-").unwrap_or(patch).parse::<usize>().ok();
    let number = number.filter(|number| (1..=count).contains(number));
    let number =
        number.with_context(|| format!("--skip takes the number of a patch, from 1 to {count}, and not `{patch}`"));
    Ok(History::revision(&series::with_patches(number?)))
}

/// Bisects, prints the answer and keeps it in a place.
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
    ui.say(&format!("kept as answer.txt and bisect.log in {}", path.display()));
    Ok(match answer.found {
        Found::First(_) => ExitCode::SUCCESS,
        Found::OneOf(_) => ExitCode::from(crate::TROUBLE),
    })
}

/// The folder of an answer: named after the commits, so that the same answer lies in the same place.
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
        Event::Judged { place, judged } => format!("{}: {}", at(place), told(judged)),
    }
}

fn at(place: &Place) -> String {
    match place {
        Place::BadEnd => "bad end".to_owned(),
        Place::GoodEnd => "good end".to_owned(),
        Place::Step { number, left: None } => format!("step {number}"),
        Place::Step { number, left: Some(left) } => {
            let (about, count) = (number + left.steps, left.revisions);
            format!("step {number} of about {about}, {count} revision{} left", if count == 1 { "" } else { "s" })
        }
    }
}
