//! The file that the plugin `harness/plugin/coverage.c` writes.

use std::ops::Range;

/// The size of a record: address and size of a block, 8 bytes each.
const RECORD: usize = 16;

/// The addresses of the blocks that a guest executed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blocks {
    /// In order, and neither overlapping nor adjacent.
    ranges: Vec<Range<u64>>,
}

/// A file is not one that the plugin writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlocksError {
    /// It does not consist of records.
    #[error("its length is {0} bytes, which is no multiple of {RECORD}")]
    Length(usize),
    /// A record is not that of a block.
    #[error("record {number} has a block of {size} bytes at {address:#x}, which cannot be")]
    Block {
        /// Its number, from 0.
        number: usize,
        /// Its address.
        address: u64,
        /// Its size, in bytes.
        size: u64,
    },
}

impl Blocks {
    /// Reads the content of a file.
    ///
    /// # Errors
    /// [`BlocksError`].
    pub fn parse(file: &[u8]) -> Result<Blocks, BlocksError> {
        let (records, rest) = file.as_chunks::<RECORD>();
        if !rest.is_empty() {
            return Err(BlocksError::Length(file.len()));
        }
        let fields = records.iter().map(|record| {
            let (fields, _) = record.as_chunks();
            (u64::from_ne_bytes(fields[0]), u64::from_ne_bytes(fields[1]))
        });
        let written = fields.take_while(|(address, _)| *address != 0).enumerate();
        let mut ranges = Vec::new();
        for (number, (address, size)) in written {
            match address.checked_add(size).filter(|_| size > 0) {
                Some(end) => ranges.push(address..end),
                None => return Err(BlocksError::Block { number, address, size }),
            }
        }
        Ok(Blocks { ranges: merged(ranges) })
    }

    /// Whether one of these addresses is in a block.
    pub fn overlap(&self, addresses: &Range<u64>) -> bool {
        let next = self.ranges.partition_point(|range| range.end <= addresses.start);
        self.ranges.get(next).is_some_and(|range| range.start < addresses.end)
    }
}

/// The same addresses in as few ranges as possible, in order.
fn merged(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_by_key(|range| range.start);
    ranges.dedup_by(|next, last| {
        let joined = next.start <= last.end;
        if joined {
            last.end = last.end.max(next.end);
        }
        joined
    });
    ranges
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A file with these blocks, each an address and a size.
    pub fn file(blocks: &[(u64, u64)]) -> Vec<u8> {
        blocks.iter().flat_map(|(address, size)| [address.to_ne_bytes(), size.to_ne_bytes()]).flatten().collect()
    }

    #[test]
    fn the_first_empty_record_ends_the_file() {
        let blocks = Blocks::parse(&file(&[(0x10, 4), (0x20, 8), (0, 0), (0x30, 8)])).unwrap();
        assert_eq!(blocks.ranges, [0x10..0x14, 0x20..0x28]);
        assert_eq!(Blocks::parse(&[]).unwrap(), Blocks::default());
    }

    #[test]
    fn files_of_something_else_are_refused() {
        let error = |file: &[u8]| Blocks::parse(file).unwrap_err().to_string();
        assert_eq!(error(&[1; 17]), "its length is 17 bytes, which is no multiple of 16");
        assert_eq!(error(&file(&[(1, 1), (0x10, 0)])), "record 1 has a block of 0 bytes at 0x10, which cannot be");
        assert!(error(&file(&[(u64::MAX, 2)])).starts_with("record 0 has a block of 2 bytes at 0xffffffffffffffff"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_blocks_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Blocks::parse(&bytes);
        }

        #[test]
        fn an_address_is_in_the_blocks_if_it_is_in_one(
            blocks in prop::collection::vec((1..200u64, 1..20u64), 0..30),
            start in 0..250u64,
            size in 1..10u64,
        ) {
            let asked = start..start + size;
            let of_one = blocks.iter().any(|(address, size)| *address < asked.end && asked.start < address + size);
            prop_assert_eq!(Blocks::parse(&file(&blocks)).unwrap().overlap(&asked), of_one);
        }
    }
}
