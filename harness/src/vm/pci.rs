//! PCI addresses, in the notation of sysfs and as routing IDs.

use std::fmt;
use std::str::FromStr;

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
    /// The 16-bit routing ID: bus, device and function (PCI Express 5.0, section 2.2.4.2).
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

/// A text is not a PCI address.
#[derive(Debug, thiserror::Error)]
#[error("\"{0}\" is not a PCI address")]
pub struct NoBdf(String);

impl FromStr for Bdf {
    type Err = NoBdf;

    /// Parses the notation of sysfs, `0000:01:00.0`.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_functions_are_parsed() {
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
}
