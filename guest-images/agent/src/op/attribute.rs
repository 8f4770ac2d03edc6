//! Reads and writes attributes, lists directories, and reads links.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

use guest_protocol::{Access, Sched};

use crate::error::{AgentError, doing, errno};
use crate::{clock, sched};

/// Size of the read buffer. sysfs returns at most a page, `/proc` may return more.
const LARGEST: usize = 64 << 10;

/// Reads an attribute: one `open`, one `read(2)`, one `close`.
pub fn read(path: &str) -> Access {
    read_into(path, &mut vec![0; LARGEST])
}

/// Reads an attribute into an existing buffer.
pub fn read_into(path: &str, buffer: &mut [u8]) -> Access {
    access(path, || {
        let length = File::open(path)?.read(buffer)?;
        Ok(length)
    })
    .map_value(|length| String::from_utf8_lossy(&buffer[..length]).trim_end().to_owned())
}

/// Reads up to `length` bytes from an offset on, as hexadecimal digits. Files of `/proc` give a page or less at a time.
pub fn read_bytes(path: &str, at: u64, length: u32) -> Access {
    let mut bytes = Vec::new();
    let read = access(path, || {
        let mut file = File::open(path)?;
        if at > 0 {
            file.seek(SeekFrom::Start(at))?;
        }
        file.take(length.into()).read_to_end(&mut bytes)
    });
    read.map_value(|_| bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Applies the scheduling request, then writes an attribute: with one `write(2)` at its start, or with one `pwrite(2)`
/// at an offset. A seek to an offset that the file does not have would fail, and the write would not be tried.
pub fn write(path: &str, data: &str, at: u64, sched: Sched) -> Result<Access, AgentError> {
    sched::apply(sched)?;
    let written = access(path, || {
        let mut file = File::options().write(true).open(path)?;
        // Some files have no offsets.
        if at > 0 { file.write_at(data.as_bytes(), at) } else { file.write(data.as_bytes()) }
    });
    if let Ok(length) = written.value
        && length != data.len()
    {
        let message = format!("write {path}: the kernel took {length} of {} bytes", data.len());
        return Err(AgentError::Refused(message));
    }
    Ok(written.map_value(|_| String::new()))
}

/// The names in a directory, sorted.
pub fn list(path: &str) -> Result<Vec<String>, AgentError> {
    let mut names = doing(&format!("list {path}"), || {
        fs::read_dir(path)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<io::Result<Vec<_>>>()
    })?;
    names.sort_unstable();
    Ok(names)
}

/// The target of a symbolic link.
pub fn read_link(path: &str) -> Result<String, AgentError> {
    let target = doing(&format!("read the link {path}"), || fs::read_link(path))?;
    Ok(target.to_string_lossy().into_owned())
}

/// Writes a sysrq key to the kernel.
pub fn sysrq(key: char) -> Result<(), AgentError> {
    let path = "/proc/sysrq-trigger";
    doing(&format!("write {key:?} to {path}"), || fs::write(path, key.to_string()))
}

/// An access with the result of its last system call.
struct Timed {
    path: String,
    value: Result<usize, io::Error>,
    started: u64,
    finished: u64,
}

fn access(path: &str, call: impl FnOnce() -> io::Result<usize>) -> Timed {
    let started = clock::now();
    let value = call();
    let finished = clock::now();
    Timed { path: path.to_owned(), value, started, finished }
}

impl Timed {
    fn map_value(self, text: impl FnOnce(usize) -> String) -> Access {
        let code = |error: io::Error| errno(error.raw_os_error().unwrap_or(nix::libc::EIO));
        Access {
            path: self.path,
            value: self.value.map(text).map_err(code),
            started: self.started,
            finished: self.finished,
        }
    }
}
