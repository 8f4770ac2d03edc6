//! `cargo xtask build`: builds kernels and the guest image into the cache, and runs nothing.

use std::cell::OnceCell;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use harness::cell::PlannedCell;
use harness::lab::Lab;
use harness::verdict::Verdict;

use super::setup;
use crate::chosen::{Chosen, Planned};
use crate::interrupt::until_interrupted;
use crate::machine::Machine;
use crate::names;
use crate::out;
use crate::select::Part;
use crate::ui::Ui;

/// Which kernels to build.
#[derive(clap::Args)]
#[command(after_help = "\
Takes the options of `run-matrix` that choose cells, and builds the kernels that these cells would run on. A later run on this
machine, or on any machine with the same cache (IOV_REGRESS_CACHE), finds them.

Examples:
  cargo xtask build
  cargo xtask build --kernels 'stock,candidate'
  cargo xtask build --tree ~/src/linux --rev topic
  cargo xtask build --partition hash:2/4

Exit codes: 0 all kernels are built, 1 a kernel does not build, 2 usage or infrastructure error, 130 interrupted.")]
pub struct Args {
    #[command(flatten)]
    chosen: Chosen,
    #[command(flatten)]
    part: Part,
    /// Build kernels with the configuration of a profile. `cargo xtask list profiles` lists them
    #[arg(long, value_name = "NAME", value_parser = names::profiles())]
    profile: Option<String>,
    /// First install what is missing on this machine, as `cargo xtask setup` does
    #[arg(long)]
    setup: bool,
    /// Also print the output of apt
    #[arg(short, long)]
    verbose: bool,
}

/// Builds, and prints a line for each kernel.
pub fn run(args: Args) -> Result<ExitCode> {
    let Planned { lab, cells, .. } = args.chosen.plan(args.profile.as_deref())?;
    let ui = Arc::new(Ui::new(args.verbose));
    let share = args.part.share(&cells)?;
    share.iter().for_each(|(_, line)| ui.say(line));
    let cells = share.map_or(cells, |(share, _)| share.cells());
    if args.setup {
        setup::first(&Machine::for_cells(&lab, &cells)?, args.verbose)?;
    }
    until_interrupted(&lab, &OnceCell::new(), build(&lab, &cells, &ui))
}

/// Builds the kernels of these cells and the guest image, and prints a line for each kernel.
///
/// # Errors
/// The guest image cannot be built.
pub async fn build(lab: &Lab, cells: &[PlannedCell], ui: &Arc<Ui>) -> Result<ExitCode> {
    let variants = variants(lab, cells);
    let scenarios = scenarios::all();
    let needs_tests = |cell: &&PlannedCell| {
        scenarios.iter().any(|scenario| scenario.name == cell.id.scenario && scenario.needs.selftests)
    };
    let with_tests: Vec<_> = cells.iter().filter(needs_tests).map(|cell| cell.id.variant.clone()).collect();
    let images = lab.build_all(&variants, &with_tests, ui.clone()).await?;
    let lines = images.iter().map(|(variant, image)| match image {
        Ok(image) => format!("{variant}: {} {}", image.release, image.key),
        Err(verdict) => format!("{variant}: {}: {}", verdict.outcome(), verdict.reason().unwrap_or_default()),
    });
    out::print(&lines.collect::<Vec<_>>().join("\n"))?;
    let ended = |is: fn(&Verdict) -> bool| images.iter().any(|(_, image)| image.as_ref().is_err_and(is));
    Ok(ExitCode::from(match () {
        () if ended(|verdict| matches!(verdict, Verdict::BuildFailed(_))) => 1,
        () if ended(|_| true) => crate::ERROR,
        () => 0,
    }))
}

/// The kernels of these cells, in the order of the manifest.
fn variants(lab: &Lab, cells: &[PlannedCell]) -> Vec<String> {
    let names = lab.manifest().variants.iter().map(|variant| &variant.name);
    names.filter(|name| cells.iter().any(|cell| cell.id.variant == **name)).cloned().collect()
}
