//! IOMMUs: a table with a row for each.

use serde::{Deserialize, Serialize};

use super::fault::Fault;
use super::version::Version;
use crate::trigger::Trigger;

/// Emulated IOMMUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Iommu {
    /// Intel's VT-d, with interrupt remapping (QEMU `hw/i386/intel_iommu.c`).
    Intel,
    /// AMD's, with interrupt remapping (QEMU `hw/i386/amd_iommu.c`).
    Amd,
    /// virtio-iommu. It remaps no interrupts (QEMU `hw/virtio/virtio-iommu.c`, since 8.0 on q35 without options of its
    /// own).
    Virtio,
}

/// A row of the table.
#[derive(Debug)]
pub struct Row {
    /// QEMU's name of the device.
    pub device: &'static str,
    /// What QEMU is told of it.
    pub properties: &'static [(&'static str, &'static str)],
    /// The symbol of the kernel's configuration that its driver is built by, without `CONFIG_`. It must be built in.
    pub symbol: &'static str,
    /// What a guest's kernel is told because of it.
    pub words: &'static [&'static str],
    /// What versions of QEMU do wrong with it.
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
        versions: &[Version { major: 10, minor: 0 }],
        hinders: |trigger| matches!(trigger, Trigger::DeviceDelAcpi),
        what: "with amd-iommu no ACPI request to eject reaches the guest (nine tries on three kernels); why is not known",
    }],
};

const VIRTIO: Row = Row {
    device: "virtio-iommu-pci",
    properties: &[("bus", "pcie.0"), ("addr", "0x4")],
    symbol: "VIRTIO_IOMMU",
    // vfio refuses devices whose interrupts nobody remaps (`drivers/vfio/vfio_iommu_type1.c`,
    // `vfio_iommu_type1_attach_group()`).
    words: &["vfio_iommu_type1.allow_unsafe_interrupts=1"],
    faults: &[],
};

impl Iommu {
    /// All that depends on it.
    pub const fn row(self) -> &'static Row {
        match self {
            Iommu::Intel => &INTEL,
            Iommu::Amd => &AMD,
            Iommu::Virtio => &VIRTIO,
        }
    }
}
