//! `cargo xtask completions`: for shells.

use std::process::ExitCode;

use anyhow::Result;
use clap_complete::Shell;

use crate::out;

/// The program, as it is called without cargo.
const PROGRAM: &str = "xtask";

/// For which shell.
#[derive(clap::Args)]
#[command(after_help = "\
Completes the options of the program xtask (target/debug/xtask), and the names that they take: kernels, scenarios, triggers,
topologies. What cargo completes after `cargo xtask` is cargo's own.

Examples:
  cargo xtask completions bash > ~/.local/share/bash-completion/completions/xtask
  cargo xtask completions zsh > ~/.zfunc/_xtask
  cargo xtask completions fish > ~/.config/fish/completions/xtask.fish")]
pub struct Args {
    /// The shell
    shell: Shell,
}

/// Prints the script.
pub fn run(args: Args) -> Result<ExitCode> {
    out::print(&script(args.shell))?;
    Ok(ExitCode::SUCCESS)
}

fn script(shell: Shell) -> String {
    let mut command = crate::command_line().name(PROGRAM).bin_name(PROGRAM);
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, PROGRAM, &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;
    use harness::trigger::Trigger;

    use super::*;

    #[test]
    fn every_shell_knows_the_subcommands_and_the_names_that_options_take() {
        for shell in Shell::value_variants() {
            // Some escape what their own syntax has.
            let script = script(*shell).replace('\\', "");
            for subcommand in crate::command_line().get_subcommands() {
                assert!(script.contains(subcommand.get_name()), "{shell}: no {}", subcommand.get_name());
            }
            assert!(script.contains("despite-qemu"), "{shell}");
            // These two complete options alone.
            if ![Shell::PowerShell, Shell::Elvish].contains(shell) {
                let kernels = kernels::Manifest::of_project().unwrap().variants;
                let names = kernels.iter().map(|variant| variant.name.as_str());
                let names = names.chain(Trigger::ALL.iter().map(|trigger| trigger.name()));
                for name in names.chain(scenarios::all().iter().map(|scenario| scenario.name)) {
                    assert!(script.contains(name), "{shell}: no {name}");
                }
            }
        }
    }
}
