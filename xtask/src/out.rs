//! Results on stdout.

use std::io::{ErrorKind, Write};

use anyhow::{Context, Result};

/// Prints a text, with a newline at its end. A closed pipe (`| head`) is not an error.
///
/// # Errors
/// Writing to stdout failed for another reason.
pub fn print(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    let newline = if text.ends_with('\n') { "" } else { "\n" };
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.write_all(newline.as_bytes()))
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("cannot write to stdout"),
        _ => Ok(()),
    }
}
