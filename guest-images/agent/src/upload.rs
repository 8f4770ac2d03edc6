//! Files that the host sends over the port, in pieces.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::error::{AgentError, doing};

/// A piece of a file, as in [`guest_protocol::Command::PutFile`].
pub struct Piece<'a> {
    /// The path of the file.
    pub path: &'a str,
    /// Where the piece begins.
    pub offset: u64,
    /// How many bytes it has.
    pub size: u64,
    /// How many bytes the file has.
    pub total: u64,
    /// Whether the file is a program.
    pub executable: bool,
}

/// Reads the bytes of a piece from the channel, and writes them. All bytes are read even if they cannot be written:
/// otherwise the rest of them would be taken for requests.
pub fn receive(channel: &mut impl Read, piece: &Piece<'_>) -> Result<(), AgentError> {
    let mut bytes = channel.take(piece.size);
    let written = write(&mut bytes, piece);
    let rest = doing("read a file from the host", || io::copy(&mut bytes, &mut io::sink()));
    written?;
    rest?;
    match bytes.limit() {
        0 => Ok(()),
        missing => {
            Err(refused(&format!("the channel ended {missing} bytes before the end of a piece of {}", piece.path)))
        }
    }
}

/// Writes the file under another name and renames it at the end. So a program of that name that runs can be replaced,
/// and a file that did not come completely is not there.
fn write(bytes: &mut impl Read, piece: &Piece<'_>) -> Result<(), AgentError> {
    let Piece { path, offset, size, total, executable } = *piece;
    let aside = PathBuf::from(format!("{path}.part"));
    let what = format!("write {path}");
    let (mut file, before) = doing(&what, || open(&aside, offset == 0))?;
    if before != offset {
        return Err(refused(&format!("a piece of {path} begins at {offset}, and {before} bytes came before")));
    }
    doing(&what, || io::copy(bytes, &mut file).and_then(|_| file.flush()))?;
    if offset.checked_add(size) != Some(total) {
        return Ok(());
    }
    let mode = if executable { 0o755 } else { 0o644 };
    doing(&format!("give {path} its name"), || {
        fs::set_permissions(&aside, Permissions::from_mode(mode)).and_then(|()| fs::rename(&aside, path))
    })
}

/// Opens a file to append to it, or begins it. Returns how many bytes it has.
fn open(file: &Path, begin: bool) -> io::Result<(File, u64)> {
    let file = if begin { File::create(file)? } else { OpenOptions::new().append(true).open(file)? };
    let length = file.metadata()?.len();
    Ok((file, length))
}

fn refused(why: &str) -> AgentError {
    AgentError::Refused(why.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive_at(
        mut channel: &[u8],
        path: &str,
        offset: u64,
        size: u64,
        total: u64,
    ) -> (Result<(), AgentError>, String) {
        let result = receive(&mut channel, &Piece { path, offset, size, total, executable: false });
        (result, String::from_utf8(channel.to_vec()).unwrap())
    }

    #[test]
    fn a_file_that_cannot_be_written_is_read_to_its_end() {
        let (result, next) = receive_at(b"12345next", "/no/such/folder/file", 0, 5, 5);
        assert_eq!(result.unwrap_err().failure().errno.unwrap().name, "ENOENT");
        assert_eq!(next, "next");
    }

    #[test]
    fn a_channel_that_ends_too_early_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let error = receive_at(b"123", path.to_str().unwrap(), 0, 5, 9).0.unwrap_err().to_string();
        assert!(error.starts_with("the channel ended 2 bytes before the end of a piece of "), "{error}");
    }

    #[test]
    fn a_file_has_its_name_when_all_pieces_came_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let name = path.to_str().unwrap();
        receive_at(b"old", name, 0, 3, 3).0.unwrap();
        receive_at(b"new ", name, 0, 4, 8).0.unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        receive_at(b"file", name, 4, 4, 8).0.unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new file");
        receive_at(b"new ", name, 0, 4, 8).0.unwrap();
        let error = receive_at(b"ile", name, 5, 3, 8).0.unwrap_err().to_string();
        assert!(error.ends_with("begins at 5, and 4 bytes came before"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "new file");
    }
}
