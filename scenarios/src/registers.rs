//! What drivers in user space know of their devices: vfio's regions and interrupts, config space, and igb's registers.

use harness::guest::{Halt, OpenDevice, must};

/// The region of config space (`VFIO_PCI_CONFIG_REGION_INDEX`). The regions of BARs have the numbers of the BARs.
pub const CONFIG: u32 = 7;

/// Interrupts of vfio-pci (`VFIO_PCI_*_IRQ_INDEX`).
pub const INTX: u32 = 0;
pub const MSI: u32 = 1;
pub const MSIX: u32 = 2;
pub const ERR: u32 = 3;
pub const REQ: u32 = 4;

/// Registers of config space (PCI Express 5.0, section 7.5.1).
pub const COMMAND: u64 = 0x04;
pub const COMMAND_MEMORY: u8 = 2;
pub const COMMAND_MASTER: u8 = 4;
pub const FIRST_BAR: u64 = 0x10;
const CAPABILITIES: usize = 0x34;

/// Ids of capabilities (PCI Code and ID Assignment 1.11, section 2).
pub const CAP_POWER: u8 = 0x01;
pub const CAP_MSI: u8 = 0x05;
pub const CAP_PCIE: u8 = 0x10;
pub const CAP_MSIX: u8 = 0x11;

/// One page of BAR 0, which all models have.
pub const PAGE: u32 = 4096;

/// Registers of igb in BAR 0 (Intel 82576EB datasheet, section 8): the interrupt mode, the extended interrupts' causes
/// with their set, mask and automatic clear registers, the other interrupts' causes with their set and mask registers, and
/// a flow control timer that nothing uses here.
pub const GPIE: u64 = 0x1514;
pub const EICS: u64 = 0x1520;
pub const EIMS: u64 = 0x1524;
pub const EIAC: u64 = 0x152c;
pub const ICR: u64 = 0xc0;
pub const ICS: u64 = 0xc8;
pub const IMS: u64 = 0xd0;
pub const FCTTV: u64 = 0x170;
/// One message of MSI-X for each cause (GPIE, "Multiple MSIX").
pub const MULTIPLE_MSIX: u32 = 1 << 4;

/// A number in config space.
pub fn word(config: &[u8], at: usize) -> u16 {
    config.get(at..at + 2).map_or(0, |bytes| u16::from_le_bytes([bytes[0], bytes[1]]))
}

/// Where a capability is.
pub fn capability(config: &[u8], id: u8) -> Option<usize> {
    let mut at = usize::from(*config.get(CAPABILITIES)?);
    // There is room for so many in the first 256 bytes.
    for _ in 0..48 {
        if at == 0 {
            return None;
        }
        if config.get(at) == Some(&id) {
            return Some(at);
        }
        at = usize::from(*config.get(at + 1)?);
    }
    None
}

/// The MSI-X table of a device.
pub struct Table {
    /// Number of vectors.
    pub vectors: u32,
    /// The BAR that it is in.
    pub bar: u32,
    /// Where it begins there.
    pub at: u64,
}

/// The MSI-X table, from config space (PCI Express 5.0, section 7.7.2).
pub fn msix_table(config: &[u8]) -> Result<Table, Halt> {
    let Some(cap) = capability(config, CAP_MSIX) else {
        must(false, "config", || "config space has no MSI-X capability, and the device has one".to_owned())?;
        return Ok(Table { vectors: 0, bar: 0, at: 0 });
    };
    let place = u32::from(word(config, cap + 4)) | u32::from(word(config, cap + 6)) << 16;
    Ok(Table { vectors: u32::from(word(config, cap + 2) & 0x7ff) + 1, bar: place & 7, at: u64::from(place & !7) })
}

/// Sets bits of the command register, and clears others.
pub async fn command(device: &OpenDevice<'_>, set: u8, clear: u8) -> Result<(), Halt> {
    let now = device.read(CONFIG, COMMAND, 2).await?;
    device.write(CONFIG, COMMAND, &[now[0] & !clear | set, now[1]]).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_found_along_their_list() {
        let mut config = vec![0; 256];
        (config[0x34], config[0x40], config[0x41]) = (0x40, 0x01, 0x70);
        (config[0x70], config[0x72], config[0x74], config[0x75]) = (CAP_MSIX, 9, 3, 0x20);
        assert_eq!(capability(&config, CAP_MSIX), Some(0x70));
        assert_eq!(capability(&config, CAP_PCIE), None);
        let table = msix_table(&config).unwrap_or_else(|_| panic!("there is a table"));
        assert_eq!((table.vectors, table.bar, table.at), (10, 3, 0x2000));
        config[0x71] = 0x40;
        assert_eq!(capability(&config, CAP_PCIE), None, "a list that is a circle ends");
    }
}
