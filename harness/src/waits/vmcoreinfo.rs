//! What tools that read a dump must know of the kernel: the text that the kernel itself gives as `VMCOREINFO` if it is
//! built for kexec (`kernel/vmcore_info.c`).

use super::error::LookError;
use super::kernel::Kernel;
use super::memory::Memory;
use super::view::View;

/// `NT_GNU_BUILD_ID`, the type of the note with the build id (`man 5 elf`).
const BUILD_ID: u32 = 3;
/// The most bytes of notes that are read.
const MOST: u64 = 1 << 16;
/// The length of `linux_banner`, with much to spare.
const BANNER: usize = 1024;

/// What the kernel calls itself, and its `VMCOREINFO`, as far as drgn needs it. The kernel must be where `System.map` says.
///
/// # Errors
/// The guest's memory cannot be read, or the kernel lacks a symbol.
pub fn vmcoreinfo(memory: &dyn Memory, kernel: &Kernel) -> Result<(Names, String), LookError> {
    let view = View::new(memory, kernel)?;
    let names = Names::read(&view)?;
    let symbol = |name| Ok::<_, LookError>(format!("SYMBOL({name})={:x}\n", kernel.symbol(name)?));
    let mut text = format!("OSRELEASE={}\nPAGESIZE=4096\nKERNELOFFSET=0\n", names.release);
    if let Some(id) = build_id(&view)? {
        text += &format!("BUILD-ID={id}\n");
    }
    for name in ["init_uts_ns", "_stext", "init_top_pgt"] {
        text += &symbol(name)?;
    }
    // `swapper_pg_dir` is a macro.
    text += &format!("SYMBOL(swapper_pg_dir)={:x}\n", kernel.symbol("init_top_pgt")?);
    text += &format!("NUMBER(phys_base)={}\nNUMBER(pgtable_l5_enabled)=0\n", view.phys_base());
    text += "NUMBER(KERNEL_IMAGE_SIZE)=1073741824\nNUMBER(sme_mask)=0\n";
    Ok((names, text))
}

/// What the kernel calls itself, as `uname` prints it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// `uname -r`.
    pub release: String,
    /// `uname -v`.
    pub version: String,
}

impl Names {
    /// The names in the kernel's banner: "Linux version RELEASE (BUILDER) (COMPILER) VERSION", of which the last begins
    /// with the number of the build (`init/version-timestamp.c`).
    pub(super) fn read(view: &View<'_>) -> Result<Names, LookError> {
        let mut banner = [0; BANNER];
        view.read(view.kernel().symbol("linux_banner")?, &mut banner)?;
        Names::parse(&banner).ok_or(LookError::Damaged { list: "the banner of the kernel" })
    }

    fn parse(banner: &[u8]) -> Option<Names> {
        let end = banner.iter().position(|byte| *byte == b'\n')?;
        let rest = std::str::from_utf8(&banner[..end]).ok()?.strip_prefix("Linux version ")?;
        let (release, rest) = rest.split_once(' ')?;
        let version = rest.rfind(" #").map_or("", |at| &rest[at + 1..]);
        Some(Names { release: release.to_owned(), version: version.to_owned() })
    }
}

/// The build id in the notes of the kernel, in hex.
fn build_id(view: &View<'_>) -> Result<Option<String>, LookError> {
    let symbols = &view.kernel().symbols;
    let (Some(begin), Some(end)) = (symbols.address("__start_notes"), symbols.address("__stop_notes")) else {
        return Ok(None);
    };
    let mut bytes = vec![0; end.saturating_sub(begin).min(MOST) as usize];
    view.read(begin, &mut bytes)?;
    Ok(in_notes(&bytes).map(|id| id.iter().map(|byte| format!("{byte:02x}")).collect()))
}

/// The build id in ELF notes: of each the lengths of name and description, the type, and both padded to 4 bytes.
fn in_notes(mut notes: &[u8]) -> Option<&[u8]> {
    loop {
        let (head, rest) = notes.split_first_chunk::<12>()?;
        let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let [name, description] = [word(0), word(4)].map(|length| length as usize);
        let from = name.checked_next_multiple_of(4)?;
        let found = rest.get(from..from.checked_add(description)?)?;
        if word(8) == BUILD_ID && rest.starts_with(b"GNU\0") {
            return Some(found);
        }
        notes = rest.get(from + description.checked_next_multiple_of(4)?..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(name: &[u8], kind: u32, description: &[u8]) -> Vec<u8> {
        let mut note = Vec::new();
        for number in [name.len() as u32, description.len() as u32, kind] {
            note.extend(number.to_le_bytes());
        }
        for part in [name, description] {
            note.extend(part);
            note.resize(note.len().next_multiple_of(4), 0);
        }
        note
    }

    #[test]
    fn the_banner_has_release_and_version() {
        let banner = b"Linux version 6.12.117 (iov-regress@iov-regress) (gcc (Debian 12.2.0-14) 12.2.0) #1 SMP PREEMPT_DYNAMIC\n\0";
        let names = Names::parse(banner).unwrap();
        assert_eq!((&*names.release, &*names.version), ("6.12.117", "#1 SMP PREEMPT_DYNAMIC"));
        assert_eq!(Names::parse(b"Linux version 6.12"), None);
        assert_eq!(Names::parse(&[0xff, b'\n']), None);
    }

    #[test]
    fn the_build_id_is_found_behind_other_notes() {
        let notes = [note(b"Xen\0", 3, b"no"), note(b"Linux\0", 0x100, b""), note(b"GNU\0", 3, b"id")].concat();
        assert_eq!(in_notes(&notes), Some(&b"id"[..]));
        assert_eq!(in_notes(&notes[..notes.len() - 5]), None);
        assert_eq!(in_notes(&[0xff; 40]), None);
    }
}
