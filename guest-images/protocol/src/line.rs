//! One message, one line.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Version of this protocol. Host and guest must agree on it exactly: both are built from one source tree.
pub const VERSION: u32 = 5;

/// A line that is not a message.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// Not JSON, or not a message of this protocol.
    #[error("not a message of protocol version {version}: {source}; the line was {line:?}", version = VERSION)]
    Malformed {
        /// The beginning of the line.
        line: String,
        /// What the parser says.
        source: serde_json::Error,
    },
}

/// Most characters of a malformed line that an error repeats.
const SHOWN: usize = 200;

/// A message as a line, newline included.
///
/// # Errors
/// None for the types of this crate: their maps have string keys and nothing in them fails to serialize.
pub fn encode<T: Serialize>(message: &T) -> serde_json::Result<String> {
    let mut line = serde_json::to_string(message)?;
    line.push('\n');
    Ok(line)
}

/// The message in a line, with or without its newline.
///
/// # Errors
/// [`LineError::Malformed`], with the line's beginning.
pub fn decode<T: DeserializeOwned>(line: &str) -> Result<T, LineError> {
    serde_json::from_str(line)
        .map_err(|source| LineError::Malformed { line: line.chars().take(SHOWN).collect(), source })
}
