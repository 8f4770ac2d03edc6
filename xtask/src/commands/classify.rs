//! `cargo xtask classify`: what a log says about its kernel.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use harness::classify::{Splat, classify};
use serde_json::{Value, json};

use crate::out;
use crate::select::Format;

/// Which logs.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask classify console.log
  dmesg | cargo xtask classify -
  cargo xtask classify --format json target/runs/latest/*/console.log

Exit codes: 0 nothing fatal, 1 something fatal, 2 usage error or a file that cannot be read.")]
pub struct Args {
    /// Logs of a kernel: of a serial console, dmesg, journald, syslog, netconsole or /dev/kmsg. `-` is stdin
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// How many functions of a stack are shown.
const FRAMES: usize = 8;

/// Prints the splats of the logs.
pub fn run(args: Args) -> Result<ExitCode> {
    let mut logs = Vec::new();
    for file in &args.files {
        logs.push((file.display().to_string(), classify(&read(file)?)));
    }
    out::print(&match args.format {
        Format::Json => format!("{:#}", json!({ "logs": logs.iter().map(as_json).collect::<Vec<_>>() })),
        Format::Human => logs.iter().map(as_text).collect(),
    })?;
    let fatal = logs.iter().any(|(_, splats)| splats.iter().any(Splat::is_fatal));
    Ok(if fatal { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// A log. Bytes that are no text are replaced: a serial line may garble some.
fn read(file: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    if file == Path::new("-") {
        io::stdin().lock().read_to_end(&mut bytes).context("cannot read stdin")?;
    } else {
        bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn as_json((file, splats): &(String, Vec<Splat>)) -> Value {
    let splat = |splat: &Splat| {
        let mut value = json!(splat);
        value["severity"] = splat.severity().name().into();
        value
    };
    json!({ "file": file, "splats": splats.iter().map(splat).collect::<Vec<_>>() })
}

fn as_text((file, splats): &(String, Vec<Splat>)) -> String {
    if splats.is_empty() {
        return format!("{file}: the kernel reported no fault\n");
    }
    splats.iter().map(|splat| of_splat(file, splat)).collect()
}

fn of_splat(file: &str, splat: &Splat) -> String {
    let line = splat.lines.start + 1;
    let mut text = format!("{file}:{line}: {}: {}\n", splat.severity().name(), printable(&splat.to_string()));
    let mut detail = |what: &str, value: &str| text += &format!("    {what:<9} {}\n", printable(value));
    if let Some(known) = &splat.known {
        detail("because", known);
    }
    if let Some(function) = &splat.function {
        detail("function", function);
    }
    if let Some(task) = &splat.task {
        detail("task", task);
    }
    if !splat.frames.is_empty() {
        let shown: Vec<_> = splat.frames.iter().take(FRAMES).map(String::as_str).collect();
        let more = if splat.frames.len() > FRAMES { " < ..." } else { "" };
        detail("stack", &format!("{}{more}", shown.join(" < ")));
    }
    if splat.corrupted {
        detail("note", "the report is truncated or garbled");
    }
    text
}

/// The text without control characters, which a log may have and a terminal would obey.
fn printable(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { char.escape_default().to_string() } else { char.into() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_obeys_no_log() {
        assert_eq!(printable("two\nlines \u{1b}[31mred"), "two\\nlines \\u{1b}[31mred");
    }

    #[test]
    fn a_report_is_told_with_its_place() {
        let log = "[    1.000000] hello\n\
            [    2.000000] INFO: task my agent:37 blocked for more than 10 seconds.\n\
            [    2.000000]  pci_reset_function+0x3e/0x70\n\
            [    2.000000]  </TASK>\n";
        insta::assert_snapshot!(as_text(&("a.log".to_owned(), classify(log))), @r"
        a.log:2: witness: hung-task: INFO: task my agent:37 blocked for more than 10 seconds. (in pci_reset_function)
            function  pci_reset_function
            task      my agent:37
            stack     pci_reset_function
        ");
        insta::assert_snapshot!(as_text(&("a.log".to_owned(), Vec::new())), @"a.log: the kernel reported no fault");
    }
}
