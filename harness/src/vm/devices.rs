//! QEMU's arguments for the devices of a topology: on the command line, and later over QMP.

use super::iommu::Iommu;
use super::model::Value;
use super::topology::{Function, Holds, Port, Topology};

/// QEMU's device for a slot on the root bus.
pub const ROOT_PORT: &str = "pcie-root-port";

/// QEMU's arguments for all devices of a topology.
pub fn arguments(topology: &Topology) -> Vec<String> {
    topology.ports.iter().flat_map(|port| port_arguments(port, ROOT_PORT, "pcie.0")).collect()
}

fn port_arguments(port: &Port, driver: &str, bus: &str) -> Vec<String> {
    let Port { id, device, slot, holds } = port;
    let mut arguments =
        device_argument(&format!("{driver},id={id},bus={bus},addr={device:#x},chassis={slot},slot={slot}"));
    match holds {
        Holds::Functions(functions) => {
            arguments.extend(cable_arguments(port, functions));
            arguments.extend(drive_arguments(port, functions));
            for (number, function) in functions.iter().enumerate() {
                for (property, device) in function.model.row().companions() {
                    arguments.extend(device_argument(&format!("{device},id={}", companion(function, property))));
                }
                let devices = card(port, number, function);
                arguments.extend(devices.iter().flat_map(|device| device_argument(&device.argument(port))));
            }
        }
        Holds::Room(_) => arguments.extend(cable_arguments(port, &[])),
        Holds::Switch { id: upstream, ports } => {
            arguments.extend(device_argument(&format!("x3130-upstream,id={upstream},bus={id}")));
            let downstream = |port| port_arguments(port, "xio3130-downstream", upstream);
            arguments.extend(ports.iter().flat_map(downstream));
        }
    }
    arguments
}

/// QEMU's arguments for an IOMMU. It must come before the devices whose addresses it translates.
pub fn iommu_arguments(iommu: Iommu) -> Vec<String> {
    let row = iommu.row();
    let properties: String = row.properties.iter().map(|(name, value)| format!(",{name}={value}")).collect();
    device_argument(&format!("{}{properties}", row.device))
}

fn device_argument(device: &str) -> Vec<String> {
    vec!["-device".to_owned(), device.to_owned()]
}

/// Each network card gets a cable to a separate hub: its link is up, and nothing else is connected to the hub. An empty
/// slot gets a cable too, for the card that is plugged in later.
fn cable_arguments(port: &Port, functions: &[Function]) -> Vec<String> {
    let takes_cable = |number: &usize| functions.get(*number).is_none_or(|f| f.model.row().takes_cable());
    let cards = (0..functions.len().max(1)).filter(takes_cable);
    let vfs = functions.iter().enumerate().flat_map(|(number, function)| composed_vfs(number, function));
    let argument = |number| {
        let hub = usize::from(port.slot) * 8 + number;
        ["-netdev".to_owned(), format!("hubport,id={},hubid={hub}", cable(port, number))]
    };
    cards.chain(vfs).flat_map(argument).collect()
}

/// Each disk gets a drive of a megabyte, which reads as zeros.
fn drive_arguments(port: &Port, functions: &[Function]) -> Vec<String> {
    let disks = functions.iter().enumerate().filter(|(_, function)| function.model.row().takes_drive());
    let argument = |(number, _)| {
        let drive = format!("null-co,node-name={},size=1048576,read-zeroes=on", drive(port, number));
        ["-blockdev".to_owned(), drive]
    };
    disks.flat_map(argument).collect()
}

fn drive(port: &Port, number: usize) -> String {
    format!("{}-drive{number}", port.id)
}

fn cable(port: &Port, number: usize) -> String {
    format!("{}-cable{number}", port.id)
}

/// Properties of a QEMU device, with values as QMP takes them.
pub type Properties = Vec<(&'static str, serde_json::Value)>;

/// A part of a card: a QEMU device in a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// QEMU's name of the device.
    pub driver: &'static str,
    /// Its id.
    pub id: String,
    /// Its other properties, besides the bus: texts and numbers.
    pub properties: Properties,
}

impl Part {
    fn argument(&self, port: &Port) -> String {
        let property = |(name, value): &(&str, serde_json::Value)| match value.as_str() {
            Some(text) => format!(",{name}={text}"),
            None => format!(",{name}={value}"),
        };
        let properties: String = self.properties.iter().map(property).collect();
        format!("{},id={},bus={}{properties}", self.driver, self.id, port.id)
    }
}

/// The QEMU devices that make up a function in a port's slot, in the order in which QEMU takes them: the VFs that it does
/// not make by itself, from the last to the first, and then the function.
pub fn card(port: &Port, number: usize, function: &Function) -> Vec<Part> {
    let row = function.model.row();
    let driver = row.device;
    let vf = |number| {
        let own = properties(port, number, function, row.composed_vfs.unwrap_or_default());
        Part { driver, id: format!("{}-vf{number}", function.id), properties: own }
    };
    let mut own = properties(port, number, function, row.properties);
    let siblings = matches!(&port.holds, Holds::Functions(functions) if functions.len() > 1);
    if number == 0 && siblings {
        // igb has ARI: a guest finds function 1 only through the ARI next function number (PCI Express 5.0, section
        // 7.8.7).
        own.extend([("multifunction", "on".into()), ("x-pcie-ari-nextfn-1", "on".into())]);
    }
    let function_itself = Part { driver, id: function.id.clone(), properties: own };
    composed_vfs(number, function).rev().map(vf).chain([function_itself]).collect()
}

/// The numbers of the VFs that QEMU does not make by itself. They follow their PF, which must be the only one in its slot.
fn composed_vfs(number: usize, function: &Function) -> std::ops::Range<usize> {
    let row = function.model.row();
    let vfs = if row.composed_vfs.is_some() { usize::from(row.vfs) } else { 0 };
    number + 1..number + 1 + vfs
}

fn properties(port: &Port, number: usize, function: &Function, of_row: &[(&'static str, Value)]) -> Properties {
    let value = |(property, value): &(&'static str, Value)| {
        let value = match value {
            Value::Is(text) => (*text).into(),
            Value::Number(number) => (*number).into(),
            Value::Id => function.id.clone().into(),
            Value::Cable => cable(port, number).into(),
            Value::Drive => drive(port, number).into(),
            Value::Device(_) => companion(function, property).into(),
        };
        (*property, value)
    };
    let address = ("addr", format!("0.{number}").into());
    [address].into_iter().chain(of_row.iter().map(value)).collect()
}

/// The id of the device that a property of a function refers to.
fn companion(function: &Function, property: &str) -> String {
    format!("{}-{property}", function.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topology() {
        let text = |topology: &Topology| format!("{}: {}", topology.name, arguments(topology).join(" "));
        insta::assert_snapshot!(Topology::all().iter().map(text).collect::<Vec<_>>().join("\n"));
    }

    /// The parts of the card in the first slot of a topology.
    fn parts(topology: &str) -> Vec<Part> {
        let topology = Topology::named(topology).unwrap();
        let Holds::Functions(functions) = &topology.ports[0].holds else { panic!("a switch") };
        card(&topology.ports[0], 0, &functions[0])
    }

    #[test]
    fn qmp_gets_numbers_as_numbers() {
        let [nvme] = parts("nvme").try_into().unwrap();
        let value = |name| &nvme.properties.iter().find(|(property, _)| *property == name).unwrap().1;
        assert_eq!((value("msix_qsize"), value("serial")), (&27.into(), &"pf0".into()));
    }

    #[test]
    fn a_pf_comes_after_the_vfs_that_name_it() {
        let mut parts = parts("virtio-net");
        assert_eq!(parts.pop().unwrap().id, "pf0");
        assert_eq!(
            parts.iter().map(|vf| vf.id.as_str()).collect::<Vec<_>>(),
            ["pf0-vf4", "pf0-vf3", "pf0-vf2", "pf0-vf1"]
        );
        assert!(parts.iter().all(|vf| vf.properties.contains(&("sriov-pf", "pf0".into()))));
    }

    #[test]
    fn ids_and_slots_are_unique() {
        for topology in Topology::all() {
            let arguments = arguments(&topology).join(",");
            for key in ["id=", "hubid=", "slot="] {
                let mut values: Vec<_> = arguments.split(',').filter(|word| word.starts_with(key)).collect();
                let count = values.len();
                values.sort_unstable();
                values.dedup();
                assert_eq!(values.len(), count, "{key} in {arguments}");
            }
        }
    }
}
