//! `cargo xtask setup`: installs what is missing.

use std::process::ExitCode;

use anyhow::{Result, bail};
use harness::host::{self, AptOutput, Outcome};

use crate::TROUBLE;
use crate::machine::Machine;

/// How to install.
#[derive(clap::Args)]
pub struct Args {
    /// Show what apt prints.
    #[arg(short, long)]
    verbose: bool,
}

/// Installs what is missing, and says what is missing still.
pub fn run(args: Args) -> Result<ExitCode> {
    let machine = Machine::look()?;
    Ok(match set_up(&machine, args.verbose, &mut |line| println!("setup: {line}"))? {
        Outcome::NothingToDo => {
            println!("setup: nothing needs doing");
            ExitCode::SUCCESS
        }
        Outcome::Done => {
            println!("setup: done, nothing is missing any more");
            ExitCode::SUCCESS
        }
        Outcome::Incomplete(missing) => {
            for check in missing {
                println!("{check}");
            }
            println!("setup: what apt can do is done, and this is still missing");
            ExitCode::from(TROUBLE)
        }
    })
}

/// The `--setup` of other commands: silent unless there is something to do for a run on this machine.
///
/// # Errors
/// If anything is missing afterwards.
pub fn first(machine: &Machine, verbose: bool) -> Result<()> {
    match set_up(machine, verbose, &mut |line| eprintln!("setup: {line}"))? {
        Outcome::NothingToDo | Outcome::Done => Ok(()),
        Outcome::Incomplete(missing) => {
            let lines: Vec<_> = missing.iter().map(ToString::to_string).collect();
            bail!("this is missing still:\n{}", lines.join("\n"))
        }
    }
}

fn set_up(machine: &Machine, verbose: bool, say: &mut dyn FnMut(&str)) -> Result<Outcome> {
    let output = if verbose { AptOutput::Terminal } else { AptOutput::Log(machine.cache().root().join("setup.log")) };
    // apt does not wait for another apt in all it does.
    let _lock = machine.cache().lock("setup", || say("waiting for another set-up ..."))?;
    Ok(host::setup(&machine.wanted(), &output, say)?)
}
