//! Stacks of a kernel without frame pointers: by the tables that objtool makes (`Documentation/arch/x86/orc-unwinder.rst`).
//!
//! Two tables belong together: addresses, each as a distance from its own place, in order; and of each what holds from that
//! address on.

use super::error::LookError;
use super::modules::Module;
use super::view::View;

/// `struct orc_entry`, `arch/x86/include/asm/orc_types.h`.
const ENTRY: u64 = 6;
/// `ORC_REG_*`, of the same file.
const UNDEFINED: u16 = 0;
const BP: u16 = 4;
const SP: u16 = 5;
const PREVIOUS_SP: u16 = 1;

/// A table.
struct Table {
    addresses: u64,
    entries: u64,
    count: u64,
}

/// The tables of a kernel and its modules.
pub(super) struct Orc {
    tables: Vec<Table>,
    /// Whether the type of an entry has three bits, and 2 means a call: since 6.4 (fb799447ae29 "x86,objtool: Split
    /// UNWIND_HINT_EMPTY in two"). Before it had two, and 0 meant one.
    has_long_types: bool,
}

/// Where the caller's frame is.
pub(super) struct Rule {
    /// Whether the function was called, and not entered by an interrupt or in another way.
    pub is_call: bool,
    sp_offset: i16,
    bp_offset: i16,
    sp: u16,
    bp: u16,
}

/// Where the caller saved its frame pointer.
pub(super) enum SavedBp {
    /// It is still in the register.
    InPlace,
    /// On the stack, at this address.
    At(u64),
}

impl Orc {
    /// The tables. None if the kernel has frame pointers.
    pub fn of(view: &View<'_>, modules: &[Module], release: &str) -> Option<Orc> {
        let symbol = |name| view.kernel().symbols.address(name);
        let (addresses, end) = (symbol("__start_orc_unwind_ip")?, symbol("__stop_orc_unwind_ip")?);
        let count = end.saturating_sub(addresses) / 4;
        let kernel = Table { addresses, entries: symbol("__start_orc_unwind")?, count };
        let of_module = |module: &Module| {
            let (addresses, entries, count) = module.orc;
            Table { addresses, entries, count }
        };
        let tables = std::iter::once(kernel).chain(modules.iter().map(of_module)).collect();
        Some(Orc { tables, has_long_types: version(release) >= (6, 4) })
    }

    /// What holds at an address.
    pub fn rule(&self, view: &View<'_>, address: u64) -> Result<Option<Rule>, LookError> {
        for table in self.tables.iter().filter(|table| table.count > 0) {
            if let Some(number) = table.find(view, address)? {
                let at = table.entries.wrapping_add(ENTRY * number);
                let [sp_offset, bp_offset, flags] = [0, 2, 4].map(|within| view.u16(at.wrapping_add(within)));
                let (sp_offset, bp_offset, flags) = (sp_offset?.cast_signed(), bp_offset?.cast_signed(), flags?);
                let is_call = if self.has_long_types { (flags >> 8) & 7 == 2 } else { (flags >> 8) & 3 == 0 };
                return Ok(Some(Rule { is_call, sp_offset, bp_offset, sp: flags & 15, bp: (flags >> 4) & 15 }));
            }
        }
        Ok(None)
    }
}

impl Table {
    fn address(&self, view: &View<'_>, number: u64) -> Result<u64, LookError> {
        let at = self.addresses.wrapping_add(4 * number);
        Ok(at.wrapping_add_signed(view.i32(at)?.into()))
    }

    /// The number of the last entry at or before an address. None if the address is not in this part of the kernel.
    fn find(&self, view: &View<'_>, address: u64) -> Result<Option<u64>, LookError> {
        if address < self.address(view, 0)? || address > self.address(view, self.count - 1)? {
            return Ok(None);
        }
        let (mut low, mut high) = (0, self.count);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.address(view, middle)? <= address {
                low = middle;
            } else {
                high = middle;
            }
        }
        Ok(Some(low))
    }
}

impl Rule {
    /// The stack pointer of the caller, before it pushed the return address.
    pub fn caller_sp(&self, sp: u64, bp: u64) -> Option<u64> {
        match self.sp {
            SP => Some(sp.wrapping_add_signed(self.sp_offset.into())),
            BP => Some(bp.wrapping_add_signed(self.sp_offset.into())),
            _ => None,
        }
    }

    /// Where the caller's frame pointer is.
    pub fn caller_bp(&self, caller_sp: u64, bp: u64) -> Option<SavedBp> {
        match self.bp {
            UNDEFINED => Some(SavedBp::InPlace),
            PREVIOUS_SP => Some(SavedBp::At(caller_sp.wrapping_add_signed(self.bp_offset.into()))),
            BP => Some(SavedBp::At(bp.wrapping_add_signed(self.bp_offset.into()))),
            _ => None,
        }
    }
}

/// The first two numbers of a release.
fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_decides_about_the_format() {
        assert_eq!(version("6.12.117+deb12-amd64"), (6, 12));
        assert!(version("6.1.0-56-amd64") < (6, 4) && version("7.3.4") >= (6, 4) && version("?") < (6, 4));
    }
}
