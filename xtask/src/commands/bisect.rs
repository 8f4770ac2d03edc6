//! `cargo xtask bisect`: which commit broke it, or fixed it.

use std::cell::OnceCell;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use harness::bisect::{self, Answer, Event, Found, Place, Question, Revision};
use harness::evidence::write_whole;
use kernels::CancelToken;

use crate::interrupt::until_interrupted;
use crate::judging::{Judging, told};
use crate::out;
use crate::ui::Ui;

/// What to look for, and where.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask bisect --tree ~/src/linux --good v6.1 --bad v6.12 --scenario owner_rescans_on_removal --trigger yank
  cargo xtask bisect --tree ~/src/linux --good HEAD --bad v6.12 --reverse --scenario pf_uevent -- drivers/pci
  cargo xtask bisect --tree . --good v6.9 --bad v6.10 --scenario owner_reads_under_lock --runs 5

Both ends are judged first. The failure of the bad one is what is looked for: a commit that fails in another way is
skipped, as are those that do not build or boot. Interrupted, the same command goes on: what was judged is remembered.
Exit codes: 0 found, 2 not found (among it: only skipped commits are left, which are listed), 130 interrupted.")]
pub struct Args {
    /// A git tree of Linux. Its checkout, index and branches are left alone
    #[arg(long, value_name = "PATH")]
    tree: PathBuf,
    /// A revision that passes
    #[arg(long, value_name = "REV")]
    good: String,
    /// A revision that fails
    #[arg(long, value_name = "REV")]
    bad: String,
    /// The scenario that judges: `family::scenario`, or `scenario` alone
    #[arg(long)]
    scenario: String,
    /// Find the commit that fixed it: the good revision is the newer one
    #[arg(long)]
    reverse: bool,
    /// Do without a revision, or a range A..B; may be given several times
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
    let ui = Arc::new(Ui::new(false));
    let (cells, asked) = args.judging.cells(&args.tree, &args.scenario, ui.clone())?;
    // These errors come before anything is built, and know names that are near.
    for end in [&args.good, &args.bad] {
        cells.tree.commit(end, &CancelToken::new())?;
    }
    let question = Question {
        repository: args.tree,
        good: args.good,
        bad: args.bad,
        reverse: args.reverse,
        skip: args.skip,
        paths: args.paths,
        runs: args.judging.runs.into(),
        any_failure: args.judging.any_failure,
    };
    let memory = if args.judging.restart { cells.memory()?.afresh() } else { cells.memory()? };
    let folder = OnceCell::new();
    until_interrupted(&cells.lab, &folder, async {
        let judge = async |revision: &Revision| cells.run(revision).await;
        let answer = bisect::bisect(&question, &memory, judge, |event| ui.say(&words(&event))).await?;
        let text = bisect::render(&answer, &asked);
        out::print(&text)?;
        let path = cells.how.out.join(name(&answer));
        std::fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        write_whole(&path.join("answer.txt"), text.as_bytes())?;
        write_whole(&path.join("bisect.log"), answer.log.as_bytes())?;
        ui.say(&format!("kept as answer.txt and bisect.log in {}", path.display()));
        Ok(match answer.found {
            Found::First(_) => ExitCode::SUCCESS,
            Found::OneOf(_) => ExitCode::from(crate::TROUBLE),
        })
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
