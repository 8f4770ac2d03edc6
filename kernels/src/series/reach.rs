//! Which files of a kernel the scenarios exercise.

use super::SeriesError;

/// Path prefixes of the code that runs in scenarios: drivers of the emulated hardware, PCI, vfio, sysfs and what they
/// use.
const WITHIN: &[&str] = &[
    "arch/x86/kernel/apic/",
    "arch/x86/pci/",
    "block/",
    "drivers/acpi/",
    "drivers/base/",
    "drivers/iommu/",
    "drivers/net/ethernet/intel/igb/",
    "drivers/net/ethernet/intel/igbvf/",
    "drivers/nvme/host/",
    "drivers/pci/",
    "drivers/vfio/",
    "drivers/virtio/",
    "fs/debugfs/",
    "fs/kernfs/",
    "fs/proc/",
    "fs/sysfs/",
    "include/linux/",
    "include/uapi/linux/pci",
    "include/uapi/linux/vfio",
    "kernel/",
    "lib/kobject",
    "mm/",
    "net/core/",
    "net/netlink/",
];

/// Exceptions: path prefixes of code that is not built or never runs in a guest.
const BEYOND: &[&str] = &[
    "drivers/pci/controller/",
    "drivers/pci/endpoint/",
    "drivers/pci/switch/",
    "drivers/iommu/arm/",
    "kernel/bpf/",
    "kernel/trace/",
];

pub(super) fn check<'a>(paths: impl Iterator<Item = &'a str>) -> Result<(), SeriesError> {
    let mut files: Vec<&str> = paths.collect();
    if files.iter().any(|path| is_within(path)) {
        return Ok(());
    }
    files.sort_unstable();
    files.dedup();
    let shown = match files.len() {
        0..=3 => files.join(", "),
        more => format!("{} and {} more files", files[..2].join(", "), more - 2),
    };
    let about = "PCI and its hotplug, SR-IOV, vfio, IOMMUs, igb, the driver core, sysfs and the code that these use";
    Err(SeriesError::Elsewhere { files: shown, about: about.to_owned() })
}

fn is_within(path: &str) -> bool {
    let begins = |with: &&str| path.starts_with(*with);
    WITHIN.iter().any(begins) && !BEYOND.iter().any(begins)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_refused_only_if_scenarios_exercise_none_of_its_files() {
        assert!(check(["Documentation/PCI/a.rst", "drivers/pci/iov.c"].into_iter()).is_ok());
        let far = ["drivers/gpu/a.c", "drivers/pci/controller/b.c", "net/ipv4/c.c", "sound/d.c"];
        insta::assert_snapshot!(check(far.into_iter()).unwrap_err(), @"this series touches nothing that the scenarios exercise: it changes drivers/gpu/a.c, drivers/pci/controller/b.c and 2 more files. The scenarios exercise PCI and its hotplug, SR-IOV, vfio, IOMMUs, igb, the driver core, sysfs and the code that these use. --force runs them anyway");
        assert!(check(far[..1].iter().copied()).unwrap_err().to_string().contains("it changes drivers/gpu/a.c."));
    }
}
