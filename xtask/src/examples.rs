//! The commands that help texts and documents show.

use std::fs;

use clap::Command;

use crate::{command_line, machine};

#[test]
fn the_command_line_is_sound() {
    command_line().debug_assert();
}

/// What a shell or a CI system fills in, and something that it may fill in.
const FILLED_IN: [(&str, &str); 4] = [
    ("$(uname -r)", "6.12"),
    ("${{ matrix.partition }}", "plan.json:1/8"),
    ("$CI_NODE_INDEX/$CI_NODE_TOTAL", "1/8"),
    ("hash:{}/4", "hash:1/4"),
];

/// The indented commands of a text: the words after `cargo xtask` (or after the program's own path), up to a comment,
/// an explanation, or shell syntax.
fn commands(text: &str) -> Vec<Vec<String>> {
    let command = |line: &str| {
        let line = line.strip_prefix("  ")?.trim_start();
        let (_, command) = line.split_once("cargo xtask ").or_else(|| line.split_once("/xtask "))?;
        let end = ["  ", " #", " > ", " && ", " || ", " | "].iter().filter_map(|end| command.find(end)).min();
        let command = command[..end.unwrap_or(command.len())].to_owned();
        let command = FILLED_IN.iter().fold(command, |command, (gap, word)| command.replace(gap, word));
        shell_words::split(&command).ok()
    };
    let (first, rest) = text.split_once("\\\n").unwrap_or((text, ""));
    let text = rest.split("\\\n").fold(first.to_owned(), |text, more| text + more.trim_start());
    text.lines().filter_map(command).collect()
}

fn help_texts(command: &Command) -> Vec<String> {
    let own = command.get_after_help().map(ToString::to_string);
    own.into_iter().chain(command.get_subcommands().flat_map(help_texts)).collect()
}

fn documents() -> Vec<String> {
    let workspace = machine::workspace();
    let docs = fs::read_dir(workspace.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    docs.chain([workspace.join("README.md")]).map(|path| fs::read_to_string(path).unwrap()).collect()
}

#[test]
fn examples_in_help_texts_and_documents_are_commands() {
    for (texts, at_least) in [(help_texts(&command_line()), 30), (documents(), 30)] {
        let commands: Vec<_> = texts.iter().flat_map(|text| commands(text)).collect();
        assert!(commands.len() >= at_least, "only {commands:#?}");
        for command in commands {
            let words = std::iter::once("xtask").chain(command.iter().map(String::as_str));
            if let Err(error) = command_line().try_get_matches_from(words) {
                panic!("{command:?}: {error}");
            }
        }
    }
}
