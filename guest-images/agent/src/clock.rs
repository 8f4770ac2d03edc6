//! The guest's clock and the names of its processes.

use std::ffi::CString;
use std::io;

use nix::time::{ClockId, clock_gettime};

/// Now, in nanoseconds of `CLOCK_MONOTONIC`.
pub fn now() -> u64 {
    // clock_gettime(2) fails for an unknown clock or a bad address only; neither can be the case here.
    clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map(|time| time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
        .unwrap_or(0)
}

/// Names this process for `/proc/PID/comm` and the kernel's own messages; what is past 15 bytes is cut off by the
/// kernel (`TASK_COMM_LEN`).
pub fn name_process(name: &str) -> io::Result<()> {
    Ok(nix::sys::prctl::set_name(&CString::new(name)?)?)
}
