//! The kernel's symbols: `System.map`.

use std::collections::HashMap;
use std::ops::Range;

/// The first address of the kernel's image (`__START_KERNEL_map`, `arch/x86/include/asm/page_64_types.h`). Symbols
/// below it are offsets of per-CPU variables.
pub(super) const KERNEL_MAP: u64 = 0xffff_ffff_8000_0000;

/// Addresses and names of functions and variables.
#[derive(Clone, Debug, Default)]
pub struct Symbols {
    /// By address, with the best of several names: the begin of a section is no function, and `__` is often an alias.
    sorted: Vec<(u64, String)>,
    by_name: HashMap<String, u64>,
}

impl Symbols {
    /// Reads the text of a `System.map`. Lines that are none are left out.
    pub fn parse(system_map: &str) -> Symbols {
        let mut sorted: Vec<(u64, String)> = Vec::new();
        let mut by_name = HashMap::new();
        for line in system_map.lines() {
            let mut words = line.split_ascii_whitespace();
            let (Some(address), Some(_kind), Some(name)) = (words.next(), words.next(), words.next()) else { continue };
            let Ok(address) = u64::from_str_radix(address, 16) else { continue };
            by_name.entry(name.to_owned()).or_insert(address);
            if address >= KERNEL_MAP {
                sorted.push((address, name.to_owned()));
            }
        }
        // A stable sort: names of one address stay in their order.
        sorted.sort_by_key(|(address, name)| (*address, is_section(name), name.starts_with("__")));
        sorted.dedup_by_key(|(address, _)| *address);
        Symbols { sorted, by_name }
    }

    /// The address of a symbol.
    pub fn address(&self, name: &str) -> Option<u64> {
        self.by_name.get(name).copied()
    }

    /// The symbol at or before an address, and the distance from it.
    pub fn at(&self, address: u64) -> Option<(&str, u64)> {
        let (begin, name) = self.sorted.get(self.index(address)?)?;
        Some((name, address - begin))
    }

    /// The function that contains an address, without the suffix of a copy that the compiler made (`.constprop.0`).
    pub(super) fn function(&self, address: u64) -> Option<&str> {
        self.at(address).map(|(name, _)| plain(name))
    }

    /// From the symbol at or before an address to the next one.
    pub fn range(&self, address: u64) -> Option<Range<u64>> {
        let index = self.index(address)?;
        Some(self.sorted[index].0..self.sorted.get(index + 1)?.0)
    }

    fn index(&self, address: u64) -> Option<usize> {
        self.sorted.partition_point(|(begin, _)| *begin <= address).checked_sub(1)
    }
}

/// The name of a function without the suffix of a copy that the compiler made.
pub(super) fn plain(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}

/// Whether a name may be that of the begin or the end of a section, such as `__sched_text_start`.
fn is_section(name: &str) -> bool {
    ["_start", "_begin", "_end"].iter().any(|end| name.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAP: &str = "\
0000000000001000 D per_cpu\n\
ffffffff81000000 T _text\n\
ffffffff81000100 T __alias\n\
ffffffff81000100 T named\n\
ffffffff81000200 t __mutex_lock.constprop.0\n\
a line that is none\n\
ffffffff81000280 T __sched_text_start\n\
ffffffff81000280 t __schedule\n\
ffffffff81000300 D _end\n";

    #[test]
    fn a_symbol_is_found_by_name_and_by_any_address_in_it() {
        let symbols = Symbols::parse(MAP);
        assert_eq!(symbols.address("__alias"), Some(0xffff_ffff_8100_0100));
        assert_eq!(symbols.at(0xffff_ffff_8100_0104), Some(("named", 4)));
        assert_eq!(symbols.function(0xffff_ffff_8100_0210), Some("__mutex_lock"));
        assert_eq!(symbols.range(0xffff_ffff_8100_0104), Some(0xffff_ffff_8100_0100..0xffff_ffff_8100_0200));
        assert_eq!(symbols.function(0xffff_ffff_8100_0284), Some("__schedule"));
        assert_eq!(symbols.range(0xffff_ffff_8100_0300), None, "nothing says where the last one ends");
        assert_eq!(symbols.at(0x1000), None);
    }
}
