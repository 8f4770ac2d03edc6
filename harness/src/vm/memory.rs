//! The guest's memory, read from outside.
//!
//! It is mapped into QEMU's address space, and `/proc/PID/mem` gives access to that. A read needs the right to trace
//! QEMU (`ptrace(2)`, `PTRACE_MODE_ATTACH`), which its parent has unless Yama's `ptrace_scope` is 2 or 3. The guest may
//! run or be stopped. The file of the memory's backend is no substitute: the mapping is private, and so the file has
//! none of the guest's writes.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::qmp::{Qmp, QmpError};
use crate::waits::{Memory, Unreadable};

/// The most memory that a q35 machine has in one block from address 0 on (`pc_q35_init`, `hw/i386/pc_q35.c`): with
/// more, all above 2 GiB is at 4 GiB.
const LOWEST_BLOCK: u64 = 2 << 30;

/// The memory of a guest with at most 2 GiB.
#[derive(Debug)]
pub struct GuestMemory {
    file: File,
    /// Where the guest's physical address 0 is in QEMU's address space.
    base: u64,
    size: u64,
}

/// The guest's memory cannot be read from outside.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// QEMU does not say where it is.
    #[error("cannot find the guest's memory: {0}")]
    Address(#[from] QmpError),
    /// QEMU has no pid.
    #[error("cannot find the guest's memory: QEMU has ended")]
    Ended,
    /// QEMU's memory cannot be opened.
    #[error("cannot open /proc/{pid}/mem, which needs the right to trace QEMU (ptrace_scope 0 or 1): {source}")]
    Open {
        /// QEMU's pid.
        pid: u32,
        /// The system's error.
        source: std::io::Error,
    },
    /// The guest has memory in more than one block.
    #[error("the guest has {mib} MiB, and only the memory of guests with at most 2048 MiB can be read")]
    TooMuch {
        /// Its memory in MiB.
        mib: u32,
    },
}

impl GuestMemory {
    /// The memory of the guest of the QEMU with this pid and this much memory.
    ///
    /// # Errors
    /// [`MemoryError`].
    pub async fn open(qmp: &Qmp, pid: u32, mib: u32) -> Result<GuestMemory, MemoryError> {
        const COMMAND: &str = "gpa2hva 0";
        let answer = qmp.monitor(COMMAND).await?;
        let base = host_address(&answer).ok_or_else(|| QmpError::Monitor {
            command: COMMAND.to_owned(),
            answer: answer.clone(),
            expected: "the host's address of the memory",
        })?;
        GuestMemory::at(pid, base, mib)
    }

    /// The memory of a guest whose physical address 0 is at this address of QEMU.
    ///
    /// # Errors
    /// All of [`MemoryError`] but [`MemoryError::Address`].
    pub fn at(pid: u32, base: u64, mib: u32) -> Result<GuestMemory, MemoryError> {
        let size = u64::from(mib) << 20;
        if size > LOWEST_BLOCK {
            return Err(MemoryError::TooMuch { mib });
        }
        let file = File::open(format!("/proc/{pid}/mem")).map_err(|source| MemoryError::Open { pid, source })?;
        Ok(GuestMemory { file, base, size })
    }
}

impl GuestMemory {
    /// How many bytes it has.
    pub fn size(&self) -> u64 {
        self.size
    }
}

impl Memory for GuestMemory {
    fn read(&self, physical: u64, into: &mut [u8]) -> Result<(), Unreadable> {
        let end = physical.checked_add(into.len() as u64);
        if end.is_none_or(|end| end > self.size) {
            return Err(Unreadable { physical, why: "the guest has no memory there".to_owned() });
        }
        let failed = |error: std::io::Error| Unreadable { physical, why: format!("QEMU's memory: {error}") };
        self.file.read_exact_at(into, self.base + physical).map_err(failed)
    }
}

/// `Host virtual address for 0x0 (pc.ram) is 0x7f5d3fe00000` (`hmp_gpa2hva`, `monitor/hmp-cmds-target.c`).
fn host_address(answer: &str) -> Option<u64> {
    let (_, address) = answer.rsplit_once(" is 0x")?;
    u64::from_str_radix(address.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_monitor_says_where_the_memory_is() {
        assert_eq!(host_address("Host virtual address for 0x0 (pc.ram) is 0x7f5d3fe00000"), Some(0x7f5d_3fe0_0000));
        assert_eq!(host_address("No memory is mapped at address 0x0"), None);
    }

    /// Reads this process's own memory, as if it were a guest's.
    #[test]
    fn memory_is_read_up_to_its_end() {
        let mut guest = vec![0u8; 1 << 20];
        guest[0xffffe..].copy_from_slice(b"!?");
        let memory = GuestMemory::at(std::process::id(), guest.as_ptr() as u64, 1).unwrap();
        let mut bytes = [0; 2];
        memory.read(0xffffe, &mut bytes).unwrap();
        assert_eq!(&bytes, b"!?");
        let error = memory.read(0xfffff, &mut bytes).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot read the guest's memory at physical address 0xfffff: the guest has no memory there"
        );
        assert!(memory.read(u64::MAX, &mut bytes).is_err());
    }

    /// QEMU may end while its guest is looked at.
    #[test]
    fn the_memory_of_a_process_that_has_ended_is_an_error() {
        let mut process = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", process.id())).unwrap();
        let stack = maps.lines().find(|line| line.ends_with("[stack]")).unwrap();
        let base = u64::from_str_radix(stack.split('-').next().unwrap(), 16).unwrap();
        let memory = GuestMemory::at(process.id(), base, 1).unwrap();
        let mut bytes = [0; 8];
        memory.read(0, &mut bytes).unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
        let error = memory.read(0, &mut bytes).unwrap_err().to_string();
        assert!(
            error.starts_with("cannot read the guest's memory at physical address 0x0: QEMU's memory: "),
            "{error}"
        );
    }

    #[test]
    fn a_guest_with_two_blocks_of_memory_is_refused() {
        let error = GuestMemory::at(std::process::id(), 0, 4096).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the guest has 4096 MiB, and only the memory of guests with at most 2048 MiB can be read"
        );
    }
}
