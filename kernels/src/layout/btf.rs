//! Types from BTF, with which distributions build their kernels (`Documentation/bpf/btf.rst` in the kernel). The BTF of
//! a module continues that of the kernel: its types and its strings have the numbers after those of the kernel.
//!
//! No crate reads it here: `btf-rs` has a licence that `deny.toml` does not allow, and `btf` does not read modules.

use super::types::{Field, Id, Kind, Types};
use crate::error::LayoutError;

/// `BTF_MAGIC` of `include/uapi/linux/btf.h`, in the byte order of x86.
const MAGIC: u32 = 0xeb9f;

/// The size of a pointer: BTF does not say it.
const POINTER: u64 = 8;

/// The BTF of a kernel, which that of its modules continues.
#[derive(Clone, Copy)]
pub(super) struct Base<'a> {
    /// How many types it has, with void.
    types: u64,
    strings: &'a [u8],
    file: u32,
}

/// Adds the types of a kernel. `file` is its number.
pub(super) fn add<'a>(types: &mut Types, btf: &'a [u8], file: u32) -> Result<Base<'a>, LayoutError> {
    let nothing = Base { types: 1, strings: &[], file };
    let parts = Parts::of(btf)?;
    let end = Reading { types, parts: &parts, base: nothing, file }.read()?;
    Ok(Base { types: end, strings: parts.strings, file })
}

/// Adds the types of a module. `file` is its number.
pub(super) fn add_module(types: &mut Types, btf: &[u8], file: u32, base: Base) -> Result<(), LayoutError> {
    let parts = Parts::of(btf)?;
    Reading { types, parts: &parts, base, file }.read().map(drop)
}

const SHORT: LayoutError = LayoutError::Btf { problem: "it ends too early" };

/// The parts that the header names.
struct Parts<'a> {
    types: &'a [u8],
    strings: &'a [u8],
}

impl<'a> Parts<'a> {
    /// Reads a `struct btf_header`.
    fn of(btf: &'a [u8]) -> Result<Parts<'a>, LayoutError> {
        let mut header = Cursor(btf);
        let [first, length, types, types_length, strings, strings_length] = header.words()?;
        if first & 0xffff != MAGIC {
            return Err(LayoutError::Btf { problem: "it does not begin with its magic number" });
        }
        let part = |from: u32, long: u32| {
            let from = (length as usize).checked_add(from as usize)?;
            btf.get(from..from.checked_add(long as usize)?)
        };
        Ok(Parts {
            types: part(types, types_length).ok_or(SHORT)?,
            strings: part(strings, strings_length).ok_or(SHORT)?,
        })
    }
}

/// Numbers that are read one after the other.
struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    /// The next numbers of 32 bits.
    fn words<const N: usize>(&mut self) -> Result<[u32; N], LayoutError> {
        let (read, rest) = self.0.split_at_checked(4 * N).ok_or(SHORT)?;
        self.0 = rest;
        let mut words =
            read.chunks_exact(4).map(|word| word.iter().rev().fold(0, |sum, byte| sum << 8 | u32::from(*byte)));
        Ok(std::array::from_fn(|_| words.next().unwrap_or_default()))
    }

    fn skip(&mut self, bytes: usize) -> Result<(), LayoutError> {
        self.0 = self.0.get(bytes..).ok_or(SHORT)?;
        Ok(())
    }
}

/// The types of one kernel or module.
struct Reading<'a, 'b> {
    types: &'b mut Types,
    parts: &'b Parts<'a>,
    base: Base<'b>,
    file: u32,
}

impl Reading<'_, '_> {
    /// Reads all types. Returns the number after the last.
    fn read(self) -> Result<u64, LayoutError> {
        let mut at = Cursor(self.parts.types);
        let mut number = self.base.types;
        while !at.0.is_empty() {
            let [name, info, size_or_type] = at.words()?;
            if let Some(kind) = self.kind(&mut at, info, size_or_type)? {
                let id = Id { file: self.file, number };
                if let (Kind::Struct { .. }, Some(name)) = (&kind, self.text(name)) {
                    self.types.named.entry(name).or_default().push(id);
                }
                self.types.kinds.insert(id, kind);
            }
            number += 1;
        }
        Ok(number)
    }

    /// One type, after its `struct btf_type`. The numbers are those of `BTF_KIND_INT` and so on.
    fn kind(&self, at: &mut Cursor, info: u32, size_or_type: u32) -> Result<Option<Kind>, LayoutError> {
        let count = info & 0xffff;
        let scalar = Some(Kind::Scalar { size: u64::from(size_or_type) });
        let mut skip = |bytes: usize| at.skip(bytes);
        Ok(match info >> 24 & 0x1f {
            // INT
            1 => skip(4).map(|()| scalar)?,
            // PTR
            2 => Some(Kind::Scalar { size: POINTER }),
            // ARRAY
            3 => {
                let [element, _, count] = at.words()?;
                Some(Kind::Array { element: self.id(element), count: u64::from(count) })
            }
            // STRUCT, UNION
            4 | 5 => {
                let fields = (0..count).map(|_| self.field(at, info >> 31 == 1)).collect::<Result<_, _>>()?;
                Some(Kind::Struct { size: u64::from(size_or_type), fields })
            }
            // ENUM
            6 => skip(8 * count as usize).map(|()| scalar)?,
            // FLOAT
            16 => scalar,
            // TYPEDEF, VOLATILE, CONST, RESTRICT, TYPE_TAG
            8..=11 | 18 => Some(Kind::Same(self.id(size_or_type))),
            // FWD, FUNC
            7 | 12 => None,
            // FUNC_PROTO
            13 => skip(8 * count as usize).map(|()| None)?,
            // VAR, DECL_TAG
            14 | 17 => skip(4).map(|()| None)?,
            // DATASEC
            15 => skip(12 * count as usize).map(|()| None)?,
            // ENUM64
            19 => skip(12 * count as usize).map(|()| scalar)?,
            // The length of an unknown kind is unknown as well.
            _ => return Err(LayoutError::Btf { problem: "it has a kind of type that is not known here" }),
        })
    }

    /// A `struct btf_member`. With `has_bits`, the offset has the width of a bit-field in its highest byte.
    fn field(&self, at: &mut Cursor, has_bits: bool) -> Result<Field, LayoutError> {
        let [name, of, offset] = at.words()?;
        let (bits, width) = if has_bits { (offset & 0xff_ffff, offset >> 24) } else { (offset, 0) };
        let offset = (width == 0 && bits % 8 == 0).then_some(u64::from(bits / 8));
        Ok(Field { name: self.text(name), offset, of: self.id(of) })
    }

    fn id(&self, number: u32) -> Id {
        let number = u64::from(number);
        Id { file: if number < self.base.types { self.base.file } else { self.file }, number }
    }

    /// The text at an offset. `None` if it is empty, or not there.
    fn text(&self, offset: u32) -> Option<String> {
        let offset = offset as usize;
        let from = match offset.checked_sub(self.base.strings.len()) {
            Some(beyond) => self.parts.strings.get(beyond..)?,
            None => self.base.strings.get(offset..)?,
        };
        let text = from.split(|byte| *byte == 0).next()?;
        (!text.is_empty()).then(|| String::from_utf8_lossy(text).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::members::Struct;
    use super::*;

    /// Writes BTF.
    #[derive(Default)]
    struct Writer {
        types: Vec<u8>,
        strings: Vec<u8>,
        /// How long the strings of the kernel are, for a module.
        before: usize,
    }

    impl Writer {
        fn new() -> Writer {
            Writer { strings: vec![0], ..Writer::default() }
        }

        fn words(mut self, words: &[u32]) -> Writer {
            self.types.extend(words.iter().flat_map(|word| word.to_le_bytes()));
            self
        }

        fn text(&mut self, text: &str) -> u32 {
            let offset = self.before + self.strings.len();
            self.strings.extend(text.bytes().chain([0]));
            offset as u32
        }

        /// A type of this kind and name, with its number of members.
        fn kind(mut self, kind: u32, name: &str, members: u32, size_or_type: u32) -> Writer {
            let name = if name.is_empty() { 0 } else { self.text(name) };
            self.words(&[name, kind << 24 | members, size_or_type])
        }

        fn member(mut self, name: &str, of: u32, offset: u32) -> Writer {
            let name = if name.is_empty() { 0 } else { self.text(name) };
            self.words(&[name, of, offset])
        }

        fn done(self) -> Vec<u8> {
            let lengths = [self.types.len() as u32, self.strings.len() as u32];
            let header = [MAGIC | 1 << 16, 24, 0, lengths[0], lengths[0], lengths[1]];
            let header = header.iter().flat_map(|word| word.to_le_bytes());
            header.chain(self.types).chain(self.strings).collect()
        }
    }

    const STRUCT: u32 = 4;
    /// The bit of a struct that has bit-fields.
    const BITS: u32 = 0x80;

    fn kernel() -> Vec<u8> {
        let writer = Writer::new();
        let writer = writer.kind(1, "int", 0, 4).words(&[32]);
        let writer = writer.kind(2, "", 0, 1);
        let writer = writer.kind(3, "", 0, 0).words(&[1, 1, 5]);
        let writer = writer.kind(8, "number", 0, 1);
        // Every kind that is skipped: its length must be right.
        let writer = writer.kind(6, "e", 2, 4).words(&[0; 4]).kind(7, "f", 0, 0).kind(9, "", 0, 4).kind(12, "g", 0, 1);
        let writer = writer.kind(13, "", 3, 0).words(&[0; 6]).kind(14, "v", 0, 1).words(&[0]);
        let writer = writer.kind(15, "s", 1, 4).words(&[0; 3]).kind(16, "fl", 0, 8).kind(17, "d", 0, 1).words(&[0]);
        let writer = writer.kind(18, "t", 0, 1).kind(19, "e64", 1, 8).words(&[0; 3]);
        let writer = writer.kind(STRUCT, "", 1, 8).member("inner", 7, 32);
        let writer =
            writer.kind(STRUCT, "one", 3, 64).member("pointer", 2, 64).member("array", 3, 128).member("", 16, 320);
        writer.kind(STRUCT | BITS, "bits", 2, 8).member("narrow", 1, 3 << 24 | 8).member("wide", 1, 32).done()
    }

    /// The struct of a module, which has one of the kernel in it.
    fn module(kernel: &[u8]) -> Vec<u8> {
        let mut writer = Writer { before: Parts::of(kernel).unwrap().strings.len(), ..Writer::default() };
        let name = writer.text("deep");
        writer.kind(STRUCT, "two", 1, 128).words(&[name, 20, 512]).kind(8, "alias", 0, 17).done()
    }

    const WANTED: &[Struct] = &[
        Struct { name: "bits", about: "", members: &[("narrow", ""), ("wide", "")] },
        Struct { name: "one", about: "", members: &[("array", ""), ("inner", ""), ("pointer", "")] },
        Struct { name: "two", about: "", members: &[("deep.array", "")] },
    ];

    fn read(kernel: &[u8], module: &[u8]) -> Result<String, LayoutError> {
        let mut types = Types::default();
        let base = add(&mut types, kernel, 0)?;
        add_module(&mut types, module, 1, base)?;
        Ok(serde_json::to_string_pretty(&types.layout(WANTED)).unwrap())
    }

    #[test]
    fn a_kernel_and_a_module_are_read() {
        let kernel = kernel();
        insta::assert_snapshot!(read(&kernel, &module(&kernel)).unwrap(), @r#"
        {
          "members": {
            "bits.wide": {
              "offset": 4,
              "size": 4
            },
            "one.array": {
              "offset": 16,
              "size": 20
            },
            "one.inner": {
              "offset": 44,
              "size": 4
            },
            "one.pointer": {
              "offset": 8,
              "size": 8
            },
            "two.deep.array": {
              "offset": 80,
              "size": 20
            }
          },
          "absent": [
            "bits.narrow"
          ],
          "sizes": {
            "bits": 8,
            "one": 64,
            "two": 128
          }
        }
        "#);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let said = |btf: &[u8]| read(btf, btf).unwrap_err().to_string();
        let mut kernel = kernel();
        insta::assert_snapshot!(said(&kernel[..kernel.len() - 1]), @"its BTF cannot be read: it ends too early");
        kernel[24 + 7] = 31;
        insta::assert_snapshot!(said(&kernel), @"its BTF cannot be read: it has a kind of type that is not known here");
        insta::assert_snapshot!(said(&[0; 24]), @"its BTF cannot be read: it does not begin with its magic number");
    }

    proptest! {
        #[test]
        fn garbled_btf_makes_no_panic(changes in prop::collection::vec((0usize..1000, 0u8..), 1..20), rest: Vec<u8>) {
            let (mut kernel, mut module) = (kernel(), module(&kernel()));
            for (place, byte) in changes {
                let of = if byte % 2 == 0 { &mut kernel } else { &mut module };
                let place = place % of.len();
                of[place] = byte;
            }
            let _ = read(&kernel, &module);
            let _ = read(&rest, &rest);
        }
    }
}
