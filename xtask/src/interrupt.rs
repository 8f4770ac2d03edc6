//! Ctrl-C ends everything that this process started. Finished cells keep their evidence and are reported.

use std::cell::OnceCell;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context, Result};
use harness::lab::Lab;
use harness::report::Report;
use harness::text::counted;
use signal_hook::consts::{SIGINT, SIGTERM};
use tokio::signal::unix::{SignalKind, signal};

/// The exit status that shells give a program ended by Ctrl-C: 128 + SIGINT.
const INTERRUPTED: u8 = 130;

/// How long threads may take to end. A thread that still waits after that (for another process's build) ends with this
/// process, and so do the compilers that it started.
const GRACE: Duration = Duration::from_millis(1500);

/// Runs a future on this thread until it is done, or until SIGINT or SIGTERM arrives.
///
/// On a signal it drops the future, which ends all guests. It cancels builds, reports the finished cells of the run in
/// `folder`, and returns the exit code 130. The future sets `folder` when it has made the folder of the run. A second
/// signal ends this process at once.
///
/// # Errors
/// Errors of the future. Signals cannot be caught, or tokio cannot be started.
pub fn until_interrupted(
    lab: &Lab,
    folder: &OnceCell<PathBuf>,
    work: impl Future<Output = Result<ExitCode>>,
) -> Result<ExitCode> {
    second_signal_exits()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start tokio")?;
    let done = runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            result = work => result.map(Some),
            _ = interrupt.recv() => Ok(None),
            _ = terminate.recv() => Ok(None),
        }
    });
    if let Ok(None) = done {
        lab.cancel();
    }
    // Dropping the runtime would wait for threads that wait for other processes.
    runtime.shutdown_timeout(GRACE);
    Ok(done?.unwrap_or_else(|| {
        report_interruption(folder.get().map(PathBuf::as_path));
        ExitCode::from(INTERRUPTED)
    }))
}

/// Installs signal handlers: the first signal sets a flag, the second one ends the process from within its handler.
fn second_signal_exits() -> Result<()> {
    for signal in [SIGINT, SIGTERM] {
        let came = Arc::new(AtomicBool::new(false));
        // The order matters: at the first signal the shutdown handler must find the flag unset.
        signal_hook::flag::register_conditional_shutdown(signal, INTERRUPTED.into(), came.clone())
            .and_then(|_| signal_hook::flag::register(signal, came))
            .context("cannot catch signals")?;
    }
    Ok(())
}

fn report_interruption(folder: Option<&Path>) {
    let Some(folder) = folder else {
        eprintln!("interrupted: finished builds stay in the cache");
        return;
    };
    let written = Report::of(folder).and_then(|report| report.write_files().map(|_| report));
    match written {
        Ok(report) => {
            let cells = &report.run().cells;
            let finished = cells.iter().filter(|cell| cell.finished).count();
            eprintln!(
                "interrupted: guests were stopped; {finished} of {} had finished, see {}",
                counted(cells.len(), "cell", "cells"),
                folder.join("results.json").display()
            );
        }
        Err(error) => {
            eprintln!(
                "interrupted: guests were stopped; evidence is in {}, without a report: {error}",
                folder.display()
            );
        }
    }
}
