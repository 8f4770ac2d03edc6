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
            // An empty slot gets a cable too, for the card that is plugged in later.
            let takes_cable = |number: &usize| functions.get(*number).is_none_or(|f| f.model.row().takes_cable());
            let cables = (0..functions.len().max(1)).filter(takes_cable).map(|number| cable_argument(port, number));
            arguments.extend(cables.flat_map(|cable| ["-netdev".to_owned(), cable]));
            for (number, function) in functions.iter().enumerate() {
                for (property, device) in function.model.row().companions() {
                    arguments.extend(device_argument(&format!("{device},id={}", companion(function, property))));
                }
                arguments.extend(device_argument(&function_argument(port, number, function)));
            }
        }
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

/// Each network card gets a cable to a separate hub: its link is up, and nothing else is connected to the hub.
fn cable_argument(port: &Port, number: usize) -> String {
    format!("hubport,id={},hubid={}", cable(port, number), usize::from(port.slot) * 8 + number)
}

fn cable(port: &Port, number: usize) -> String {
    format!("{}-cable{number}", port.id)
}

fn function_argument(port: &Port, number: usize, function: &Function) -> String {
    let properties = properties(port, number, function);
    let properties = properties.iter().map(|(name, value)| format!(",{name}={value}")).collect::<String>();
    format!("{},id={},bus={}{properties}", function.model.row().device, function.id, port.id)
}

/// The device properties of a function in a port's slot, besides driver, id and bus.
pub fn properties(port: &Port, number: usize, function: &Function) -> Vec<(&'static str, String)> {
    let value = |(property, value): &(&'static str, Value)| {
        let value = match value {
            Value::Is(value) => (*value).to_owned(),
            Value::Id => function.id.clone(),
            Value::Cable => cable(port, number),
            Value::Device(_) => companion(function, property),
        };
        (*property, value)
    };
    let mut properties = vec![("addr", format!("0.{number}"))];
    properties.extend(function.model.row().properties.iter().map(value));
    let siblings = matches!(&port.holds, Holds::Functions(functions) if functions.len() > 1);
    if number == 0 && siblings {
        // igb has ARI: a guest finds function 1 only through the ARI next function number (PCI Express 5.0, section
        // 7.8.7).
        properties.extend([("multifunction", "on".to_owned()), ("x-pcie-ari-nextfn-1", "on".to_owned())]);
    }
    properties
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
