//! The guest's memory, read from outside.
//!
//! It is mapped into QEMU's address space, and `/proc/PID/mem` gives access to that. A read needs the right to trace
//! QEMU (`ptrace(2)`, `PTRACE_MODE_ATTACH`), which its parent has unless Yama's `ptrace_scope` is 2 or 3. The guest may
//! run or be stopped. The file of the memory's backend is no substitute: the mapping is private, and so the file has
//! none of the guest's writes.
//!
//! Who has not this right asks QEMU to write all of the memory into a file, for each look (`pmemsave`). That takes a few
//! tenths of a second of the host's time. QEMU's gdb stub is no substitute: whoever connects to it stops the virtual CPUs
//! (`gdb_chr_event()`, `gdbstub/system.c`), and that waits for ever for those of a held guest.

use std::fs::File;
use std::io::ErrorKind;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use qapi::qmp::pmemsave;
use tempfile::NamedTempFile;

use super::qmp::{Qmp, QmpError};
use crate::waits::{Memory, Unreadable};

/// With this much memory or more, a q35 machine has all above [`LOWEST_BLOCK`] at [`HIGH_BLOCK`] (`pc_q35_init`,
/// `hw/i386/pc_q35.c`). With less, it has one block.
const TWO_BLOCKS: u64 = 0xb000_0000;

/// The size of the block at address 0, if there are two.
const LOWEST_BLOCK: u64 = 2 << 30;

/// Where the second block is.
const HIGH_BLOCK: u64 = 4 << 30;

/// The memory of a guest.
#[derive(Debug)]
pub struct GuestMemory {
    /// The physical addresses that have memory, in order.
    blocks: Vec<Range<u64>>,
    /// Of each block, where it is.
    places: Vec<Place>,
}

/// Where a block of memory is.
#[derive(Debug)]
struct Place {
    /// QEMU's address space, or what QEMU has written.
    file: Arc<File>,
    /// Where the block begins.
    at: u64,
}

/// The guest's memory cannot be read from outside.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// QEMU does not say where it is, or does not write it.
    #[error("cannot get at the guest's memory: {0}")]
    Qmp(#[from] QmpError),
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
    /// There is no place for what QEMU writes.
    #[error("cannot make a file for the guest's memory: {0}")]
    Saved(#[source] std::io::Error),
}

impl MemoryError {
    /// Whether this process must not read QEMU's memory.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, MemoryError::Open { source, .. } if source.kind() == ErrorKind::PermissionDenied)
    }
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
    /// [`MemoryError::Open`].
    pub fn at(pid: u32, base: u64, mib: u32) -> Result<GuestMemory, MemoryError> {
        let file = File::open(format!("/proc/{pid}/mem")).map_err(|source| MemoryError::Open { pid, source })?;
        let (file, blocks) = (Arc::new(file), blocks(mib));
        // QEMU has it in one piece, in which the second block follows the first.
        let mut at = base;
        let mut place = |block: &Range<u64>| {
            let place = Place { file: file.clone(), at };
            at += block.end - block.start;
            place
        };
        Ok(GuestMemory { places: blocks.iter().map(&mut place).collect(), blocks })
    }

    /// The memory as it is now, which QEMU writes into this folder. The guest should stand, or it changes meanwhile.
    ///
    /// # Errors
    /// [`MemoryError::Qmp`], [`MemoryError::Saved`].
    pub async fn saved(qmp: &Qmp, mib: u32, folder: &Path) -> Result<GuestMemory, MemoryError> {
        let (blocks, mut places) = (blocks(mib), Vec::new());
        for block in &blocks {
            // Gone from the folder as soon as it is open: a guest may be looked at often.
            let file = NamedTempFile::new_in(folder).map_err(MemoryError::Saved)?;
            let filename = file.path().display().to_string();
            qmp.execute(pmemsave { val: block.start, size: block.end - block.start, filename }).await?;
            places.push(Place { file: Arc::new(file.into_file()), at: 0 });
        }
        Ok(GuestMemory { blocks, places })
    }

    /// The physical addresses that have memory, in order.
    pub fn blocks(&self) -> &[Range<u64>] {
        &self.blocks
    }

    /// Where so many bytes at a physical address are. None if the guest does not have all of them, or not in one block.
    fn place(&self, physical: u64, length: usize) -> Option<(&File, u64)> {
        let end = physical.checked_add(length as u64)?;
        let index = self.blocks.iter().position(|block| block.start <= physical && end <= block.end)?;
        let (block, place) = (self.blocks.get(index)?, self.places.get(index)?);
        Some((&place.file, place.at + physical - block.start))
    }
}

impl Memory for GuestMemory {
    fn read(&self, physical: u64, into: &mut [u8]) -> Result<(), Unreadable> {
        let unreadable = |why| Unreadable { physical, why };
        let place = self.place(physical, into.len());
        let (file, at) = place.ok_or_else(|| unreadable("the guest has no memory there".to_owned()))?;
        file.read_exact_at(into, at).map_err(|error| unreadable(format!("QEMU's memory: {error}")))
    }
}

/// The blocks of so many MiB of memory.
fn blocks(mib: u32) -> Vec<Range<u64>> {
    let size = u64::from(mib) << 20;
    if size < TWO_BLOCKS {
        return vec![Range { start: 0, end: size }];
    }
    vec![0..LOWEST_BLOCK, HIGH_BLOCK..HIGH_BLOCK + size - LOWEST_BLOCK]
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
    fn what_qemu_has_written_is_read_block_by_block() {
        let part = |byte: u8| {
            let file = NamedTempFile::new().unwrap();
            std::fs::write(file.path(), [byte; 4096]).unwrap();
            Place { file: Arc::new(file.into_file()), at: 0 }
        };
        let memory = GuestMemory { blocks: vec![0..4096, 8192..12288], places: vec![part(1), part(2)] };
        for (physical, byte) in [(0, 1), (4088, 1), (8192, 2), (12280, 2)] {
            let mut bytes = [0; 8];
            memory.read(physical, &mut bytes).unwrap();
            assert_eq!(bytes, [byte; 8], "{physical}");
        }
        assert!(memory.read(4096, &mut [0; 8]).is_err());
        assert!(memory.read(4092, &mut [0; 8]).is_err(), "not in one block");
    }

    /// As QEMU 10.0 says with `gpa2hva` for `-m 2500`, `-m 2816` and `-m 4096`.
    #[test]
    fn memory_above_2_gib_is_found() {
        let place = |mib, physical| {
            let memory = GuestMemory::at(std::process::id(), 0, mib).unwrap();
            memory.place(physical, 4096).map(|(_, at)| at)
        };
        assert_eq!(place(2500, 0x9c3f_f000), Some(0x9c3f_f000));
        assert_eq!(place(2500, 0xafff_f000), None);
        for mib in [2816, 4096] {
            assert_eq!(place(mib, 0x7fff_f000), Some(0x7fff_f000), "{mib} MiB");
            assert_eq!(place(mib, 0x7fff_f800), None, "{mib} MiB: not in one block");
            assert_eq!(place(mib, 0x8000_0000), None, "{mib} MiB");
            assert_eq!(place(mib, 0x1_0000_0000), Some(0x8000_0000), "{mib} MiB");
        }
        assert_eq!(place(2816, 0x1_7fff_f000), None);
        assert_eq!(place(4096, 0x1_7fff_f000), Some(0xffff_f000));
        assert_eq!(place(4096, u64::MAX), None);
    }
}
