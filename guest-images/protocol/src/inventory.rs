//! What a guest shows of its PCI functions, in every place where it shows them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The same facts from different folders of sysfs. Nothing here is checked against anything else.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Inventory {
    /// By address, as in `/sys/bus/pci/devices`.
    pub functions: BTreeMap<String, PciFunction>,
    /// `DEVPATH`s of the folders below `/sys/devices/pci*` that are named like a PCI address.
    pub folders: Vec<String>,
    /// The devices of each IOMMU group, as in `/sys/kernel/iommu_groups`.
    pub groups: BTreeMap<String, Vec<String>>,
    /// The devices of each driver, as in `/sys/bus/pci/drivers`.
    pub drivers: BTreeMap<String, Vec<String>>,
    /// The network interfaces of PCI functions, as in `/sys/class/net`, and the function of each.
    pub interfaces: BTreeMap<String, String>,
    /// `debug_locks` of `/proc/lockdep_stats`: whether lockdep is still at work. None in a kernel without it.
    pub debug_locks: Option<bool>,
}

/// One function's own folder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PciFunction {
    /// Its `DEVPATH`, from the link in `/sys/bus/pci/devices`.
    pub devpath: String,
    /// What `sriov_numvfs` reads as, or the name of the errno. None if it has no such attribute.
    pub numvfs: Option<String>,
    /// Where the `virtfnN` links lead, by N.
    pub virtfns: BTreeMap<String, String>,
    /// Where the `physfn` link leads.
    pub physfn: Option<String>,
    /// Its `driver` link.
    pub driver: Option<String>,
    /// Number of its IOMMU group, from the `iommu_group` link.
    pub group: Option<String>,
    /// Names in its `net` folder.
    pub interfaces: Vec<String>,
}
