//! Types from the DWARF of an object file (gcc's `-g`), which was not linked: its relocations are applied here.

use std::borrow::Cow;

use gimli::{
    AttributeValue, DebuggingInformationEntry, DwTag, Dwarf, DwarfSections, EndianSlice, LittleEndian, Reader as _,
    Relocate, RelocateReader, SectionId, Unit, UnitOffset, constants as dw,
};
use object::{Object, ObjectSection, RelocationMap};

use super::types::{Field, Id, Kind, Types};
use crate::error::LayoutError;

/// A section of an object file.
#[derive(Default)]
struct Section<'a> {
    data: Cow<'a, [u8]>,
    relocations: Relocations,
}

#[derive(Debug, Default)]
struct Relocations(RelocationMap);

impl Relocate for &Relocations {
    fn relocate_address(&self, offset: usize, value: u64) -> gimli::Result<u64> {
        Ok(self.0.relocate(offset as u64, value))
    }

    fn relocate_offset(&self, offset: usize, value: usize) -> gimli::Result<usize> {
        let relocated = self.0.relocate(offset as u64, value as u64);
        usize::try_from(relocated).map_err(|_| gimli::Error::OffsetOutOfBounds(relocated))
    }
}

type Reader<'a> = RelocateReader<EndianSlice<'a, LittleEndian>, &'a Relocations>;

type Entry<'a> = DebuggingInformationEntry<Reader<'a>>;

/// Adds the types of an object file. `file` is its number.
pub(super) fn add(types: &mut Types, object: &[u8], file: u32) -> Result<(), LayoutError> {
    let object = object::File::parse(object)?;
    let sections = DwarfSections::load(|id| load(&object, id))?;
    let dwarf = sections
        .borrow(|section| RelocateReader::new(EndianSlice::new(&section.data, LittleEndian), &section.relocations));
    let mut headers = dwarf.units();
    while let Some(header) = headers.next()? {
        let unit = dwarf.unit(header)?;
        Walk { types, dwarf: &dwarf, unit: &unit, file, open: Vec::new() }.walk()?;
    }
    Ok(())
}

fn load<'a>(object: &object::File<'a>, id: SectionId) -> Result<Section<'a>, object::Error> {
    let Some(section) = object.section_by_name(id.name()) else { return Ok(Section::default()) };
    Ok(Section { data: section.uncompressed_data()?, relocations: Relocations(section.relocation_map()?) })
}

/// A walk through the entries of a compilation unit.
struct Walk<'a, 'b> {
    types: &'b mut Types,
    dwarf: &'b Dwarf<Reader<'a>>,
    unit: &'b Unit<Reader<'a>>,
    file: u32,
    /// The types that are around the current entry, each with its depth.
    open: Vec<(isize, Id)>,
}

impl<'a> Walk<'a, '_> {
    fn walk(mut self) -> Result<(), LayoutError> {
        let mut entries = self.unit.entries();
        while let Some(entry) = entries.next_dfs()? {
            let depth = entry.depth();
            while self.open.last().is_some_and(|(outer, _)| *outer >= depth) {
                self.open.pop();
            }
            let parent = self.open.last().filter(|(outer, _)| *outer == depth - 1).map(|(_, id)| *id);
            match entry.tag() {
                dw::DW_TAG_member => self.member(entry, parent)?,
                dw::DW_TAG_subrange_type => self.bound(entry, parent),
                tag => {
                    let id = self.id(entry.offset());
                    if let Some(kind) = self.kind(tag, entry) {
                        self.name(&kind, id, depth, entry)?;
                        self.types.kinds.insert(id, kind);
                        self.open.push((depth, id));
                    }
                }
            }
        }
        Ok(())
    }

    fn kind(&self, tag: DwTag, entry: &Entry<'a>) -> Option<Kind> {
        let size = number(entry, dw::DW_AT_byte_size);
        match tag {
            // A declaration has no size.
            dw::DW_TAG_structure_type | dw::DW_TAG_union_type => Some(Kind::Struct { size: size?, fields: Vec::new() }),
            dw::DW_TAG_array_type => Some(Kind::Array { element: self.of(entry)?, count: 1 }),
            dw::DW_TAG_typedef
            | dw::DW_TAG_const_type
            | dw::DW_TAG_volatile_type
            | dw::DW_TAG_restrict_type
            | dw::DW_TAG_atomic_type => Some(Kind::Same(self.of(entry)?)),
            dw::DW_TAG_base_type | dw::DW_TAG_pointer_type | dw::DW_TAG_enumeration_type => {
                Some(Kind::Scalar { size: size? })
            }
            _ => None,
        }
    }

    /// Notes the name of a struct that is not local to a function. The unit itself has depth 0.
    fn name(&mut self, kind: &Kind, id: Id, depth: isize, entry: &Entry<'a>) -> Result<(), LayoutError> {
        if matches!(kind, Kind::Struct { .. })
            && depth == 1
            && let Some(name) = self.text(entry)?
        {
            self.types.named.entry(name).or_default().push(id);
        }
        Ok(())
    }

    fn member(&mut self, entry: &Entry<'a>, parent: Option<Id>) -> Result<(), LayoutError> {
        let is_bits = entry.attr(dw::DW_AT_bit_size).is_some();
        // The members of a union have no location.
        let offset = match entry.attr(dw::DW_AT_data_member_location) {
            Some(at) => at.udata_value(),
            None => Some(0),
        };
        let (name, of) = (self.text(entry)?, self.of(entry));
        let around = parent.and_then(|parent| self.types.kinds.get_mut(&parent));
        if let (Some(Kind::Struct { fields, .. }), Some(of)) = (around, of) {
            fields.push(Field { name, offset: offset.filter(|_| !is_bits), of });
        }
        Ok(())
    }

    /// A dimension of an array. Without a bound it has no length.
    fn bound(&mut self, entry: &Entry<'a>, parent: Option<Id>) {
        let upper = || number(entry, dw::DW_AT_upper_bound)?.checked_add(1);
        let length = number(entry, dw::DW_AT_count).or_else(upper).unwrap_or(0);
        if let Some(Kind::Array { count, .. }) = parent.and_then(|parent| self.types.kinds.get_mut(&parent)) {
            *count = count.saturating_mul(length);
        }
    }

    /// The type of a member, an array or a typedef. `None` for void.
    fn of(&self, entry: &Entry<'a>) -> Option<Id> {
        match entry.attr_value(dw::DW_AT_type)? {
            AttributeValue::UnitRef(offset) => Some(self.id(offset)),
            AttributeValue::DebugInfoRef(offset) => Some(Id { file: self.file, number: offset.0 as u64 }),
            _ => None,
        }
    }

    fn id(&self, offset: UnitOffset) -> Id {
        let unit = self.unit.header.debug_info_offset().map_or(0, |offset| offset.0);
        Id { file: self.file, number: unit.saturating_add(offset.0) as u64 }
    }

    fn text(&self, entry: &Entry<'a>) -> Result<Option<String>, LayoutError> {
        let Some(value) = entry.attr_value(dw::DW_AT_name) else { return Ok(None) };
        let text = self.dwarf.attr_string(self.unit, value)?;
        Ok(Some(text.to_string_lossy()?.into_owned()))
    }
}

fn number(entry: &Entry<'_>, name: gimli::DwAt) -> Option<u64> {
    entry.attr(name)?.udata_value()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::super::members::Struct;
    use super::*;
    use crate::layout::Layout;

    const SOURCE: &str = r#"
        typedef unsigned long word;
        struct list { struct list *next, *prev; };
        struct opaque;
        enum kind { A, B };
        struct one {
            int number;
            const word times[3][2];
            struct { char tag; struct { struct list node; }; } deep;
            union { struct { short low, high; }; int both; };
            unsigned flag : 1, other : 3;
            struct opaque *pointer;
            enum kind kind;
            void (*act)(struct one *);
            char tail[];
        };
        struct other { struct one first; struct one second; };
    "#;

    const WANTED: &[Struct] = &[
        Struct {
            name: "one",
            about: "",
            members: &[
                ("number", ""),
                ("times", ""),
                ("deep", ""),
                ("deep.node.prev", ""),
                ("high", ""),
                ("both", ""),
                ("flag", ""),
                ("pointer", ""),
                ("kind", ""),
                ("act", ""),
                ("tail", ""),
                ("number.none", ""),
                ("gone", ""),
            ],
        },
        Struct { name: "opaque", about: "", members: &[("any", "")] },
        Struct { name: "other", about: "", members: &[("second.deep.node", "")] },
    ];

    /// Compiles C and returns the object file.
    fn compile(source: &str, version: &str) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let (c, o) = (folder.path().join("x.c"), folder.path().join("x.o"));
        std::fs::write(&c, source).unwrap();
        let mut gcc = Command::new("gcc");
        gcc.args(["-c", "-g", version, "-fno-eliminate-unused-debug-types", "-o"]).arg(&o).arg(&c);
        assert!(gcc.status().unwrap().success());
        std::fs::read(&o).unwrap()
    }

    fn read(object: &[u8]) -> Result<Layout, LayoutError> {
        let mut types = Types::default();
        add(&mut types, object, 0)?;
        Ok(types.layout(WANTED))
    }

    #[test]
    fn an_object_of_gcc_is_read() {
        let layout = read(&compile(SOURCE, "-gdwarf-5")).unwrap();
        insta::assert_snapshot!(serde_json::to_string_pretty(&layout).unwrap(), @r#"
        {
          "members": {
            "one.act": {
              "offset": 104,
              "size": 8
            },
            "one.both": {
              "offset": 80,
              "size": 4
            },
            "one.deep": {
              "offset": 56,
              "size": 24
            },
            "one.deep.node.prev": {
              "offset": 72,
              "size": 8
            },
            "one.high": {
              "offset": 82,
              "size": 2
            },
            "one.kind": {
              "offset": 96,
              "size": 4
            },
            "one.number": {
              "offset": 0,
              "size": 4
            },
            "one.pointer": {
              "offset": 88,
              "size": 8
            },
            "one.tail": {
              "offset": 112,
              "size": 0
            },
            "one.times": {
              "offset": 8,
              "size": 48
            },
            "other.second.deep.node": {
              "offset": 176,
              "size": 16
            }
          },
          "absent": [
            "one.flag",
            "one.gone",
            "one.number.none",
            "opaque.any"
          ],
          "sizes": {
            "one": 112,
            "other": 224
          }
        }
        "#);
        assert_eq!(layout, read(&compile(SOURCE, "-gdwarf-4")).unwrap());
    }

    #[test]
    fn what_gcc_lays_out_is_what_is_read() {
        let layout = read(&compile(SOURCE, "-gdwarf-5")).unwrap();
        let mut check = SOURCE.to_owned();
        for (path, member) in &layout.members {
            let (name, member_path) = path.split_once('.').unwrap();
            let offset = format!("__builtin_offsetof(struct {name}, {member_path}) == {}", member.offset);
            check += &format!("_Static_assert({offset}, \"{path}\");\n");
        }
        for (name, size) in &layout.sizes {
            check += &format!("_Static_assert(sizeof(struct {name}) == {size}, \"{name}\");\n");
        }
        compile(&check, "-gdwarf-5");
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

        #[test]
        fn a_garbled_object_makes_no_panic(changes in proptest::collection::vec((0usize..40_000, 0u8..), 1..40)) {
            use std::sync::LazyLock;
            static OBJECT: LazyLock<Vec<u8>> = LazyLock::new(|| compile(SOURCE, "-gdwarf-5"));
            let mut object = OBJECT.clone();
            for (place, byte) in changes {
                let place = place % object.len();
                object[place] = byte;
            }
            let _ = read(&object);
            object.truncate(object.len() / 2);
            let _ = read(&object);
        }
    }
}
