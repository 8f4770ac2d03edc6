//! Runs planned cells, several at a time. Each cell writes its evidence.

pub mod balance;
pub mod care;
mod conclude;
pub mod extent;
pub mod judge;
mod limits;
mod order;
pub mod partition;
mod places;
pub mod plan;
mod request;
mod schedule;
mod script;
pub mod series;
mod tail;
pub mod trace;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use care::Care;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use judge::{Finding, Rules};
use kernels::Profile;
use kernels::cache::Cache;
use limits::Limits;
pub use order::Times;
pub use request::{MatrixError, Request};
use schedule::{Budget, Schedule, Weight};
use trace::Tracer;

use crate::cell::PlannedCell;
use crate::evidence::{
    CellDir, CellRecord, CellStart, JsonlWriter, KernelNote, LATEST, RunDir, RunInfo, ScenarioNote, Share, VariantNote,
};
use crate::guest::OfKernel;
use crate::host;
use crate::lab::images::Image;
use crate::lab::snapshots::Snapshots;
use crate::lab::{self, Lab, Parts};
use crate::notes::Note;
use crate::progress::{Event, Progress};
use crate::scenario::{Needs, Scenario};
use crate::script::Script;
use crate::verdict::Verdict;
use crate::vm::argv::{Channels, Engine, Machine};
use crate::vm::process;
use crate::vm::scale::Scale;
use crate::vm::topology::Topology;
use crate::vm::transcript::{Recorder, Speaker};
use crate::vm::{BootError, Recorders, Vm};

/// Runs cells.
pub struct Runner {
    parts: Parts,
    scenarios: Vec<Scenario>,
    run: RunDir,
    qemu: String,
    /// None if every cell boots.
    snapshots: Option<Snapshots>,
    /// How long cells took in the last run in the same folder.
    times: Times,
    /// What is done with each guest beside its scenario.
    care: Care,
    /// The cells that cannot run.
    limits: Limits,
    /// By variant, the command line options that select the user's own kernel or a kernel of a series.
    own: BTreeMap<String, Vec<String>>,
    /// None in a run without coverage.
    tracer: Option<Tracer>,
}

/// Everything that a cell needs.
struct Setup<'a> {
    scenario: &'a Scenario,
    machine: Machine,
    of_kernel: OfKernel,
}

impl Runner {
    /// Builds what the first cells need, builds the rest in the background, and makes the folder of the run. First
    /// checks that guests can run here: otherwise all cells fail after minutes of building.
    ///
    /// # Errors
    /// [`MatrixError`].
    pub async fn prepare(
        lab: &Lab,
        scenarios: &[Scenario],
        request: &Request,
        progress: Arc<dyn Progress>,
    ) -> Result<Runner, MatrixError> {
        let qemu = host::for_guests().map_err(MatrixError::Machine)?;
        let used = |name: &str| request.cells.iter().any(|cell| cell.id.variant == name || cell.id.scenario == name);
        let variants: Vec<_> = lab.manifest().variants.iter().filter(|variant| used(&variant.name)).collect();
        let names: Vec<_> = variants.iter().map(|variant| variant.name.clone()).collect();
        let own = |name: &String| (name.clone(), lab.manifest().own_options(name));
        let own = names.iter().map(own).collect();
        let scenarios: Vec<_> = scenarios.iter().filter(|scenario| used(scenario.name)).cloned().collect();
        let mut parts = lab.prepare(&names, request.accel, request.clock, &qemu, progress.clone()).await?;
        if scenarios.iter().any(|scenario| scenario.needs.has_shell()) {
            let root = scenarios.iter().find_map(|scenario| scenario.needs.script?.root.clone());
            lab.add_shell(&mut parts, root, progress).await?;
        }
        let limits = Limits::of(&qemu, request.despite_qemu);
        let qemu = qemu.first_line().to_owned();
        let info = RunInfo {
            command: request.command.clone(),
            harness: env!("CARGO_PKG_VERSION").to_owned(),
            qemu: qemu.clone(),
            accel: parts.decision.accel.name().to_owned(),
            accel_reason: parts.decision.why.clone(),
            clock: parts.engine.clock.name().to_owned(),
            jobs: Budget::of_host(request.jobs).cells(),
            variants: variants.into_iter().map(VariantNote::from).collect(),
            scenarios: scenarios.iter().map(scenario_note).collect(),
            bugs: lab.manifest().bugs.clone(),
            planned: request.cells.clone(),
            part: request.share.as_ref().map(Share::note),
            ..RunInfo::default()
        };
        let times = Times::of(&request.out.join(LATEST));
        let run = RunDir::create(&request.out, info)?;
        if let Some(share) = &request.share {
            share.split.write(run.path())?;
        }
        let snapshots = request.snapshots.then(|| Snapshots::new(lab.cache().clone(), qemu.clone()));
        let care = request.care;
        Ok(Runner { times, limits, care, own, ..Runner::new(parts, scenarios, run, qemu, snapshots) })
    }

    /// A runner with these parts and scenarios that writes into this folder. `qemu` is the version text of QEMU.
    /// Without `snapshots` every cell boots.
    pub fn new(
        parts: Parts,
        scenarios: Vec<Scenario>,
        run: RunDir,
        qemu: String,
        snapshots: Option<Snapshots>,
    ) -> Runner {
        Runner {
            parts,
            scenarios,
            run,
            qemu,
            snapshots,
            times: Times::default(),
            limits: Limits::default(),
            care: Care::default(),
            own: BTreeMap::new(),
            tracer: None,
        }
    }

    /// Has each cell leave behind what it executed of its kernel.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn traced(self, tracer: Tracer) -> Result<Runner, MatrixError> {
        self.run.begin_coverage()?;
        Ok(Runner { tracer: Some(tracer), ..self })
    }

    /// Makes the scripts that repeat a cell select its kernel by these options of `run`, which stand for a series, and
    /// by the name of the kernel.
    pub fn of_series(self, options: &[String]) -> Runner {
        let named = |variant: String| {
            let kernel = kernels::split_profile(&variant).0.to_owned();
            let words = options.iter().cloned().chain(["--kernel".to_owned(), kernel]).collect();
            (variant, words)
        };
        Runner { own: self.own.into_keys().map(named).collect(), ..self }
    }

    /// Makes the scripts that repeat a cell of this kernel select the kernel by these options of `run`.
    pub fn repeated_by(mut self, variant: &str, options: Vec<String>) -> Runner {
        self.own.insert(variant.to_owned(), options);
        self
    }

    /// Keeps the snapshots of booted guests in another cache, if the run makes any.
    pub fn with_snapshots_in(self, cache: Cache) -> Runner {
        let snapshots = self.snapshots.is_some().then(|| Snapshots::new(cache, self.qemu.clone()));
        Runner { snapshots, ..self }
    }

    /// The folder of the run.
    pub fn folder(&self) -> &Path {
        self.run.path()
    }

    /// Runs the cells of a request. Dropping the future ends all guests at once; finished cells keep their evidence.
    ///
    /// # Errors
    /// If evidence cannot be written.
    pub async fn run(&self, request: &Request, progress: &dyn Progress) -> Result<(), MatrixError> {
        let budget = Budget::of_host(request.jobs);
        let (count, jobs) = (request.cells.len(), budget.cells());
        let seconds = self.times.each(&request.cells).map(|(id, seconds)| (id.to_string(), seconds)).collect();
        progress.event(Event::Cells { count, jobs, evidence: self.folder(), seconds: &seconds });
        let mut schedule = Schedule::new(budget, self.times.order(&request.cells));
        let mut images = self.parts.images.clone();
        let mut running = FuturesUnordered::new();
        loop {
            while let Some((cell, weight)) = schedule.next(images.are_coming(), |cell| self.weight(cell)) {
                running.push(async move { (weight, self.cell(cell, progress, None).await) });
            }
            if running.is_empty() && schedule.is_empty() {
                return Ok(());
            }
            tokio::select! {
                Some((weight, record)) = running.next() => {
                    schedule.over(weight);
                    if !record?.is_as_expected() && request.fail_fast {
                        return Ok(());
                    }
                }
                () = images.changed(), if !schedule.is_empty() && images.are_coming() => {}
                // The last build has just ended. Its result is known now.
                else => {}
            }
        }
    }

    /// The weight of a cell, or none while its kernel may still be built. A cell that needs no guest weighs nothing.
    fn weight(&self, cell: &PlannedCell) -> Option<Weight> {
        let images = &self.parts.images;
        let coming = images.are_coming();
        match images.now(&cell.id.variant) {
            None if coming => None,
            None => Some(Weight::default()),
            Some(image) => Some(self.machine(cell, &image).map_or(Weight::default(), |(_, m)| Weight::of(&m))),
        }
    }

    /// Runs one cell as soon as its kernel is built. `echo` gets each line of the guest's console; of a script, what it
    /// prints.
    ///
    /// # Errors
    /// If evidence cannot be written.
    pub async fn cell(
        &self,
        cell: &PlannedCell,
        progress: &dyn Progress,
        echo: Option<Recorder>,
    ) -> Result<CellRecord, MatrixError> {
        let name = cell.id.to_string();
        let image = self.parts.images.of(&cell.id.variant).await;
        progress.event(Event::CellStarted { cell: &name });
        let mut prepared = self.machine(cell, &image);
        if let (Ok((scenario, machine)), Ok(image)) = (&mut prepared, &image) {
            // Here, because a machine is also made whenever a cell is weighed.
            let places = places::of(scenario.needs.places.functions, &image.system_map);
            machine.clock = machine.clock.clone().with_places(places);
        }
        let cell = &places::surer(cell, prepared.as_ref().ok());
        let dir = self.run.cell(&self.start(cell, &image, prepared.as_ref().ok().map(|(_, machine)| machine)))?;
        let (finding, retries) = match self.setup(cell, prepared).await {
            Ok(setup) => self.try_guests(cell, setup, &dir, progress, echo).await?,
            Err(verdict) => (Finding::of(verdict), Vec::new()),
        };
        if let (Some(tracer), Ok(image)) = (&self.tracer, &image) {
            tracer.finish(image, &self.run, &dir).await?;
        }
        if let Some(graph) = &finding.waits {
            dir.waits(graph)?;
        }
        let record = record(cell, dir.seconds(), finding, retries);
        dir.finish(&record)?;
        if image.is_err() {
            progress.event(Event::CellWithoutKernel { cell: &name, variant: &cell.id.variant });
            return Ok(record);
        }
        progress.event(Event::CellFinished {
            cell: &name,
            verdict: &record.verdict,
            unexpected: record.is_unexpected(),
            took: Duration::from_secs_f64(record.seconds),
        });
        Ok(record)
    }

    /// The scenario of a cell and its machine, or a verdict if the cell cannot run.
    fn machine(&self, cell: &PlannedCell, image: &Image) -> Result<(&Scenario, Machine), Verdict> {
        let image = image.as_ref().map_err(Verdict::clone)?;
        let Parts { initramfs, shell, cache, engine, qemu, profile, .. } = &self.parts;
        let initramfs = match (self.needs(cell).has_shell(), shell) {
            (true, Some(shell)) => shell,
            (true, None) => return Err(Verdict::Infra("the guest image with a shell was not made".to_owned())),
            (false, _) => initramfs,
        };
        let initramfs =
            lab::initramfs_for(cache, initramfs, image).map_err(|error| Verdict::Infra(error.to_string()))?;
        let (kernel, initrd) = (image.boot.clone(), initramfs.path);
        let found = machine(qemu.clone(), cell, &self.scenarios, engine.clone(), profile.as_ref(), kernel, initrd);
        let (scenario, machine) = found.ok_or_else(|| {
            Verdict::Infra(format!("{} has a scenario or topology that this harness does not have", cell.id))
        })?;
        match self.limits.forbid(&machine.topology, cell.id.trigger, &image.config) {
            Some(why) => Err(Verdict::Skip(why)),
            None => Ok((scenario, machine)),
        }
    }

    /// What the scenario of a cell needs.
    fn needs(&self, cell: &PlannedCell) -> Needs {
        let found = self.scenarios.iter().find(|scenario| scenario.name == cell.id.scenario);
        found.map_or(Needs::NOTHING, |scenario| scenario.needs)
    }

    fn start(&self, cell: &PlannedCell, image: &Image, machine: Option<&Machine>) -> CellStart {
        CellStart {
            cell: cell.id.clone(),
            expected: cell.expected.clone(),
            argv: machine.map(shown_argv).unwrap_or_default(),
            kernel: image
                .as_ref()
                .ok()
                .map(|image| KernelNote { key: image.key.clone(), release: image.release.clone() }),
            own: self.own.get(&cell.id.variant).cloned().unwrap_or_default(),
            script: self.needs(cell).script.map(script::note),
            accel: self.parts.engine.accel.name().to_owned(),
            versions: BTreeMap::from([
                ("qemu".to_owned(), self.qemu.clone()),
                ("harness".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
                ("initramfs".to_owned(), self.parts.initramfs.key.clone()),
            ]),
        }
    }

    /// Everything that a cell needs, or a verdict if the cell cannot run.
    async fn setup<'a>(
        &self,
        cell: &PlannedCell,
        prepared: Result<(&'a Scenario, Machine), Verdict>,
    ) -> Result<Setup<'a>, Verdict> {
        let (scenario, machine) = prepared?;
        let selftests = match scenario.needs.selftests {
            true => Some(self.parts.selftests.of(&cell.id.variant).await?),
            false => None,
        };
        let (looks, lines) = match self.parts.images.now(&cell.id.variant) {
            Some(Ok(image)) => (self.parts.looks.of(&image).await, self.parts.looks.lines_of(&image)),
            _ => (None, None),
        };
        let of_kernel = OfKernel { selftests, looks, lines };
        Ok(Setup { scenario, machine, of_kernel })
    }

    async fn try_guests(
        &self,
        cell: &PlannedCell,
        setup: Setup<'_>,
        dir: &CellDir,
        progress: &dyn Progress,
        echo: Option<Recorder>,
    ) -> Result<(Finding, Vec<String>), MatrixError> {
        let Setup { scenario, machine, of_kernel } = setup;
        let machine = match &self.tracer {
            Some(tracer) => tracer.machine(machine, dir),
            None => machine,
        };
        let profile = self.parts.profile.as_ref();
        let slower = profile.map_or(1, |profile| profile.slower);
        let host = Scale::of(machine.accel).slower(slower);
        let scale = if machine.is_held() { Scale::GUEST.slower(slower) } else { host };
        let known = profile.map_or(&[][..], |profile| &profile.known);
        let dump = dir.dump();
        let rules = Rules {
            scale,
            host,
            known,
            repeat: cell.id.repeat,
            care: self.care,
            names_holders: self.names_holders(cell),
            dump: &dump,
        };
        let (mut retries, began) = (Vec::new(), Instant::now());
        loop {
            let agent = recorder(dir.agent()?);
            let agent = match scenario.needs.script {
                Some(_) => script::followed(agent, dir.output()?, echo.clone()),
                None => agent,
            };
            let recorders = Recorders { console: dir.console(), qmp: recorder(dir.qmp()?), agent };
            let (within, console) = (host.seconds(judge::BOOT), dir.console());
            let start = self.guest(machine.clone(), recorders, within);
            let running = judge::run(scenario, cell.id.trigger, rules, &console, of_kernel.clone(), start);
            let finding = match &echo {
                // What a script prints is shown instead.
                Some(echo) if scenario.needs.script.is_none() => {
                    tail::while_following(&dir.console(), echo.clone(), running).await
                }
                _ => running.await,
            };
            let tried = retries.len() + 1;
            // There is no second guest for a user who has left the first, nor for a script that has used up its time.
            let is_late = scenario.needs.script.is_some_and(|script| began.elapsed() > script.within_on_host());
            let may_try = scenario.needs.terminal.is_none() && !is_late;
            let Some(sign) = finding.sign.as_ref().filter(|sign| may_try && sign.calls_for_another(tried)) else {
                return Ok((finding, retries));
            };
            let why = format!("{sign}: {}", finding.verdict.reason().unwrap_or_default());
            progress.event(Event::CellRetried { cell: &cell.id.to_string(), why: &why });
            retries.push(why);
            dir.set_aside(retries.len())?;
        }
    }

    /// Whether the detector of hung tasks of the cell's kernel names the holder of a lock.
    fn names_holders(&self, cell: &PlannedCell) -> bool {
        let image = self.parts.images.now(&cell.id.variant);
        image.is_some_and(|image| image.is_ok_and(|image| image.has_built_in("DETECT_HUNG_TASK_BLOCKER")))
    }

    async fn guest(&self, machine: Machine, recorders: Recorders, within: Duration) -> Result<Vm, BootError> {
        match &self.snapshots {
            Some(snapshots) => snapshots.start(machine, recorders, within).await,
            None => Vm::boot(machine, recorders, within).await,
        }
    }
}

/// The scenario of a cell and its machine; none if the harness does not have them.
fn machine<'a>(
    qemu: OsString,
    cell: &PlannedCell,
    scenarios: &'a [Scenario],
    engine: Engine,
    profile: Option<&Profile>,
    kernel: PathBuf,
    initrd: PathBuf,
) -> Option<(&'a Scenario, Machine)> {
    let scenario = scenarios.iter().find(|scenario| scenario.name == cell.id.scenario)?;
    let topology = Topology::named(&cell.id.topology)?;
    let mut machine = lab::machine(qemu, scenario, topology, cell.id.trigger, engine, kernel, initrd);
    if let Some(needed) = profile.and_then(|profile| profile.memory_mib) {
        machine.memory_mib = machine.memory_mib.max(needed);
    }
    machine.monitor = scenario.needs.terminal.map(|terminal| terminal.qmp.clone());
    Some((scenario, machine))
}

/// The QEMU command of a cell, with placeholders for files that are not built yet.
pub fn command_of(lab: &Lab, scenarios: &[Scenario], cell: &PlannedCell, engine: Engine) -> Option<Vec<String>> {
    let kernel = lab.find(&cell.id.variant).map(|image| image.boot);
    let kernel = kernel.unwrap_or_else(|| format!("{}-kernel-not-built-yet", cell.id.variant).into());
    let profile = lab.manifest().profile.as_ref();
    let (_, machine) = machine(process::program(), cell, scenarios, engine, profile, kernel, "initramfs.cpio".into())?;
    Some(shown_argv(&machine))
}

/// The QEMU command, with placeholders for the sockets and files of each process.
fn shown_argv(machine: &Machine) -> Vec<String> {
    let channels = Channels {
        qmp: "qmp.socket".into(),
        agent: "agent.socket".into(),
        gate: "gate.socket".into(),
        console: "console.log".into(),
    };
    let program = machine.qemu.to_string_lossy().into_owned();
    std::iter::once(program).chain(machine.argv(&channels)).collect()
}

fn record(cell: &PlannedCell, seconds: f64, finding: Finding, retries: Vec<String>) -> CellRecord {
    let mut observations = finding.notes;
    observations.add(Note::Phases(finding.phases));
    CellRecord {
        cell: cell.id.clone(),
        expected: cell.expected.clone(),
        verdict: finding.verdict,
        seconds,
        trigger_proof: (!finding.proofs.is_empty()).then(|| finding.proofs.join("\n")),
        splats: finding.splats,
        retries,
        said: finding.said,
        errors: finding.errors,
        observations,
    }
}

fn scenario_note(scenario: &Scenario) -> ScenarioNote {
    let detects = scenario.detects.iter().map(|&bug| bug.to_owned()).collect();
    let script = scenario.needs.script.and_then(Script::quoted);
    ScenarioNote { name: scenario.name.to_owned(), about: scenario.about.to_owned(), detects, script }
}

fn recorder(writer: JsonlWriter) -> Recorder {
    Arc::new(move |speaker, line| {
        let from = match speaker {
            Speaker::Host => "host",
            Speaker::Guest => "guest",
        };
        // A failed write must not end the cell. The verdict does not depend on the transcript, and a full disk is
        // reported when the verdict is written.
        let _ = writer.write_line(from, line);
    })
}
