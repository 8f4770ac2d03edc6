//! Operations on a slot for which QEMU has no command: surprise removal, and a second press of an attention button.
//! They use only QMP.
//!
//! Surprise removal: the harness stops the guest, unless its clock is held: then it stands. Through the human monitor it then writes the root port's Slot Control
//! register, with the I/O ports of the configuration mechanism, as a guest does to switch the slot's power off. QEMU
//! (`hw/pci/pcie.c`, `pcie_cap_slot_write_config()`) unplugs the card at once. Then the harness switches the power on
//! again, so that the continued guest finds a powered slot without a card. With the power off, pciehp logs "Already
//! disabled" and removes nothing.

use qapi::qmp;
use tokio::sync::MutexGuard;

use super::Vm;
use super::pci::Bdf;
use crate::vm::qmp::{Qmp, QmpError};

/// PCI configuration mechanism #1 (PCI Local Bus Specification 3.0, section 3.2.2.3.2).
const CONFIG_ADDRESS: u16 = 0xcf8;
const CONFIG_DATA: u16 = 0xcfc;
/// Capabilities pointer (`PCI_CAPABILITY_LIST`).
const CAPABILITIES: u8 = 0x34;
/// `PCI_CAP_ID_EXP`.
const PCI_EXPRESS: u8 = 0x10;
/// Slot Control within the PCI Express capability (`PCI_EXP_SLTCTL`).
const SLOT_CONTROL: u8 = 0x18;
/// Power Controller Control off, Power Indicator off (`PCI_EXP_SLTCTL_PWR_OFF`, `PCI_EXP_SLTCTL_PWR_IND_OFF`).
const POWER_OFF: u16 = 0x0700;
/// Power Indicator Control (`PCI_EXP_SLTCTL_PIC`).
const INDICATOR: u16 = 0x0300;
/// Power Indicator on, with the controller's bit clear (`PCI_EXP_SLTCTL_PWR_IND_ON`).
const POWER_ON: u16 = 0x0100;
/// Maximum length of a capability list; a longer one is a loop.
const LONGEST_LIST: usize = 48;

/// Removes the card by surprise from the slot of the port at this address.
///
/// # Errors
/// QMP's, or an unexpected answer of the monitor. The guest may be stopped then.
pub async fn yank(vm: &Vm, port: &Bdf) -> Result<(), QmpError> {
    let _standing = stop(vm).await?;
    let config = Config { qmp: vm.qmp(), port };
    let slot_control = config.pci_express().await? + SLOT_CONTROL;
    let value = config.read16(slot_control).await?;
    config.write16(slot_control, value | POWER_OFF).await?;
    config.write16(slot_control, value & !POWER_OFF | POWER_ON).await?;
    go_on(vm).await
}

/// Presses the attention button of the slot of the port at this address while its power indicator blinks. The
/// `device_del` names the device with this `id`, which must differ from the one of the first press. QEMU refuses that
/// while the indicator blinks (`hw/pci/pcie.c`, `pcie_cap_slot_unplug_request_cb()`). So the harness switches the
/// indicator on while the guest is stopped, and restores it afterwards.
///
/// # Errors
/// As for [`yank`].
pub async fn press_while_blinking(vm: &Vm, port: &Bdf, id: &str) -> Result<(), QmpError> {
    let _standing = stop(vm).await?;
    let (qmp, config) = (vm.qmp(), Config { qmp: vm.qmp(), port });
    let slot_control = config.pci_express().await? + SLOT_CONTROL;
    let value = config.read16(slot_control).await?;
    config.write16(slot_control, value & !INDICATOR | POWER_ON).await?;
    let pressed = qmp.execute(qmp::device_del { id: id.to_owned() }).await;
    config.write16(slot_control, value).await?;
    go_on(vm).await?;
    pressed.map(drop)
}

/// Stops a guest. One whose clock is held stands while the harness works, and QEMU cannot stop it at its gate.
async fn stop(vm: &Vm) -> Result<MutexGuard<'_, ()>, QmpError> {
    let standing = vm.standing.lock().await;
    if vm.gate().is_none() {
        vm.qmp().execute(qmp::stop {}).await?;
    }
    Ok(standing)
}

/// Ends [`stop`].
async fn go_on(vm: &Vm) -> Result<(), QmpError> {
    if vm.gate().is_none() {
        vm.qmp().execute(qmp::cont {}).await?;
    }
    Ok(())
}

/// The configuration space of a port.
struct Config<'a> {
    qmp: &'a Qmp,
    port: &'a Bdf,
}

impl Config<'_> {
    /// Selects a register, and returns the data port for a 16-bit access to it. That is the upper half of the port for
    /// registers that are not a multiple of 4.
    async fn select(&self, register: u8) -> Result<u16, QmpError> {
        let address = 0x8000_0000 | self.port.routing_id() << 8 | u32::from(register & 0xfc);
        self.run(&format!("o/w {CONFIG_ADDRESS:#x} {address:#x}")).await?;
        Ok(CONFIG_DATA + u16::from(register & 2))
    }

    async fn read16(&self, register: u8) -> Result<u16, QmpError> {
        let port = self.select(register).await?;
        let command = format!("i/h {port:#x}");
        let answer = self.qmp.monitor(&command).await?;
        parse_input(&answer).ok_or(QmpError::Monitor { command, answer, expected: "a 16-bit value" })
    }

    async fn write16(&self, register: u8, value: u16) -> Result<(), QmpError> {
        let port = self.select(register).await?;
        self.run(&format!("o/h {port:#x} {value:#x}")).await
    }

    /// Executes a monitor command that prints nothing.
    async fn run(&self, command: &str) -> Result<(), QmpError> {
        let answer = self.qmp.monitor(command).await?;
        if answer.is_empty() {
            return Ok(());
        }
        Err(QmpError::Monitor { command: command.to_owned(), answer, expected: "nothing" })
    }

    /// The offset of the PCI Express capability.
    async fn pci_express(&self) -> Result<u8, QmpError> {
        let mut at = self.read16(CAPABILITIES).await?.to_le_bytes()[0];
        for _ in 0..LONGEST_LIST {
            if at == 0 {
                break;
            }
            let [id, next] = self.read16(at).await?.to_le_bytes();
            if id == PCI_EXPRESS {
                return Ok(at);
            }
            at = next;
        }
        Err(QmpError::NoCapability { device: *self.port, what: "PCI Express" })
    }
}

/// The value in the answer to `i/h` (QEMU `monitor/hmp-cmds-target.c`, `hmp_ioport_read()`).
fn parse_input(answer: &str) -> Option<u16> {
    let value = answer.rsplit_once("= 0x")?.1;
    u16::from_str_radix(value.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monitor_answers() {
        assert_eq!(parse_input("portw[0x0cfc] = 0x1048"), Some(0x1048));
        assert_eq!(parse_input("portw[0x0cfc] = 0xffff\r\n"), Some(0xffff));
        for bad in ["", "unknown command: 'i'", "portl[0x0cfc] = 0x12345678", "= 0x"] {
            assert_eq!(parse_input(bad), None, "{bad}");
        }
    }
}
