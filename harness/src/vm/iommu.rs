//! IOMMUs: a table with a row for each.

use serde::{Deserialize, Serialize};

use super::fault::Fault;
use super::version::Version;
use crate::trigger::Trigger;

/// An emulated IOMMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Iommu {
    /// Intel's VT-d, with interrupt remapping (QEMU `hw/i386/intel_iommu.c`).
    Intel,
    /// AMD's, with interrupt remapping (QEMU `hw/i386/amd_iommu.c`).
    Amd,
    /// virtio-iommu, without interrupt remapping (QEMU `hw/virtio/virtio-iommu.c`; since 8.0 it needs no further
    /// options on q35).
    Virtio,
}

/// A row of the table.
#[derive(Debug)]
pub struct Row {
    /// QEMU's name of the device.
    pub device: &'static str,
    /// Its device properties.
    pub properties: &'static [(&'static str, &'static str)],
    /// The configuration symbol of its driver, without `CONFIG_`. The driver must be built in.
    pub symbol: &'static str,
    /// Words that it needs on the guest's kernel command line.
    pub words: &'static [&'static str],
    /// Bugs of QEMU versions with this device.
    pub faults: &'static [Fault],
}

const INTEL: Row =
    Row { device: "intel-iommu", properties: &[("intremap", "on")], symbol: "INTEL_IOMMU", words: &[], faults: &[] };

const AMD: Row = Row {
    device: "amd-iommu",
    properties: &[("intremap", "on")],
    symbol: "AMD_IOMMU",
    words: &[],
    faults: &[Fault {
        since: Version { major: 10, minor: 0 },
        mended: Version { major: 11, minor: 1 },
        hinders: |trigger| matches!(trigger, Trigger::DeviceDelAcpi),
        what: "with amd-iommu no ACPI eject request reaches the guest (nine tries on three kernels); the cause is unknown",
    }],
};

const VIRTIO: Row = Row {
    device: "virtio-iommu-pci",
    properties: &[("bus", "pcie.0"), ("addr", "0x4")],
    symbol: "VIRTIO_IOMMU",
    // vfio refuses devices without interrupt remapping (`drivers/vfio/vfio_iommu_type1.c`,
    // `vfio_iommu_type1_attach_group()`).
    words: &["vfio_iommu_type1.allow_unsafe_interrupts=1"],
    faults: &[],
};

impl Iommu {
    /// The row of this IOMMU.
    pub const fn row(self) -> &'static Row {
        match self {
            Iommu::Intel => &INTEL,
            Iommu::Amd => &AMD,
            Iommu::Virtio => &VIRTIO,
        }
    }
}
