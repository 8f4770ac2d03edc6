//! Cells that are tried again.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use guest_images::Initramfs;
use harness::accel::Decision;
use harness::cell::{CellId, PlannedCell};
use harness::evidence::{RunDir, RunInfo};
use harness::lab::Parts;
use harness::matrix::Runner;
use harness::progress::Silence;
use harness::snapshots::Snapshots;
use harness::verdict::Expected;
use harness::vm::BootError;
use harness::vm::argv::Accel;
use kernels::KernelImage;
use kernels::cache::Cache;
use libtest_mimic::{Failed, Trial};

use crate::bed::Bed;
use crate::{fake, scenario, trial};

/// All of them.
pub fn trials() -> Vec<Trial> {
    vec![
        trial("a machine on which guests stay silent is not booted over and over", silent_machine),
        trial("a guest that cannot be saved is booted, and not saved again", unsaved),
        trial("a crash is tried again", || tries("crashes-once", "pass", 1)),
        trial("not for ever", || tries("crashes", "infra", 2)),
        trial("what another try would not change is not tried again", || tries("refuses", "infra", 0)),
    ]
}

async fn tries(habit: &str, outcome: &str, retries: usize) -> Result<(), Failed> {
    let bed = Bed::new(habit)?;
    let out = bed.path().join("out");
    let run = RunDir::create(&out, RunInfo::default())?;
    let runner = Runner::new(parts(&bed), vec![scenario()], run, "a fake".to_owned(), None);
    let cell = cell();
    let record = runner.cell(&cell, &Silence, None).await?;
    let crash = |why: &String| why.contains("SIGABRT") && why.contains(fake::LAST_WORDS);
    let as_told = record.verdict.outcome() == outcome && record.retries.len() == retries;
    if !as_told || !record.retries.iter().all(crash) {
        return Err(format!("{record:?}").into());
    }
    let folder = runner.folder().join(cell.id.folder());
    for number in 1..=retries {
        let console = fs::read_to_string(folder.join(format!("console.try{number}.log")))?;
        if console != format!("try {number}\n") {
            return Err(format!("the console of try {number}: {console:?}").into());
        }
    }
    let hellos = fs::read_to_string(folder.join("agent.jsonl"))?.matches(r#""type":"hello""#).count();
    if hellos != retries + 1 || folder.join(format!("console.try{}.log", retries + 1)).exists() {
        return Err(format!("{hellos} guests said hello, {retries} retries are told of").into());
    }
    bed.gone().await
}

fn cell() -> PlannedCell {
    let (scenario, topology, variant) = (scenario().name.to_owned(), "igb".to_owned(), "stock".to_owned());
    PlannedCell { id: CellId { scenario, topology, trigger: None, variant, repeat: 1 }, expected: Expected::Pass }
}

/// Nothing of a kernel is looked at but its name.
fn parts(bed: &Bed) -> Parts {
    let file = || PathBuf::from("never-opened");
    let image = KernelImage {
        variant: "stock".to_owned(),
        base: "none".to_owned(),
        key: "0".to_owned(),
        release: "6.12.0-fake".to_owned(),
        source: "none".to_owned(),
        bzimage: file(),
        vmlinux: file(),
        system_map: file(),
        config: file(),
        build_log: file(),
    };
    Parts {
        images: BTreeMap::from([("stock".to_owned(), Ok(image))]),
        initramfs: Initramfs { path: file(), key: "0".to_owned() },
        decision: Decision::now(Accel::Tcg, "no guest is run"),
        qemu: bed.program(),
    }
}

/// The third guest on a machine on which two have said nothing costs no deadline any more.
async fn silent_machine() -> Result<(), Failed> {
    let bed = Bed::new("says-nothing")?;
    let snapshots = Snapshots::new(Cache::at(bed.path().join("cache")), "fake".to_owned());
    let within = Duration::from_secs(2);
    let mut errors = Vec::new();
    for _ in 0..3 {
        errors.extend(snapshots.start(bed.machine(), bed.recorders(), within).await.err());
    }
    match errors.as_slice() {
        [BootError::Silent(_), BootError::Silent(_), BootError::Known(why)] if why.contains("2s") => Ok(()),
        errors => Err(format!("{errors:?}").into()),
    }
}

/// The fake kernel has no log, so its guest never gets to where it would be saved.
async fn unsaved() -> Result<(), Failed> {
    let bed = Bed::new("works")?;
    let cache = bed.path().join("cache");
    let snapshots = Snapshots::new(Cache::at(&cache), "fake".to_owned());
    for starts in [2, 3] {
        let vm = snapshots.start(bed.machine(), bed.recorders(), Duration::from_secs(2)).await?;
        drop(vm);
        bed.gone().await?;
        let counted = fs::read_to_string(bed.path().join("starts"))?;
        if counted != starts.to_string() {
            return Err(format!("QEMU was started {counted} times, not {starts}").into());
        }
    }
    let left = fs::read_dir(cache.join("snapshots"))?.count();
    if left == 0 { Ok(()) } else { Err(format!("{left} snapshots of a guest that cannot be saved").into()) }
}
