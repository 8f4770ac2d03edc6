//! Models of devices: a table with a row for each. Whatever depends on the model of a device follows from its row. A new
//! model is a new row; a topology has to hold it, and `kernels/config` to have its drivers.

use serde::{Deserialize, Serialize};

use super::fault::Fault;
use super::version::Version;
use crate::trigger::Trigger;

/// Emulated devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Model {
    /// Intel 82576: a network card with SR-IOV (QEMU `hw/net/igb.c`, since 8.0).
    Igb,
    /// The same with a multicast address for its own, which its driver does not accept: it gives up in the middle of its
    /// probe (`drivers/net/ethernet/intel/igb/igb_main.c`, `igb_probe()`).
    IgbMulticast,
    /// NVMe controller with SR-IOV (QEMU `hw/nvme/ctrl.c`). VFs are offline until somebody gives them queues.
    Nvme,
}

/// A row of the table.
#[derive(Debug)]
pub struct Row {
    /// QEMU's name of the device.
    pub device: &'static str,
    /// What QEMU is told of it, beyond id and address.
    pub properties: &'static [(&'static str, Value)],
    /// The guest's driver of the function itself: the PF, if it has VFs.
    pub driver: Driver,
    /// The guest's driver of its VFs.
    pub vf_driver: Option<Driver>,
    /// How many VFs the hardware has (`TotalVFs`).
    pub vfs: u16,
    /// How many of them the driver allows.
    pub vfs_of_driver: u16,
    /// What versions of QEMU do wrong with it.
    pub faults: &'static [Fault],
}

/// A driver in the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Driver {
    /// Its name in sysfs, and that of its module.
    pub name: &'static str,
    /// The symbol of the kernel's configuration that it is built by, without `CONFIG_`.
    pub symbol: &'static str,
}

/// The value of a property.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// Always the same.
    Is(&'static str),
    /// The id of the device.
    Id,
    /// The id of a network cable: each function has one of its own.
    Cable,
    /// The id of another device of QEMU, of this name and without properties, that must be there before.
    Device(&'static str),
}

/// VFs: `IGB_MAX_VF_FUNCTIONS` in QEMU's `hw/net/igb.c`, and in `drivers/net/ethernet/intel/igb/igb.h`.
const IGB: Row = Row {
    device: "igb",
    properties: &[("netdev", Value::Cable)],
    driver: Driver { name: "igb", symbol: "IGB" },
    vf_driver: Some(Driver { name: "igbvf", symbol: "IGBVF" }),
    vfs: 8,
    vfs_of_driver: 7,
    faults: &[],
};

const IGB_MULTICAST: Row = Row {
    // The lowest bit of the first byte says multicast (IEEE 802-2014, section 8.2.2).
    properties: &[("netdev", Value::Cable), ("mac", Value::Is("01:00:00:00:00:01"))],
    ..IGB
};

const NVME_DRIVER: Driver = Driver { name: "nvme", symbol: "BLK_DEV_NVME" };

/// A PF with VFs, which are controllers of the same subsystem, and queues and interrupts that could be given to them: QEMU
/// wants so many that each VF can have two of the former and one of the latter (`hw/nvme/ctrl.c`, `nvme_check_params()`).
const NVME: Row = Row {
    device: "nvme",
    properties: &[
        ("serial", Value::Id),
        ("subsys", Value::Device("nvme-subsys")),
        ("sriov_max_vfs", Value::Is("4")),
        ("sriov_vq_flexible", Value::Is("10")),
        ("sriov_vi_flexible", Value::Is("5")),
        ("max_ioqpairs", Value::Is("26")),
        ("msix_qsize", Value::Is("27")),
    ],
    driver: NVME_DRIVER,
    vf_driver: Some(NVME_DRIVER),
    vfs: 4,
    vfs_of_driver: 4,
    faults: &[Fault {
        versions: &[Version { major: 10, minor: 0 }],
        hinders: Trigger::empties_slot,
        what: "it aborts when the controller leaves its slot: nvme_subsys_unreserve_cntlids: Assertion \
               `subsys->ctrls[cntlid] == SUBSYS_SLOT_RSVD' failed",
    }],
};

impl Model {
    /// All that depends on it.
    pub const fn row(self) -> &'static Row {
        match self {
            Model::Igb => &IGB,
            Model::IgbMulticast => &IGB_MULTICAST,
            Model::Nvme => &NVME,
        }
    }
}

impl Row {
    /// Whether it is a network card, which takes a cable.
    pub fn takes_cable(&self) -> bool {
        self.properties.iter().any(|(_, value)| *value == Value::Cable)
    }

    /// QEMU's devices that it is made of, each with the property that leads to it, but for the device itself.
    pub fn companions(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.properties.iter().filter_map(|(property, value)| match value {
            Value::Device(device) => Some((*property, *device)),
            Value::Is(_) | Value::Id | Value::Cable => None,
        })
    }

    /// The drivers that it needs in the guest.
    pub fn drivers(&self) -> impl Iterator<Item = Driver> {
        std::iter::once(self.driver).chain(self.vf_driver)
    }
}
