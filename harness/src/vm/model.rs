//! Device models: a table with a row for each. The row defines everything that depends on the model. A new model is a new
//! row; a topology must contain it, and `kernels/config` must enable its drivers.

use serde::{Deserialize, Serialize};

use super::fault::{Fault, Newer};
use super::version::Version;
use crate::trigger::Trigger;

/// An emulated device model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Model {
    /// Intel 82576: a network card with SR-IOV (QEMU `hw/net/igb.c`, since 8.0).
    Igb,
    /// The same card with a multicast address as its own MAC address. The driver rejects it, and its probe fails
    /// half-way (`drivers/net/ethernet/intel/igb/igb_main.c`, `igb_probe()`).
    IgbMulticast,
    /// NVMe controller with SR-IOV (QEMU `hw/nvme/ctrl.c`). VFs are offline until queues are assigned to them.
    Nvme,
    /// virtio's network card (QEMU `hw/virtio/virtio-net-pci.c`). Its VFs are devices of their own on QEMU's command
    /// line, which name their PF.
    VirtioNet,
    /// virtio's disk (QEMU `hw/virtio/virtio-blk-pci.c`).
    VirtioBlk,
    /// A bridge from PCI Express to PCI, with a hotplug controller (SHPC) of its own (QEMU
    /// `hw/pci-bridge/pcie_pci_bridge.c`).
    PciBridge,
}

/// A row of the table.
#[derive(Debug)]
pub struct Row {
    /// QEMU's name of the device.
    pub device: &'static str,
    /// Its device properties, besides id and address.
    pub properties: &'static [(&'static str, Value)],
    /// The properties of each VF, if QEMU does not make the VFs by itself. The VFs are then devices of the same kind,
    /// and QEMU wants them before their PF.
    pub composed_vfs: Option<&'static [(&'static str, Value)]>,
    /// The guest's driver of the function; of the PF, if the model has VFs.
    pub driver: Driver,
    /// The guest's driver of its VFs.
    pub vf_driver: Option<Driver>,
    /// Further drivers without which these do nothing.
    pub further_drivers: &'static [Driver],
    /// The number of VFs of the hardware (`TotalVFs`).
    pub vfs: u16,
    /// The number of VFs that the driver allows.
    pub vfs_of_driver: u16,
    /// Where its SR-IOV capability is in the configuration space; 0 if it has none.
    pub sriov_at: u64,
    /// What older versions of QEMU lack, if they have the device.
    pub newer: Option<Newer>,
    /// Bugs of QEMU versions with this device.
    pub faults: &'static [Fault],
}

/// A driver in the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Driver {
    /// Its name in sysfs. Its module has the same name, with `_` for `-`.
    pub name: &'static str,
    /// Its configuration symbol, without `CONFIG_`.
    pub symbol: &'static str,
    /// Its folder in the kernel's source, or its file.
    pub source: &'static str,
}

/// The value of a property.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// A fixed text.
    Is(&'static str),
    /// A fixed number. QMP does not take a text for it.
    Number(u32),
    /// The id of the function; for a VF, that of its PF.
    Id,
    /// The id of the function's own network cable.
    Cable,
    /// The id of the function's own drive.
    Drive,
    /// The id of another QEMU device with this name and no properties, which must be created first.
    Device(&'static str),
}

/// The numbers of VFs are `IGB_MAX_VF_FUNCTIONS` in QEMU's `hw/net/igb.c`, and in
/// `drivers/net/ethernet/intel/igb/igb.h`. The SR-IOV capability is at QEMU's `IGB_CAP_SRIOV_OFFSET`
/// (`hw/net/igb_common.h`).
const IGB: Row = Row {
    device: "igb",
    properties: &[("netdev", Value::Cable)],
    composed_vfs: None,
    driver: Driver { name: "igb", symbol: "IGB", source: "drivers/net/ethernet/intel/igb/" },
    vf_driver: Some(Driver { name: "igbvf", symbol: "IGBVF", source: "drivers/net/ethernet/intel/igbvf/" }),
    further_drivers: &[],
    vfs: 8,
    vfs_of_driver: 7,
    sriov_at: 0x160,
    newer: None,
    faults: &[],
};

const IGB_MULTICAST: Row = Row {
    // The lowest bit of the first byte marks a multicast address (IEEE 802-2014, section 8.2.2).
    properties: &[("netdev", Value::Cable), ("mac", Value::Is("01:00:00:00:00:01"))],
    ..IGB
};

const NVME_DRIVER: Driver = Driver { name: "nvme", symbol: "BLK_DEV_NVME", source: "drivers/nvme/host/" };

/// A PF whose VFs are controllers of the same subsystem. Queues and interrupts can be assigned to the VFs. QEMU
/// requires at least two queues and one interrupt for each VF (`hw/nvme/ctrl.c`, `nvme_check_params()`).
/// `nvme_init_pci()` places the SR-IOV capability.
const NVME: Row = Row {
    device: "nvme",
    properties: &[
        ("serial", Value::Id),
        ("subsys", Value::Device("nvme-subsys")),
        ("sriov_max_vfs", Value::Number(4)),
        ("sriov_vq_flexible", Value::Number(10)),
        ("sriov_vi_flexible", Value::Number(5)),
        ("max_ioqpairs", Value::Number(26)),
        ("msix_qsize", Value::Number(27)),
    ],
    composed_vfs: None,
    driver: NVME_DRIVER,
    vf_driver: Some(NVME_DRIVER),
    further_drivers: &[],
    vfs: 4,
    vfs_of_driver: 4,
    sriov_at: 0x120,
    newer: None,
    // `nvme_exit()` gives the ids of the VFs' controllers back before it removes the VFs. In 11.1 it is the other way
    // round. 10.0.13 still fails.
    faults: &[Fault {
        since: Version { major: 10, minor: 0 },
        mended: Version { major: 11, minor: 1 },
        hinders: Trigger::empties_slot,
        what: "QEMU aborts when the controller is unplugged: nvme_subsys_unreserve_cntlids: Assertion \
               `subsys->ctrls[cntlid] == SUBSYS_SLOT_RSVD' failed",
    }],
};

const VIRTIO_PCI: Driver = Driver { name: "virtio-pci", symbol: "VIRTIO_PCI", source: "drivers/virtio/" };

/// A PF with four VFs. Its SR-IOV capability is the first one of PCI Express, as it has neither AER nor ATS (QEMU
/// `hw/virtio/virtio-pci.c`, `virtio_pci_realize()`). The option ROM serves to boot from the network, so it is left out.
/// QEMU has `sriov-pf` since 10.1 (commit 49f7cb18db07, "virtio-net: Implement SR-IOV VF"; `docs/system/sriov.rst`).
/// virtio-pci enables VFs only while the driver of the virtio device is ready (`drivers/virtio/virtio_pci_common.c`,
/// `virtio_pci_sriov_configure()`).
const VIRTIO_NET: Row = Row {
    device: "virtio-net-pci",
    properties: &[("netdev", Value::Cable), ("romfile", Value::Is(""))],
    composed_vfs: Some(&[("netdev", Value::Cable), ("sriov-pf", Value::Id)]),
    driver: VIRTIO_PCI,
    vf_driver: Some(VIRTIO_PCI),
    further_drivers: &[Driver { name: "virtio_net", symbol: "VIRTIO_NET", source: "drivers/net/virtio_net.c" }],
    vfs: 4,
    vfs_of_driver: 4,
    sriov_at: 0x100,
    newer: Some(Newer { since: Version { major: 10, minor: 1 }, what: "property sriov-pf of virtio-net-pci" }),
    faults: &[],
};

/// A disk without VFs.
const VIRTIO_BLK: Row = Row {
    device: "virtio-blk-pci",
    properties: &[("drive", Value::Drive)],
    composed_vfs: None,
    driver: VIRTIO_PCI,
    vf_driver: None,
    further_drivers: &[Driver { name: "virtio_blk", symbol: "VIRTIO_BLK", source: "drivers/block/virtio_blk.c" }],
    vfs: 0,
    vfs_of_driver: 0,
    sriov_at: 0,
    newer: None,
    faults: &[],
};

const PCI_BRIDGE: Row = Row {
    device: "pcie-pci-bridge",
    properties: &[],
    composed_vfs: None,
    driver: Driver { name: "shpchp", symbol: "HOTPLUG_PCI_SHPC", source: "drivers/pci/hotplug/" },
    vf_driver: None,
    further_drivers: &[],
    vfs: 0,
    vfs_of_driver: 0,
    sriov_at: 0,
    newer: None,
    faults: &[],
};

impl Model {
    /// The row of this model.
    pub const fn row(self) -> &'static Row {
        match self {
            Model::Igb => &IGB,
            Model::IgbMulticast => &IGB_MULTICAST,
            Model::Nvme => &NVME,
            Model::VirtioNet => &VIRTIO_NET,
            Model::VirtioBlk => &VIRTIO_BLK,
            Model::PciBridge => &PCI_BRIDGE,
        }
    }
}

impl Row {
    /// Whether it is a network card, which has a cable.
    pub fn takes_cable(&self) -> bool {
        self.has(Value::Cable)
    }

    /// Whether it is a disk, which has a drive.
    pub fn takes_drive(&self) -> bool {
        self.has(Value::Drive)
    }

    fn has(&self, wanted: Value) -> bool {
        self.properties.iter().any(|(_, value)| *value == wanted)
    }

    /// The other QEMU devices that it needs, each with the property that refers to it.
    pub fn companions(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.properties.iter().filter_map(|(property, value)| match value {
            Value::Device(device) => Some((*property, *device)),
            Value::Is(_) | Value::Number(_) | Value::Id | Value::Cable | Value::Drive => None,
        })
    }

    /// The drivers that it needs in the guest.
    pub fn drivers(&self) -> impl Iterator<Item = Driver> {
        std::iter::once(self.driver).chain(self.vf_driver).chain(self.further_drivers.iter().copied())
    }
}
