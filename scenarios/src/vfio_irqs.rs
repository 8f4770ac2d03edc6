//! Interrupts of a device that is open through vfio (`drivers/vfio/pci/vfio_pci_intrs.c`), and its errors
//! (`vfio_pci_core.c`, `vfio_pci_core_aer_err_detected()`).

use std::time::Duration;

use guest_protocol::{Ask, Call, Sched};
use harness::guest::{AerError, Guest, Halt, OpenDevice, Pf, UserDriver, judged, must};
use harness::scenario::Scenario;

use crate::aer::RECOVERED;
use crate::check::bound;
use crate::registers::{
    CAP_MSI, COMMAND_MASTER, COMMAND_MEMORY, CONFIG, EIAC, EICS, EIMS, ERR, GPIE, ICR, ICS, IMS, INTX, MSI, MSIX,
    MULTIPLE_MSIX, PAGE, REQ, capability, command, msix_table, word,
};

/// The scenarios of this family.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "vfio_irqs::counts",
        about: "vfio must report as many vectors as the device has, arm all of them, and refuse one more.",
        also: &["nvme", "virtio-net"],
        ..Scenario::of(|guest| Box::pin(judged(counts(guest))))
    },
    Scenario {
        name: "vfio_irqs::msix_arrives",
        about: "The device sends MSI-X interrupts. Each must signal its own eventfd, also after a reset and after the \
                device was closed and opened again, and none after it was disarmed.",
        ..Scenario::of(|guest| Box::pin(judged(msix_arrives(guest))))
    },
    Scenario {
        name: "vfio_irqs::intx_arrives",
        about: "The device raises INTx, which stays raised. It must signal its eventfd once each time that it is armed, and \
                not after it was disarmed.",
        ..Scenario::of(|guest| Box::pin(judged(intx_arrives(guest))))
    },
    Scenario {
        name: "vfio_irqs::errors",
        about: "The port of an open device reports errors. Each must signal the device's error eventfd, until the \
                device is closed.",
        ..Scenario::of(|guest| Box::pin(judged(errors(guest))))
    },
    Scenario {
        name: "vfio_irqs::enabled_while_mapped",
        about: "A driver in user space loads from a mapped BAR, reads a folder of sysfs into memory that is not there yet, \
                and enables MSI-X. The locks that this takes must have an order.",
        detects: &["vfio-memlock-vs-sysfs"],
        ..Scenario::of(|guest| Box::pin(judged(enabled_while_mapped(guest))))
    },
];

async fn counts(guest: &Guest) -> Result<(), Halt> {
    let pf = bound(guest).await?;
    let driver = guest.user_driver(&[&pf.device]).await?;
    let device = driver.device(pf);
    let config = driver.file(pf.attribute("config"), 256).await?;
    let msi = capability(&config, CAP_MSI).map(|cap| 1 << (word(&config, cap + 2) >> 1 & 7));
    let of_hardware = [
        (INTX, u64::from(config[INTERRUPT_PIN] != 0)),
        (MSI, msi.unwrap_or(0)),
        (MSIX, u64::from(msix_table(&config)?.vectors)),
        (ERR, 1),
        (REQ, 1),
    ];
    for (index, count) in of_hardware {
        let came = device.does(Ask::Irqs { index }).await?;
        must(came == count, "VFIO_DEVICE_GET_IRQ_INFO", || {
            format!("vfio reports {came} vectors of interrupt {index}, but the hardware has {count}")
        })?;
        let count = count as u32;
        device.refused(Ask::Arm { index, count: count + 1 }, "EINVAL").await?;
        for armed in (0..=count).filter(|&armed| armed > 0 && [1, count].contains(&armed)) {
            device.does(Ask::Arm { index, count: armed }).await?;
            device.does(Ask::Disarm { index }).await?;
        }
    }
    driver.end().await
}

/// Interrupt Pin in config space: 0 if the function has none.
const INTERRUPT_PIN: usize = 0x3d;

/// How long an interrupt may take, on a machine with KVM, in seconds.
const INTERRUPT: f64 = 1.0;

async fn msix_arrives(guest: &Guest) -> Result<(), Halt> {
    let pf = bound(guest).await?;
    let driver = guest.user_driver(&[&pf.device]).await?;
    let device = driver.device(pf);
    let vectors = msix_table(&device.read(CONFIG, 0, 256).await?)?.vectors;
    for round in ["after an open", "after a reset", "after a close and an open"] {
        match round {
            "after a reset" => drop(device.does(Ask::Reset).await?),
            "after a close and an open" => {
                device.does(Ask::Close).await?;
                device.opens().await?;
            }
            _ => {}
        }
        command(&device, COMMAND_MEMORY | COMMAND_MASTER, 0).await?;
        device.does(Ask::Arm { index: MSIX, count: vectors }).await?;
        set_up(&device).await?;
        for vector in [0, vectors - 1] {
            device.write32(0, EICS, 1 << vector).await?;
            let came = driver.signals(pf, MSIX, vector, guest.seconds(INTERRUPT)).await?;
            must(came == 1, "eventfd", || {
                format!("{round}, an interrupt of vector {vector} signalled its eventfd {came} times, not once")
            })?;
        }
        for vector in 1..vectors - 1 {
            is_silent(&driver, pf, vector, round).await?;
        }
        device.does(Ask::Disarm { index: MSIX }).await?;
        device.write32(0, EICS, 1).await?;
        // The read is answered after the write has had its effect.
        device.read32(0, EIMS).await?;
        is_silent(&driver, pf, 0, "when MSI-X was disarmed").await?;
    }
    driver.end().await
}

/// A cause of interrupts that are no messages: a descriptor was written back (TXDW).
const CAUSE: u32 = 1;

async fn intx_arrives(guest: &Guest) -> Result<(), Halt> {
    let pf = bound(guest).await?;
    let driver = guest.user_driver(&[&pf.device]).await?;
    let device = driver.device(pf);
    command(&device, COMMAND_MEMORY, 0).await?;
    device.write32(0, IMS, CAUSE).await?;
    for round in ["the first time", "the second time"] {
        device.does(Ask::Arm { index: INTX, count: 1 }).await?;
        device.write32(0, ICS, CAUSE).await?;
        // vfio masks INTx when it comes, as the device holds it until its cause is read.
        let came = driver.signals(pf, INTX, 0, guest.seconds(INTERRUPT)).await?;
        must(came == 1, "eventfd", || format!("armed {round}, INTx signalled its eventfd {came} times, not once"))?;
        device.write32(0, ICS, CAUSE).await?;
        let cause = device.read32(0, ICR).await?;
        must(cause & CAUSE != 0, "pread", || format!("INTx came, and its cause register is {cause:#x}"))?;
        device.does(Ask::Disarm { index: INTX }).await?;
        device.write32(0, ICS, CAUSE).await?;
        device.read32(0, ICR).await?;
        let came = driver.signals(pf, INTX, 0, Duration::ZERO).await?;
        must(came == 0, "eventfd", || format!("masked and then disarmed, INTx signalled its eventfd {came} times"))?;
    }
    driver.end().await
}

/// Lets each cause of igb send its own message, and clear itself.
async fn set_up(device: &OpenDevice<'_>) -> Result<(), Halt> {
    for (register, value) in [(GPIE, MULTIPLE_MSIX), (EIAC, CAUSES), (EIMS, CAUSES)] {
        device.write32(0, register, value).await?;
    }
    Ok(())
}

/// All causes of extended interrupts.
const CAUSES: u32 = 0x3ff;

async fn is_silent(driver: &UserDriver<'_>, pf: &Pf, vector: u32, when: &str) -> Result<(), Halt> {
    let came = driver.signals(pf, MSIX, vector, Duration::ZERO).await?;
    must(came == 0, "eventfd", || format!("{when}, vector {vector} was signalled {came} times, and must not be"))
}

/// Uncorrectable Error Status of a port: the second register of its AER capability, which QEMU has at 0x100
/// (`hw/pci-bridge/gen_pcie_root_port.c`, `GEN_PCIE_ROOT_PORT_AER_OFFSET`). Its bits are cleared by writing ones.
const ERROR_STATUS: u64 = 0x104;
const DATA_LINK_PROTOCOL: &str = "\x10\0\0\0";

async fn errors(guest: &Guest) -> Result<(), Halt> {
    let pf = bound(guest).await?;
    let driver = guest.user_driver(&[&pf.device]).await?;
    let device = driver.device(pf);
    for (error, name) in [(AerError::CompletionTimeout, "nonfatal"), (AerError::DataLinkProtocol, "fatal")] {
        device.does(Ask::Arm { index: ERR, count: 1 }).await?;
        let came = signals_of(guest, &driver, error).await?;
        must(came > 0, "eventfd", || {
            format!("a {name} error did not signal the error eventfd of an open device, and must signal it")
        })?;
        device.does(Ask::Close).await?;
        // A fatal error resets the link, and then nobody but an owner restores a device under vfio-pci.
        if error == AerError::CompletionTimeout {
            let came = signals_of(guest, &driver, error).await?;
            must(came == 0, "eventfd", || {
                format!("a {name} error signalled the error eventfd of a closed device {came} times, and must not")
            })?;
        }
        device.opens().await?;
        command(&device, COMMAND_MEMORY, 0).await?;
        device.read32(0, 0).await?;
    }
    // Recovery clears the bits of nonfatal errors only (`drivers/pci/pcie/err.c`, `pcie_do_recovery()`).
    let clear = guest.write_config(&pf.slot.port, ERROR_STATUS, DATA_LINK_PROTOCOL, Sched::default()).await?;
    guest.granted(&clear).await?;
    driver.end().await
}

/// Reports an error, and counts the signals of the device's error eventfd at the end of recovery.
async fn signals_of(guest: &Guest, driver: &UserDriver<'_>, error: AerError) -> Result<u64, Halt> {
    let pf = guest.pf()?;
    let from = guest.agent().messages().position();
    guest.inject(&pf.slot, error).await?;
    guest.says(from, RECOVERED, guest.prompt()).await?;
    driver.signals(pf, ERR, 0, Duration::ZERO).await
}

/// Three orders, of which only lockdep sees the circle: the load takes vfio's `memory_lock` in a page fault, which has
/// `mmap_lock`; the folder is read with the lock of sysfs, and its entries cause a page fault; and MSI-X gets files in
/// sysfs while `memory_lock` is held (`vfio_msi_enable()`).
async fn enabled_while_mapped(guest: &Guest) -> Result<(), Halt> {
    let pf = bound(guest).await?;
    let driver = guest.user_driver(&[&pf.device]).await?;
    let device = driver.device(pf);
    command(&device, COMMAND_MEMORY, 0).await?;
    device.does(Ask::MapRegion { region: 0, size: PAGE }).await?;
    device.load32(0, 0).await?;
    driver.does(Call::ReadFolder { path: pf.attribute("") }).await?;
    device.does(Ask::Arm { index: MSIX, count: 1 }).await?;
    device.does(Ask::Disarm { index: MSIX }).await?;
    driver.end().await
}
