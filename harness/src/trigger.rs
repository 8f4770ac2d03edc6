//! The ways to take a device away, by name.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One way to take a device away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trigger {
    /// QMP `device_del` with native hotplug: the attention button, and five seconds later pciehp removes the device.
    DeviceDel,
    /// QMP `device_del` with ACPI hotplug: an eject request to acpiphp.
    DeviceDelAcpi,
    /// The slot loses its card while the guest does not look: surprise removal, pciehp sees the presence change.
    Yank,
    /// `echo 1 > .../remove` in the guest.
    SysfsRemove,
}

impl Trigger {
    /// All of them, in the order in which reports show them.
    pub const ALL: [Trigger; 4] = [Trigger::DeviceDel, Trigger::DeviceDelAcpi, Trigger::Yank, Trigger::SysfsRemove];

    /// The name of a cell's trigger; `none` if it has none.
    pub fn name_of(trigger: Option<Trigger>) -> &'static str {
        trigger.map_or("none", Trigger::name)
    }

    /// Its name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Trigger::DeviceDel => "device-del",
            Trigger::DeviceDelAcpi => "device-del-acpi",
            Trigger::Yank => "yank",
            Trigger::SysfsRemove => "sysfs-remove",
        }
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
