//! What hardware a guest has, as data.

use serde::{Deserialize, Serialize};

/// The PCI hardware under test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topology {
    /// Its name in cells and reports.
    pub name: String,
    /// Hot-pluggable slots on the root bus.
    pub ports: Vec<RootPort>,
}

/// A `pcie-root-port` with a slot, at a fixed address on the root bus, so that the guest's sysfs path is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootPort {
    /// QEMU's id, and the bus that its devices name.
    pub id: String,
    /// Device number on bus 0.
    pub device: u8,
    /// Physical slot number; also the chassis number, as the pair must be unique.
    pub slot: u8,
    /// What is plugged in.
    pub functions: Vec<Function>,
}

/// One PCI function behind a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Function {
    /// QEMU's id.
    pub id: String,
    /// What it is.
    pub model: Model,
}

/// Emulated devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Model {
    /// Intel 82576: a network card with SR-IOV, 7 VFs (QEMU `hw/net/igb.c`, since 8.0).
    Igb,
}

impl Topology {
    /// One igb in one slot.
    pub fn igb() -> Topology {
        let pf = Function { id: "pf0".to_owned(), model: Model::Igb };
        let port = RootPort { id: "rp0".to_owned(), device: FIRST_PORT, slot: 1, functions: vec![pf] };
        Topology { name: "igb".to_owned(), ports: vec![port] }
    }

    /// The topology of this name.
    pub fn named(name: &str) -> Option<Topology> {
        [Topology::igb()].into_iter().find(|topology| topology.name == name)
    }
}

/// Device number of the first root port: beyond what q35 and our own devices use.
const FIRST_PORT: u8 = 0x10;

impl RootPort {
    /// The port's own address in the guest.
    pub fn bdf(&self) -> String {
        format!("0000:00:{:02x}.0", self.device)
    }

    /// The folder of the port in the guest's sysfs.
    pub fn sysfs(&self) -> String {
        format!("/sys/devices/pci0000:00/{}", self.bdf())
    }
}

/// How the machine removes and adds devices when asked over QMP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hotplug {
    /// PCIe native hotplug: the guest's pciehp owns the slots.
    Native,
    /// ACPI hotplug: the guest's acpiphp does. QEMU's default on q35.
    Acpi,
}
