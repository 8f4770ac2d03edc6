//! The code of a kernel by source file: which addresses each function and each line has, from the DWARF of its vmlinux.
//!
//! Kernels are built with `-g1` (`compile.rs`), so that vmlinux names each function with its file, also where a function
//! was inlined, and has line tables. A static function of the same name in another file is another function.
//!
//! Only code in `.text` counts. That of `.init.text` runs only while the kernel boots, and is freed then.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};

use gimli::{AttributeValue, DebuggingInformationEntry, Dwarf, EndianSlice, LittleEndian, UnitRef};
use object::{Object, ObjectSection};

/// The code of some source files, by their path in the kernel's source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Code(pub BTreeMap<String, SourceFile>);

/// The code of a source file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceFile {
    /// The addresses of its functions, by name. A function that the compiler split, copied or inlined has several.
    pub functions: BTreeMap<String, Vec<Range<u64>>>,
    /// The addresses of its lines, by number.
    pub lines: BTreeMap<u32, Vec<Range<u64>>>,
}

/// The code of a kernel could not be read.
#[derive(Debug, thiserror::Error)]
pub enum CodeError {
    /// The file could not be read.
    #[error("cannot read {}: {cause}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        cause: std::io::Error,
    },
    /// The file is no ELF file.
    #[error("cannot read {} as an ELF file: {cause}", path.display())]
    Elf {
        /// The file.
        path: PathBuf,
        /// The cause.
        cause: object::Error,
    },
    /// Its DWARF is damaged.
    #[error("cannot read the DWARF of {}: {cause}", path.display())]
    Dwarf {
        /// The file.
        path: PathBuf,
        /// The cause.
        cause: gimli::Error,
    },
    /// It has no DWARF about code.
    #[error("{} does not say which source its code comes from: it was built without -g1", path.display())]
    Without {
        /// The file.
        path: PathBuf,
    },
}

pub(crate) type Bytes<'a> = EndianSlice<'a, LittleEndian>;
type Entry<'a> = DebuggingInformationEntry<Bytes<'a>>;

impl Code {
    /// The code of a vmlinux whose source path begins with one of these prefixes, such as `drivers/pci/`. Of headers,
    /// that which is compiled with source files of these prefixes.
    ///
    /// # Errors
    /// [`CodeError`].
    pub fn of(vmlinux: &Path, prefixes: &[&str]) -> Result<Code, CodeError> {
        with_dwarf(vmlinux, |dwarf, elf| {
            let text = elf.section_by_name(".text");
            let text = text.map_or(0..0, |text| text.address()..text.address().saturating_add(text.size()));
            read(&dwarf, &text, prefixes)
        })
    }
}

/// Reads the DWARF of a vmlinux. `read` also gets the file.
///
/// # Errors
/// [`CodeError`].
pub(crate) fn with_dwarf<T>(
    vmlinux: &Path,
    read: impl FnOnce(Dwarf<Bytes<'_>>, &object::File<'_>) -> gimli::Result<T>,
) -> Result<T, CodeError> {
    let path = || vmlinux.to_owned();
    let elf = fs::read(vmlinux).map_err(|cause| CodeError::Io { path: path(), cause })?;
    let elf = object::File::parse(elf.as_slice()).map_err(|cause| CodeError::Elf { path: path(), cause })?;
    let section = |name: &str| elf.section_by_name(name);
    let data = |name: &str| section(name).and_then(|section| section.data().ok()).unwrap_or_default();
    let load = |id: gimli::SectionId| Ok::<_, gimli::Error>(EndianSlice::new(data(id.name()), LittleEndian));
    if data(gimli::SectionId::DebugInfo.name()).is_empty() {
        return Err(CodeError::Without { path: path() });
    }
    let read = || Dwarf::load(load).and_then(|dwarf| read(dwarf, &elf));
    read().map_err(|cause| CodeError::Dwarf { path: path(), cause })
}

fn read(dwarf: &Dwarf<Bytes<'_>>, text: &Range<u64>, prefixes: &[&str]) -> gimli::Result<Code> {
    let is_wanted = |path: &str| prefixes.iter().any(|prefix| path.starts_with(prefix));
    let mut code = Code::default();
    let mut headers = dwarf.units();
    while let Some(header) = headers.next()? {
        let unit = dwarf.unit(header)?;
        let name = unit.name.map(|name| normal(&name.to_string_lossy()));
        if !name.is_some_and(|name| is_wanted(&name)) {
            continue;
        }
        let unit = unit.unit_ref(dwarf);
        let files: Vec<_> = files(unit)?.into_iter().map(|path| Some(path).filter(|path| is_wanted(path))).collect();
        let file = |index: u64| files.get(usize::try_from(index).ok()?)?.clone();
        functions(unit, text, &mut code, file)?;
        lines(unit, text, &mut code, file)?;
    }
    Ok(code)
}

/// The files of a unit's line table, by their number in it.
fn files(unit: UnitRef<'_, Bytes<'_>>) -> gimli::Result<Vec<String>> {
    let Some(program) = &unit.line_program else { return Ok(Vec::new()) };
    let header = program.header();
    // Files are numbered from 1 before DWARF 5.
    let unnumbered = if header.version() < 5 { vec![String::new()] } else { Vec::new() };
    let named = header.file_names().iter().map(|file| {
        let name = unit.attr_string(file.path_name())?.to_string_lossy().into_owned();
        let folder = match file.directory(header) {
            Some(folder) => unit.attr_string(folder)?.to_string_lossy().into_owned(),
            None => String::new(),
        };
        Ok(normal(&Path::new(&folder).join(name).to_string_lossy()))
    });
    unnumbered.into_iter().map(Ok).chain(named).collect()
}

/// A path of the compiler as a path in the source: without `.`, and without `..` where that is possible.
pub(crate) fn normal(path: &str) -> String {
    let mut normal = PathBuf::new();
    for part in Path::new(path).components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if normal.file_name().is_some() => drop(normal.pop()),
            part => normal.push(part),
        }
    }
    normal.to_string_lossy().into_owned()
}

fn functions(
    unit: UnitRef<'_, Bytes<'_>>,
    text: &Range<u64>,
    code: &mut Code,
    file: impl Fn(u64) -> Option<String>,
) -> gimli::Result<()> {
    let mut entries = unit.entries();
    while entries.next_dfs()?.is_some() {
        let Some(entry) = entries.current() else { break };
        if !matches!(entry.tag(), gimli::DW_TAG_subprogram | gimli::DW_TAG_inlined_subroutine) {
            continue;
        }
        let mut found = Vec::new();
        let mut ranges = unit.die_ranges(entry)?;
        while let Some(range) = ranges.next()? {
            found.extend(within(text, range.begin..range.end));
        }
        if found.is_empty() {
            continue;
        }
        if let Some((name, path)) = declared(unit, entry)?.and_then(|(name, number)| Some((name, file(number)?))) {
            code.0.entry(path).or_default().functions.entry(name).or_default().append(&mut found);
        }
    }
    Ok(())
}

/// The name of a function and the number of its file. A function that was split, copied or inlined refers to an entry
/// with both.
fn declared<'a>(unit: UnitRef<'_, Bytes<'a>>, entry: &Entry<'a>) -> gimli::Result<Option<(String, u64)>> {
    /// An inlined function refers to its definition, and that to its declaration.
    const DEPTH: usize = 4;
    let (mut name, mut file) = (None, None);
    let mut entry = entry.clone();
    for _ in 0..DEPTH {
        if let (None, Some(value)) = (&name, entry.attr_value(gimli::DW_AT_name)) {
            name = Some(unit.attr_string(value)?.to_string_lossy().into_owned());
        }
        if let (None, Some(AttributeValue::FileIndex(index))) = (file, entry.attr_value(gimli::DW_AT_decl_file)) {
            file = Some(index);
        }
        let refers = [gimli::DW_AT_abstract_origin, gimli::DW_AT_specification];
        match refers.iter().find_map(|attribute| entry.attr_value(*attribute)) {
            Some(AttributeValue::UnitRef(offset)) => entry = unit.entry(offset)?,
            _ => break,
        }
    }
    Ok(name.zip(file))
}

fn lines(
    unit: UnitRef<'_, Bytes<'_>>,
    text: &Range<u64>,
    code: &mut Code,
    file: impl Fn(u64) -> Option<String>,
) -> gimli::Result<()> {
    let Some(program) = unit.line_program.clone() else { return Ok(()) };
    let mut rows = program.rows();
    // The row before this one: its line ends where this one begins.
    let mut before: Option<(u64, u64, u32)> = None;
    while let Some((_, row)) = rows.next_row()? {
        if let Some((address, number, line)) = before
            && let Some(range) = within(text, address..row.address())
            && let Some(path) = file(number)
        {
            code.0.entry(path).or_default().lines.entry(line).or_default().push(range);
        }
        let line = row.line().and_then(|line| u32::try_from(line.get()).ok());
        before = line.filter(|_| !row.end_sequence()).map(|line| (row.address(), row.file_index(), line));
    }
    Ok(())
}

/// A range of addresses, if it is not empty and is in the text.
fn within(text: &Range<u64>, range: Range<u64>) -> Option<Range<u64>> {
    (range.start < range.end && text.contains(&range.start) && range.end <= text.end).then_some(range)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    const SOURCE: &str = "\
#include \"../pci/pci.h\"
__attribute__((section(\".init.text\"))) void booted(void) { other(); }
static void twin(void) { other(); other(); }
void first(int n)
{
    twice(n);
    if (n)
        twin();
}
void second(void) { twin(); }
";
    const HEADER: &str = "\
void other(void);
static inline void twice(int n)
{
    for (int i = 0; i < n; i++)
        other();
}
static inline void unused(void) { other(); }
";

    /// A vmlinux with two files of drivers/pci, and one of lib.
    pub(crate) fn vmlinux(folder: &Path, flags: &[&str]) -> PathBuf {
        let files = [
            ("drivers/pci/a.c", SOURCE),
            (
                "drivers/pci/b.c",
                "void other(void);\nstatic void twin(void) { other(); }\nvoid third(void) { twin(); twin(); }\n",
            ),
            ("drivers/pci/pci.h", HEADER),
            ("lib/other.c", "int x;\nvoid other(void) { x++; }\nvoid _start(void) { }\n"),
        ];
        for (name, text) in files {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let mut gcc = Command::new("gcc");
        gcc.args(["-O2", "-fno-pic", "-no-pie", "-nostdlib", "-static"]).args(flags);
        gcc.arg(format!("-fdebug-prefix-map={}=.", folder.display()));
        gcc.args(files.iter().map(|(name, _)| folder.join(name)).filter(|path| path.extension().unwrap() == "c"));
        assert!(gcc.arg("-o").arg(folder.join("vmlinux")).current_dir(folder).status().unwrap().success());
        folder.join("vmlinux")
    }

    /// The functions of each file.
    fn told(code: &Code) -> String {
        let functions = |file: &SourceFile| file.functions.keys().cloned().collect::<Vec<_>>().join(" ");
        code.0.iter().map(|(path, file)| format!("{path}: {}\n", functions(file))).collect()
    }

    #[test]
    fn functions_are_found_by_file_also_where_they_are_inlined() {
        let folder = tempfile::tempdir().unwrap();
        for dwarf in ["-gdwarf-5", "-gdwarf-4"] {
            let code = Code::of(&vmlinux(folder.path(), &["-g1", dwarf]), &["drivers/pci/"]).unwrap();
            insta::allow_duplicates! {
                insta::assert_snapshot!(told(&code), @r"
                drivers/pci/a.c: first second twin
                drivers/pci/b.c: third twin
                drivers/pci/pci.h: twice
                ");
            }
            let twins = |file: &str| &code.0[file].functions["twin"];
            assert!(twins("drivers/pci/a.c").iter().all(|range| !twins("drivers/pci/b.c").contains(range)));
        }
    }

    #[test]
    fn lines_of_the_boot_and_lines_without_code_do_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let code = Code::of(&vmlinux(folder.path(), &["-g1"]), &["drivers/pci/"]).unwrap();
        let lines = |file: &str| code.0[file].lines.keys().copied().collect::<Vec<_>>();
        assert!(!lines("drivers/pci/a.c").contains(&2), "it runs in the boot");
        assert!([7, 8].iter().any(|line| lines("drivers/pci/a.c").contains(line)), "{:?}", lines("drivers/pci/a.c"));
        assert!(lines("drivers/pci/pci.h").contains(&5), "it is inlined");
        assert!(!lines("drivers/pci/pci.h").contains(&7), "nobody uses it");
    }

    #[test]
    fn a_kernel_without_dwarf_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = vmlinux(folder.path(), &["-g0"]);
        let error = |path: &Path| Code::of(path, &[]).unwrap_err().to_string();
        assert!(
            error(&path).ends_with("/vmlinux does not say which source its code comes from: it was built without -g1")
        );
        fs::write(&path, "text").unwrap();
        assert!(error(&path).contains("as an ELF file: "), "{}", error(&path));
        fs::remove_file(&path).unwrap();
        assert!(error(&path).starts_with("cannot read /"), "{}", error(&path));
    }

    #[test]
    fn paths_of_the_compiler_are_paths_in_the_source() {
        for (path, is) in [
            ("./drivers/pci/iov.c", "drivers/pci/iov.c"),
            ("drivers/pci/hotplug/../pci.h", "drivers/pci/pci.h"),
            ("././a/./b.c", "a/b.c"),
            ("../x.c", "../x.c"),
            ("/x/../y.c", "/y.c"),
        ] {
            assert_eq!(normal(path), is);
        }
    }

    #[test]
    fn damaged_files_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let path = vmlinux(folder.path(), &["-g1"]);
        let whole = fs::read(&path).unwrap();
        let mut runner = proptest::test_runner::TestRunner::default();
        let damage = (0..whole.len(), prop::collection::vec((0..whole.len(), any::<u8>()), 1..20));
        let damaged = |(cut, changes): (usize, Vec<(usize, u8)>)| {
            let mut bytes = whole.clone();
            changes.iter().for_each(|(place, byte)| bytes[*place] = *byte);
            // Half of them are not cut.
            if cut % 2 == 0 {
                bytes.truncate(cut);
            }
            fs::write(&path, bytes).unwrap();
            // It does not panic.
            let _ = Code::of(&path, &["drivers/pci/"]);
            Ok(())
        };
        runner.run(&damage, damaged).unwrap();
    }
}
