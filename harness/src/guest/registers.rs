//! The registers of PCI functions that must be after a scenario what they were before it: whatever the kernel did to a
//! function, it restored, cleared or set again.

use std::fmt;

use super::hardware::{Register, register};
use crate::vm::config_space::ConfigSpace;

/// What must be the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Must {
    /// The bits.
    Equal,
    /// The bits, if the function has the same driver and as many VFs.
    EqualInUse,
    /// The bits, if the slot of the port is as full.
    EqualIfAsFull,
    /// Whether the bits are all zero: addresses may change.
    BeSet,
    /// The bits that are zero: status bits that hardware sets, and the kernel clears.
    BeClear,
}

/// The address bits of a base address register.
const ADDRESS: u32 = 0xffff_fff0;
const ALL: u32 = 0xffff_ffff;

/// The errors that are fatal by default (PCI Express 5.0, section 7.8.4.4). The kernel leaves their bits in the status of a
/// port that was not reset itself (`drivers/pci/pcie/err.c`, `pcie_do_recovery()`).
const FATAL: u32 = 0x0046_2030;

/// Registers, the bits of them that count, and what must be the same.
const WATCHED: &[(Register, u32, Must)] = &[
    // Memory Space, Bus Master, Interrupt Disable. Firmware sets further bits, which a card that was put back has not.
    (register::COMMAND, 0x0406, Must::EqualInUse),
    (register::BUS_NUMBERS, ALL, Must::BeSet),
    (register::BRIDGE_CONTROL, 0x005f, Must::Equal),
    (register::POWER_MANAGEMENT, 0x0003, Must::EqualInUse),
    (register::MSI_CONTROL, 0x0001, Must::EqualInUse),
    (register::MSIX_CONTROL, 0xc000, Must::EqualInUse),
    (register::DEVICE_CONTROL, ALL, Must::EqualInUse),
    (register::DEVICE_STATUS, ALL, Must::BeClear),
    (register::LINK_CONTROL, 0x0fdf, Must::Equal),
    // Without the power indicator: pciehp does not touch it until the slot is used.
    (register::SLOT_CONTROL, 0x1cff, Must::EqualIfAsFull),
    (register::ROOT_CONTROL, 0x001f, Must::Equal),
    (register::DEVICE_CONTROL_2, ALL, Must::EqualIfAsFull),
    (register::UNCORRECTABLE_STATUS, !FATAL, Must::BeClear),
    (register::UNCORRECTABLE_MASK, ALL, Must::Equal),
    (register::UNCORRECTABLE_SEVERITY, ALL, Must::Equal),
    (register::CORRECTABLE_STATUS, ALL, Must::BeClear),
    (register::CORRECTABLE_MASK, ALL, Must::Equal),
    (register::ROOT_COMMAND, 0x0007, Must::Equal),
    (register::ROOT_STATUS, ALL, Must::BeClear),
    (register::ACS_CONTROL, ALL, Must::Equal),
    (register::ARI_CONTROL, ALL, Must::Equal),
    (register::SRIOV_CONTROL, ALL, Must::EqualInUse),
    (register::NUM_VFS, ALL, Must::EqualInUse),
    (register::SYSTEM_PAGE_SIZE, ALL, Must::Equal),
];

fn watched() -> impl Iterator<Item = (Register, u32, Must)> {
    let bars = register::BARS.into_iter().chain(register::VF_BARS);
    WATCHED.iter().copied().chain(bars.map(|bar| (bar, ADDRESS, Must::BeSet)))
}

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
    let differs = |(register, bits, must): (Register, u32, Must)| {
        let (before, now) = (register.read(before)? & bits, register.read(now)? & bits);
        let is_right = match must {
            Must::Equal => before == now,
            Must::EqualInUse => before == now || !used.as_before,
            Must::EqualIfAsFull => before == now || !used.as_full,
            Must::BeSet => (before == 0) == (now == 0),
            Must::BeClear => now & !before == 0,
        };
        let difference = Difference {
            bdf: bdf.to_owned(),
            name: register.name,
            values: (before, now),
            digits: 2 + 2 * usize::from(register.bytes()),
            any_address: must == Must::BeSet,
        };
        (!is_right).then_some(difference)
    };
    watched().filter_map(differs).collect()
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
        Device Status of 0000:01:00.0 is 0x0002; it was 0x0000
        Slot Control of 0000:01:00.0 is 0x0000; it was 0x10c0
        Uncorrectable Error Status of 0000:01:00.0 is 0x00004000; it was 0x00000000
        SR-IOV Control of 0000:01:00.0 is 0x0009; it was 0x0000
        BAR 0 of 0000:01:00.0 is 0x00000000; it was 0xfe000000, and an address must be there again
        VF BAR 0 of 0000:01:00.0 is 0x00000000; it was 0xfe000000, and an address must be there again
        ");
    }
}
