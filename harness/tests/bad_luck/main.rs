//! Tests of the harness with failing QEMUs: a fake QEMU fails in every known way, and the verdict must blame QEMU and
//! not the kernel. The tests need no kernel, no guest image and no QEMU.

mod bed;
mod fake;
mod leftovers;
mod tries;
mod verdicts;

use std::future::Future;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use harness::guest::Guest;
use harness::scenario::Scenario;
use harness::text::duration;
use harness::verdict::Verdict;
use libtest_mimic::{Arguments, Failed, Trial};

fn main() -> ExitCode {
    let mut argv = std::env::args();
    let program = argv.next().unwrap_or_default();
    let program = Path::new(&program);
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    if name.starts_with(fake::PREFIX) {
        fake::run(program, &argv.collect::<Vec<_>>());
    }
    if let Some(qemu) = std::env::var_os(leftovers::CHILD_QEMU) {
        leftovers::run_child(qemu);
    }
    let trials = [verdicts::trials(), leftovers::trials(), tries::trials()].into_iter().flatten().collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// The deadline of each trial: a trial that hangs fails.
const PATIENCE: Duration = Duration::from_secs(50);

/// A trial with its own runtime.
fn trial<F>(name: impl Into<String>, run: impl FnOnce() -> F + Send + 'static) -> Trial
where
    F: Future<Output = Result<(), Failed>>,
{
    Trial::test(name, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let run = async { tokio::time::timeout(PATIENCE, run()).await };
        runtime.block_on(run).map_err(|_| format!("did not end within {}", duration(PATIENCE)))?
    })
}

/// A scenario that reads a file in the guest and sends one command to QEMU's monitor.
fn scenario() -> Scenario {
    Scenario {
        name: "bad_luck::asks",
        about: "Reads a file and asks the monitor.",
        ..Scenario::of(|guest| Box::pin(ask(guest)))
    }
}

/// A scenario that only reads a file in the guest.
fn short_scenario() -> Scenario {
    Scenario { run: |guest| Box::pin(read(guest)), ..scenario() }
}

/// A scenario in which the kernel must accept a value.
fn setting_scenario() -> Scenario {
    Scenario { run: |guest| Box::pin(set(guest)), ..scenario() }
}

/// As the first, but it first sends a command without waiting for the answer.
fn impatient_scenario() -> Scenario {
    Scenario { run: |guest| Box::pin(ask_impatiently(guest)), ..scenario() }
}

async fn ask_impatiently(guest: &Guest) -> Result<Verdict, harness::guest::Error> {
    let _ = tokio::time::timeout(Duration::from_millis(100), guest.vm().qmp().monitor("info status")).await;
    ask(guest).await
}

async fn set(guest: &Guest) -> Result<Verdict, harness::guest::Error> {
    guest.set("/sys/x/sriov_numvfs".to_owned(), 2).await?;
    Ok(Verdict::Pass)
}

async fn read(guest: &Guest) -> Result<Verdict, harness::guest::Error> {
    guest.read("/proc/version".to_owned()).await?.accessed(guest.prompt()).await?;
    Ok(Verdict::Pass)
}

async fn ask(guest: &Guest) -> Result<Verdict, harness::guest::Error> {
    read(guest).await?;
    guest.vm().qmp().monitor("info status").await?;
    Ok(Verdict::Pass)
}
