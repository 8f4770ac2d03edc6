//! The symbols in a vmlinux that has no symbol table: the kernel's own, from which `/proc/kallsyms` is made.
//!
//! `scripts/kallsyms.c` writes them as tables in this order: [offsets, base until 6.3], number, names, markers, [order of
//! names in 6.1.y, 6.2 and 6.3], tokens, index of tokens, [offsets, base since 6.4]. Nothing says where they are. The index of tokens gives its table away: it
//! has the offset of each of the 256 tokens before it. The others lie around it, each at a multiple of 8.

use std::fmt::Write as _;

/// Where the kernel's image begins (`__START_KERNEL_map`), and its length at most.
const KERNEL_MAP: u64 = 0xffff_ffff_8000_0000;
const KERNEL_SIZE: u64 = 1 << 30;
/// The single characters `0` to `9` are tokens of their own, in this place.
const DIGITS: &[u8] = b"0\x001\x002\x003\x004\x005\x006\x007\x008\x009\x00";
const FIRST_DIGIT: usize = 0x30;
const TOKENS: usize = 256;
/// There is a marker for every 256th name.
const PER_MARKER: usize = 256;
/// A token has fewer bytes than this.
const LONGEST: usize = 512;
/// The most symbols, and the most bytes of their names, that a kernel may have.
const MOST: u64 = 10_000_000;
const MOST_NAMES: usize = 64 << 20;

/// The text of a `System.map` with the symbols of a vmlinux. None if the tables are not found.
pub(crate) fn system_map(vmlinux: &[u8]) -> Option<String> {
    let tables = Tables::find(vmlinux)?;
    let mut map = String::new();
    let mut at = tables.names;
    for number in 0..tables.count {
        let (name, next) = tables.name(at)?;
        at = next;
        let (kind, name) = name.split_at_checked(1)?;
        let _ = writeln!(map, "{:016x} {kind} {name}", tables.address(number)?);
    }
    Some(map)
}

/// Where the tables are.
struct Tables<'a> {
    bytes: &'a [u8],
    count: usize,
    names: usize,
    tokens: Vec<&'a [u8]>,
    offsets: usize,
    base: u64,
    /// Whether positive offsets are addresses themselves, of per-CPU variables (`KALLSYMS_ABSOLUTE_PERCPU`, until 6.14).
    absolute: bool,
}

impl<'a> Tables<'a> {
    fn find(bytes: &'a [u8]) -> Option<Tables<'a>> {
        let mut from = 0;
        loop {
            let digits = from + position(bytes.get(from..)?, DIGITS)?;
            from = digits + 1;
            if let Some(found) = Tables::around(bytes, digits) {
                return Some(found);
            }
        }
    }

    /// The tables, if the tokens `0` to `9` are here.
    fn around(bytes: &'a [u8], digits: usize) -> Option<Tables<'a>> {
        // Back over the tokens before the digits.
        let mut begin = digits;
        for _ in 0..FIRST_DIGIT {
            begin = bytes[..begin.checked_sub(1)?].iter().rposition(|byte| *byte == 0)? + 1;
        }
        let (mut tokens, mut at) = (Vec::with_capacity(TOKENS), begin);
        let mut offsets = Vec::with_capacity(TOKENS);
        for _ in 0..TOKENS {
            let end = at + bytes.get(at..at + LONGEST)?.iter().position(|byte| *byte == 0)?;
            offsets.push(u16::try_from(at - begin).ok()?);
            tokens.push(&bytes[at..end]);
            at = end + 1;
        }
        let index = at.next_multiple_of(8);
        let is_index = (0..TOKENS).all(|number| u16_at(bytes, index + 2 * number) == Some(offsets[number]));
        if !is_index {
            return None;
        }
        let (names, count) = names(bytes, &tokens, begin)?;
        let length = (4 * count).next_multiple_of(8);
        let after = index + 2 * TOKENS;
        // Since 6.4 (404bad70fcf7 "kallsyms: change the output order"), or before.
        let places =
            [Some((after, after + length)), (names - 16).checked_sub(length).map(|before| (before, names - 16))];
        let is_base = |at| u64_at(bytes, at).filter(|base| (KERNEL_MAP..KERNEL_MAP + KERNEL_SIZE).contains(base));
        let (offsets, base) = places.into_iter().flatten().find_map(|(offsets, at)| Some((offsets, is_base(at)?)))?;
        // With them, the offsets of all but per-CPU variables are negative.
        let negative = (0..count).filter(|number| i32_at(bytes, offsets + 4 * number).is_some_and(|offset| offset < 0));
        let absolute = negative.count() > count / 2;
        Some(Tables { bytes, count, names, tokens, offsets, base, absolute })
    }

    /// A name with its kind before it, and where the next one begins.
    fn name(&self, at: usize) -> Option<(String, usize)> {
        let (length, begin) = length(self.bytes, at)?;
        let packed = self.bytes.get(begin..begin + length)?;
        let name: Vec<u8> = packed.iter().flat_map(|token| self.tokens[usize::from(*token)]).copied().collect();
        Some((String::from_utf8(name).ok()?, begin + length))
    }

    fn address(&self, number: usize) -> Option<u64> {
        let offset = i32_at(self.bytes, self.offsets + 4 * number)?;
        Some(match self.absolute {
            true if offset >= 0 => offset.unsigned_abs().into(),
            true => self.base.wrapping_sub(1).wrapping_add(offset.unsigned_abs().into()),
            false => self.base.wrapping_add(u64::from(offset.cast_unsigned())),
        })
    }
}

/// Where the names begin, and how many there are. Their number is before them, and behind them are the markers: the offset
/// of every 256th name. The tables after the markers differ from version to version.
fn names(bytes: &[u8], tokens: &[&[u8]], end: usize) -> Option<(usize, usize)> {
    let places = (end.saturating_sub(MOST_NAMES)..end).rev().filter(|at| at.is_multiple_of(8));
    places.into_iter().find_map(|begin| {
        let count = u64_at(bytes, begin.checked_sub(8)?).filter(|count| (PER_MARKER as u64..MOST).contains(count))?;
        let count = usize::try_from(count).ok()?;
        let (mut at, mut marked) = (begin, Vec::new());
        for number in 0..count {
            if number % PER_MARKER == 0 {
                marked.push(u32::try_from(at - begin).ok()?);
            }
            let (length, name) = length(bytes, at)?;
            // The first character is the kind.
            let kind = tokens[usize::from(*bytes.get(name)?)].first()?;
            if length == 0 || !kind.is_ascii_alphabetic() {
                return None;
            }
            at = name + length;
        }
        let markers = at.next_multiple_of(8);
        let is_marked = |(number, offset): (usize, &u32)| u32_at(bytes, markers + 4 * number) == Some(*offset);
        marked.iter().enumerate().all(is_marked).then_some((begin, count))
    })
}

/// The length of a packed name, and where it begins. Since 6.1 a length of 128 and more has two bytes.
fn length(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let first = usize::from(*bytes.get(at)?);
    match first {
        0..=0x7f => Some((first, at + 1)),
        _ => Some(((first & 0x7f) | (usize::from(*bytes.get(at + 1)?) << 7), at + 2)),
    }
}

fn position(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_le_bytes)
}

fn i32_at(bytes: &[u8], at: usize) -> Option<i32> {
    array(bytes, at).map(i32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    array(bytes, at).map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tables of a kernel with these symbols, each character a token of its own.
    fn tables(symbols: &[(u64, String)], offsets_first: bool) -> Vec<u8> {
        let base = KERNEL_MAP + 0x100_0000;
        let align = |bytes: &mut Vec<u8>| bytes.resize(bytes.len().next_multiple_of(8), 0);
        let (mut names, mut markers) = (Vec::new(), Vec::new());
        for (number, (_, name)) in symbols.iter().enumerate() {
            if number % PER_MARKER == 0 {
                markers.extend((names.len() as u32).to_le_bytes());
            }
            match name.len() {
                short @ 0..=0x7f => names.push(short as u8),
                long => names.extend([(long & 0x7f) as u8 | 0x80, (long >> 7) as u8]),
            }
            names.extend(name.bytes());
        }
        let (mut tokens, mut index) = (Vec::new(), Vec::new());
        for token in 0..=255u8 {
            index.extend((tokens.len() as u16).to_le_bytes());
            tokens.extend(if token.is_ascii_graphic() { vec![token] } else { b"unused".to_vec() });
            tokens.push(0);
        }
        let offset = |address: u64| match address {
            small @ 0..0x10_0000 => small as i32,
            address => -((address - base) as i32) - 1,
        };
        let mut offsets: Vec<u8> = symbols.iter().flat_map(|(address, _)| offset(*address).to_le_bytes()).collect();
        align(&mut offsets);
        offsets.extend(base.to_le_bytes());
        let mut bytes = vec![7; 64];
        let count = (symbols.len() as u64).to_le_bytes().to_vec();
        let (first, last) = if offsets_first { (offsets, Vec::new()) } else { (Vec::new(), offsets) };
        // Of each symbol a number of three bytes.
        let order = if offsets_first { vec![9; 3 * symbols.len()] } else { Vec::new() };
        for part in [first, count, names, markers, order, tokens, index, last] {
            bytes.extend(part);
            align(&mut bytes);
        }
        bytes.extend([7; 64]);
        bytes
    }

    #[test]
    fn the_tables_are_found_in_both_orders() {
        let name = |number: u64| match number {
            0 => "Aper_cpu".to_owned(),
            3 => format!("t{}", "long".repeat(60)),
            _ => format!("Tfunction{number}"),
        };
        let address = |number: u64| if number == 0 { 0x40 } else { KERNEL_MAP + 0x100_0000 + 16 * number };
        // With 3 markers there are bytes between them and the tokens, with 4 there are none.
        for (count, offsets_first) in [(700, true), (700, false), (900, true), (900, false)] {
            let symbols: Vec<_> = (0..count).map(|number| (address(number), name(number))).collect();
            let bytes = tables(&symbols, offsets_first);
            let map = system_map(&bytes).unwrap_or_else(|| panic!("offsets first: {offsets_first}"));
            assert_eq!(map.lines().count() as u64, count);
            assert!(map.starts_with("0000000000000040 A per_cpu\nffffffff81000010 T function1\n"), "{}", &map[..99]);
            let last = format!("{:016x} T function{}\n", address(count - 1), count - 1);
            assert!(map.ends_with(&last), "{last}");
            // Nothing is found in a part of them, and nothing panics.
            for end in (0..bytes.len()).step_by(97) {
                let _ = system_map(&bytes[..end]);
            }
        }
        assert_eq!(system_map(&[0; 4096]), None);
    }
}
