//! `cargo xtask doctor`: looks at this machine and changes nothing.

use std::process::ExitCode;

use anyhow::Result;
use harness::host;

use crate::TROUBLE;
use crate::machine::Machine;

/// It takes no arguments.
#[derive(clap::Args)]
pub struct Args {}

/// Prints one line per check. Trouble if anything is missing that a run needs.
pub fn run(Args {}: Args) -> Result<ExitCode> {
    let checks = host::checks(&Machine::look()?.wanted());
    for check in &checks {
        println!("{check}");
    }
    let missing = checks.iter().filter(|check| check.is_missing()).count();
    Ok(if missing == 0 {
        println!("all that is needed is there");
        ExitCode::SUCCESS
    } else {
        println!("{missing} of {} checks found something missing", checks.len());
        ExitCode::from(TROUBLE)
    })
}
