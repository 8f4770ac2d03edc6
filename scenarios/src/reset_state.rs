//! What a reset leaves behind (`drivers/pci/pci.c`, `pci_save_state()`, `pci_restore_state()`; methods and files:
//! `Documentation/ABI/testing/sysfs-bus-pci`): the registers of the function and of the ports in the hierarchy that was
//! reset, drivers that work, and no lock.

use std::time::Duration;

use guest_protocol::{Sched, Step};
use harness::guest::{Device, Error, Guest, Halt, Pf, Register, ResetMethod, judged, register};
use harness::scenario::Scenario;
use harness::vm::agent::AgentError;

use crate::check::{accepts, passed, reads, refuses, wrong};
use crate::port::{bind as bind_port, unbind as unbind_port};
use crate::slot_files::{COLD, EMPTY, emptied, filled, shows};
use crate::slot_state::{empties, idle};

/// The scenarios of this family.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "reset_state::registers",
        about: "A PF with VFs is reset by each method that it has, twice. Its registers must be what they were, its VFs \
                must answer, and its driver must be able to use it.",
        ..Scenario::of(|guest| Box::pin(judged(registers(guest))))
    },
    Scenario {
        name: "reset_state::registers_of_nvme",
        about: "The same with an NVMe controller, which its driver stops before a reset. It must be live afterwards.",
        topology: "nvme",
        ..Scenario::of(|guest| Box::pin(judged(registers(guest))))
    },
    Scenario {
        name: "reset_state::slot",
        about: "A PF is reset through its slot, twice. The control registers of the port must be what they were, and it \
                must notice when the card is pulled.",
        ..Scenario::of(|guest| Box::pin(judged(slot(guest))))
    },
    Scenario {
        name: "reset_state::switch",
        about: "The bus above a switch is reset. The registers of the switch's ports must be what they were, and the \
                card behind it must work.",
        topology: "switch",
        ..Scenario::of(|guest| Box::pin(judged(switch(guest))))
    },
    Scenario {
        name: "reset_state::methods",
        about: "Methods are written to reset_method. The file must refuse those that the device does not have, keep \
                what it had, and a reset must then still work.",
        ..Scenario::of(|guest| Box::pin(judged(methods(guest))))
    },
    Scenario {
        name: "reset_state::gone",
        about: "A card that is gone is reset. That must fail, twice, and leave no lock: the device must be removed, its \
                port bound, and the next card reset.",
        ..Scenario::of(|guest| Box::pin(judged(gone(guest))))
    },
    Scenario {
        name: "reset_state::busy",
        about: "A bus is reset while one of its devices is locked. That must fail, twice, and leave no lock: when the \
                device is unlocked, the bus must be reset.",
        ..Scenario::of(|guest| Box::pin(judged(busy(guest))))
    },
];

/// The registers of a function that the kernel restores. Command and MSI-X are the driver's while it runs.
fn of_function() -> Vec<Register> {
    let mut registers = vec![
        register::COMMAND,
        register::MSIX_CONTROL,
        register::DEVICE_CONTROL,
        register::DEVICE_CONTROL_2,
        register::LINK_CONTROL,
        register::SRIOV_CONTROL,
        register::NUM_VFS,
        register::SYSTEM_PAGE_SIZE,
        register::UNCORRECTABLE_MASK,
        register::UNCORRECTABLE_SEVERITY,
    ];
    registers.extend(register::BARS);
    registers.extend(register::VF_BARS);
    registers
}

/// The registers of a port that the kernel restores.
const OF_PORT: [Register; 9] = [
    register::COMMAND,
    register::BARS[0],
    register::DEVICE_CONTROL,
    register::DEVICE_CONTROL_2,
    register::LINK_CONTROL,
    register::SLOT_CONTROL,
    register::ACS_CONTROL,
    register::UNCORRECTABLE_MASK,
    register::UNCORRECTABLE_SEVERITY,
];

/// How often a reset is done.
const TIMES: usize = 2;

/// VFs during resets.
const VFS: u16 = 2;

/// Resets a function. The write must return what was written.
async fn reset(guest: &Guest, device: impl AsRef<Device>, when: &str) -> Result<(), Halt> {
    let path = device.as_ref().attribute("reset");
    match accepts(guest, &path, 1, when).await {
        Ok(_) => Ok(()),
        // The agent reports a short write so: no attribute of the kernel takes less than it is given.
        Err(Halt::Error(Error::Agent(AgentError::Failed { failure, .. }))) if failure.errno.is_none() => {
            Err(wrong("reset", format!("{when}: {}", failure.message)))
        }
        Err(early) => Err(early),
    }
}

/// The file through which the bus below a port is reset. It came with 6.14, and with stable kernels of that time.
async fn reset_bus(guest: &Guest, port: &Device) -> Result<String, Halt> {
    let name = "reset_subordinate";
    match guest.list(&port.attribute("")).await?.iter().any(|file| file == name) {
        true => Ok(port.attribute(name)),
        false => Err(Error::Lacks(format!("attribute {name}")).into()),
    }
}

/// The reset methods of a device.
async fn methods_of(guest: &Guest, pf: &Pf) -> Result<Vec<String>, Halt> {
    let read = guest.read_now(pf.attribute("reset_method")).await?;
    match &read.value {
        Ok(methods) => Ok(methods.split_whitespace().map(str::to_owned).collect()),
        Err(errno) if errno.name == "ENOENT" => Err(Error::Lacks("attribute reset_method".to_owned()).into()),
        Err(errno) => Err(wrong("reset_method", format!("{} cannot be read: {}", read.path, errno.name))),
    }
}

async fn registers(guest: &Guest) -> Result<(), Halt> {
    let pf = guest.pf()?;
    let vfs = guest.enable_vfs(pf, VFS).await?;
    for method in methods_of(guest, pf).await? {
        accepts(guest, &pf.attribute("reset_method"), &method, "for a method that the file showed").await?;
        reads(guest, &pf.attribute("reset_method"), &method, "after a method was chosen").await?;
        for time in 1..=TIMES {
            let when = format!("after reset {time} by the method {method}");
            let before = guest.registers(pf).await?;
            reset(guest, pf, &when).await?;
            if pf.model().driver.name == NVME {
                live(guest, pf).await?;
            }
            let changes = guest.registers(pf).await?.changes_since(&before, &of_function());
            if !changes.is_empty() {
                let what = changes.join("; ");
                return Err(wrong("pci_restore_state", format!("{when}, of {}: {what}", pf.device.bdf)));
            }
            for vf in &vfs {
                if guest.registers(vf).await.is_err() {
                    return Err(wrong("virtfn", format!("{when}, the VF {} does not answer", vf.bdf)));
                }
            }
            passed(guest.agreement().await?)?;
        }
    }
    for vfs in [0, VFS, 0] {
        accepts(guest, &pf.numvfs(), vfs, "after resets").await?;
    }
    uses(guest, pf).await
}

/// Has the driver use its function: its interface goes up and down and has a carrier, or its controller is live.
async fn uses(guest: &Guest, pf: &Pf) -> Result<(), Halt> {
    if pf.model().driver.name == NVME {
        return live(guest, pf).await;
    }
    let interface = guest.interface(pf).await?;
    for up in [true, false, true] {
        guest.set_link(&interface, up).await?;
    }
    // The driver learns of the carrier by an interrupt of the card.
    becomes(guest, pf.attribute(&format!("net/{interface}/carrier")), "1", "after resets, with a cable").await
}

/// The driver of NVMe controllers.
const NVME: &str = "nvme";

/// Waits until an NVMe controller is live. Its driver restarts it after a reset, in a work item
/// (`drivers/nvme/host/pci.c`, `nvme_reset_done()`).
async fn live(guest: &Guest, pf: &Pf) -> Result<(), Halt> {
    let folder = pf.attribute("nvme");
    for controller in guest.list(&folder).await? {
        becomes(guest, format!("{folder}/{controller}/state"), "live", "after resets").await?;
    }
    Ok(())
}

/// Waits until an attribute has a value. No event says so.
async fn becomes(guest: &Guest, path: String, value: &str, when: &str) -> Result<(), Halt> {
    let patience = guest.vm().time().patience(guest.prompt());
    loop {
        let read = guest.read_now(path.clone()).await?;
        if read.shown() == value {
            return Ok(());
        }
        if patience.is_over().is_some() {
            let attribute = path.rsplit('/').next().unwrap_or(&path);
            return Err(wrong(attribute, format!("{when}, {path} stays {}, and must become {value}", read.shown())));
        }
        guest.vm().time().pause(LOOK).await;
    }
}

/// Time between two reads of an attribute.
const LOOK: Duration = Duration::from_millis(100);

async fn slot(guest: &Guest) -> Result<(), Halt> {
    let pf = guest.pf()?;
    guest.reset_by(pf, ResetMethod::Bus).await?;
    for time in 1..=TIMES {
        let when = format!("after reset {time} through the slot");
        let before = guest.registers(&pf.slot.port).await?;
        reset(guest, pf, &when).await?;
        let changes = guest.registers(&pf.slot.port).await?.changes_since(&before, &OF_PORT);
        if !changes.is_empty() {
            return Err(wrong(register::SLOT_CONTROL.name, format!("{when}, of the port: {}", changes.join("; "))));
        }
        shows(guest, &pf.slot, COLD, &when).await?;
    }
    uses(guest, pf).await?;
    guest.yank(&pf.slot).await?;
    emptied(guest, &pf.slot, EMPTY, "after the card was pulled").await?;
    filled(guest, &pf.slot, "pf1", "after a card was plugged in").await
}

async fn switch(guest: &Guest) -> Result<(), Halt> {
    let pf = guest.pf_named("pf1")?;
    let nested = &pf.slot;
    let missing = || Error::Unprepared("the topology has no switch".to_owned());
    let upstream = nested.port.parent().ok_or_else(missing)?;
    let above = upstream.parent().ok_or_else(missing)?;
    let reset_bus = reset_bus(guest, &above).await?;
    let from = [&upstream, &nested.port];
    let mut before = Vec::new();
    for port in from {
        before.push(guest.registers(port).await?);
    }
    for time in 1..=TIMES {
        let when = format!("after reset {time} of the switch");
        accepts(guest, &reset_bus, 1, "while nobody else resets the bus").await?;
        idle(guest).await?;
        for (port, before) in from.iter().zip(&before) {
            let changes = guest.registers(port).await?.changes_since(before, &OF_PORT);
            if !changes.is_empty() {
                let what = changes.join("; ");
                return Err(wrong("pci_restore_state", format!("{when}, of the port {}: {what}", port.bdf)));
            }
        }
        shows(guest, nested, COLD, &when).await?;
    }
    // QEMU's port raises no event any more: it takes the restored Slot Control for a command, and has its interrupt
    // ready before the kernel has restored MSI (`hw/pci/pcie.c`, `hotplug_event_notify()`).
    uses(guest, pf).await
}

/// The error for methods that the device does not have, and for words that are no methods (`reset_method_store()`).
const NO_METHOD: &[&str] = &["EINVAL"];

/// All methods (`pci_reset_fn_methods`).
const ALL_METHODS: [&str; 7] = ["device_specific", "acpi", "flr", "af_flr", "pm", "bus", "cxl_bus"];

async fn methods(guest: &Guest) -> Result<(), Halt> {
    let pf = guest.pf()?;
    let file = pf.attribute("reset_method");
    let has = methods_of(guest, pf).await?;
    let before = has.join(" ");
    let unknown =
        ALL_METHODS.into_iter().filter(|method| !has.iter().any(|one| one == method)).chain(["no-such-method"]);
    for method in unknown {
        for data in [method.to_owned(), format!("{} {method}", has[0])] {
            refuses(guest, &file, &data, NO_METHOD, "for a device without this method").await?;
            reads(guest, &file, &before, "after a refused write").await?;
        }
    }
    reset(guest, pf, "after refused writes to reset_method").await?;
    accepts(guest, &file, "\n", "to disable all methods").await?;
    refuses(guest, &pf.attribute("reset"), "1", &["ENOTTY", "ENOENT"], "without a method").await?;
    accepts(guest, &file, "default", "to have all methods again").await?;
    reads(guest, &file, &before, "after the default was chosen").await?;
    for method in has.iter().rev() {
        accepts(guest, &file, method, "for a method that the device has").await?;
        reads(guest, &file, method, "after a method was chosen").await?;
        reset(guest, pf, &format!("by the method {method}")).await?;
    }
    for data in ["0", "2", "yes"] {
        refuses(guest, &pf.attribute("reset"), data, NO_METHOD, "to reset a device").await?;
    }
    uses(guest, pf).await
}

/// The errors of a reset of a card that is gone (`pci_dev_wait()`).
const GONE: &[&str] = &["ENOTTY"];

async fn gone(guest: &Guest) -> Result<(), Halt> {
    let pf = guest.pf()?;
    accepts(guest, &pf.driver_attribute("unbind"), pf.device.bdf, "while the PF is bound").await?;
    // Otherwise pciehp would remove the device.
    unbind_port(guest, &pf.slot).await?;
    guest.yank(&pf.slot).await?;
    for _ in 0..TIMES {
        refuses(guest, &pf.attribute("reset"), "1", GONE, "while the card is gone").await?;
    }
    accepts(guest, &pf.attribute("remove"), 1, "after failed resets").await?;
    bind_port(guest, &pf.slot).await?;
    passed(empties(guest, &pf.slot, guest.prompt()).await?)?;
    filled(guest, &pf.slot, "pf1", "after a card was plugged in").await?;
    reset(guest, pf, "of the next card").await
}

/// The error of a bus reset while a device of the bus is locked (`__pci_reset_bus()`).
const BUSY: &[&str] = &["EAGAIN"];

/// A task that unbinds a driver holds the device lock. vfio-pci makes it wait for the owner.
async fn busy(guest: &Guest) -> Result<(), Halt> {
    let pf = guest.pf()?;
    let reset_bus = reset_bus(guest, &pf.slot.port).await?;
    guest.bind(pf, "vfio-pci").await?;
    accepts(guest, &reset_bus, 1, "while nobody uses the bus").await?;
    let owner = guest.own(pf, vec![Step::Hold, Step::Release]).await?;
    let unbind = "/sys/bus/pci/drivers/vfio-pci/unbind".to_owned();
    let unbound = guest.write(unbind, pf.device.bdf, Sched::default()).await?;
    guest.unless_refused(&unbound, owner.holding(guest.prompt())).await?;
    for _ in 0..TIMES {
        refuses(guest, &reset_bus, "1", BUSY, "while a device of the bus is locked").await?;
    }
    owner.go_on(guest).await?;
    owner.released(guest.prompt()).await?;
    guest.granted(&unbound).await?;
    accepts(guest, &reset_bus, 1, "after the device was unlocked").await?;
    guest.bind(pf, pf.model().driver.name).await?;
    uses(guest, pf).await
}
