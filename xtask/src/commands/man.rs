//! `cargo xtask man`: writes manual pages.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::out;

/// The beginning of the names of the pages. The name of a subcommand follows: `cargo-xtask-run.1`.
const PROGRAM: &str = "cargo-xtask";

/// Where to write them.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  cargo xtask man ~/.local/share/man/man1 && man cargo-xtask-run-matrix

Exit codes: 0 written, 2 usage or infrastructure error.")]
pub struct Args {
    /// The folder to write into; created if it does not exist
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Writes the pages.
pub fn run(args: Args) -> Result<ExitCode> {
    let shown = args.folder.display();
    let written =
        fs::create_dir_all(&args.folder).and_then(|()| clap_mangen::generate_to(command_line(), &args.folder));
    written.with_context(|| format!("cannot write manual pages into {shown}"))?;
    out::print(&format!("wrote {PROGRAM}.1, and one page for each subcommand, into {shown}"))?;
    Ok(ExitCode::SUCCESS)
}

fn command_line() -> clap::Command {
    crate::command_line().display_name(PROGRAM)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Command;

    use super::*;

    /// The text of a page, without the font escapes.
    fn page(folder: &Path, name: &str) -> String {
        let page = fs::read_to_string(folder.join(format!("{name}.1"))).unwrap();
        let fonts = ["\\fB", "\\fI", "\\fR"];
        fonts.iter().fold(page, |page, font| page.replace(font, "")).replace("\\-", "-")
    }

    /// Asserts that each option is in the page of its command, and returns how many there are.
    fn options_in_pages(folder: &Path, command: &Command, name: &str) -> usize {
        let page = page(folder, name);
        let mut found = 0;
        for argument in command.get_arguments() {
            let names = argument.get_long_and_visible_aliases().unwrap_or_default();
            let option = names.iter().map(|long| format!("--{long}"));
            let positional = argument.get_value_names().unwrap_or_default().iter().map(|name| name.to_string());
            let words: Vec<_> = if argument.is_positional() { positional.collect() } else { option.collect() };
            assert!(!words.is_empty(), "{name}: {argument}");
            for word in words {
                let is_it = |part: &str| part == word || part == format!("<{word}>") || part == format!("[{word}]");
                let has = |entry: &str| entry.lines().next().is_some_and(|line| line.split([' ', ',']).any(is_it));
                assert!(page.split("\n.TP\n").skip(1).any(has), "{name}.1 does not explain {word}:\n{page}");
                found += 1;
            }
        }
        let below = command.get_subcommands().filter(|below| below.get_name() != "help");
        found
            + below.map(|below| options_in_pages(folder, below, &format!("{name}-{}", below.get_name()))).sum::<usize>()
    }

    #[test]
    fn every_option_is_in_the_page_of_its_subcommand() {
        let folder = tempfile::tempdir().unwrap();
        run(Args { folder: folder.path().join("man1") }).unwrap();
        let mut command = command_line().disable_help_subcommand(true);
        command.build();
        let options = options_in_pages(&folder.path().join("man1"), &command, PROGRAM);
        assert!(options > 100, "only {options} options were checked");
    }
}
