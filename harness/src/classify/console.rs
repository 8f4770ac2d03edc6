//! The log file of a guest's serial console.

use std::path::Path;

/// The console log so far. Empty if the file does not exist, because then the guest printed nothing.
pub fn log(console: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(console).unwrap_or_default()).into_owned()
}

/// The last line of a console log that is not blank, as part of a message.
pub fn last_words(log: &str) -> String {
    match log.lines().rev().find(|line| !line.trim().is_empty()) {
        Some(line) => format!("its last line on the console: {}", line.trim()),
        None => "the kernel printed nothing".to_owned(),
    }
}
