//! The source lines of a kernel's code, with what the compiler inlined there, from the line tables of its vmlinux.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use addr2line::{Context, Frame};
use gimli::{Dwarf, Reader};
use object::{Object, ObjectSymbol};

use crate::code::{self, Bytes, CodeError};

/// The source lines of one kernel. What was found once is not searched again, as reading a vmlinux takes a second.
#[derive(Debug)]
pub struct SourceLines {
    vmlinux: PathBuf,
    found: Mutex<BTreeMap<u64, Option<String>>>,
}

/// A place in the code, as a kernel prints it (`%pS`): `pci_create_attr+0x12/0x1b0`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InFunction {
    /// The function's symbol, with the suffixes of the compiler.
    pub symbol: String,
    /// How many bytes after its beginning.
    pub offset: u64,
    /// From its beginning to that of the next symbol, in bytes (`kallsyms_lookup_size_offset()`).
    pub size: u64,
}

impl SourceLines {
    /// Those of the kernel with this ELF file. It is read when the first line is asked for.
    pub fn new(vmlinux: &Path) -> SourceLines {
        SourceLines { vmlinux: vmlinux.to_owned(), found: Mutex::default() }
    }

    /// The lines of these addresses, as `drivers/pci/probe.c:3391`. It is that of the function that is not inlined; those
    /// that are inlined there follow. An address that has no line is left out.
    ///
    /// # Errors
    /// [`CodeError`], also if the kernel was built without line tables.
    pub fn find(&self, addresses: &BTreeSet<u64>) -> Result<BTreeMap<u64, String>, CodeError> {
        let mut found = self.found();
        let new: Vec<_> = addresses.iter().copied().filter(|address| !found.contains_key(address)).collect();
        if !new.is_empty() {
            found.extend(code::with_dwarf(&self.vmlinux, |dwarf, _| lines_of(dwarf, new))?);
        }
        let known = |address: &u64| Some((*address, found.get(address)?.clone()?));
        Ok(addresses.iter().filter_map(known).collect())
    }

    /// The lines of these places, as those of addresses. None if there is none, or if several functions have this symbol and
    /// this size.
    ///
    /// # Errors
    /// As [`SourceLines::find`].
    pub fn find_in(&self, places: &[InFunction]) -> Result<Vec<Option<String>>, CodeError> {
        let mut found = self.found();
        let addresses = code::with_dwarf(&self.vmlinux, |dwarf, elf| {
            let addresses = addresses(places, elf);
            let new = addresses.iter().copied().flatten().filter(|address| !found.contains_key(address)).collect();
            let lines = lines_of(dwarf, new)?;
            found.extend(lines);
            Ok(addresses)
        })?;
        Ok(addresses.into_iter().map(|address| found.get(&address?)?.clone()).collect())
    }

    fn found(&self) -> MutexGuard<'_, BTreeMap<u64, Option<String>>> {
        // A panic in another thread cannot leave a map half changed.
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl InFunction {
    /// The address, if only one of the functions with this symbol can be meant.
    fn address(&self, functions: &[Range<u64>]) -> Option<u64> {
        let fits = |function: &&Range<u64>| {
            let size = function.end - function.start;
            size <= self.size && self.size < size + PADDING && self.offset < self.size
        };
        let mut starts: Vec<u64> = functions.iter().filter(fits).map(|function| function.start).collect();
        starts.dedup();
        match starts[..] {
            [start] => start.checked_add(self.offset),
            _ => None,
        }
    }
}

/// The addresses of places. Symbols are searched once for all of them: a kernel has a hundred thousand.
fn addresses(places: &[InFunction], elf: &object::File<'_>) -> Vec<Option<u64>> {
    let wanted: BTreeSet<&str> = places.iter().map(|place| place.symbol.as_str()).collect();
    let mut known: BTreeMap<&str, Vec<Range<u64>>> = BTreeMap::new();
    for symbol in elf.symbols() {
        let Some(name) = symbol.name().ok().and_then(|name| wanted.get(name)) else { continue };
        let of_name = known.entry(name).or_default();
        of_name.push(symbol.address()..symbol.address().saturating_add(symbol.size()));
    }
    places.iter().map(|place| place.address(known.get(place.symbol.as_str())?)).collect()
}

/// The lines of addresses, each as far as it has one.
fn lines_of(dwarf: Dwarf<Bytes<'_>>, addresses: Vec<u64>) -> gimli::Result<Vec<(u64, Option<String>)>> {
    let context = Context::from_dwarf(dwarf)?;
    addresses.into_iter().map(|address| Ok((address, line(&context, address)?))).collect()
}

/// More than what is between two functions: their alignment, and room for a call before each
/// (`CONFIG_FUNCTION_ALIGNMENT`, `CONFIG_FUNCTION_PADDING_BYTES`).
const PADDING: u64 = 128;

fn line<R: Reader>(context: &Context<R>, address: u64) -> gimli::Result<Option<String>> {
    let mut frames = context.find_frames(address).skip_all_loads()?;
    let mut places = Vec::new();
    while let Some(frame) = frames.next()? {
        places.push(place(&frame)?);
    }
    // The innermost function comes first.
    let Some(Some((_, outermost))) = places.pop() else { return Ok(None) };
    let inlined = places.into_iter().rev().flatten().map(|(function, line)| format!(", in {function}() at {line}"));
    Ok(Some(outermost + &inlined.collect::<String>()))
}

/// The function of a frame, and its line.
fn place<R: Reader>(frame: &Frame<'_, R>) -> gimli::Result<Option<(String, String)>> {
    let Some((file, line)) = frame.location.as_ref().and_then(|at| Some((at.file?, at.line?))) else { return Ok(None) };
    let function = match &frame.function {
        Some(function) => function.raw_name()?.into_owned(),
        None => "a function without a name".to_owned(),
    };
    Ok(Some((function, format!("{}:{line}", code::normal(file)))))
}

#[cfg(test)]
mod tests {
    use object::{Object, ObjectSymbol};

    use super::*;
    use crate::code::tests::vmlinux;

    #[test]
    fn a_line_has_what_was_inlined_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = vmlinux(folder.path(), &["-g1"]);
        let elf = std::fs::read(&path).unwrap();
        let elf = object::File::parse(elf.as_slice()).unwrap();
        let first = elf.symbols().find(|symbol| symbol.name() == Ok("first")).unwrap();
        let lines = SourceLines::new(&path);
        let addresses: BTreeSet<_> = (first.address()..first.address() + first.size()).chain([7]).collect();
        let found = lines.find(&addresses).unwrap();
        let texts: BTreeSet<_> = found.values().map(String::as_str).collect();
        assert!(texts.contains("drivers/pci/a.c:6, in twice() at drivers/pci/pci.h:5"), "{texts:?}");
        assert!(texts.iter().all(|line| line.starts_with("drivers/pci/a.c:")), "{texts:?}");
        assert!(!found.contains_key(&7), "there is no code");
        let in_first = |offset, size| InFunction { symbol: "first".to_owned(), offset, size };
        let places = [in_first(0, first.size()), in_first(0, first.size() + 500), in_first(9999, first.size())];
        let found_in = lines.find_in(&places).unwrap();
        assert_eq!(found_in, [found.get(&first.address()).cloned(), None, None]);
        assert!(found_in[0].is_some());
        // They are not searched again.
        std::fs::remove_file(&path).unwrap();
        assert_eq!(lines.find(&addresses).unwrap(), found);
        assert!(matches!(lines.find(&[8].into()), Err(CodeError::Io { .. })));
    }
}
