//! Files that the host sends over the port.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use crate::error::{AgentError, doing};

/// Reads the bytes of a file from the channel, and writes them. All bytes are read even if they cannot be written:
/// otherwise the rest of them would be taken for requests.
pub fn receive(channel: &mut impl Read, path: &str, size: u64, executable: bool) -> Result<(), AgentError> {
    let mut bytes = channel.take(size);
    let written = doing(&format!("write {path}"), || write(&mut bytes, path, executable));
    let rest = doing("read a file from the host", || io::copy(&mut bytes, &mut io::sink()));
    written?;
    rest?;
    match bytes.limit() {
        0 => Ok(()),
        missing => Err(AgentError::Refused(format!("the channel ended {missing} bytes before the end of {path}"))),
    }
}

/// Writes the file under another name and renames it. So a program of that name that runs can be replaced, and a file
/// that did not come completely is not there.
fn write(bytes: &mut impl Read, path: &str, executable: bool) -> io::Result<()> {
    let aside = PathBuf::from(format!("{path}.part"));
    let mut file = File::create(&aside)?;
    let written = io::copy(bytes, &mut file).and_then(|_| file.flush());
    drop(file);
    let mode = if executable { 0o755 } else { 0o644 };
    let moved = written
        .and_then(|()| fs::set_permissions(&aside, Permissions::from_mode(mode)))
        .and_then(|()| fs::rename(&aside, path));
    if moved.is_err() {
        let _ = fs::remove_file(&aside);
    }
    moved
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_written_is_read_to_its_end() {
        let mut channel: &[u8] = b"12345next";
        let error = receive(&mut channel, "/no/such/folder/file", 5, false).unwrap_err();
        assert_eq!(error.failure().errno.unwrap().name, "ENOENT");
        assert_eq!(channel, b"next");
    }

    #[test]
    fn a_channel_that_ends_too_early_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut channel: &[u8] = b"123";
        let error = receive(&mut channel, path.to_str().unwrap(), 5, false).unwrap_err().to_string();
        assert!(error.starts_with("the channel ended 2 bytes before the end of "), "{error}");
    }
}
