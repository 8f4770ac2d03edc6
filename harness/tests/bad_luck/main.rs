//! The harness when QEMU has bad luck: a fake QEMU fails in every way that is known, and the verdict must be about it and
//! not about the kernel. Needs no kernel, no guest and no QEMU.

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
use harness::verdict::Verdict;
use libtest_mimic::{Arguments, Failed, Trial};

fn main() -> ExitCode {
    let mut argv = std::env::args();
    let program = argv.next().unwrap_or_default();
    let program = Path::new(&program);
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    if name.starts_with(fake::PREFIX) {
        fake::play(program, &argv.collect::<Vec<_>>());
    }
    if let Some(qemu) = std::env::var_os(leftovers::DOOMED) {
        leftovers::be_doomed(qemu);
    }
    let trials = [verdicts::trials(), leftovers::trials(), tries::trials()].into_iter().flatten().collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// No trial waits longer: what hangs is a failure and not a test that never ends.
const PATIENCE: Duration = Duration::from_secs(50);

/// A trial on a runtime of its own.
fn trial<F>(name: impl Into<String>, run: impl FnOnce() -> F + Send + 'static) -> Trial
where
    F: Future<Output = Result<(), Failed>>,
{
    Trial::test(name, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let run = async { tokio::time::timeout(PATIENCE, run()).await };
        runtime.block_on(run).map_err(|_| format!("did not end within {PATIENCE:?}"))?
    })
}

/// A scenario that asks the guest and QEMU for one thing each.
fn scenario() -> Scenario {
    Scenario {
        name: "bad_luck::asks",
        about: "Reads a file and asks the monitor.",
        detects: &[],
        topology: "igb",
        also: &[],
        triggers: &[],
        append: &[],
        run: |guest| Box::pin(ask(guest)),
    }
}

/// The same, but for QEMU.
fn short_scenario() -> Scenario {
    Scenario { run: |guest| Box::pin(read(guest)), ..scenario() }
}

/// One that needs the kernel to take a value.
fn setting_scenario() -> Scenario {
    Scenario { run: |guest| Box::pin(set(guest)), ..scenario() }
}

/// As the first, but for a first command whose answer it does not wait for.
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
