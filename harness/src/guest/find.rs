//! Finding the devices of a topology in a guest.

use super::{Device, Error, PROMPT, Pf, Slot};
use crate::vm::Vm;
use crate::vm::pci::Bdf;
use crate::vm::scale::Scale;
use crate::vm::topology::{Function, Holds, Port};

/// The hardware under test, with its addresses in the guest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hardware {
    /// All slots. Those behind a switch follow the slot of the switch.
    pub slots: Vec<Slot>,
    /// All PFs, in the order of the slots.
    pub pfs: Vec<Pf>,
}

/// The root bus.
const ROOT: &str = "/devices/pci0000:00";

impl Hardware {
    /// Finds all devices of the machine's topology in a booted guest.
    ///
    /// # Errors
    /// [`Error::Unprepared`] if a device is missing.
    pub async fn find(vm: &Vm, scale: Scale) -> Result<Hardware, Error> {
        let mut hardware = Hardware::default();
        let search = Search { vm, scale };
        for port in &vm.machine().topology.ports {
            let bdf = Bdf { segment: 0, bus: 0, device: port.device, function: 0 };
            search.port(port, Device::below(ROOT, bdf), &mut hardware).await?;
        }
        Ok(hardware)
    }
}

struct Search<'a> {
    vm: &'a Vm,
    scale: Scale,
}

impl Search<'_> {
    async fn port(&self, port: &Port, device: Device, found: &mut Hardware) -> Result<(), Error> {
        let slot = Slot { id: port.id.clone(), number: port.slot, port: device };
        let below = self.devices_below(&slot.port).await?;
        found.slots.push(slot.clone());
        match &port.holds {
            Holds::Functions(functions) => {
                for (number, function) in (0..).zip(functions) {
                    let device = pick(&below, &function.id, |bdf| bdf.function == number)?;
                    found.pfs.push(Pf { slot: slot.clone(), function: Function::clone(function), device });
                }
            }
            Holds::Room(_) => {}
            Holds::Switch { id, ports } => {
                let upstream = pick(&below, id, |_| true)?;
                let below = self.devices_below(&upstream).await?;
                for port in ports {
                    let device = pick(&below, &port.id, |bdf| bdf.device == port.device)?;
                    Box::pin(self.port(port, device, found)).await?;
                }
            }
        }
        Ok(())
    }

    async fn devices_below(&self, parent: &Device) -> Result<Vec<Device>, Error> {
        let names = self.vm.agent().list(&parent.attribute(""), self.scale.seconds(PROMPT)).await?;
        let devices = names.iter().filter_map(|name| name.parse().ok());
        Ok(devices.map(|bdf| Device::below(&parent.devpath, bdf)).collect())
    }
}

fn pick(devices: &[Device], id: &str, is: impl Fn(Bdf) -> bool) -> Result<Device, Error> {
    let missing = || {
        let addresses: Vec<_> = devices.iter().map(|device| device.bdf.to_string()).collect();
        let there = if addresses.is_empty() { "nothing".to_owned() } else { addresses.join(", ") };
        Error::Unprepared(format!("{id} is not in the guest; found on its bus: {there}"))
    };
    devices.iter().find(|device| is(device.bdf)).cloned().ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_names_the_missing_device_and_those_on_its_bus() {
        let devices: Vec<_> =
            ["0000:01:00.0", "0000:01:00.1"].iter().map(|bdf| Device::below(ROOT, bdf.parse().unwrap())).collect();
        let missing = |devices: &[Device]| pick(devices, "pf2", |bdf| bdf.function == 2).unwrap_err().to_string();
        let expected = "pf2 is not in the guest; found on its bus: 0000:01:00.0, 0000:01:00.1";
        assert_eq!(missing(&devices), expected);
        assert_eq!(missing(&[]), "pf2 is not in the guest; found on its bus: nothing");
        assert_eq!(pick(&devices, "pf1", |bdf| bdf.function == 1).unwrap().bdf, devices[1].bdf);
    }
}
