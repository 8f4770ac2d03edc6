//! A dump of a guest's memory in the format of makedumpfile and of QEMU's `dump-guest-memory` (`kdump-zlib`), which drgn,
//! crash and libkdumpfile read.
//!
//! QEMU's own command waits until all CPUs have stopped, and so would wait for ever for a guest that stands at its gate.
//! This one only reads the guest's memory. The format: a header, a header of its own for makedumpfile, two bitmaps with a
//! bit for each page, a descriptor for each page that has something in it, and the pages, compressed
//! (`include/sysemu/dump.h` in QEMU, `IMPLEMENTATION` in makedumpfile). Pages of zeros are left out. CPUs' registers are
//! not in it: only tasks on no CPU can be unwound.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::Path;

use miniz_oxide::deflate::compress_to_vec_zlib;

use crate::waits::{Memory, Names, Unreadable};

const PAGE: usize = 4096;
/// `DUMP_DH_COMPRESSED_ZLIB`: in the header's status and in the flags of a compressed page.
const ZLIB: u32 = 1;
/// The dump has no pages of zeros.
const WITHOUT_ZEROS: u32 = 1;
/// The length of the second header (`struct kdump_sub_header`, version 6).
const SECOND_HEADER: usize = 104;
/// What comes before the vmcoreinfo in its note: two lengths, a type, and a name of 11 bytes, padded to 12.
const NOTE_HEADER: usize = 24;
/// The length of a page's descriptor (`struct page_desc`).
const DESCRIPTOR: usize = 24;
/// Fast, and not much worse than the best: 10 MiB for a guest that uses 30 MiB.
const LEVEL: u8 = 1;

/// A dump was not written.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// The file could not be written.
    #[error("cannot write the dump of the guest: {0}")]
    Write(#[from] io::Error),
    /// The guest's memory could not be read.
    #[error(transparent)]
    Read(#[from] Unreadable),
}

/// What a dump says about the guest.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// What the kernel calls itself. libkdumpfile does not recognize the machine without it.
    pub names: Names,
    /// What tools must know of the kernel (`VMCOREINFO`). Empty if nothing is known.
    pub vmcoreinfo: String,
    /// How many CPUs it has.
    pub cpus: u32,
}

/// Dumps memory into a file: all of these blocks of physical addresses, which are in order. The guest must stand
/// meanwhile.
///
/// # Errors
/// [`DumpError`].
pub fn dump(memory: &dyn Memory, of: &[Range<u64>], about: &About, path: &Path) -> Result<(), DumpError> {
    let pages = of.last().map_or(0, |block| block.end / PAGE as u64);
    let [mut all, mut present] = [(); 2].map(|()| vec![0u8; (pages as usize).div_ceil(8)]);
    let mut page = vec![0; PAGE];
    let mut kept = Vec::new();
    for number in of.iter().flat_map(|block| block.start / PAGE as u64..block.end / PAGE as u64) {
        memory.read(number * PAGE as u64, &mut page)?;
        set(&mut all, number);
        if page != [0; PAGE] {
            set(&mut present, number);
            kept.push(number);
        }
    }
    let second = second_header(pages, about);
    let bitmap = blocks(present.len());
    let begin_of_descriptors = PAGE * (1 + blocks(second.len()) + 2 * bitmap);
    let mut file = BufWriter::new(File::create(path)?);
    let blocks_of = Blocks { second: blocks(second.len()), bitmaps: 2 * bitmap };
    write_block(&mut file, 0, &header(pages, blocks_of, about))?;
    write_block(&mut file, 1, &second)?;
    // The first says which pages there are, the second which of them are in the dump.
    write_block(&mut file, 1 + blocks_of.second, &all)?;
    write_block(&mut file, 1 + blocks_of.second + bitmap, &present)?;
    let mut at = (begin_of_descriptors + DESCRIPTOR * kept.len()) as u64;
    let mut descriptors = Vec::with_capacity(DESCRIPTOR * kept.len());
    file.seek(SeekFrom::Start(at))?;
    for number in kept {
        memory.read(number * PAGE as u64, &mut page)?;
        let packed = compress_to_vec_zlib(&page, LEVEL);
        let (bytes, flags) = if packed.len() < PAGE { (&packed, ZLIB) } else { (&page, 0) };
        descriptors.extend(at.to_le_bytes());
        descriptors.extend((bytes.len() as u32).to_le_bytes());
        descriptors.extend(flags.to_le_bytes());
        descriptors.extend(0u64.to_le_bytes());
        file.write_all(bytes)?;
        at += bytes.len() as u64;
    }
    file.seek(SeekFrom::Start(begin_of_descriptors as u64))?;
    file.write_all(&descriptors)?;
    Ok(file.flush()?)
}

/// The build id that a dump says its kernel has. None if it says none.
///
/// # Errors
/// The file cannot be read.
pub fn build_id(path: &Path) -> io::Result<Option<Vec<u8>>> {
    const NAME: &[u8] = b"BUILD-ID=";
    let mut begin = Vec::new();
    // The header, and behind it what the dump says of the kernel, which has a few KiB.
    File::open(path)?.take(16 * PAGE as u64).read_to_end(&mut begin)?;
    let Some(at) = begin.windows(NAME.len()).position(|window| window == NAME) else { return Ok(None) };
    let digits: Vec<u8> = begin[at + NAME.len()..].iter().copied().take_while(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    Ok(digits.chunks_exact(2).map(byte).collect())
}

fn set(bitmap: &mut [u8], page: u64) {
    bitmap[(page / 8) as usize] |= 1 << (page % 8);
}

/// How many blocks the parts before the pages have.
#[derive(Clone, Copy)]
struct Blocks {
    second: usize,
    bitmaps: usize,
}

fn blocks(length: usize) -> usize {
    length.div_ceil(PAGE)
}

fn write_block(file: &mut (impl Write + Seek), number: usize, bytes: &[u8]) -> io::Result<()> {
    file.seek(SeekFrom::Start((number * PAGE) as u64))?;
    file.write_all(bytes)
}

/// `struct disk_dump_header`.
fn header(pages: u64, blocks: Blocks, about: &About) -> Vec<u8> {
    let mut header = b"KDUMP   ".to_vec();
    header.extend(6u32.to_le_bytes());
    // `struct new_utsname`: system, node, release, version, machine, domain.
    for word in ["Linux", "", &about.names.release, &about.names.version, "x86_64", ""] {
        let mut field = [0; 65];
        let length = word.len().min(64);
        field[..length].copy_from_slice(&word.as_bytes()[..length]);
        header.extend(field);
    }
    // The time of the dump, after 6 bytes of padding.
    header.extend([0; 22]);
    let numbers = [ZLIB, PAGE as u32, blocks.second as u32, blocks.bitmaps as u32, low(pages), 0, 0, 0, 0, about.cpus];
    header.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
    header
}

/// The field of 32 bits for a number that a later one of 64 bits has, too.
fn low(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// `struct kdump_sub_header`, and what it refers to.
fn second_header(pages: u64, about: &About) -> Vec<u8> {
    let info = about.vmcoreinfo.as_bytes();
    let note = note(info);
    let mut header = Vec::new();
    // The address at which the kernel was loaded is in the vmcoreinfo.
    header.extend(0u64.to_le_bytes());
    header.extend(WITHOUT_ZEROS.to_le_bytes());
    // The dump is not split into several files.
    header.extend(0u32.to_le_bytes());
    let place = |from: usize, length: usize| if info.is_empty() { [0, 0] } else { [from as u64, length as u64] };
    let begin = PAGE + SECOND_HEADER;
    let [info_at, info_size] = place(begin + NOTE_HEADER, info.len());
    let [note_at, note_size] = place(begin, note.len());
    // First and last page of a part; vmcoreinfo; notes, of which that is one; erased data; first and last page again.
    for number in [0, pages, info_at, info_size, note_at, note_size, 0, 0, 0, pages, pages] {
        header.extend(number.to_le_bytes());
    }
    if !info.is_empty() {
        header.extend(note);
    }
    header
}

/// An ELF note with the vmcoreinfo. libkdumpfile reads it from there.
fn note(info: &[u8]) -> Vec<u8> {
    const NAME: &[u8] = b"VMCOREINFO\0";
    let mut note: Vec<u8> =
        [NAME.len(), info.len(), 0].iter().flat_map(|&length| low(length as u64).to_le_bytes()).collect();
    note.extend(NAME);
    note.resize(NOTE_HEADER, 0);
    note.extend(info);
    note.resize(note.len().next_multiple_of(4), 0);
    note
}

#[cfg(test)]
mod tests {
    use miniz_oxide::inflate::decompress_to_vec_zlib;

    use super::*;

    struct Pages(Vec<u8>);

    impl Memory for Pages {
        fn read(&self, physical: u64, into: &mut [u8]) -> Result<(), Unreadable> {
            let from = physical as usize;
            let bytes = self.0.get(from..from + into.len());
            let bytes = bytes.ok_or_else(|| Unreadable { physical, why: "the end".to_owned() })?;
            into.copy_from_slice(bytes);
            Ok(())
        }
    }

    fn number(bytes: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
    }

    #[test]
    fn pages_of_zeros_are_left_out_and_the_others_are_there() {
        let mut memory = vec![0; 9 * PAGE];
        memory[PAGE..2 * PAGE].fill(7);
        // Cannot be compressed.
        let mut random = 1u64;
        for byte in &mut memory[8 * PAGE..] {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *byte = (random >> 56) as u8;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dump");
        let names = Names { release: "6.12.1".to_owned(), version: "#1 SMP".to_owned() };
        let vmcoreinfo = "OSRELEASE=6.12.1\nBUILD-ID=0aff\n".to_owned();
        let about = About { names, vmcoreinfo, cpus: 2 };
        // All pages but the third are memory, as if the guest had two blocks.
        let of = [0..2 * PAGE as u64, 3 * PAGE as u64..memory.len() as u64];
        dump(&Pages(memory.clone()), &of, &about, &path).unwrap();
        assert_eq!(build_id(&path).unwrap(), Some(vec![0x0a, 0xff]));
        let dump = std::fs::read(&path).unwrap();
        assert_eq!(&dump[..12], b"KDUMP   \x06\0\0\0");
        let info = number(&dump, PAGE + 32) as usize;
        assert_eq!(&dump[info..info + number(&dump, PAGE + 40) as usize], about.vmcoreinfo.as_bytes());
        let [note, length] = [48, 56].map(|at| number(&dump, PAGE + at) as usize);
        assert_eq!((note + NOTE_HEADER, length), (info, NOTE_HEADER + 32));
        assert_eq!((dump[2 * PAGE], dump[2 * PAGE + 1]), (0b1111_1011, 0b1));
        assert_eq!((dump[3 * PAGE], dump[3 * PAGE + 1]), (0b10, 0b1));
        for (index, page) in [1, 8].into_iter().enumerate() {
            let descriptor = 4 * PAGE + DESCRIPTOR * index;
            let at = number(&dump, descriptor) as usize;
            let sizes = number(&dump, descriptor + 8);
            let bytes = &dump[at..at + (sizes & 0xffff_ffff) as usize];
            let bytes = if sizes >> 32 == 1 { decompress_to_vec_zlib(bytes).unwrap() } else { bytes.to_vec() };
            assert_eq!(bytes, memory[page * PAGE..(page + 1) * PAGE], "page {page}");
        }
    }

    #[test]
    fn memory_that_cannot_be_read_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let of = [Range { start: 0, end: 2 * PAGE as u64 }];
        let error = dump(&Pages(vec![1; PAGE]), &of, &About::default(), &folder.path().join("dump"));
        assert!(error.unwrap_err().to_string().ends_with("physical address 0x1000: the end"));
    }
}
