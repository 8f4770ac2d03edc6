//! Retries of cells and of snapshots, and kernels that are still being built.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use guest_images::Initramfs;
use harness::cell::{CellId, PlannedCell};
use harness::evidence::{RunDir, RunInfo, read_run};
use harness::host::accel::{Choice, Decision};
use harness::host::clock;
use harness::lab::Parts;
use harness::lab::images::Images;
use harness::lab::looks::Looks;
use harness::lab::selftests::Tests;
use harness::lab::snapshots::Snapshots;
use harness::matrix::care::Care;
use harness::matrix::{Request, Runner};
use harness::progress::{Event, Progress, Silence};
use harness::verdict::Expected;
use harness::vm::BootError;
use harness::vm::argv::{Accel, Engine};
use harness::vm::clock::Clock;
use kernels::cache::Cache;
use kernels::{Builder, CancelToken, KernelImage, Manifest};
use libtest_mimic::{Failed, Trial};
use tokio::sync::Notify;

use crate::bed::Bed;
use crate::{fake, scenario, trial};

/// All trials of this file.
pub fn trials() -> Vec<Trial> {
    vec![
        trial("a machine whose guests do not boot is not booted again and again", silent_machine),
        trial("a guest that cannot be saved is booted, and not saved again", unsaved),
        trial("snapshots that do not restore are not made again and again", unrestored),
        trial("a cell whose qemu crashes is retried", || tries("crashes-once", "pass", 1)),
        trial("a cell whose qemu always crashes is retried a limited number of times", || tries("crashes", "infra", 2)),
        trial("cells run while other kernels are being built", overlap),
        trial("a run does not hang on kernels that are never built", never_built),
        trial("a cell whose qemu refuses a command is not retried", || tries("refuses", "infra", 0)),
    ]
}

async fn tries(behaviour: &str, outcome: &str, retries: usize) -> Result<(), Failed> {
    let bed = Bed::new(behaviour)?;
    let out = bed.path().join("out");
    let run = RunDir::create(&out, RunInfo::default())?;
    let images = Images::all(BTreeMap::from([("stock".to_owned(), Ok(image()))]));
    let runner = Runner::new(parts(&bed, images), vec![scenario()], run, "a fake".to_owned(), None);
    let cell = cell("stock");
    let record = runner.cell(&cell, &Silence, None).await?;
    let crash =
        |why: &String| why.starts_with("QEMU crashed: ") && why.contains("SIGABRT") && why.contains(fake::ASSERTION);
    let as_expected = record.verdict.outcome() == outcome && record.retries.len() == retries;
    if !as_expected || !record.retries.iter().all(crash) {
        return Err(format!("{record:?}").into());
    }
    let folder = runner.folder().join(cell.id.folder());
    for number in 1..=retries {
        let console = fs::read_to_string(folder.join(format!("console.try{number}.log")))?;
        if console != format!("try {number}\n") {
            return Err(format!("unexpected console of try {number}: {console}").into());
        }
    }
    let hellos = fs::read_to_string(folder.join("agent.jsonl"))?.matches(r#""type":"hello""#).count();
    bed.was_started(retries + 1)?;
    if hellos != retries + 1 || folder.join(format!("console.try{}.log", retries + 1)).exists() {
        return Err(format!("{hellos} guests said hello, but {retries} retries are recorded").into());
    }
    bed.gone().await
}

fn cell(variant: &str) -> PlannedCell {
    let (scenario, topology, variant) = (scenario().name.to_owned(), "igb".to_owned(), variant.to_owned());
    PlannedCell { id: CellId { scenario, topology, trigger: None, variant, repeat: 1 }, expected: Expected::Pass }
}

/// Two cells; the kernel of the second is built only when the first has finished.
async fn overlap() -> Result<(), Failed> {
    let bed = Bed::new("works")?;
    let (arrivals, images) = Images::to_come(CancelToken::new());
    arrivals.put("early", Ok(image()));
    let (runner, request) = two_cells(&bed, images)?;
    let first = Finished::default();
    let late = async {
        first.0.notified().await;
        arrivals.put("late", Ok(image()));
        drop(arrivals);
    };
    let (ran, ()) = tokio::join!(runner.run(&request, &first), late);
    ran?;
    verdicts(&runner, ["pass", "pass"])
}

/// The build thread ends without a result.
async fn never_built() -> Result<(), Failed> {
    let bed = Bed::new("works")?;
    let (arrivals, images) = Images::to_come(CancelToken::new());
    arrivals.put("early", Ok(image()));
    let (runner, request) = two_cells(&bed, images)?;
    let first = Finished::default();
    let dies = async {
        first.0.notified().await;
        drop(arrivals);
    };
    let (ran, ()) = tokio::join!(runner.run(&request, &first), dies);
    ran?;
    verdicts(&runner, ["pass", "infra"])
}

/// Notifies when a cell has finished.
#[derive(Default)]
struct Finished(Notify);

impl Progress for Finished {
    fn event(&self, event: Event<'_>) {
        if matches!(event, Event::CellFinished { .. }) {
            self.0.notify_one();
        }
    }
}

fn two_cells(bed: &Bed, images: Images) -> Result<(Runner, Request), Failed> {
    let cells: Vec<_> = ["early", "late"].map(cell).into();
    let out = bed.path().join("out");
    let run = RunDir::create(&out, RunInfo { planned: cells.clone(), ..RunInfo::default() })?;
    let runner = Runner::new(parts(bed, images), vec![scenario()], run, "a fake".to_owned(), None);
    let request = Request {
        cells,
        share: None,
        jobs: None,
        fail_fast: false,
        accel: Choice::Auto,
        clock: clock::Choice::Host,
        snapshots: false,
        despite_qemu: false,
        care: Care::default(),
        out,
        command: Vec::new(),
    };
    Ok((runner, request))
}

fn verdicts(runner: &Runner, expected: [&str; 2]) -> Result<(), Failed> {
    let cells = read_run(runner.folder())?.cells;
    let found: Vec<_> = cells.iter().map(|cell| (cell.finished, cell.record.verdict.outcome())).collect();
    if found == expected.map(|outcome| (true, outcome)) { Ok(()) } else { Err(format!("{cells:?}").into()) }
}

fn parts(bed: &Bed, images: Images) -> Parts {
    let builder = Arc::new(Builder::new(Manifest::of_project().unwrap(), Cache::at(file())));
    Parts {
        shell: None,
        images,
        selftests: Tests::new(builder.clone(), CancelToken::new(), Arc::new(Silence)),
        looks: Looks::new(builder, CancelToken::new(), Arc::new(Silence)),
        initramfs: Initramfs { path: file(), key: "0".to_owned() },
        cache: Cache::at(file()),
        decision: Decision::now(Accel::Tcg, "no guest is run"),
        engine: Engine { accel: Accel::Tcg, clock: Clock::Host },
        qemu: bed.program(),
        profile: None,
    }
}

fn file() -> PathBuf {
    PathBuf::from("never-opened")
}

/// An image of which only the names are used.
fn image() -> KernelImage {
    KernelImage {
        variant: "stock".to_owned(),
        base: "none".to_owned(),
        key: "0".to_owned(),
        release: "6.12.0-fake".to_owned(),
        source: "none".to_owned(),
        boot: file(),
        modules: Vec::new(),
        vmlinux: file(),
        system_map: file(),
        config: file(),
        layout: file(),
        build_log: file(),
    }
}

/// After two guests of a machine did not boot, the third one is not started, and no deadline passes.
async fn silent_machine() -> Result<(), Failed> {
    let bed = Bed::new("sends-no-hello")?;
    let snapshots = Snapshots::new(Cache::at(bed.path().join("cache")), "fake".to_owned());
    let within = Duration::from_secs(2);
    let mut errors = Vec::new();
    for _ in 0..3 {
        errors.extend(snapshots.start(bed.machine(), bed.recorders(), within).await.err());
    }
    match errors.as_slice() {
        [BootError::Silent(_), BootError::Silent(_), BootError::Known(why)] if why.contains("2 s") => Ok(()),
        errors => Err(format!("{errors:?}").into()),
    }
}

/// The first two guests are saved, do not restore, and are then booted. The third is booted at once.
async fn unrestored() -> Result<(), Failed> {
    let bed = Bed::new("does-not-restore")?;
    let snapshots = Snapshots::new(Cache::at(bed.path().join("cache")), "fake".to_owned());
    for starts in [3, 6, 7] {
        let vm = snapshots.start(bed.machine(), bed.recorders(), Duration::from_secs(20)).await?;
        drop(vm);
        bed.gone().await?;
        bed.was_started(starts)?;
    }
    Ok(())
}

/// The fake kernel has no log, so its guest never reaches the point at which it is saved.
async fn unsaved() -> Result<(), Failed> {
    let bed = Bed::new("works")?;
    let cache = bed.path().join("cache");
    let snapshots = Snapshots::new(Cache::at(&cache), "fake".to_owned());
    for starts in [2, 3] {
        let vm = snapshots.start(bed.machine(), bed.recorders(), Duration::from_secs(2)).await?;
        drop(vm);
        bed.gone().await?;
        bed.was_started(starts)?;
    }
    let left = fs::read_dir(cache.join("snapshots"))?.count();
    if left == 0 { Ok(()) } else { Err(format!("{left} snapshots of a guest that cannot be saved").into()) }
}
