//! Ctrl-C: everything that was started is ended, and finished cells keep their evidence.

use std::future::Future;
use std::process::ExitCode;

use anyhow::{Context, Result};
use harness::lab::Lab;
use tokio::signal::unix::{SignalKind, signal};

/// What a shell says of a program that Ctrl-C ended: 128 and the signal's number.
const INTERRUPTED: u8 = 130;

/// Runs a future on this thread until it is done, or until SIGINT or SIGTERM comes. Then the future is dropped, which
/// ends all guests, builds are cancelled, and the exit code is that of an interruption.
///
/// # Errors
/// The future's.
pub fn until_interrupted(lab: &Lab, work: impl Future<Output = Result<ExitCode>>) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start tokio")?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            result = work => result,
            _ = interrupt.recv() => Ok(stop(lab)),
            _ = terminate.recv() => Ok(stop(lab)),
        }
    })
}

fn stop(lab: &Lab) -> ExitCode {
    lab.cancel();
    eprintln!("interrupted: guests and builds are ended; the evidence of finished cells stays");
    ExitCode::from(INTERRUPTED)
}
