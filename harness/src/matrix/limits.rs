//! What cannot be run here: topologies whose devices this kernel has no driver for, or this QEMU does not have, and removals
//! that this version of QEMU is known not to bring about. Such cells are skipped, and say why.

use std::fs;
use std::path::Path;

use crate::host::{Qemu, Version};
use crate::trigger::Trigger;
use crate::vm::topology::{Iommu, Model, Topology};

/// What a topology needs that not every kernel and every QEMU has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Needs {
    /// Symbols of the kernel's configuration, without `CONFIG_`.
    symbols: &'static [&'static str],
    /// QEMU's devices.
    devices: &'static [&'static str],
}

fn needs_of_iommu(iommu: Iommu) -> Needs {
    match iommu {
        // Without these there is no run at all: `kernels/config/pci.config` has the first, `Qemu::at()` looks for the second.
        Iommu::Intel => Needs::default(),
        Iommu::Amd => Needs { symbols: &["AMD_IOMMU"], devices: &["amd-iommu"] },
        Iommu::Virtio => Needs { symbols: &["VIRTIO_IOMMU"], devices: &["virtio-iommu-pci"] },
    }
}

fn needs_of_model(model: Model) -> Needs {
    match model {
        Model::Igb | Model::IgbMulticast => Needs::default(),
        Model::Nvme => Needs { symbols: &["BLK_DEV_NVME"], devices: &["nvme", "nvme-subsys"] },
    }
}

/// Removals that some versions of QEMU do not bring about, whatever the kernel does.
struct Fault {
    /// The versions that were seen to fail. Others are tried.
    versions: &'static [Version],
    of: Part,
    triggers: &'static [Trigger],
    /// What happens.
    what: &'static str,
}

/// The part of a topology that does it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Model(Model),
    Iommu(Iommu),
}

/// `--despite-qemu` runs these cells all the same, to find out whether another version does it too.
const FAULTS: &[Fault] = &[
    Fault {
        versions: &[Version { major: 10, minor: 0 }],
        of: Part::Model(Model::Nvme),
        triggers: &[Trigger::DeviceDel, Trigger::DeviceDelAcpi, Trigger::Yank],
        what: "it aborts when the controller leaves its slot: nvme_subsys_unreserve_cntlids: Assertion \
               `subsys->ctrls[cntlid] == SUBSYS_SLOT_RSVD' failed",
    },
    Fault {
        versions: &[Version { major: 10, minor: 0 }],
        of: Part::Iommu(Iommu::Amd),
        triggers: &[Trigger::DeviceDelAcpi],
        what: "with amd-iommu no ACPI request to eject reaches the guest (nine tries on three kernels); why is not known",
    },
];

/// What is known of the QEMU of a run. Without that, nothing is forbidden but by the kernel.
#[derive(Clone, Debug, Default)]
pub(crate) struct Limits {
    qemu: Option<Qemu>,
    despite_qemu: bool,
}

impl Limits {
    /// Those of a QEMU; its faults do not count if cells are to be run `despite` them.
    pub(crate) fn of(qemu: &Qemu, despite_qemu: bool) -> Limits {
        Limits { qemu: Some(qemu.clone()), despite_qemu }
    }

    /// Why a cell cannot be run, if so. `config` is the configuration of its kernel.
    pub(crate) fn forbid(&self, topology: &Topology, trigger: Option<Trigger>, config: &Path) -> Option<String> {
        let models = topology.models();
        let needs: Vec<_> =
            models.iter().map(|model| needs_of_model(*model)).chain([needs_of_iommu(topology.iommu)]).collect();
        let lack = |whose: String, what: Vec<String>| {
            (!what.is_empty())
                .then(|| format!("{whose} has no {}, which the topology {} needs", what.join(", "), topology.name))
        };
        let devices = needs.iter().flat_map(|needs| needs.devices);
        let symbols: Vec<_> = needs.iter().flat_map(|needs| needs.symbols).collect();
        self.qemu
            .as_ref()
            .and_then(|qemu| {
                let missing = devices.filter(|device| !qemu.offers(device)).map(|device| (*device).to_owned());
                lack(format!("QEMU {}", qemu.version), missing.collect())
            })
            .or_else(|| lack("the kernel".to_owned(), missing_symbols(&symbols, config)))
            .or_else(|| self.fault(topology, trigger))
    }

    fn fault(&self, topology: &Topology, trigger: Option<Trigger>) -> Option<String> {
        let version = self.qemu.as_ref().filter(|_| !self.despite_qemu)?.version;
        let trigger = trigger?;
        let is = |fault: &&Fault| {
            let has = match fault.of {
                Part::Model(model) => topology.models().contains(&model),
                Part::Iommu(iommu) => topology.iommu == iommu,
            };
            has && fault.versions.contains(&version) && fault.triggers.contains(&trigger)
        };
        let fault = FAULTS.iter().find(is)?;
        Some(format!("QEMU {version} cannot do this: {}; --despite-qemu tries it all the same", fault.what))
    }
}

/// Which of these symbols a kernel's configuration does not have. One that cannot be read is taken to have them all: what is
/// missing shows when the guest is looked at.
fn missing_symbols(symbols: &[&&str], config: &Path) -> Vec<String> {
    if symbols.is_empty() {
        return Vec::new();
    }
    let Ok(config) = fs::read_to_string(config) else { return Vec::new() };
    let has = |symbol: &str| config.lines().any(|line| line.strip_prefix(symbol).is_some_and(|rest| rest == "=y"));
    symbols.iter().map(|symbol| format!("CONFIG_{symbol}")).filter(|symbol| !has(symbol)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(devices: &[&str], minor: u32, despite_qemu: bool) -> Limits {
        let help: String = devices.iter().map(|device| format!("name \"{device}\", bus PCI\n")).collect();
        let version = Version { major: 10, minor };
        let qemu = Qemu { binary: "qemu".into(), version, banner: String::new(), devices: help };
        Limits::of(&qemu, despite_qemu)
    }

    fn forbidden(limits: &Limits, topology: &str, trigger: Option<Trigger>, config: &str) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), config).unwrap();
        let topology = Topology::named(topology).unwrap();
        limits.forbid(&topology, trigger, file.path()).unwrap_or_else(|| "nothing".to_owned())
    }

    const NVME: [&str; 2] = ["nvme", "nvme-subsys"];
    const ALL: &str = "CONFIG_BLK_DEV_NVME=y\nCONFIG_AMD_IOMMU=y\n";

    #[test]
    fn what_everything_has_is_looked_for_nowhere() {
        assert_eq!(forbidden(&limits(&[], 0, false), "igb", Some(Trigger::Yank), ""), "nothing");
        assert_eq!(forbidden(&Limits::default(), "nvme", Some(Trigger::Yank), ALL), "nothing");
    }

    #[test]
    fn what_is_missing_is_said() {
        let none = Some(Trigger::SysfsRemove);
        let all = ["amd-iommu", NVME[0], NVME[1]];
        let said = [
            forbidden(&limits(&all, 0, false), "igb+amd-iommu", none, ALL),
            forbidden(&limits(&all[1..], 0, false), "igb+amd-iommu", none, ALL),
            forbidden(&limits(&all, 0, false), "igb+amd-iommu", none, "CONFIG_AMD_IOMMU_V2=y\n# CONFIG_AMD_IOMMU=y"),
            forbidden(&limits(&all[..2], 0, false), "nvme", none, ALL),
        ];
        insta::assert_snapshot!(said.join("\n"));
    }

    #[test]
    fn a_fault_belongs_to_versions_and_triggers() {
        let yank = Some(Trigger::Yank);
        let said = forbidden(&limits(&NVME, 0, false), "nvme", yank, ALL);
        assert!(said.contains("QEMU 10.0 cannot do this") && said.contains("--despite-qemu"), "{said}");
        assert_eq!(forbidden(&limits(&NVME, 0, true), "nvme", yank, ALL), "nothing");
        assert_eq!(forbidden(&limits(&NVME, 1, false), "nvme", yank, ALL), "nothing");
        for trigger in [None, Some(Trigger::SysfsRemove)] {
            assert_eq!(forbidden(&limits(&NVME, 0, false), "nvme", trigger, ALL), "nothing");
        }
        let amd = |trigger| forbidden(&limits(&["amd-iommu"], 0, false), "igb+amd-iommu", Some(trigger), ALL);
        assert!(amd(Trigger::DeviceDelAcpi).contains("reaches the guest"));
        assert_eq!(amd(Trigger::Yank), "nothing");
    }
}
