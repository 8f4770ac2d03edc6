//! This program: where its file is, and how its processes are named.

use std::ffi::CString;
use std::io;

/// The file of this program, wherever it was started from.
pub const SELF: &str = "/proc/self/exe";

/// Names this process for `/proc/PID/comm` and the kernel's own messages. The kernel cuts a name after 15 bytes
/// (`TASK_COMM_LEN`).
pub fn name_process(name: &str) -> io::Result<()> {
    Ok(nix::sys::prctl::set_name(&CString::new(name)?)?)
}
