//! `cargo xtask setup`: installs what a run needs and this machine lacks.

use std::process::ExitCode;

use anyhow::{Result, bail};
use harness::host::{self, AptOutput, NewestQemu, Outcome};
use kernels::cache::Cache;

use crate::ERROR;
use crate::machine::Machine;

/// How to install.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask setup
  cargo xtask setup --newest-qemu

Installs Debian packages with apt. `cargo xtask doctor` lists what is missing, and changes nothing.

Exit codes: 0 nothing is missing any more, 2 something is still missing or an error occurred.")]
pub struct Args {
    /// Print the output of apt [default: write it to setup.log in the cache]
    #[arg(short, long)]
    verbose: bool,
    /// Install nothing. Instead, put the newest QEMU of Debian's backports into the cache, beside the one that is
    /// installed. Needs no root. Downloads about 40 MB, and takes 180 MB of disk
    #[arg(long, conflicts_with = "verbose")]
    newest_qemu: bool,
}

/// Installs what is missing, and prints what is still missing.
pub fn run(args: Args) -> Result<ExitCode> {
    let machine = Machine::look()?;
    if args.newest_qemu {
        return newest_qemu(machine.cache());
    }
    Ok(match set_up(&machine, args.verbose, &mut |line| println!("setup: {line}"))? {
        Outcome::NothingToDo => {
            println!("setup: nothing is missing");
            ExitCode::SUCCESS
        }
        Outcome::Done => {
            println!("setup: done; nothing is missing any more");
            ExitCode::SUCCESS
        }
        Outcome::Incomplete(missing) => {
            for check in missing {
                println!("{check}");
            }
            println!("setup: apt has installed what it can; the above is still missing");
            ExitCode::from(ERROR)
        }
    })
}

/// Puts the newest QEMU into the cache, and prints how to use it.
fn newest_qemu(cache: &Cache) -> Result<ExitCode> {
    let NewestQemu { program, version, was_there } = host::newest_qemu(cache, &mut |line| println!("setup: {line}"))?;
    let state = if was_there { "is in the cache already" } else { "is in the cache now" };
    let program = program.display().to_string();
    println!("setup: QEMU {version} {state}; nothing was installed. To run guests with it:");
    println!("  export IOV_REGRESS_QEMU={}", shell_words::quote(&program));
    Ok(ExitCode::SUCCESS)
}

/// The `--setup` of other commands. It prints nothing if nothing is missing.
///
/// # Errors
/// Something is still missing afterwards.
pub fn first(machine: &Machine, verbose: bool) -> Result<()> {
    match set_up(machine, verbose, &mut |line| eprintln!("setup: {line}"))? {
        Outcome::NothingToDo | Outcome::Done => Ok(()),
        Outcome::Incomplete(missing) => {
            let lines: Vec<_> = missing.iter().map(ToString::to_string).collect();
            bail!("still missing:\n{}", lines.join("\n"))
        }
    }
}

fn set_up(machine: &Machine, verbose: bool, say: &mut dyn FnMut(&str)) -> Result<Outcome> {
    let output = if verbose { AptOutput::Terminal } else { AptOutput::Log(machine.cache().root().join("setup.log")) };
    // apt does not always wait for another apt.
    let _lock = machine.cache().lock("setup", || say("waiting for another setup ..."))?;
    Ok(host::setup(&machine.wanted(), &output, say)?)
}
