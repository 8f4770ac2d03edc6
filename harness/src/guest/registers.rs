//! The registers of PCI functions that must be after a scenario what they were before it: whatever the kernel did to a
//! function, it restored, cleared or set again.
//!
//! Offsets and bits are those of `include/uapi/linux/pci_regs.h`.

use std::fmt;

use crate::vm::config_space::ConfigSpace;

/// Where a register is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In the header of every function.
    Header,
    /// In the header of a bridge.
    Bridge,
    /// In the header of a function that is no bridge.
    Endpoint,
    /// In a capability.
    Capability(u8),
    /// In an extended capability.
    Extended(u16),
}

/// What must be the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Must {
    /// All bits of the mask.
    Equal,
    /// All bits of the mask, if the function has the same driver and as many VFs.
    EqualInUse,
    /// All bits of the mask, if the slot of the port is as full.
    EqualIfAsFull,
    /// Whether the bits of the mask are all zero: addresses may change.
    BeSet,
    /// The bits that are zero: status bits that hardware sets, and the kernel clears.
    BeClear,
}

struct Register {
    name: &'static str,
    place: Place,
    offset: u16,
    bytes: u16,
    mask: u32,
    must: Must,
}

const fn register(name: &'static str, place: Place, offset: u16, bytes: u16, mask: u32, must: Must) -> Register {
    Register { name, place, offset, bytes, mask, must }
}

const PM: Place = Place::Capability(0x01);
const MSI: Place = Place::Capability(0x05);
const EXP: Place = Place::Capability(0x10);
const MSIX: Place = Place::Capability(0x11);
const AER: Place = Place::Extended(0x01);
const ACS: Place = Place::Extended(0x0d);
const ARI: Place = Place::Extended(0x0e);
const SRIOV: Place = Place::Extended(0x10);

/// The address bits of a base address register.
const ADDRESS: u32 = 0xffff_fff0;
const ALL: u32 = 0xffff_ffff;
/// The errors that are fatal by default (PCI Express 5.0, section 7.8.4.4). The kernel leaves their bits in the status of a
/// port that was not reset itself (`drivers/pci/pcie/err.c`, `pcie_do_recovery()`).
const FATAL: u32 = 0x0046_2030;

const REGISTERS: &[Register] = &[
    // Memory Space, Bus Master, Interrupt Disable. Firmware sets further bits, which a card that was put back has not.
    register("Command", Place::Header, 0x04, 2, 0x0406, Must::EqualInUse),
    register("BAR 0", Place::Endpoint, 0x10, 4, ADDRESS, Must::BeSet),
    register("BAR 1", Place::Endpoint, 0x14, 4, ADDRESS, Must::BeSet),
    register("BAR 2", Place::Endpoint, 0x18, 4, ADDRESS, Must::BeSet),
    register("BAR 3", Place::Endpoint, 0x1c, 4, ADDRESS, Must::BeSet),
    register("BAR 4", Place::Endpoint, 0x20, 4, ADDRESS, Must::BeSet),
    register("BAR 5", Place::Endpoint, 0x24, 4, ADDRESS, Must::BeSet),
    register("bus numbers", Place::Bridge, 0x18, 3, 0x00ff_ffff, Must::BeSet),
    register("Bridge Control", Place::Bridge, 0x3e, 2, 0x005f, Must::Equal),
    register("Power Management Control", PM, 0x04, 2, 0x0003, Must::EqualInUse),
    register("MSI Control", MSI, 0x02, 2, 0x0001, Must::EqualInUse),
    register("MSI-X Control", MSIX, 0x02, 2, 0xc000, Must::EqualInUse),
    register("Device Control", EXP, 0x08, 2, 0xffff, Must::EqualInUse),
    register("Device Status", EXP, 0x0a, 2, 0x000f, Must::BeClear),
    register("Link Control", EXP, 0x10, 2, 0x0fdf, Must::Equal),
    // Without the power indicator: pciehp does not touch it until the slot is used.
    register("Slot Control", EXP, 0x18, 2, 0x1cff, Must::EqualIfAsFull),
    register("Root Control", EXP, 0x1c, 2, 0x001f, Must::Equal),
    register("Device Control 2", EXP, 0x28, 2, 0xffff, Must::EqualIfAsFull),
    register("Uncorrectable Error Status", AER, 0x04, 4, !FATAL, Must::BeClear),
    register("Uncorrectable Error Mask", AER, 0x08, 4, ALL, Must::Equal),
    register("Uncorrectable Error Severity", AER, 0x0c, 4, ALL, Must::Equal),
    register("Correctable Error Status", AER, 0x10, 4, ALL, Must::BeClear),
    register("Correctable Error Mask", AER, 0x14, 4, ALL, Must::Equal),
    register("Root Error Command", AER, 0x2c, 4, 0x0000_0007, Must::Equal),
    register("Root Error Status", AER, 0x30, 4, 0x0000_007f, Must::BeClear),
    register("ACS Control", ACS, 0x06, 2, 0xffff, Must::Equal),
    register("ARI Control", ARI, 0x06, 2, 0xffff, Must::Equal),
    register("SR-IOV Control", SRIOV, 0x08, 2, 0xffff, Must::EqualInUse),
    register("NumVFs", SRIOV, 0x10, 2, 0xffff, Must::EqualInUse),
    register("System Page Size", SRIOV, 0x20, 4, ALL, Must::Equal),
    register("VF BAR 0", SRIOV, 0x24, 4, ADDRESS, Must::BeSet),
    register("VF BAR 1", SRIOV, 0x28, 4, ADDRESS, Must::BeSet),
    register("VF BAR 2", SRIOV, 0x2c, 4, ADDRESS, Must::BeSet),
    register("VF BAR 3", SRIOV, 0x30, 4, ADDRESS, Must::BeSet),
    register("VF BAR 4", SRIOV, 0x34, 4, ADDRESS, Must::BeSet),
    register("VF BAR 5", SRIOV, 0x38, 4, ADDRESS, Must::BeSet),
];

/// How a function is used. Some registers depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    /// Whether it has the driver and as many VFs as before.
    pub as_before: bool,
    /// Whether as many functions as before are behind it.
    pub as_full: bool,
}

/// A register that is not as before.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    /// The address of the function.
    pub bdf: String,
    /// The register's name.
    pub name: &'static str,
    /// What it read as, and what it reads as now, both masked.
    values: (u32, u32),
    digits: usize,
    /// Other values would be right too.
    any_address: bool,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Difference { bdf, name, values: (before, now), digits, any_address } = self;
        write!(f, "{name} of {bdf} is {now:#0digits$x}; it was {before:#0digits$x}")?;
        if *any_address { f.write_str(", and an address must be there again") } else { Ok(()) }
    }
}

/// The registers of a function that are not as they must be.
pub fn differences(bdf: &str, before: &ConfigSpace, now: &ConfigSpace, used: Use) -> Vec<Difference> {
    let differs = |register: &Register| {
        let value = |space: &ConfigSpace| Some(space.read(register.at(space)?, register.bytes) & register.mask);
        let (before, now) = (value(before)?, value(now)?);
        let is_right = match register.must {
            Must::Equal => before == now,
            Must::EqualInUse => before == now || !used.as_before,
            Must::EqualIfAsFull => before == now || !used.as_full,
            Must::BeSet => (before == 0) == (now == 0),
            Must::BeClear => now & !before == 0,
        };
        let any_address = register.must == Must::BeSet;
        let digits = 2 + 2 * usize::from(register.bytes);
        let difference =
            Difference { bdf: bdf.to_owned(), name: register.name, values: (before, now), digits, any_address };
        (!is_right).then_some(difference)
    };
    REGISTERS.iter().filter_map(differs).collect()
}

impl Register {
    /// Its offset in a function. None if the function has no such register.
    fn at(&self, space: &ConfigSpace) -> Option<u16> {
        let begin = match self.place {
            Place::Header => Some(0),
            Place::Bridge => space.is_bridge().then_some(0),
            Place::Endpoint => (!space.is_bridge()).then_some(0),
            Place::Capability(id) => space.capability(id),
            Place::Extended(id) => space.extended(id),
        }?;
        Some(begin + self.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::config_space::tests::function;

    const SAME: Use = Use { as_before: true, as_full: true };

    fn found(before: &[(u16, &[u8])], now: &[(u16, &[u8])], used: Use) -> String {
        let found = differences("0000:01:00.0", &function(before), &function(now), used);
        found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn what_is_as_before_is_right() {
        assert_eq!(found(&[], &[], SAME), "");
        assert_eq!(found(&[(0x10, &[0, 0, 0, 0xfe])], &[(0x10, &[0, 0, 0x10, 0xfe])], SAME), "", "another address");
        assert_eq!(found(&[(0x104, &[1])], &[], SAME), "", "a status bit that was there already");
        let other = Use { as_before: false, as_full: false };
        assert_eq!(found(&[(4, &[6, 4])], &[(0x58, &[0xc0]), (0x168, &[0x19])], other), "", "used otherwise");
    }

    #[test]
    fn what_is_left_or_lost_is_found() {
        let found = found(
            &[(4, &[6, 4]), (0x10, &[0, 0, 0, 0xfe]), (0x58, &[0xc0, 0x10]), (0x184, &[0, 0, 0, 0xfe])],
            &[(4, &[2, 4]), (0x4a, &[2]), (0x104, &[0, 0x40]), (0x168, &[9])],
            SAME,
        );
        insta::assert_snapshot!(found, @r"
        Command of 0000:01:00.0 is 0x0402; it was 0x0406
        BAR 0 of 0000:01:00.0 is 0x00000000; it was 0xfe000000, and an address must be there again
        Device Status of 0000:01:00.0 is 0x0002; it was 0x0000
        Slot Control of 0000:01:00.0 is 0x0000; it was 0x10c0
        Uncorrectable Error Status of 0000:01:00.0 is 0x00004000; it was 0x00000000
        SR-IOV Control of 0000:01:00.0 is 0x0009; it was 0x0000
        VF BAR 0 of 0000:01:00.0 is 0x00000000; it was 0xfe000000, and an address must be there again
        ");
    }
}
