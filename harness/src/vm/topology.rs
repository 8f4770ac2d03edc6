//! The PCI hardware of a guest, as data.

use serde::{Deserialize, Serialize};

use super::iommu::Iommu;
use super::model::Model;

/// The PCI hardware under test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topology {
    /// Its name in cells and reports.
    pub name: String,
    /// The IOMMU, which translates the devices' addresses and interrupts.
    pub iommu: Iommu,
    /// Root ports: hot-pluggable slots on the root bus.
    pub ports: Vec<Port>,
}

/// A port with a slot, at a fixed address on its bus, so that the guest's sysfs path is known: a `pcie-root-port` on the
/// root bus, or a downstream port of a switch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// QEMU's id of the port, which is also the name of its bus.
    pub id: String,
    /// Device number on its bus.
    pub device: u8,
    /// Physical slot number, as in `/sys/bus/pci/slots`; also the chassis number, as the pair must be unique.
    pub slot: u8,
    /// The contents of the slot.
    pub holds: Holds,
}

/// The contents of a slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Holds {
    /// A device with these functions, numbered from 0. An empty list means an empty slot.
    Functions(Vec<Function>),
    /// Nothing. A card of this model is plugged in later, or another one.
    Room(Model),
    /// A switch: an upstream port (`x3130-upstream`), and downstream ports (`xio3130-downstream`), each with a slot.
    Switch {
        /// QEMU's id of the upstream port, and of the bus within the switch.
        id: String,
        /// The downstream ports.
        ports: Vec<Port>,
    },
}

/// One PCI function behind a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Function {
    /// QEMU's id.
    pub id: String,
    /// Its device model.
    pub model: Model,
}

/// Device number of the first root port, above those of q35's devices and of the harness's own.
const FIRST_PORT: u8 = 0x10;

/// The first slot number behind a switch.
const FIRST_NESTED_SLOT: u8 = 10;

impl Topology {
    /// All topologies.
    pub fn all() -> Vec<Topology> {
        vec![
            Topology::igb(),
            Topology::new("two-functions", vec![igbs(&["pf0", "pf1"])]),
            Topology::new("two-slots", vec![igbs(&["pf0"]), igbs(&["pf1"])]),
            Topology::new("empty-slot", vec![igbs(&[])]),
            Topology::new("switch", vec![igbs(&["pf0"]), switch("up0", vec![igbs(&["pf1"])])]),
            Topology::new("two-port-switch", vec![switch("up0", vec![igbs(&["pf0"]), igbs(&[])])]),
            Topology::new("igb-multicast", vec![functions(Model::IgbMulticast, &["pf0"])]),
            Topology { iommu: Iommu::Amd, ..Topology::new("igb+amd-iommu", vec![igbs(&["pf0"])]) },
            Topology { iommu: Iommu::Virtio, ..Topology::new("igb+virtio-iommu", vec![igbs(&["pf0"])]) },
            Topology::new("nvme", vec![functions(Model::Nvme, &["pf0"])]),
            Topology::new("virtio-net", vec![functions(Model::VirtioNet, &["pf0"])]),
            Topology::new("virtio-blk", vec![functions(Model::VirtioBlk, &["pf0"])]),
            Topology::new("room-for-bridge", vec![Holds::Room(Model::PciBridge)]),
        ]
    }

    /// One igb in one slot.
    pub fn igb() -> Topology {
        Topology::new("igb", vec![igbs(&["pf0"])])
    }

    /// The topology of this name.
    pub fn named(name: &str) -> Option<Topology> {
        Topology::all().into_iter().find(|topology| topology.name == name)
    }

    /// The models of all functions, and of those that are plugged in later.
    pub fn models(&self) -> Vec<Model> {
        self.ports.iter().flat_map(Port::models).collect()
    }

    /// Root ports `rp0`, `rp1`, ... with these contents, and Intel's IOMMU.
    fn new(name: &str, slots: Vec<Holds>) -> Topology {
        let port =
            |(number, holds)| Port { id: format!("rp{number}"), device: FIRST_PORT + number, slot: 1 + number, holds };
        Topology { name: name.to_owned(), iommu: Iommu::Intel, ports: (0..).zip(slots).map(port).collect() }
    }
}

impl Port {
    /// The models of all functions in the slot, also behind a switch, and of the card that is plugged in later.
    pub fn models(&self) -> Vec<Model> {
        match &self.holds {
            Holds::Functions(functions) => functions.iter().map(|function| function.model).collect(),
            Holds::Room(model) => vec![*model],
            Holds::Switch { ports, .. } => ports.iter().flat_map(Port::models).collect(),
        }
    }
}

fn igbs(ids: &[&str]) -> Holds {
    functions(Model::Igb, ids)
}

fn functions(model: Model, ids: &[&str]) -> Holds {
    Holds::Functions(ids.iter().map(|&id| Function { id: id.to_owned(), model }).collect())
}

/// A switch with downstream ports `ID-dp0`, `ID-dp1`, ... with these contents.
fn switch(id: &str, slots: Vec<Holds>) -> Holds {
    let port = |(number, holds)| Port {
        id: format!("{id}-dp{number}"),
        device: number,
        slot: FIRST_NESTED_SLOT + number,
        holds,
    };
    Holds::Switch { id: id.to_owned(), ports: (0..).zip(slots).map(port).collect() }
}
