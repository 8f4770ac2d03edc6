//! The file with what a guest printed on its serial console.

use std::path::Path;

/// The console's log so far. A file that is not there is a guest that printed nothing.
pub fn log(console: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(console).unwrap_or_default()).into_owned()
}

/// What a guest printed last.
pub fn last_words(log: &str) -> String {
    match log.lines().rev().find(|line| !line.trim().is_empty()) {
        Some(line) => format!("its last line on the console: {}", line.trim()),
        None => "the kernel printed nothing".to_owned(),
    }
}
