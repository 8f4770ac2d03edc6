//! Encodes a message as one line of text, and decodes it.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Version of this protocol. Host and guest are built from one source tree and must have the same version.
pub const VERSION: u32 = 12;

/// Why a line is not a message.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// The line is not JSON, or not a message of this protocol.
    #[error("not a message of protocol version {version}: {source}; the line was {line:?}", version = VERSION)]
    Malformed {
        /// The beginning of the line.
        line: String,
        /// The error of the parser.
        source: serde_json::Error,
    },
}

/// How many characters of a malformed line an error shows.
const SHOWN: usize = 200;

/// A message as a line, newline included.
///
/// # Errors
/// There is none for the types of this crate: the keys of their maps are strings, and all their fields can be
/// serialized.
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
