//! `cargo xtask completions`: completion scripts for shells.

use std::process::ExitCode;

use anyhow::Result;
use clap_complete::Shell;

use crate::out;

/// The name of the program when it runs without cargo.
const PROGRAM: &str = "xtask";

/// The options of `completions`.
#[derive(clap::Args)]
#[command(after_help = "\
The script completes options of the program xtask (target/debug/xtask), and their values: kernels, scenarios, triggers,
topologies. It does not complete `cargo xtask ...`; that is up to cargo's own completion.

Examples:
  cargo xtask completions bash > ~/.local/share/bash-completion/completions/xtask
  cargo xtask completions zsh > ~/.zfunc/_xtask
  cargo xtask completions fish > ~/.config/fish/completions/xtask.fish")]
pub struct Args {
    /// The shell to complete for
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
            // Some scripts escape characters of their own syntax.
            let script = script(*shell).replace('\\', "");
            for subcommand in crate::command_line().get_subcommands() {
                assert!(script.contains(subcommand.get_name()), "{shell}: no {}", subcommand.get_name());
            }
            assert!(script.contains("despite-qemu"), "{shell}");
            // The scripts for these two complete options only, not values.
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
