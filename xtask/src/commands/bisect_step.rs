//! `cargo xtask bisect-step`: judges one commit, for `git bisect run`.

use std::cell::OnceCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::builder::Resettable;
use harness::bisect::{self, BisectError, Mark, Revision, Wanted};
use kernels::tree::Tree;
use kernels::{CancelToken, FailureKind};

use crate::interrupt::until_interrupted;
use crate::judging::{Judging, verdict_line};
use crate::names;
use crate::out;
use crate::ui::Ui;

/// The name of this command. `main` needs it: an error in this command must not look like a bad commit.
pub const NAME: &str = "bisect-step";

/// The exit code that stops `git bisect run` (128 and above, git-bisect(1)): the error says nothing about the commit.
pub const STOP: u8 = 128;

/// The default tree: that of the folder in which `git bisect run` runs this command.
const HERE: &str = ".";

/// What judges the commit.
#[derive(clap::Args)]
#[command(after_help = "\
Example, in a kernel tree, after `git bisect start BAD GOOD`:
  git bisect run ~/iov-regress/target/debug/xtask bisect-step owner_rescans_on_removal --trigger yank

Judges the commit that is checked out, with uncommitted changes to tracked files. Untracked files are ignored. The kernel is
built in a separate worktree, not in the checkout.

Run the program target/debug/xtask itself, not `cargo xtask`: if cargo fails, `git bisect` takes its exit code for a bad
commit. Build the program with `cargo build -p xtask`.

Exit codes: 0 good, 1 bad, 125 cannot be judged (does not build or boot, or fails in another way than --failure names), 128
and above: error, stop the bisection.")]
#[command(mut_arg("tree", |tree| tree.default_value(HERE)), mut_arg("config", |config| config.requires(Resettable::Reset)))]
pub struct Args {
    /// The scenario that judges the commit: `family::scenario`, or `scenario` alone
    #[arg(value_parser = names::scenarios(), hide_possible_values = true)]
    #[arg(required_unless_present = "script", conflicts_with = "script")]
    scenario: Option<String>,
    /// The failure to search for, KIND or KIND@FUNCTION
    #[arg(long, value_name = "FAILURE", value_parser = failure, conflicts_with = "any_failure", help = failure_help())]
    failure: Option<Wanted>,
    /// Swap the exit codes of good and bad. Use this to search for a fix, with
    /// `git bisect start --term-old=broken --term-new=fixed`
    #[arg(long)]
    reverse: bool,
    #[command(flatten)]
    judging: Judging,
}

/// Judges the commit, and returns the verdict as the exit code. No error returns the exit code of a bad commit.
pub fn run(args: Args) -> Result<ExitCode> {
    catch_unwind(AssertUnwindSafe(|| judge(args))).unwrap_or_else(|_| Ok(ExitCode::from(STOP)))
}

fn judge(args: Args) -> Result<ExitCode> {
    let ui = Arc::new(Ui::new(false));
    let folder = args.judging.own.path.as_deref().unwrap_or(Path::new(HERE));
    let tree = Tree::open(folder, &CancelToken::new())?;
    let (cells, _) = args.judging.cells_of(tree, args.scenario.as_deref(), &ui)?;
    let memory = args.judging.memory(&cells)?;
    let wanted = args.failure.unwrap_or(Wanted::Any);
    until_interrupted(&cells.lab, &OnceCell::new(), async {
        let (revision, changed) = bisect::checked_out(folder).await?;
        if changed {
            ui.say("the checkout has uncommitted changes: the kernel is built with them");
        }
        let judge = async |revision: &Revision| cells.run(revision).await;
        let judged = match bisect::step(&revision, args.judging.runs.into(), &wanted, &memory, judge).await {
            Err(BisectError::Trouble { why, .. }) => {
                bail!("no verdict on {revision}, because of an error that is not about the kernel: {why}")
            }
            judged => judged?,
        };
        let mut lines = vec![verdict_line(&judged)];
        let seen = judged.observed.iter().rev();
        lines.extend(seen.filter_map(|seen| Some(format!("evidence: {}", seen.evidence.as_ref()?.display()))).next());
        out::print(&lines.join("\n"))?;
        let mark = match (judged.ruling.mark, args.reverse) {
            (Mark::Good, true) => Mark::Bad,
            (Mark::Bad, true) => Mark::Good,
            (mark, _) => mark,
        };
        Ok(ExitCode::from(mark.exit_code()))
    })
}

fn failure_help() -> String {
    let kinds = names::failures();
    format!(
        "The failure to search for, KIND or KIND@FUNCTION, for example deadlock@sriov_numvfs_show. Kinds: {kinds} [default: any]"
    )
}

/// `deadlock@sriov_numvfs_show`, or `deadlock`.
fn failure(text: &str) -> Result<Wanted> {
    let (kind, function) = match text.split_once('@') {
        Some((kind, function)) => (kind, Some(function.to_owned())),
        None => (text, None),
    };
    let known = FailureKind::ALL.into_iter().find(|known| known.name() == kind);
    let kind = known.with_context(|| format!("`{kind}` is no kind of failure: {}", names::failures()))?;
    Ok(Wanted::Like { kind, function })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_named_by_kind_and_function() {
        let at = |text| failure(text).unwrap().to_string();
        assert_eq!(at("deadlock@sriov_numvfs_show"), "deadlock at sriov_numvfs_show");
        assert_eq!(at("kernel-splat"), "kernel-splat");
        assert!(failure("hang").unwrap_err().to_string().contains("no kind of failure: deadlock"));
    }
}
