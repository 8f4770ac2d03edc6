//! Cells that cannot run here. Either the kernel has no driver for a device of the topology, or QEMU does not have the
//! device, or this version of QEMU is known to fail with the trigger. Such cells are skipped, with the reason.

use std::fs;
use std::path::Path;

use crate::host::Qemu;
use crate::trigger::Trigger;
use crate::vm::fault::{Fault, Newer};
use crate::vm::model::Driver;
use crate::vm::topology::Topology;
use crate::vm::version::Version;

/// The limits of the QEMU of a run. If QEMU is not known, only the kernel limits cells. `--despite-qemu` ignores QEMU's
/// known faults, to find out whether another version has them too.
#[derive(Clone, Debug, Default)]
pub(crate) struct Limits {
    qemu: Option<Qemu>,
    despite_qemu: bool,
}

impl Limits {
    /// The limits of a QEMU; with `despite_qemu` without its known faults.
    pub(crate) fn of(qemu: &Qemu, despite_qemu: bool) -> Limits {
        Limits { qemu: Some(qemu.clone()), despite_qemu }
    }

    /// The reason why a cell cannot run, if there is one. `config` is the configuration of its kernel.
    pub(crate) fn forbid(&self, topology: &Topology, trigger: Option<Trigger>, config: &Path) -> Option<String> {
        let lack = |whose: String, what: Vec<String>| {
            (!what.is_empty())
                .then(|| format!("{whose} has no {}, which the topology {} needs", what.join(", "), topology.name))
        };
        let of_qemu = |qemu: &Qemu| {
            let whose = format!("QEMU {}", qemu.version);
            let device = lack(whose.clone(), missing_devices(topology, qemu));
            let newer = || {
                let newer = newer_needed(topology, qemu.version)?;
                Some(format!(
                    "{}; QEMU {} and newer ones have it",
                    lack(whose, vec![newer.what.to_owned()])?,
                    newer.since
                ))
            };
            device.or_else(newer)
        };
        let of_kernel = || lack("the kernel".to_owned(), missing_symbols(topology, config));
        self.qemu.as_ref().and_then(of_qemu).or_else(of_kernel).or_else(|| self.fault(topology, trigger))
    }

    fn fault(&self, topology: &Topology, trigger: Option<Trigger>) -> Option<String> {
        let version = self.qemu.as_ref().filter(|_| !self.despite_qemu)?.version;
        let trigger = trigger?;
        let is = |fault: &&Fault| fault.is_in(version) && (fault.hinders)(trigger);
        let models = topology.models();
        let mut faults = models.iter().flat_map(|model| model.row().faults).chain(topology.iommu.row().faults);
        let fault = faults.find(is)?;
        Some(format!(
            "QEMU {version} cannot do this: {}; QEMU {} and newer ones can; --despite-qemu runs the cell anyway",
            fault.what, fault.mended
        ))
    }
}

/// The devices of a topology that a QEMU does not have.
fn missing_devices(topology: &Topology, qemu: &Qemu) -> Vec<String> {
    let of_models = topology.models().into_iter().flat_map(|model| {
        let row = model.row();
        std::iter::once(row.device).chain(row.companions().map(|(_, device)| device))
    });
    let devices = of_models.chain([topology.iommu.row().device]);
    devices.filter(|device| !qemu.offers(device)).map(str::to_owned).collect()
}

/// A property that a device of a topology lacks in a version of QEMU.
fn newer_needed(topology: &Topology, version: Version) -> Option<Newer> {
    topology.models().into_iter().filter_map(|model| model.row().newer).find(|newer| version < newer.since)
}

/// The drivers of a topology that a kernel's configuration does not have, by their symbols. A driver may be a module if
/// it is one of those that are loaded. If the configuration cannot be read, nothing counts as missing here; the guest
/// shows later what is missing.
fn missing_symbols(topology: &Topology, config: &Path) -> Vec<String> {
    let Ok(config) = fs::read_to_string(config) else { return Vec::new() };
    // One search for the whole line: a configuration has thousands of lines.
    let config = format!("\n{config}\n");
    let is = |symbol: &str, value: &str| config.contains(&format!("\nCONFIG_{symbol}={value}\n"));
    let is_loaded = |driver: &str| kernels::modules_of_cells().any(|loaded| loaded == driver.replace('-', "_"));
    let drivers = topology.models().into_iter().flat_map(|model| model.row().drivers());
    let is_there = |driver: &Driver| is(driver.symbol, "y") || is(driver.symbol, "m") && is_loaded(driver.name);
    let lacking = drivers.filter(|driver| !is_there(driver)).map(|driver| driver.symbol);
    let iommu = Some(topology.iommu.row().symbol).filter(|symbol| !is(symbol, "y"));
    let mut symbols: Vec<_> = lacking.chain(iommu).map(|symbol| format!("CONFIG_{symbol}")).collect();
    symbols.sort();
    symbols.dedup();
    symbols
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: Version = Version { major: 10, minor: 0 };
    const NEW: Version = Version { major: 11, minor: 1 };

    fn qemu(devices: &[String], version: Version) -> Qemu {
        let help = devices.iter().map(|device| format!("name \"{device}\", bus PCI\n")).collect();
        Qemu { binary: "qemu".into(), version, banner: String::new(), devices: help }
    }

    fn limits(devices: &[String], version: Version, despite_qemu: bool) -> Limits {
        Limits::of(&qemu(devices, version), despite_qemu)
    }

    fn forbidden(limits: &Limits, topology: &str, trigger: Option<Trigger>, config: &str) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), config).unwrap();
        let topology = Topology::named(topology).unwrap();
        limits.forbid(&topology, trigger, file.path()).unwrap_or_else(|| "nothing".to_owned())
    }

    /// The devices of a QEMU that can run everything: all that one without any lacks.
    fn devices() -> Vec<String> {
        let none = qemu(&[], OLD);
        Topology::all().iter().flat_map(|topology| missing_devices(topology, &none)).collect()
    }

    /// The configuration of a kernel that can run everything: all that an empty one lacks.
    fn config() -> String {
        let empty = tempfile::NamedTempFile::new().unwrap();
        let symbols = |topology: &Topology| missing_symbols(topology, empty.path());
        Topology::all().iter().flat_map(symbols).map(|symbol| format!("{symbol}=y\n")).collect()
    }

    fn all(version: Version) -> Limits {
        limits(&devices(), version, false)
    }

    fn without(name: &str) -> Vec<String> {
        devices().into_iter().filter(|device| device != name).collect()
    }

    #[test]
    fn if_nothing_is_missing_everything_runs() {
        for topology in Topology::all() {
            for trigger in Trigger::ALL.iter().copied().map(Some).chain([None]) {
                assert_eq!(forbidden(&all(NEW), &topology.name, trigger, &config()), "nothing");
            }
        }
    }

    #[test]
    fn an_unknown_qemu_or_configuration_forbids_nothing() {
        let yank = Some(Trigger::Yank);
        assert_eq!(forbidden(&Limits::default(), "nvme", yank, &config()), "nothing");
        let nvme = Topology::named("nvme").unwrap();
        assert_eq!(all(NEW).forbid(&nvme, yank, Path::new("/no/such/config")), None);
    }

    #[test]
    fn the_reason_names_what_is_missing() {
        let none = Some(Trigger::SysfsRemove);
        let said = [
            forbidden(&limits(&without("amd-iommu"), OLD, false), "igb+amd-iommu", none, &config()),
            forbidden(&all(OLD), "igb+amd-iommu", none, &config().replace("AMD_IOMMU=y", "AMD_IOMMU_V2=y")),
            forbidden(&all(OLD), "igb+amd-iommu", none, &config().replace("CONFIG_AMD_IOMMU", "# CONFIG_AMD_IOMMU")),
            forbidden(&limits(&without("nvme-subsys"), OLD, false), "nvme", none, &config()),
            forbidden(&all(OLD), "nvme", none, "CONFIG_INTEL_IOMMU=y\nCONFIG_BLK_DEV_NVME=m\n"),
            forbidden(&all(OLD), "two-functions", none, "CONFIG_IGBVF=n\n"),
        ];
        insta::assert_snapshot!(said.join("\n"), @r"
        QEMU 10.0 has no amd-iommu, which the topology igb+amd-iommu needs
        the kernel has no CONFIG_AMD_IOMMU, which the topology igb+amd-iommu needs
        the kernel has no CONFIG_AMD_IOMMU, which the topology igb+amd-iommu needs
        QEMU 10.0 has no nvme-subsys, which the topology nvme needs
        the kernel has no CONFIG_BLK_DEV_NVME, which the topology nvme needs
        the kernel has no CONFIG_IGB, CONFIG_IGBVF, CONFIG_INTEL_IOMMU, which the topology two-functions needs
        ");
    }

    #[test]
    fn a_driver_may_be_a_module_that_is_loaded() {
        let config = "CONFIG_INTEL_IOMMU=y\nCONFIG_IGB=m\nCONFIG_IGBVF=m\n";
        assert_eq!(forbidden(&all(OLD), "igb", Some(Trigger::Yank), config), "nothing");
    }

    #[test]
    fn a_fault_belongs_to_versions_and_triggers() {
        let yank = Some(Trigger::Yank);
        for trigger in [Trigger::DeviceDel, Trigger::DeviceDelAcpi, Trigger::Yank] {
            let said = forbidden(&all(OLD), "nvme", Some(trigger), &config());
            assert!(said.contains("QEMU 10.0 cannot do this") && said.contains("--despite-qemu"), "{said}");
        }
        assert_eq!(forbidden(&limits(&devices(), OLD, true), "nvme", yank, &config()), "nothing");
        for (major, minor, fails) in
            [(9, 2, false), (10, 0, true), (10, 2, true), (11, 0, true), (11, 1, false), (12, 0, false)]
        {
            let said = forbidden(&all(Version { major, minor }), "nvme", yank, &config());
            assert_eq!(said != "nothing", fails, "{major}.{minor}: {said}");
            assert!(!fails || said.contains("QEMU 11.1 and newer ones can"), "{said}");
        }
        let amd = |trigger| forbidden(&all(OLD), "igb+amd-iommu", Some(trigger), &config());
        assert!(amd(Trigger::DeviceDelAcpi).contains("reaches the guest"));
        assert_eq!(amd(Trigger::Yank), "nothing");
    }

    #[test]
    fn a_property_that_came_later_is_missing_before() {
        let said = |version| forbidden(&limits(&devices(), version, true), "virtio-net", None, &config());
        insta::assert_snapshot!(said(OLD), @"QEMU 10.0 has no property sriov-pf of virtio-net-pci, which the topology virtio-net needs; QEMU 10.1 and newer ones have it");
        assert_eq!(said(Version { major: 10, minor: 1 }), "nothing");
    }

    #[test]
    fn some_of_our_own_kernels_have_the_drivers_of_all_topologies() {
        let fragments = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kernels/config");
        let config = tempfile::NamedTempFile::new().unwrap();
        let text = ["machine", "pci", "bridge-hotplug", "disk"]
            .map(|name| fs::read_to_string(fragments.join(format!("{name}.config"))).unwrap());
        fs::write(config.path(), text.concat()).unwrap();
        for topology in Topology::all() {
            assert_eq!(missing_symbols(&topology, config.path()), [] as [String; 0], "{}", topology.name);
        }
    }
}
