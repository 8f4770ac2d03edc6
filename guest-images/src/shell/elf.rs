//! What a program needs to run: its dynamic linker, and its libraries.

use object::Endianness;
use object::elf::{DT_NEEDED, FileHeader64, PT_INTERP};
use object::read::elf::{Dyn, FileHeader, ProgramHeader};

/// The names of the libraries that a program or a library names, and of its dynamic linker. Empty for a static program.
///
/// # Errors
/// It is no ELF file for 64 bits.
pub fn needs(program: &[u8]) -> object::Result<Vec<String>> {
    let header = FileHeader64::<Endianness>::parse(program)?;
    let endian = header.endian()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned();
    let mut names = Vec::new();
    for segment in header.program_headers(endian, program)?.iter().filter(|one| one.p_type(endian) == PT_INTERP) {
        let path = text(segment.data(endian, program).unwrap_or_default());
        names.extend(path.rsplit('/').next().map(str::to_owned));
    }
    let sections = header.sections(endian, program)?;
    if let Some((entries, link)) = sections.dynamic(endian, program)? {
        let strings = sections.strings(endian, program, link)?;
        for entry in entries.iter().filter(|entry| entry.tag32(endian) == Some(DT_NEEDED)) {
            names.push(text(entry.string(endian, strings)?));
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_needs_its_linker_and_the_c_library() {
        let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let names = needs(&program).unwrap();
        assert!(names.contains(&"libc.so.6".to_owned()), "{names:?}");
        assert!(names.iter().any(|name| name.starts_with("ld-linux")), "{names:?}");
        assert!(needs(b"#!/bin/sh\n").is_err());
    }
}
