//! PCI devices of a guest: their addresses, and where sysfs shows them.

use std::fmt;
use std::str::FromStr;

use crate::vm::topology::Function;

/// A PCI address: segment, bus, device, function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bdf {
    /// Segment ("domain").
    pub segment: u16,
    /// Bus.
    pub bus: u8,
    /// Device, 5 bits.
    pub device: u8,
    /// Function, 3 bits.
    pub function: u8,
}

impl Bdf {
    /// Bus, device and function as the 16 bits by which they are routed (PCI Express 5.0, section 2.2.4.2).
    pub fn routing_id(self) -> u32 {
        u32::from(self.bus) << 8 | u32::from(self.device) << 3 | u32::from(self.function)
    }
}

impl fmt::Display for Bdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Bdf { segment, bus, device, function } = self;
        f.pad(&format!("{segment:04x}:{bus:02x}:{device:02x}.{function}"))
    }
}

/// A text that is no PCI address.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a PCI address")]
pub struct NoBdf(String);

impl FromStr for Bdf {
    type Err = NoBdf;

    /// Of the form of sysfs, `0000:01:00.0`.
    fn from_str(text: &str) -> Result<Bdf, NoBdf> {
        let parse = || {
            let (segment, rest) = text.split_once(':')?;
            let (bus, rest) = rest.split_once(':')?;
            let (device, function) = rest.split_once('.')?;
            let hex = |part: &str, digits: usize| {
                let right = part.len() == digits && part.bytes().all(|byte| byte.is_ascii_hexdigit());
                right.then(|| u16::from_str_radix(part, 16).ok()).flatten()
            };
            let byte = |part: &str, digits| u8::try_from(hex(part, digits)?).ok();
            let bdf = Bdf {
                segment: hex(segment, 4)?,
                bus: byte(bus, 2)?,
                device: byte(device, 2)?,
                function: byte(function, 1)?,
            };
            (bdf.device < 32 && bdf.function < 8).then_some(bdf)
        };
        parse().ok_or_else(|| NoBdf(text.to_owned()))
    }
}

/// A PCI device in the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its address.
    pub bdf: Bdf,
    /// `DEVPATH` of its uevents: its folder below `/sys`.
    pub devpath: String,
}

impl Device {
    /// A device on the bus behind another one, or on the root bus, whose `DEVPATH` this is.
    pub(crate) fn below(parent: &str, bdf: Bdf) -> Device {
        Device { bdf, devpath: format!("{parent}/{bdf}") }
    }

    /// The bridge right above it; none above a device on the root bus.
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
    /// The port.
    pub port: Device,
}

impl Slot {
    /// Path of one of the slot's own attributes.
    pub fn attribute(&self, name: &str) -> String {
        format!("/sys/bus/pci/slots/{}/{name}", self.number)
    }
}

/// A physical function of the topology, as the guest knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pf {
    /// The slot that it is in.
    pub slot: Slot,
    /// What QEMU knows of it.
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
    fn addresses_among_the_names_of_a_port() {
        for (name, is) in [
            ("0000:01:00.0", true),
            ("0000:01:10.7", true),
            ("0000:00:10.0:pcie001", false),
            ("0000:00:10.0:pcie004", false),
            ("0000:01:20.0", false),
            ("0000:01:00.8", false),
            ("pci_bus", false),
            ("0000:01", false),
            ("", false),
        ] {
            assert_eq!(name.parse::<Bdf>().map(|bdf| bdf.to_string()).ok(), is.then(|| name.to_owned()));
        }
    }

    #[test]
    fn a_routing_id() {
        let bdf: Bdf = "0000:01:10.2".parse().unwrap();
        assert_eq!(bdf.routing_id(), 0x0182);
    }

    #[test]
    fn paths_of_a_device() {
        let device = Device::below("/devices/pci0000:00/0000:00:10.0", "0000:01:00.0".parse().unwrap());
        assert_eq!(device.attribute("remove"), "/sys/devices/pci0000:00/0000:00:10.0/0000:01:00.0/remove");
        let port = device.parent().unwrap();
        assert_eq!(port.attribute("remove"), "/sys/devices/pci0000:00/0000:00:10.0/remove");
        assert_eq!(port.parent(), None);
    }
}
