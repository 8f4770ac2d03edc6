//! `cargo xtask doctor`: checks this machine, and changes nothing.

use std::process::ExitCode;

use anyhow::Result;
use harness::host;
use kernels::shared::SharedShelf;

use crate::ERROR;
use crate::machine::Machine;

/// It takes no arguments.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  cargo xtask doctor

`cargo xtask setup` installs what apt can install.

Exit codes: 0 everything that a run needs is there, 2 something is missing or an error occurred.")]
pub struct Args {}

/// Prints one line per check. The exit code is that of an error if anything that a run needs is missing.
pub fn run(Args {}: Args) -> Result<ExitCode> {
    let machine = Machine::look()?;
    let mut checks = host::checks(&machine.wanted());
    for check in &checks {
        println!("{check}");
    }
    // These need the network, so the others are shown first.
    for check in host::archive_checks(&machine.wanted()) {
        println!("{check}");
        checks.push(check);
    }
    if let Some(shelf) = SharedShelf::of_env() {
        let check = host::shelf_check(&shelf);
        println!("{check}");
        checks.push(check);
    }
    let missing = checks.iter().filter(|check| check.is_missing()).count();
    Ok(if missing == 0 {
        println!("everything that a run needs is there");
        ExitCode::SUCCESS
    } else {
        println!("{missing} of {} checks found something missing", checks.len());
        ExitCode::from(ERROR)
    })
}
