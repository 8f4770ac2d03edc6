//! Memory of the owner: mappings of a device's regions, and memory for the device's DMA.

use std::fs::File;
use std::io::Read;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::thread;

use nix::errno::Errno;
use nix::libc;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, SysconfVar, fork, pipe, sysconf, write};
use vfio_bindings::bindings::vfio::{
    VFIO_DMA_MAP_FLAG_READ, VFIO_DMA_MAP_FLAG_WRITE, VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL, vfio_iommu_type1_dma_map,
    vfio_iommu_type1_dma_unmap, vfio_iommu_type1_info,
};

use super::ioctl;

const READ_WRITE: ProtFlags = ProtFlags::PROT_READ.union(ProtFlags::PROT_WRITE);

/// A mapping. It is undone when this is dropped.
pub struct Mapping {
    start: NonNull<libc::c_void>,
    size: usize,
}

// SAFETY: it is only an address. Who uses the memory there is up to the code that does.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps a file from an offset.
    pub fn of(file: &OwnedFd, size: usize, offset: i64) -> Result<Mapping, Errno> {
        let length = NonZeroUsize::new(size).ok_or(Errno::EINVAL)?;
        // SAFETY: the kernel chooses a free place, and only `load` and the kernel access it.
        let start = unsafe { mmap(None, length, READ_WRITE, MapFlags::MAP_SHARED, file.as_fd(), offset) }?;
        Ok(Mapping { start, size })
    }

    /// Maps new memory.
    pub fn new(size: usize) -> Result<Mapping, Errno> {
        let length = NonZeroUsize::new(size).ok_or(Errno::EINVAL)?;
        // SAFETY: the kernel chooses a free place, and only the device accesses it.
        let start = unsafe { mmap_anonymous(None, length, READ_WRITE, MapFlags::MAP_PRIVATE) }?;
        Ok(Mapping { start, size })
    }

    /// Loads four bytes. The errno is EFAULT where a load is answered with SIGBUS.
    ///
    /// A system call reads the place first, so that this process has a page table entry for it, or an errno. Then a child
    /// loads the bytes at once, and gets the signal if there is one. The kernel gives it the entry of this process, as the
    /// mapping is one of a region (`mm/memory.c`, `vma_needs_copy()`).
    pub fn load(&self, at: usize) -> Result<[u8; 4], Errno> {
        let mut value = [0; 4];
        if !at.is_multiple_of(value.len()) || at.checked_add(value.len()).is_none_or(|end| end > self.size) {
            return Err(Errno::EINVAL);
        }
        let (reader, writer) = pipe()?;
        // SAFETY: the byte is within the mapping, which lives as long as this.
        let touched = unsafe { libc::write(writer.as_raw_fd(), self.start.as_ptr().byte_add(at), 1) };
        Errno::result(touched)?;
        let mut reader = File::from(reader);
        reader.read_exact(&mut value[..1]).map_err(|_| Errno::EIO)?;
        // SAFETY: the child only loads, writes and exits.
        match unsafe { fork() }? {
            ForkResult::Child => {
                // SAFETY: the four bytes are aligned, and within the mapping.
                let loaded = unsafe { self.start.as_ptr().byte_add(at).cast::<u32>().read_volatile() };
                let status = i32::from(write(&writer, &loaded.to_ne_bytes()) != Ok(value.len()));
                // SAFETY: it ends the child.
                unsafe { libc::_exit(status) }
            }
            ForkResult::Parent { child } => match waitpid(child, None)? {
                WaitStatus::Exited(_, 0) => {
                    reader.read_exact(&mut value).map_err(|_| Errno::EIO)?;
                    Ok(value)
                }
                WaitStatus::Signaled(_, Signal::SIGBUS, _) => Err(Errno::EFAULT),
                _ => Err(Errno::EIO),
            },
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: nothing uses the mapping any more. An error would mean that it is gone already.
        let _ = unsafe { munmap(self.start, self.size) };
    }
}

/// The size of the entries `.` and `..` in memory: each has 19 bytes, its name, and a null byte, in multiples of 8.
const DOTS: usize = 48;

/// How often this process is forked while a folder is read, and how much memory is copied each time.
const FORKS: usize = 20;
const COPIED: usize = 16 << 20;

/// `getdents64` of a folder, again and again, while another thread forks. Each time the memory is there for the first two
/// entries, and not for the next. Returns how many bytes the kernel has written.
///
/// The page fault only tries to take `mmap_lock` (`mm/memory.c`, `lock_mm_and_find_vma()`). It waits for the lock if a
/// fork has it, and only such a wait is one of those whose order lockdep knows.
pub fn read_folder(folder: &File) -> Result<u64, Errno> {
    let page = usize::try_from(sysconf(SysconfVar::PAGE_SIZE)?.ok_or(Errno::EINVAL)?).map_err(|_| Errno::EINVAL)?;
    let copied = Mapping::new(COPIED)?;
    for at in (0..COPIED).step_by(page) {
        // SAFETY: the byte is within the mapping, and nothing else uses it.
        unsafe { copied.start.as_ptr().cast::<u8>().add(at).write_volatile(1) };
    }
    let memory = Mapping::new(2 * page)?;
    thread::scope(|scope| {
        let forks = scope.spawn(|| (0..FORKS).try_for_each(|_| fork_once()));
        let mut size = read_into(folder, &memory, page)?;
        while !forks.is_finished() {
            size = read_into(folder, &memory, page)?;
        }
        forks.join().map_err(|_| Errno::EIO)?.map(|()| size)
    })
}

/// Forks, and waits for the child, which does nothing.
fn fork_once() -> Result<(), Errno> {
    // SAFETY: the child only exits.
    match unsafe { fork() }? {
        // SAFETY: it ends the child.
        ForkResult::Child => unsafe { libc::_exit(0) },
        ForkResult::Parent { child } => waitpid(child, None).map(drop),
    }
}

/// Reads a folder from its beginning into two pages. `.` and `..` come to the end of the first, and the others into the
/// second, which is not there.
fn read_into(folder: &File, memory: &Mapping, page: usize) -> Result<u64, Errno> {
    let (first, fd) = (memory.start.as_ptr(), folder.as_raw_fd());
    // SAFETY: both pages are within the mapping, and only this function uses them. The kernel writes at most the bytes
    // from the place that it is given to the end of the second.
    let size = unsafe {
        Errno::result(libc::madvise(first.byte_add(page), page, libc::MADV_DONTNEED))?;
        first.cast::<u8>().write_volatile(0);
        Errno::result(libc::lseek(fd, 0, libc::SEEK_SET))?;
        libc::syscall(libc::SYS_getdents64, fd, first.byte_add(page - DOTS), page + DOTS)
    };
    Errno::result(size).map(|size| size as u64)
}

/// `VFIO_IOMMU_MAP_DMA` of memory.
pub fn map_dma(container: &File, memory: &Mapping, iova: u64, size: u64) -> Result<(), Errno> {
    let mut map = vfio_iommu_type1_dma_map {
        argsz: size_of::<vfio_iommu_type1_dma_map>() as u32,
        flags: VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
        vaddr: memory.start.as_ptr() as u64,
        iova,
        size,
    };
    // SAFETY: VFIO_IOMMU_MAP_DMA reads the structure. The memory stays mapped as long as the container is open.
    unsafe { ioctl::map_dma(container.as_raw_fd(), &mut map) }.map(drop)
}

/// `VFIO_IOMMU_UNMAP_DMA`. Returns how many bytes were unmapped.
pub fn unmap_dma(container: &File, iova: u64, size: u64) -> Result<u64, Errno> {
    let argsz = size_of::<vfio_iommu_type1_dma_unmap>() as u32;
    let mut unmap = vfio_iommu_type1_dma_unmap { argsz, iova, size, ..vfio_iommu_type1_dma_unmap::default() };
    // SAFETY: VFIO_IOMMU_UNMAP_DMA reads and writes the structure, which lives longer than the call.
    unsafe { ioctl::unmap_dma(container.as_raw_fd(), &mut unmap) }?;
    Ok(unmap.size)
}

/// Room for `VFIO_IOMMU_GET_INFO` with all its capabilities, in words.
const INFO: usize = 1024;

/// How many mappings a container still takes. ENOENT if the kernel does not say so.
pub fn dma_avail(container: &File) -> Result<u32, Errno> {
    let mut info = vec![0u32; INFO];
    info[0] = size_of_val(info.as_slice()) as u32;
    // SAFETY: VFIO_IOMMU_GET_INFO writes at most `argsz` bytes.
    unsafe { ioctl::iommu_info(container.as_raw_fd(), info.as_mut_ptr()) }?;
    let mut at = info[std::mem::offset_of!(vfio_iommu_type1_info, cap_offset) / size_of::<u32>()];
    // Each `vfio_info_cap_header` has the id and the version in its first word, and the offset of the next in its second.
    while let (true, Some(&[head, next, avail])) = (at != 0, words(&info, at)) {
        if head & 0xffff == VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL {
            return Ok(avail);
        }
        at = next;
    }
    Err(Errno::ENOENT)
}

/// The three words at an offset in bytes.
fn words(info: &[u32], at: u32) -> Option<&[u32; 3]> {
    info.get(at as usize / size_of::<u32>()..)?.first_chunk()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_is_loaded_from_within_its_bounds_only() {
        let mapping = Mapping::new(4096).unwrap();
        assert_eq!(mapping.load(4092), Ok([0; 4]));
        assert_eq!(mapping.load(4093), Err(Errno::EINVAL));
        assert_eq!(mapping.load(usize::MAX), Err(Errno::EINVAL));
    }

    #[test]
    fn a_folder_is_read_with_its_first_two_entries_before_the_page() {
        let folder = tempfile::tempdir().unwrap();
        let read = || read_folder(&File::open(folder.path()).unwrap());
        assert_eq!(read(), Ok(DOTS as u64));
        std::fs::write(folder.path().join("name"), "").unwrap();
        assert_eq!(read(), Ok(DOTS as u64 + 24));
        assert_eq!(read_folder(&tempfile::tempfile().unwrap()), Err(Errno::ENOTDIR));
    }

    /// A file that is shorter than its mapping: a load behind its end is answered with SIGBUS (mmap(2)).
    #[test]
    fn a_load_that_would_get_a_signal_gives_an_errno() {
        let file = tempfile::tempfile().unwrap();
        let mapping = Mapping::of(&file.into(), 4096, 0).unwrap();
        assert_eq!(mapping.load(0), Err(Errno::EFAULT));
    }
}
