//! All PCI functions of a guest, as each part of sysfs lists them. The host compares the lists.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The same functions from different folders of sysfs. The guest does not compare the folders.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Inventory {
    /// The functions by address, as in `/sys/bus/pci/devices`.
    pub functions: BTreeMap<String, PciFunction>,
    /// The `DEVPATH` of each folder below `/sys/devices/pci*` whose name is a PCI address.
    pub folders: Vec<String>,
    /// The devices of each IOMMU group, as in `/sys/kernel/iommu_groups`.
    pub groups: BTreeMap<String, Vec<String>>,
    /// The devices of each driver, as in `/sys/bus/pci/drivers`.
    pub drivers: BTreeMap<String, Vec<String>>,
    /// The network interfaces of PCI functions, as in `/sys/class/net`, with the address of the function.
    pub interfaces: BTreeMap<String, String>,
    /// `debug_locks` of `/proc/lockdep_stats`: whether lockdep is still active. None if the kernel has no lockdep.
    pub debug_locks: Option<bool>,
}

/// A PCI function, from its folder in sysfs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PciFunction {
    /// Its `DEVPATH`, from the link in `/sys/bus/pci/devices`.
    pub devpath: String,
    /// The value of `sriov_numvfs`, or the name of the errno. None if the function has no such attribute.
    pub numvfs: Option<String>,
    /// The addresses of its VFs, from the `virtfnN` links, by N.
    pub virtfns: BTreeMap<String, String>,
    /// The address of its PF, from the `physfn` link.
    pub physfn: Option<String>,
    /// The name of its driver, from the `driver` link.
    pub driver: Option<String>,
    /// The number of its IOMMU group, from the `iommu_group` link.
    pub group: Option<String>,
    /// The names in its `net` folder.
    pub interfaces: Vec<String>,
}
