//! `cargo xtask bench`: how fast the harness is, as ratios of figures from one measurement, and how much it notices.

use std::cell::OnceCell;
use std::path::PathBuf;
use std::process::{Command as Program, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use harness::bench::leaks::{Traces, Watch};
use harness::bench::starts::{self, Starter};
use harness::bench::vng::{self, Vng};
use harness::bench::{Measurement, builds, matrix};
use harness::cell::PlannedCell;
use harness::evidence::{LATEST, read_run};
use harness::host;
use harness::lab::{self, Lab};
use harness::matrix::care::Care;
use harness::matrix::plan::{Selection, plan};
use harness::matrix::{MatrixError, Request, Runner};
use harness::progress::Silence;
use harness::report::Report;
use harness::text::counted;
use harness::trigger::Trigger;
use harness::vm::topology::Topology;

use crate::interrupt::until_interrupted;
use crate::machine::workspace;
use crate::names;
use crate::out;
use crate::select::{Engine, Format, Which};
use crate::ui::Ui;

/// What to measure.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask bench boot -n 10
  cargo xtask bench matrix target/runs/latest
  cargo xtask bench leaks --cells 200 --format json
  cargo xtask bench mutants --sample 12

The absolute figures hold for this machine only; the ratios can be compared between machines. docs/speed.md has expected and
measured figures.

Exit codes: 0 measured (slowness is not a failure), 1 `leaks` found something left behind or `mutants` lost one, 2 usage or infrastructure error,
130 interrupted.")]
pub struct Args {
    #[command(subcommand)]
    what: What,
    /// How to print the figures
    #[arg(long, value_enum, default_value_t, global = true)]
    format: Format,
    #[command(flatten)]
    engine: Engine,
}

#[derive(clap::Subcommand)]
enum What {
    /// Measure cold boots and starts from snapshots, alternating, and the steps of each
    Boot {
        /// Measure this many of each
        #[arg(short = 'n', long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
        count: u16,
        #[command(flatten)]
        machine: OnMachine,
    },
    /// Measure a run: its wall time relative to the time of its scenarios, and the time that a cell needs outside its
    /// scenario relative to a cold boot
    Matrix {
        /// The folder of a finished run [default: target/runs/latest]
        #[arg(value_name = "DIR", conflicts_with = "run")]
        folder: Option<PathBuf>,
        /// Run the whole matrix first, twice, and time the second run. The first one fills the cache with kernels and
        /// snapshots
        #[arg(long)]
        run: bool,
        /// Boot this many guests afterwards, to compare with. With 0, use the boots in the run itself
        #[arg(long, default_value_t = 3)]
        boots: u16,
        /// Compare with the boots of this run instead. It should have the same cells at the same load:
        /// `run-matrix --verify-snapshots` writes such a run
        #[arg(long, value_name = "DIR", conflicts_with_all = ["run", "boots"])]
        booted: Option<PathBuf>,
        #[command(flatten)]
        machine: OnMachine,
    },
    /// Measure builds of kernels from scratch. Takes minutes, and 2 GB of disk while it runs
    Builds {
        /// Kernels of one base; name the unpatched one first [default: all]
        #[arg(long, value_name = "VARIANT", value_delimiter = ',')]
        #[arg(value_parser = names::kernels(), hide_possible_values = true)]
        kernels: Vec<String>,
    },
    /// Compare cold boots with those of virtme-ng, alternating, of one kernel that both can boot. Builds it if needed
    Vng {
        /// Measure this many of each
        #[arg(short = 'n', long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
        count: u16,
        /// The program `vng` of virtme-ng
        #[arg(long, value_name = "PATH", default_value = "vng")]
        vng: PathBuf,
        /// Boot this bzImage, and build no kernel. It must have what both programs need
        #[arg(long, value_name = "BZIMAGE")]
        kernel: Option<PathBuf>,
    },
    /// Run many cells. Exit code 1 if they leave processes, sockets, mounts, open files or memory behind
    Leaks {
        /// Run this many cells
        #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(4..))]
        cells: u16,
        /// Cells that run at the same time [default: as many as cores and memory allow]
        #[arg(short, long, value_parser = clap::value_parser!(u16).range(1..))]
        jobs: Option<u16>,
        #[command(flatten)]
        which: Which,
    },
    /// Build kernels with one mistake each, and say which of them the scenarios tell from the kernel without it
    Mutants(super::bench_mutants::Args),
}

/// The guest that is measured: that of a cell.
#[derive(clap::Args)]
struct OnMachine {
    /// The kernel
    #[arg(long, value_name = "VARIANT", default_value = "stock")]
    #[arg(value_parser = names::kernels(), hide_possible_values = true)]
    kernel: String,
    /// The scenario whose topology and kernel command line the guest has
    #[arg(long, default_value = "owner_rescans_on_removal")]
    #[arg(value_parser = names::scenarios(), hide_possible_values = true)]
    scenario: String,
    /// The trigger of the cell
    #[arg(long, default_value = Trigger::Yank.name(), value_parser = names::triggers())]
    trigger: String,
}

/// Time limit of a run of virtme-ng. It prints nothing while it boots.
const VNG: Duration = Duration::from_secs(300);

/// Measures, and prints the figures.
pub fn run(args: Args) -> Result<ExitCode> {
    let lab = match &args.what {
        What::Vng { .. } => {
            let project = Lab::open(None)?;
            Lab::of(vng::with_kernel(project.manifest().clone()), project.cache().clone())
        }
        _ => Lab::open(None)?,
    };
    let ui = Arc::new(Ui::new(false));
    let mut measurement = Measurement::begin();
    let folder = OnceCell::new();
    until_interrupted(&lab, &folder, async {
        let left = match args.what {
            What::Boot { count, machine } => {
                let starter = starter(&lab, &machine, args.engine, &ui, &mut measurement).await?;
                starts::measure(&starter, count.into(), &mut measurement).await.map(|()| Vec::new())?
            }
            What::Matrix { folder, run, boots, booted, machine } => {
                let wall = if run { Some(time_matrix(args.engine)?) } else { None };
                let folder = folder.unwrap_or_else(|| workspace().join("target/runs").join(LATEST));
                let cold = match booted {
                    Some(booted) => matrix::median_boot(&read_run(&booted)?),
                    None => cold_boot(&lab, &machine, boots, args.engine, &ui, &mut measurement).await?,
                };
                matrix::measure(&read_run(&folder)?, wall, cold, &mut measurement);
                Vec::new()
            }
            What::Builds { kernels } => {
                time_builds(&lab, kernels, &ui, &mut measurement).await?;
                Vec::new()
            }
            What::Vng { count, vng, kernel } => {
                beside_vng(&lab, vng, kernel, count, args.engine, &ui, &mut measurement).await?;
                Vec::new()
            }
            What::Mutants(mutants) => {
                return super::bench_mutants::run(&lab, &mutants, args.engine, args.format, &ui).await;
            }
            What::Leaks { cells, jobs, which } => {
                let request = request(&lab, cells, jobs, which, args.engine)?;
                leaks(&lab, &request, &ui, &folder, &mut measurement).await?
            }
        };
        out::print(&match args.format {
            Format::Human => measurement.table(),
            Format::Json => serde_json::to_string_pretty(&measurement)?,
        })?;
        left.iter().for_each(|line| eprintln!("left behind: {line}"));
        Ok(if left.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}

/// Starts guests on the machine of a cell.
async fn starter(
    lab: &Lab,
    which: &OnMachine,
    engine: Engine,
    ui: &Arc<Ui>,
    measurement: &mut Measurement,
) -> Result<Starter> {
    let selection = Selection {
        kernels: vec![which.kernel.clone()],
        scenarios: vec![which.scenario.clone()],
        triggers: vec![which.trigger.clone()],
        ..Selection::default()
    };
    let scenarios = scenarios::all();
    let cells = plan(lab.manifest(), &scenarios, &selection, 1)?;
    let cell = &cells.first().context("no such cell")?.id;
    let qemu = host::for_guests().map_err(MatrixError::Machine)?;
    let parts = lab
        .prepare(std::slice::from_ref(&cell.variant), engine.accel.into(), engine.clock.into(), &qemu, ui.clone())
        .await?;
    let image = parts.images.of(&cell.variant).await;
    let image = image.map_err(|verdict| anyhow::anyhow!("{}", verdict.reason().unwrap_or_default()))?;
    let scenario = scenarios.iter().find(|scenario| scenario.name == cell.scenario).context("no such scenario")?;
    let topology = Topology::named(&cell.topology).context("no such topology")?;
    let kernel = image.boot;
    let version = qemu.first_line().to_owned();
    measurement.setup.push(format!("ours: the machine of {cell}, {}, {version}", parts.engine.accel.name()));
    let machine =
        lab::machine(parts.qemu, scenario, topology, cell.trigger, parts.engine, kernel, parts.initramfs.path);
    Ok(Starter::new(machine, version)?)
}

/// The median of some cold boots, in seconds.
async fn cold_boot(
    lab: &Lab,
    which: &OnMachine,
    boots: u16,
    engine: Engine,
    ui: &Arc<Ui>,
    measurement: &mut Measurement,
) -> Result<Option<f64>> {
    if boots == 0 {
        return Ok(None);
    }
    let starter = starter(lab, which, engine, ui, measurement).await?;
    let mut seconds = Vec::new();
    for _ in 0..boots {
        seconds.push(starter.boot().await?.steps.total());
    }
    Ok(harness::bench::median(seconds))
}

/// Runs the matrix twice, each in a process of its own. Returns the time of the second run in seconds.
fn time_matrix(engine: Engine) -> Result<f64> {
    let accel = clap::ValueEnum::to_possible_value(&engine.accel).context("an accelerator without a name")?;
    let clock = clap::ValueEnum::to_possible_value(&engine.clock).context("a clock without a name")?;
    let once = || -> Result<f64> {
        let began = Instant::now();
        let status = Program::new(std::env::current_exe()?)
            .args(["run-matrix", "--accel", accel.get_name(), "--clock", clock.get_name()])
            .stdout(Stdio::null())
            .status()
            .context("cannot run the matrix")?;
        ensure!(matches!(status.code(), Some(0 | 1)), "the run of the matrix failed ({status})");
        Ok(began.elapsed().as_secs_f64())
    };
    once()?;
    once()
}

async fn time_builds(lab: &Lab, kernels: Vec<String>, ui: &Arc<Ui>, measurement: &mut Measurement) -> Result<()> {
    let manifest = lab.manifest().clone();
    let kernels = match kernels.is_empty() {
        true => manifest.variants.iter().map(|variant| variant.name.clone()).collect(),
        false => kernels,
    };
    ui.say(&format!("building {} from scratch: takes minutes; Ctrl-C stops it", kernels.join(", ")));
    Ok(builds::measure(manifest, lab.cache(), &kernels, ui.clone(), measurement).await?)
}

async fn beside_vng(
    lab: &Lab,
    program: PathBuf,
    kernel: Option<PathBuf>,
    count: u16,
    engine: Engine,
    ui: &Arc<Ui>,
    measurement: &mut Measurement,
) -> Result<()> {
    let program = program.canonicalize().unwrap_or(program);
    Vng::look(&program)?;
    let on = OnMachine {
        kernel: if kernel.is_some() { "stock" } else { vng::KERNEL }.to_owned(),
        scenario: "owner_rescans_on_removal".to_owned(),
        trigger: "yank".to_owned(),
    };
    let mut starter = starter(lab, &on, engine, ui, measurement).await?;
    if let Some(kernel) = kernel {
        starter.use_kernel(kernel);
    }
    let machine = starter.machine();
    let vng = Vng { program, qemu: machine.qemu.clone(), kernel: machine.kernel.clone(), accel: machine.accel };
    Ok(vng::measure(&starter, &vng, count.into(), VNG, measurement).await?)
}

/// The request for a run of this many cells: the selected cells, repeated as often as needed.
fn request(lab: &Lab, count: u16, jobs: Option<u16>, which: Which, engine: Engine) -> Result<Request> {
    let (scenarios, selection) = (scenarios::all(), Selection::from(which));
    let once = plan(lab.manifest(), &scenarios, &selection, 1)?.len();
    let repeats = usize::from(count).div_ceil(once);
    let mut cells = plan(lab.manifest(), &scenarios, &selection, u32::try_from(repeats)?)?;
    cells.sort_by_key(|cell| cell.id.repeat);
    cells.truncate(count.into());
    Ok(whole_run(cells, jobs, engine, workspace().join("target/runs")))
}

/// The request for a run of these cells, all of them, as in a run without further options.
pub(super) fn whole_run(cells: Vec<PlannedCell>, jobs: Option<u16>, engine: Engine, out: PathBuf) -> Request {
    Request {
        cells,
        share: None,
        jobs: jobs.map(usize::from),
        snapshots: true,
        despite_qemu: false,
        care: Care::default(),
        fail_fast: false,
        accel: engine.accel.into(),
        clock: engine.clock.into(),
        out,
        command: std::env::args().skip(1).collect(),
    }
}

/// Runs cells, and returns what they left behind, one line each.
async fn leaks(
    lab: &Lab,
    request: &Request,
    ui: &Arc<Ui>,
    folder: &OnceCell<PathBuf>,
    measurement: &mut Measurement,
) -> Result<Vec<String>> {
    let runner = Runner::prepare(lab, &scenarios::all(), request, ui.clone()).await?;
    let _ = folder.set(runner.folder().to_owned());
    let (first, others) = request.cells.split_first().context("no cells")?;
    // The first cell makes what all cells share. It is not counted.
    runner.cell(first, &Silence, None).await?;
    let before = Traces::now();
    let others = Request { cells: others.to_vec(), ..request.clone() };
    let watch = Watch::new(&**ui, others.cells.len());
    runner.run(&others, &watch).await?;
    let left = watch.conclude(&before, measurement).await;
    let report = Report::of(runner.folder())?;
    report.write_files()?;
    let counts = report.counts();
    measurement.setup.push(format!(
        "{}: {} of {} as expected",
        runner.folder().display(),
        counts.as_expected,
        counted(counts.cells, "cell", "cells")
    ));
    if report.run().cells.iter().any(|cell| !cell.finished) {
        bail!("not every cell finished: {}", runner.folder().display());
    }
    Ok(left)
}
