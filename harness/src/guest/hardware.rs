//! Registers of PCI functions by name, as the hardware has them: for scenarios that say what must be in them.

use std::fmt;

use super::{Device, Error, Guest};
use crate::vm::config_space::ConfigSpace;

/// A register of configuration space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register {
    /// Its name in the PCI Express Base Specification.
    pub name: &'static str,
    /// The capability that it is in.
    of: Of,
    /// Its offset in the capability.
    at: u16,
    /// The bits that count.
    mask: u32,
}

/// Where a register is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    /// In the header of every function.
    Header,
    /// In the header of a bridge.
    Bridge,
    /// In the header of a function that is no bridge.
    Endpoint,
    /// In a capability with this id.
    Capability(u8),
    /// In an extended capability with this id.
    Extended(u16),
}

/// Some bits of a register, with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name in the specification.
    pub name: &'static str,
    /// Its register.
    pub of: Register,
    /// Its bits.
    pub bits: u32,
}

/// Registers and fields (`include/uapi/linux/pci_regs.h`; names and sections of PCI Express 5.0).
pub mod register {
    use super::{Field, Of, Register};

    const EXPRESS: Of = Of::Capability(0x10);
    const AER: Of = Of::Extended(0x01);
    const SRIOV: Of = Of::Extended(0x10);

    const fn half(name: &'static str, of: Of, at: u16) -> Register {
        Register { name, of, at, mask: 0xffff }
    }

    const fn word(name: &'static str, of: Of, at: u16) -> Register {
        Register { name, of, at, mask: u32::MAX }
    }

    /// 7.5.1.1.3.
    pub const COMMAND: Register = half("Command", Of::Header, 0x04);
    /// 7.5.1.3.2 to 7.5.1.3.4: Primary, Secondary and Subordinate Bus Number.
    pub const BUS_NUMBERS: Register = Register { name: "bus numbers", of: Of::Bridge, at: 0x18, mask: 0x00ff_ffff };
    /// 7.5.1.3.13.
    pub const BRIDGE_CONTROL: Register = half("Bridge Control", Of::Bridge, 0x3e);
    /// 7.5.2.2.
    pub const POWER_MANAGEMENT: Register = half("Power Management Control", Of::Capability(0x01), 0x04);
    /// Message Control of MSI, 7.7.1.2.
    pub const MSI_CONTROL: Register = half("Message Control of MSI", Of::Capability(0x05), 0x02);
    /// 7.5.1.2.1. The lowest bits say what kind of memory it is.
    pub const BARS: [Register; 6] = [
        word("BAR 0", Of::Endpoint, 0x10),
        word("BAR 1", Of::Endpoint, 0x14),
        word("BAR 2", Of::Endpoint, 0x18),
        word("BAR 3", Of::Endpoint, 0x1c),
        word("BAR 4", Of::Endpoint, 0x20),
        word("BAR 5", Of::Endpoint, 0x24),
    ];
    /// Message Control of MSI-X, 7.7.2.2: the upper half of the word.
    pub const MSIX_CONTROL: Register = half("Message Control of MSI-X", Of::Capability(0x11), 0x02);
    /// 7.5.3.4.
    pub const DEVICE_CONTROL: Register = half("Device Control", EXPRESS, 0x08);
    /// 7.5.3.5: errors that were detected.
    pub const DEVICE_STATUS: Register = Register { name: "Device Status", of: EXPRESS, at: 0x0a, mask: 0xf };
    /// 7.5.3.7.
    pub const LINK_CONTROL: Register = half("Link Control", EXPRESS, 0x10);
    /// 7.5.3.10.
    pub const SLOT_CONTROL: Register = half("Slot Control", EXPRESS, 0x18);
    /// 7.5.3.11.
    pub const SLOT_STATUS: Register = half("Slot Status", EXPRESS, 0x1a);
    /// 7.5.3.12.
    pub const ROOT_CONTROL: Register = half("Root Control", EXPRESS, 0x1c);
    /// 7.5.3.16.
    pub const DEVICE_CONTROL_2: Register = half("Device Control 2", EXPRESS, 0x28);
    /// 7.8.4.2.
    pub const UNCORRECTABLE_STATUS: Register = word("Uncorrectable Error Status", AER, 0x04);
    /// 7.8.4.3.
    pub const UNCORRECTABLE_MASK: Register = word("Uncorrectable Error Mask", AER, 0x08);
    /// 7.8.4.4.
    pub const UNCORRECTABLE_SEVERITY: Register = word("Uncorrectable Error Severity", AER, 0x0c);
    /// 7.8.4.5.
    pub const CORRECTABLE_STATUS: Register = word("Correctable Error Status", AER, 0x10);
    /// 7.8.4.6.
    pub const CORRECTABLE_MASK: Register = word("Correctable Error Mask", AER, 0x14);
    /// 7.8.4.9.
    pub const ROOT_COMMAND: Register = word("Root Error Command", AER, 0x2c);
    /// 7.8.4.10: without the number of its interrupt.
    pub const ROOT_STATUS: Register = Register { name: "Root Error Status", of: AER, at: 0x30, mask: 0x7f };
    /// 7.7.8.3.
    pub const ACS_CONTROL: Register = half("ACS Control", Of::Extended(0x0d), 0x06);
    /// 7.8.8.3.
    pub const ARI_CONTROL: Register = half("ARI Control", Of::Extended(0x0e), 0x06);
    /// 9.3.3.3.
    pub const SRIOV_CONTROL: Register = half("SR-IOV Control", SRIOV, 0x08);
    /// 9.3.3.7.
    pub const NUM_VFS: Register = half("NumVFs", SRIOV, 0x10);
    /// 9.3.3.13.
    pub const SYSTEM_PAGE_SIZE: Register = word("System Page Size", SRIOV, 0x20);
    /// 9.3.3.14.
    pub const VF_BARS: [Register; 6] = [
        word("VF BAR 0", SRIOV, 0x24),
        word("VF BAR 1", SRIOV, 0x28),
        word("VF BAR 2", SRIOV, 0x2c),
        word("VF BAR 3", SRIOV, 0x30),
        word("VF BAR 4", SRIOV, 0x34),
        word("VF BAR 5", SRIOV, 0x38),
    ];

    /// Attention Indicator Control: 1 is on, 2 blinks, 3 is off.
    pub const ATTENTION_INDICATOR: Field =
        Field { name: "Attention Indicator Control", of: SLOT_CONTROL, bits: 0x00c0 };
    /// Power Indicator Control: 1 is on, 2 blinks, 3 is off.
    pub const POWER_INDICATOR: Field = Field { name: "Power Indicator Control", of: SLOT_CONTROL, bits: 0x0300 };
    /// Power Controller Control: 0 is on, 1 is off.
    pub const POWER_CONTROLLER: Field = Field { name: "Power Controller Control", of: SLOT_CONTROL, bits: 0x0400 };
    /// Presence Detect State: 1 if a card is in the slot.
    pub const PRESENCE: Field = Field { name: "Presence Detect State", of: SLOT_STATUS, bits: 0x0040 };
}

impl Register {
    /// Its value in a configuration space; `None` if it is not there.
    pub(super) fn read(&self, space: &ConfigSpace) -> Option<u32> {
        let begin = match self.of {
            Of::Header => Some(0),
            Of::Bridge => space.is_bridge().then_some(0),
            Of::Endpoint => (!space.is_bridge()).then_some(0),
            Of::Capability(id) => space.capability(id),
            Of::Extended(id) => space.extended(id),
        }?;
        Some(space.read(begin + self.at, self.bytes()) & self.mask)
    }

    /// How many bytes it has.
    pub(super) fn bytes(&self) -> u16 {
        if self.mask > 0xffff { 4 } else { 2 }
    }
}

/// A copy of the registers of a function.
#[derive(Clone, PartialEq, Eq)]
pub struct Registers {
    device: Device,
    space: ConfigSpace,
}

impl Guest {
    /// Reads the registers of a function from the hardware. The guest does not notice.
    ///
    /// # Errors
    /// QMP's; [`Error::Unprepared`] if no function answers.
    pub async fn registers(&self, device: impl AsRef<Device>) -> Result<Registers, Error> {
        let device = device.as_ref().clone();
        let space = self.vm().config_space(device.bdf).await?;
        let space = space.ok_or_else(|| Error::Unprepared(format!("{} does not answer", device.bdf)))?;
        Ok(Registers { device, space })
    }
}

impl Registers {
    /// The value of a register; `None` if the function does not have it.
    pub fn get(&self, register: Register) -> Option<u32> {
        register.read(&self.space)
    }

    /// The value of a register that the function must have.
    ///
    /// # Errors
    /// [`Error::Unprepared`] if it does not.
    pub fn value(&self, register: Register) -> Result<u32, Error> {
        let missing = || Error::Unprepared(format!("{} has no {}", self.device.bdf, register.name));
        self.get(register).ok_or_else(missing)
    }

    /// The value of a field, without the bits below it.
    ///
    /// # Errors
    /// As [`Registers::value`].
    pub fn field(&self, field: Field) -> Result<u32, Error> {
        Ok((self.value(field.of)? & field.bits) >> field.bits.trailing_zeros())
    }

    /// How these registers differ from those of an earlier copy, one line each: "Command is 0x0400, and was 0x0406".
    pub fn changes_since(&self, before: &Registers, registers: &[Register]) -> Vec<String> {
        let change = |register: &Register| {
            let (was, is) = (before.get(*register), self.get(*register));
            (was != is).then(|| format!("{} is {}, and was {}", register.name, Shown(is), Shown(was)))
        };
        registers.iter().filter_map(change).collect()
    }
}

/// The value of a register, or that there is none.
struct Shown(Option<u32>);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(value) => write!(f, "{value:#06x}"),
            None => f.write_str("not there"),
        }
    }
}
