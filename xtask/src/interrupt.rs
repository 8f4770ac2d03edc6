//! Ctrl-C: everything that was started is ended, and finished cells keep their evidence and are reported.

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
use signal_hook::consts::{SIGINT, SIGTERM};
use tokio::signal::unix::{SignalKind, signal};

/// What a shell says of a program that Ctrl-C ended: 128 and the signal's number.
const INTERRUPTED: u8 = 130;

/// For how long what is under way may take to end by itself. What goes on then (a wait for another process's build)
/// ends with this process, and so do the compilers that it started.
const GRACE: Duration = Duration::from_millis(1500);

/// Runs a future on this thread until it is done, or until SIGINT or SIGTERM comes. Then the future is dropped, which
/// ends all guests, builds are cancelled, what is finished of the run in `folder` (set by the future once there is one)
/// is reported, and the exit code is that of an interruption. A second signal ends this process at once.
///
/// # Errors
/// The future's.
pub fn until_interrupted(
    lab: &Lab,
    folder: &OnceCell<PathBuf>,
    work: impl Future<Output = Result<ExitCode>>,
) -> Result<ExitCode> {
    second_is_the_last()?;
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
        tell(folder.get().map(PathBuf::as_path));
        ExitCode::from(INTERRUPTED)
    }))
}

/// Lets the first signal raise a flag, and the second end the process from within its handler.
fn second_is_the_last() -> Result<()> {
    for signal in [SIGINT, SIGTERM] {
        let came = Arc::new(AtomicBool::new(false));
        // In this order: the first signal finds the flag down.
        signal_hook::flag::register_conditional_shutdown(signal, INTERRUPTED.into(), came.clone())
            .and_then(|_| signal_hook::flag::register(signal, came))
            .context("cannot catch signals")?;
    }
    Ok(())
}

fn tell(folder: Option<&Path>) {
    let Some(folder) = folder else {
        eprintln!("interrupted: builds are ended; what is built already stays in the cache");
        return;
    };
    let written = Report::of(folder).and_then(|report| report.write_files().map(|_| report));
    match written {
        Ok(report) => {
            let cells = &report.run().cells;
            let finished = cells.iter().filter(|cell| cell.finished).count();
            eprintln!(
                "interrupted: guests are ended; {finished} of {} cells had finished, see {}",
                cells.len(),
                folder.join("results.json").display()
            );
        }
        Err(error) => {
            eprintln!("interrupted: guests are ended; evidence is in {}, without a report: {error}", folder.display());
        }
    }
}
