//! Config space and BARs of a device that is open through vfio (`drivers/vfio/pci/vfio_pci_config.c`,
//! `vfio_pci_rdwr.c`).

use guest_protocol::Ask;
use harness::guest::{Guest, Halt, OpenDevice, judged, must};
use harness::scenario::Scenario;

use crate::check::bound;
use crate::registers::{
    CAP_PCIE, COMMAND_MASTER, COMMAND_MEMORY, CONFIG, FCTTV, FIRST_BAR, MSIX, PAGE, capability, command, msix_table,
    word,
};

/// The metadata that all scenarios of this family share.
const BASE: Scenario = Scenario { also: &["nvme"], ..Scenario::of(|guest| Box::pin(judged(config_space(guest)))) };

/// The scenarios of this family.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "vfio_device::config_space",
        about: "A driver in user space reads all of config space, as sysfs shows it, to the last byte and not beyond. \
                It sizes each BAR, and resets the function through config space.",
        run: |guest| Box::pin(judged(config_space(guest))),
        ..BASE
    },
    Scenario {
        name: "vfio_device::disabled_memory",
        about: "A driver in user space clears memory enable: reads, writes and mappings of BARs must fail until it is \
                set again, and resets and a close must end meanwhile.",
        run: |guest| Box::pin(judged(disabled_memory(guest))),
        ..BASE
    },
    Scenario {
        name: "vfio_device::msix_table",
        about: "The MSI-X table must read as all ones through the BAR that it is in, and writes to it must be dropped.",
        run: |guest| Box::pin(judged(msix_table_is_hidden(guest))),
        ..BASE
    },
    Scenario {
        name: "vfio_device::widths",
        about: "Reads of 1, 2, 4 and 8 bytes of a BAR must give the same bytes. Writes of 2 and 8 bytes must arrive.",
        also: &[],
        run: |guest| Box::pin(judged(widths(guest))),
        ..BASE
    },
    Scenario {
        name: "vfio_device::state_after_close",
        about: "A driver in user space changes BARs and other registers, uses interrupts, and closes the device. Config \
                space must then be as it was before, and the device's own driver must work.",
        also: &[],
        run: |guest| Box::pin(judged(state_after_close(guest))),
        ..BASE
    },
];

/// Largest size of config space.
const LARGEST: u32 = 4096;

async fn config_space(guest: &Guest) -> Result<(), Halt> {
    let pf = bound(guest).await?;
    let driver = guest.user_driver(&[&pf.device]).await?;
    let device = driver.device(pf);
    let of_sysfs = driver.file(pf.attribute("config"), LARGEST).await?;
    let size = device.does(Ask::Region { region: CONFIG }).await?;
    must(size == of_sysfs.len() as u64, "VFIO_DEVICE_GET_REGION_INFO", || {
        format!("the config region has {size} bytes, but config of sysfs has {}", of_sysfs.len())
    })?;
    let config = device.read(CONFIG, 0, of_sysfs.len() as u32).await?;
    for (what, at, size) in SAME {
        let (ours, theirs) = (&config[*at..at + size], &of_sysfs[*at..at + size]);
        must(ours == theirs, "config", || {
            format!("config space has {what} {ours:x?} through vfio and {theirs:x?} in sysfs; both must be the same")
        })?;
    }
    for (at, size) in [(size - 1, 1), (size - 2, 2), (size - 4, 4)] {
        device.read(CONFIG, at, size).await?;
    }
    for (at, size) in [(size - 2, 4), (size, 1)] {
        device.refused(Ask::Read { region: CONFIG, at, size }, "EFAULT").await?;
    }
    let resources = driver.file(pf.attribute("resource"), LARGEST).await?;
    bars_have_their_sizes(&device, &String::from_utf8_lossy(&resources)).await?;
    reset_by_config(&device, &config).await?;
    driver.end().await
}

/// Parts of config space that vfio does not virtualise for a PF (`vfio_pci_config.c`, `init_pci_cap_basic_perm()`).
const SAME: &[(&str, usize, usize)] = &[
    ("vendor and device id", 0, 4),
    ("revision and class", 8, 4),
    ("subsystem ids", 0x2c, 4),
    ("a pointer to capabilities", 0x34, 1),
    ("BARs", 0x10, 24),
];

/// A BAR's size is what its lowest bit is that can be set (PCI Express 5.0, section 7.5.1.2.1).
async fn bars_have_their_sizes(device: &OpenDevice<'_>, resources: &str) -> Result<(), Halt> {
    let mut bar = 0;
    while bar < 6 {
        let at = FIRST_BAR + 4 * u64::from(bar);
        let size = device.does(Ask::Region { region: bar }).await?;
        let of_sysfs = resource_size(resources.lines().nth(bar as usize).unwrap_or_default());
        must(size == of_sysfs, "VFIO_DEVICE_GET_REGION_INFO", || {
            format!("region {bar} has {size:#x} bytes, but BAR {bar} has {of_sysfs:#x} in resource of sysfs")
        })?;
        let old = device.read32(CONFIG, at).await?;
        let (is_io, is_wide) = (old & 1 == 1, old & 7 == 4);
        device.write32(CONFIG, at, u32::MAX).await?;
        let low = device.read32(CONFIG, at).await? & if is_io { !3 } else { !15 };
        let mut mask = u64::from(low) | 0xffff_ffff << 32;
        if is_wide {
            let high = device.read32(CONFIG, at + 4).await?;
            device.write32(CONFIG, at + 4, u32::MAX).await?;
            mask = u64::from(low) | u64::from(device.read32(CONFIG, at + 4).await?) << 32;
            device.write32(CONFIG, at + 4, high).await?;
        }
        device.write32(CONFIG, at, old).await?;
        let sized = if low == 0 { 0 } else { mask.wrapping_neg() };
        must(sized == size, "pwrite", || {
            format!("BAR {bar} has {sized:#x} bytes by sizing it in config space, but its region has {size:#x}")
        })?;
        bar += if is_wide { 2 } else { 1 };
    }
    Ok(())
}

/// The size of a resource, from its line `0xSTART 0xEND 0xFLAGS`.
fn resource_size(line: &str) -> u64 {
    let mut numbers = line.split(' ').filter_map(|word| u64::from_str_radix(word.trim_start_matches("0x"), 16).ok());
    match (numbers.next(), numbers.next()) {
        (Some(start), Some(end)) if end > 0 => end - start + 1,
        _ => 0,
    }
}

/// Device Control in the PCI Express capability, and its bit that resets the function (PCI Express 5.0, section 7.5.3.4).
const DEVICE_CONTROL: usize = 8;
const INITIATE_FLR: u16 = 1 << 15;

/// vfio resets the function itself, and the bit reads as 0 (`vfio_exp_config_write()`).
async fn reset_by_config(device: &OpenDevice<'_>, config: &[u8]) -> Result<(), Halt> {
    let Some(cap) = capability(config, CAP_PCIE) else {
        return must(false, "config", || "config space has no PCI Express capability".to_owned());
    };
    let before = word(config, cap + DEVICE_CONTROL);
    let at = (cap + DEVICE_CONTROL) as u64;
    device.write(CONFIG, at, &(before | INITIATE_FLR).to_le_bytes()).await?;
    let after = word(&device.read(CONFIG, at, 2).await?, 0);
    must(after & INITIATE_FLR == 0, "pwrite", || {
        format!("Device Control reads {after:#06x} after a reset by its highest bit; this bit must read as 0")
    })?;
    let bars = device.read(CONFIG, FIRST_BAR, 24).await?;
    let then = &config[FIRST_BAR as usize..FIRST_BAR as usize + 24];
    must(bars == then, "pwrite", || format!("the BARs were {then:x?} before a reset by config space and are {bars:x?}"))
}

async fn disabled_memory(guest: &Guest) -> Result<(), Halt> {
    let pf = bound(guest).await?;
    let driver = guest.user_driver(&[&pf.device]).await?;
    let device = driver.device(pf);
    command(&device, COMMAND_MEMORY, 0).await?;
    let register = device.read32(0, 0).await?;
    device.does(Ask::MapRegion { region: 0, size: PAGE }).await?;
    loads(&device, register).await?;
    command(&device, 0, COMMAND_MEMORY).await?;
    memory_is_off(&device).await?;
    device.refused(Ask::Load { region: 0, at: 0 }, "EFAULT").await?;
    device.does(Ask::Reset).await?;
    memory_is_off(&device).await?;
    command(&device, COMMAND_MEMORY, 0).await?;
    let again = device.read32(0, 0).await?;
    loads(&device, again).await?;

    // With memory disabled, a close must end, and leave nothing to the next one who opens the device.
    command(&device, 0, COMMAND_MEMORY).await?;
    memory_is_off(&device).await?;
    device.does(Ask::Close).await?;
    device.opens().await?;
    command(&device, COMMAND_MEMORY, 0).await?;
    device.read32(0, 0).await?;
    driver.end().await
}

async fn loads(device: &OpenDevice<'_>, register: u32) -> Result<(), Halt> {
    let loaded = device.load32(0, 0).await?;
    must(loaded == register, "mmap", || {
        format!("the first register of BAR 0 is {loaded:#x} in a mapping and {register:#x} by pread")
    })
}

async fn memory_is_off(device: &OpenDevice<'_>) -> Result<(), Halt> {
    device.refused(Ask::Read { region: 0, at: 0, size: 4 }, "EIO").await?;
    device.refused(Ask::Write { region: 0, at: 0, bytes: vec![0; 4] }, "EIO").await
}

/// `vfio_pci_core_do_io_rw()` fills reads of the table with ones, and drops writes.
async fn msix_table_is_hidden(guest: &Guest) -> Result<(), Halt> {
    let pf = bound(guest).await?;
    let driver = guest.user_driver(&[&pf.device]).await?;
    let device = driver.device(pf);
    let table = msix_table(&device.read(CONFIG, 0, 256).await?)?;
    device.does(Ask::Arm { index: MSIX, count: table.vectors }).await?;
    let size = 16 * table.vectors;
    for _ in 0..2 {
        let shown = device.read(table.bar, table.at, size).await?;
        must(shown.iter().all(|&byte| byte == 0xff), "pread", || {
            format!("the MSI-X table reads as {:x?}... through BAR {}; it must read as ones", &shown[..16], table.bar)
        })?;
        device.write(table.bar, table.at, &vec![0; size as usize]).await?;
    }
    device.does(Ask::Disarm { index: MSIX }).await?;
    driver.end().await
}

/// `vfio_pci_core_do_io_rw()` makes accesses that are as wide as offset and size allow.
async fn widths(guest: &Guest) -> Result<(), Halt> {
    let pf = bound(guest).await?;
    let driver = guest.user_driver(&[&pf.device]).await?;
    let device = driver.device(pf);
    command(&device, COMMAND_MEMORY, 0).await?;
    device.write32(0, FCTTV, PATTERN).await?;
    let mut all = PATTERN.to_le_bytes().to_vec();
    all.extend(device.read(0, FCTTV + 4, 4).await?);
    // QEMU's igb answers an access in the middle of a register with its beginning (`igb_mmio_read()`, `hw/net/igb.c`).
    for size in [1, 2, 4, 8] {
        let came = device.read(0, FCTTV, size as u32).await?;
        must(came == all[..size], "pread", || {
            format!("{size} bytes of a register of BAR 0 are {came:x?}, and must be {:x?}", &all[..size])
        })?;
    }
    for size in [2, 8] {
        let bytes = [0xa5, 0x5a, 0, 0, 0, 0, 0, 0];
        device.write32(0, FCTTV, 0).await?;
        device.write(0, FCTTV, &bytes[..size]).await?;
        let came = device.read32(0, FCTTV).await?;
        must(came == 0x5aa5, "pwrite", || {
            format!("a register of BAR 0 is {came:#x} after a write of {size} bytes, and must be 0x5aa5")
        })?;
    }
    driver.end().await
}

/// What a register of 16 bits can keep.
const PATTERN: u32 = 0xc3f1;

/// What the state of the kernel shows of config space: all but status bits, which hardware sets.
const STATUS: [usize; 2] = [6, 7];

async fn state_after_close(guest: &Guest) -> Result<(), Halt> {
    let pf = bound(guest).await?;
    let driver = guest.user_driver(&[]).await?;
    let device = driver.device(pf);
    // The first user of a device under vfio-pci may change its state, such as bus mastering that igb has left on.
    device.opens().await?;
    device.does(Ask::Close).await?;
    let before = driver.file(pf.attribute("config"), LARGEST).await?;
    device.opens().await?;
    let config = device.read(CONFIG, 0, 256).await?;
    command(&device, COMMAND_MEMORY | COMMAND_MASTER, 0).await?;
    device.read32(0, 0).await?;
    device.does(Ask::Arm { index: MSIX, count: 1 }).await?;
    for bar in 0..6 {
        device.write32(CONFIG, FIRST_BAR + 4 * bar, 0xf000_0000).await?;
    }
    if let Some(cap) = capability(&config, CAP_PCIE) {
        let control = word(&config, cap + DEVICE_CONTROL) ^ RELAXED_ORDERING;
        device.write(CONFIG, (cap + DEVICE_CONTROL) as u64, &control.to_le_bytes()).await?;
    }
    device.does(Ask::Close).await?;
    let after = driver.file(pf.attribute("config"), LARGEST).await?;
    let differs = (0..before.len()).find(|at| !STATUS.contains(at) && before.get(*at) != after.get(*at));
    must(differs.is_none(), "close", || {
        let at = differs.unwrap_or_default();
        let (old, new) = (before.get(at), after.get(at));
        let shown = |byte: Option<&u8>| byte.map_or("nothing".to_owned(), |byte| format!("{byte:#04x}"));
        format!("config space has {} at {at:#x} after a close, and had {} before the open", shown(new), shown(old))
    })?;
    driver.end().await?;
    guest.bind(pf, pf.model().driver.name).await?;
    let ifname = guest.interface(pf).await?;
    guest.set_link(&ifname, true).await?;
    Ok(())
}

/// Enable Relaxed Ordering in Device Control.
const RELAXED_ORDERING: u16 = 1 << 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_resources() {
        assert_eq!(resource_size("0x00000000fe000000 0x00000000fe01ffff 0x0000000000040200"), 0x2_0000);
        assert_eq!(resource_size("0x0000000000000000 0x0000000000000000 0x0000000000000000"), 0);
        assert_eq!(resource_size(""), 0);
    }
}
