//! PCI devices of a guest, and where sysfs shows them.

use crate::vm::model::Row;
use crate::vm::pci::Bdf;
use crate::vm::topology::Function;

/// A PCI device in the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its PCI address.
    pub bdf: Bdf,
    /// `DEVPATH` of its uevents: its folder below `/sys`.
    pub devpath: String,
}

impl Device {
    /// A device on the bus behind another one, or on the root bus, whose `DEVPATH` this is.
    pub(crate) fn below(parent: &str, bdf: Bdf) -> Device {
        Device { bdf, devpath: format!("{parent}/{bdf}") }
    }

    /// The bridge directly above it; `None` for a device on the root bus.
    pub fn parent(&self) -> Option<Device> {
        let (devpath, _) = self.devpath.rsplit_once('/')?;
        let bdf = devpath.rsplit('/').next()?.parse().ok()?;
        Some(Device { bdf, devpath: devpath.to_owned() })
    }

    /// Path of one of its attributes.
    pub fn attribute(&self, name: &str) -> String {
        format!("/sys{}/{name}", self.devpath)
    }
}

impl AsRef<Device> for Device {
    fn as_ref(&self) -> &Device {
        self
    }
}

/// A slot of the topology in the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// QEMU's id of its port.
    pub id: String,
    /// Its number, as in `/sys/bus/pci/slots`.
    pub number: u8,
    /// The port that the slot belongs to.
    pub port: Device,
}

impl Slot {
    /// Path of an attribute of the slot.
    pub fn attribute(&self, name: &str) -> String {
        format!("/sys/bus/pci/slots/{}/{name}", self.number)
    }
}

/// A physical function of the topology, as the guest knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pf {
    /// Its slot.
    pub slot: Slot,
    /// Its QEMU id and model.
    pub function: Function,
    /// The PCI device.
    pub device: Device,
}

impl Pf {
    /// `DEVPATH` of its uevents.
    pub fn devpath(&self) -> &str {
        &self.device.devpath
    }

    /// Path of one of its attributes.
    pub fn attribute(&self, name: &str) -> String {
        self.device.attribute(name)
    }

    /// The properties of its model.
    pub fn model(&self) -> &'static Row {
        self.function.model.row()
    }

    /// Path of an attribute of its driver: `bind`, `unbind`.
    pub fn driver_attribute(&self, name: &str) -> String {
        format!("/sys/bus/pci/drivers/{}/{name}", self.model().driver.name)
    }

    /// Path of its `sriov_numvfs`.
    pub fn numvfs(&self) -> String {
        self.attribute("sriov_numvfs")
    }
}

impl AsRef<Device> for Pf {
    fn as_ref(&self) -> &Device {
        &self.device
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_a_device() {
        let device = Device::below("/devices/pci0000:00/0000:00:10.0", "0000:01:00.0".parse().unwrap());
        assert_eq!(device.attribute("remove"), "/sys/devices/pci0000:00/0000:00:10.0/0000:01:00.0/remove");
        let port = device.parent().unwrap();
        assert_eq!(port.attribute("remove"), "/sys/devices/pci0000:00/0000:00:10.0/remove");
        assert_eq!(port.parent(), None);
    }
}
