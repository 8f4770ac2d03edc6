//! Every cell as a test, with real kernels in guests.
//!
//! A test passes if its cell is as expected. The first test builds the kernels that are not built yet; `--list` builds
//! nothing. The evidence of all cells is in one folder, which each failure names.
//!
//! The cells are those of a default `cargo xtask run-matrix`, and of the scripts of `scenarios/scripts`. With
//! `IOV_REGRESS_PARTITION=hash:2/4` only those of the second of four parts are tests.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use anyhow::{Context, Result};
use harness::cell::PlannedCell;
use harness::evidence::Share;
use harness::host::accel::Choice;
use harness::host::clock;
use harness::lab::Lab;
use harness::matrix::care::Care;
use harness::matrix::partition::Partition;
use harness::matrix::plan::{Selection, plan};
use harness::matrix::{Request, Runner};
use harness::progress::{Event, Progress, Silence};
use harness::report::explanation;
use harness::scenario::Scenario;
use kernels::BuildEvent;
use libtest_mimic::{Arguments, Failed, Trial};
use scenarios::proposals::PROPOSALS;
use tokio::runtime::{Builder, Runtime};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    match trials(&arguments) {
        Ok(trials) => libtest_mimic::run(&arguments, trials).exit_code(),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// The kind of these tests, which distinguishes them from tests without a guest.
const KIND: &str = "cell";

/// The variable with the part to run.
const PARTITION: &str = "IOV_REGRESS_PARTITION";

/// What the tests of this process share.
struct Shared {
    lab: Lab,
    /// The cells that the command line selects: only their kernels are built.
    cells: Vec<PlannedCell>,
    /// The part of the plan that they belong to, if it is cut into parts.
    share: Option<Share>,
    runner: OnceLock<Result<Runner, String>>,
}

fn trials(arguments: &Arguments) -> Result<Vec<Trial>> {
    let lab = Lab::open(None)?;
    let selection = Selection { compared: Some(PROPOSALS), ..Selection::default() };
    let scenarios = all_scenarios()?;
    let all = plan(lab.manifest(), &scenarios, &selection, 1)?;
    let share = share(&all, &scenarios)?;
    let all = share.as_ref().map_or(all, Share::cells);
    let cells = all.iter().filter(|cell| is_selected(arguments, &cell.id.to_string())).cloned().collect();
    let shared = Arc::new(Shared { lab, cells, share, runner: OnceLock::new() });
    let trial = |cell: PlannedCell| {
        let shared = shared.clone();
        Trial::test(cell.id.to_string(), move || run(&shared, &cell)).with_kind(KIND)
    };
    Ok(all.into_iter().map(trial).collect())
}

/// All scenarios, and the scripts.
fn all_scenarios() -> Result<Vec<Scenario>> {
    Ok([scenarios::all(), scenarios::scripts()?].concat())
}

/// The part of the cells that `IOV_REGRESS_PARTITION` names.
fn share(cells: &[PlannedCell], scenarios: &[Scenario]) -> Result<Option<Share>> {
    let Some(partition) = std::env::var(PARTITION).ok().filter(|partition| !partition.is_empty()) else {
        return Ok(None);
    };
    let partition = partition.parse::<Partition>().context(PARTITION)?;
    Ok(Some(partition.share(cells, scenarios)?))
}

/// Whether libtest-mimic will run a test of this name. None is ignored unless it is asked for.
fn is_selected(arguments: &Arguments, name: &str) -> bool {
    if arguments.ignored {
        return false;
    }
    let matches = |filter: &String| if arguments.exact { name == filter } else { name.contains(filter.as_str()) };
    arguments.filter.as_ref().is_none_or(matches) && !arguments.skip.iter().any(matches)
}

fn run(shared: &Shared, cell: &PlannedCell) -> Result<(), Failed> {
    // The first test prepares for all tests, and the others wait for it.
    let runner = shared.runner.get_or_init(|| prepare(shared).map_err(|error| format!("{error:#}")));
    let runner = runner.as_ref().map_err(|why| Failed::from(why.as_str()))?;
    let record = runtime()?.block_on(runner.cell(cell, &Silence, None))?;
    if record.is_as_expected() {
        return Ok(());
    }
    Err(Failed::from(format!(
        "{}\nevidence: {}\nto run only this cell: {}",
        explanation(&record),
        runner.folder().join(cell.id.folder()).display(),
        cell.id.command(&[]).join(" ")
    )))
}

/// A runtime on the thread of a test. Its guests end with it.
fn runtime() -> Result<Runtime> {
    Builder::new_current_thread().enable_all().build().context("cannot start tokio")
}

fn prepare(shared: &Shared) -> Result<Runner> {
    let request = Request {
        cells: shared.cells.clone(),
        share: shared.share.clone(),
        jobs: None,
        snapshots: true,
        despite_qemu: false,
        care: Care::default(),
        fail_fast: false,
        accel: Choice::Auto,
        clock: clock::Choice::Guest,
        out: out(),
        command: std::env::args().skip(1).collect(),
    };
    let progress = Arc::new(LongSteps::default());
    let runtime = runtime()?;
    let runner = runtime.block_on(Runner::prepare(&shared.lab, &all_scenarios()?, &request, progress));
    // Do not wait: kernels are still being built, and tests wait for them.
    runtime.shutdown_background();
    Ok(runner?)
}

/// `target/test-runs` of the workspace.
fn out() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).join("target/test-runs")
}

/// Prints steps that take long on stderr, each line once. libtest-mimic uses stdout.
#[derive(Default)]
struct LongSteps(Mutex<BTreeSet<String>>);

impl Progress for LongSteps {
    fn event(&self, event: Event<'_>) {
        let line = match event {
            Event::Build { variant, event: BuildEvent::Step { step, what } } => {
                format!("{variant}: {} {what}", step.verb())
            }
            Event::Build { variant, event: BuildEvent::Waiting { what } } => format!("{variant}: waiting for {what}"),
            Event::Build { variant, event: BuildEvent::Objects { done, about, .. } } => {
                format!("{variant}: about {} % compiled", 10 * (10 * done / about.max(1)).min(10))
            }
            Event::BuildFailed { variant, why } => format!("{variant}: build failed: {why}"),
            Event::TryingKvm => "testing whether a guest boots under KVM".to_owned(),
            Event::Accelerator(decision) => format!("accelerator: {} ({})", decision.accel.name(), decision.why),
            _ => return,
        };
        let mut printed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if printed.insert(line.clone()) {
            eprintln!("{line}");
        }
    }
}
