//! The devices of a topology as QEMU is told of them: on its command line, and later over QMP.

use super::topology::{Function, Holds, Iommu, Model, Port, Topology};

/// QEMU's arguments for all devices of a topology.
pub fn arguments(topology: &Topology) -> Vec<String> {
    topology.ports.iter().flat_map(|port| port_arguments(port, "pcie-root-port", "pcie.0")).collect()
}

fn port_arguments(port: &Port, driver: &str, bus: &str) -> Vec<String> {
    let Port { id, device, slot, holds } = port;
    let mut arguments =
        device_argument(&format!("{driver},id={id},bus={bus},addr={device:#x},chassis={slot},slot={slot}"));
    match holds {
        Holds::Functions(functions) => {
            // An empty slot has a cable too, for the card that is plugged in later.
            let takes_cable = |number: &usize| functions.get(*number).is_none_or(|f| f.model != Model::Nvme);
            let cables = (0..functions.len().max(1)).filter(takes_cable).map(|number| cable_argument(port, number));
            arguments.extend(cables.flat_map(|cable| ["-netdev".to_owned(), cable]));
            for (number, function) in functions.iter().enumerate() {
                if function.model == Model::Nvme {
                    // Its VFs are controllers of the same subsystem.
                    arguments.extend(device_argument(&format!("nvme-subsys,id={}", subsystem(function))));
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
    device_argument(match iommu {
        Iommu::Intel => "intel-iommu,intremap=on",
        Iommu::Amd => "amd-iommu,intremap=on",
        Iommu::Virtio => "virtio-iommu-pci,bus=pcie.0,addr=0x4",
    })
}

/// What a guest's kernel is told because of its IOMMU.
pub fn iommu_words(iommu: Iommu) -> &'static [&'static str] {
    match iommu {
        Iommu::Intel | Iommu::Amd => &[],
        // vfio refuses devices whose interrupts nobody remaps (`drivers/vfio/vfio_iommu_type1.c`,
        // `vfio_iommu_type1_attach_group()`).
        Iommu::Virtio => &["vfio_iommu_type1.allow_unsafe_interrupts=1"],
    }
}

fn device_argument(device: &str) -> Vec<String> {
    vec!["-device".to_owned(), device.to_owned()]
}

/// A network card gets a cable into a hub of its own: the link is up, and nothing is at its other end.
fn cable_argument(port: &Port, number: usize) -> String {
    format!("hubport,id={},hubid={}", cable(port, number), usize::from(port.slot) * 8 + number)
}

fn cable(port: &Port, number: usize) -> String {
    format!("{}-cable{number}", port.id)
}

fn function_argument(port: &Port, number: usize, function: &Function) -> String {
    let properties = properties(port, number, function);
    let properties = properties.iter().map(|(name, value)| format!(",{name}={value}")).collect::<String>();
    format!("{},id={},bus={}{properties}", driver(function.model), function.id, port.id)
}

/// QEMU's name of a model.
pub fn driver(model: Model) -> &'static str {
    match model {
        Model::Igb | Model::IgbMulticast => "igb",
        Model::Nvme => "nvme",
    }
}

/// What else QEMU is told of a function in a port's slot, beyond driver, id and bus.
pub fn properties(port: &Port, number: usize, function: &Function) -> Vec<(&'static str, String)> {
    let mut properties = vec![("addr", format!("0.{number}"))];
    properties.extend(match function.model {
        Model::Igb => vec![("netdev", cable(port, number))],
        Model::IgbMulticast => vec![("netdev", cable(port, number)), ("mac", MULTICAST.to_owned())],
        Model::Nvme => nvme_properties(function),
    });
    let siblings = matches!(&port.holds, Holds::Functions(functions) if functions.len() > 1);
    if number == 0 && siblings {
        // With ARI, which igb has, a guest finds function 1 by this alone (PCI Express 5.0, section 7.8.7).
        properties.extend([("multifunction", "on".to_owned()), ("x-pcie-ari-nextfn-1", "on".to_owned())]);
    }
    properties
}

/// The lowest bit of the first byte says multicast (IEEE 802-2014, section 8.2.2).
const MULTICAST: &str = "01:00:00:00:00:01";

fn subsystem(function: &Function) -> String {
    format!("{}-subsys", function.id)
}

/// A PF with four VFs, and queues and interrupts that could be given to them: QEMU wants so many that each VF can have two
/// of the former and one of the latter (`hw/nvme/ctrl.c`, `nvme_check_params()`).
fn nvme_properties(function: &Function) -> Vec<(&'static str, String)> {
    let value = |value: &str| value.to_owned();
    vec![
        ("serial", function.id.clone()),
        ("subsys", subsystem(function)),
        ("sriov_max_vfs", value("4")),
        ("sriov_vq_flexible", value("10")),
        ("sriov_vi_flexible", value("5")),
        ("max_ioqpairs", value("26")),
        ("msix_qsize", value("27")),
    ]
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
    fn ids_and_slots_are_each_anothers() {
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
