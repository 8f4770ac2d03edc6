//! Which files of a kernel the scenarios have anything to do with.

use super::SeriesError;

/// Beginnings of paths: what the emulated hardware, its drivers and the users of sysfs run through.
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

/// Exceptions: what lies in those folders and is neither built nor used.
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
    let about = "PCI and its hotplug, SR-IOV, vfio, IOMMUs, igb, the driver core, sysfs and what these stand on";
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
    fn one_file_that_is_exercised_is_enough() {
        assert!(check(["Documentation/PCI/a.rst", "drivers/pci/iov.c"].into_iter()).is_ok());
        let far = ["drivers/gpu/a.c", "drivers/pci/controller/b.c", "net/ipv4/c.c", "sound/d.c"];
        insta::assert_snapshot!(check(far.into_iter()).unwrap_err(), @"nothing that the scenarios exercise is touched by this series: it changes drivers/gpu/a.c, drivers/pci/controller/b.c and 2 more files. They are about PCI and its hotplug, SR-IOV, vfio, IOMMUs, igb, the driver core, sysfs and what these stand on. --force runs them all the same");
        assert!(check(far[..1].iter().copied()).unwrap_err().to_string().contains("it changes drivers/gpu/a.c."));
    }
}
