//! The kernel's own selftests of vfio (`tools/testing/selftests/vfio`), run in the guest as they are.
//!
//! They are programs that take the address of a device that is bound to vfio-pci. Most of their test cases exist once
//! for each way to manage the device's IOMMU: with a container of vfio (`vfio_type1_iommu`, `vfio_type1v2_iommu`), with
//! iommufd in its place (`iommufd_compat_*`), and with iommufd and the device's character device (`iommufd`).

use harness::guest::{Device, Error, Guest};
use harness::scenario::{Needs, Scenario};
use harness::verdict::Verdict;

use crate::check::bound;

/// The metadata that all scenarios of this family share.
const BASE: Scenario = Scenario {
    also: &["nvme"],
    needs: Needs { selftests: true, ..Needs::NOTHING },
    ..Scenario::of(|guest| Box::pin(on_pf(guest, &[])))
};

/// The scenarios of this family.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "vfio_selftests::dma_mapping",
        about: "The PF's selftest that maps memory for DMA, finds it at its address, and unmaps it.",
        run: |guest| Box::pin(on_pf(guest, &[DMA_MAPPING])),
        ..BASE
    },
    Scenario {
        name: "vfio_selftests::dma_map_limit",
        about: "The PF's selftest that maps and unmaps the last page of the addresses for DMA, and beyond it.",
        detects: &["vfio-dma-map-overflow-errno"],
        run: |guest| Box::pin(on_pf(guest, &[DMA_MAP_LIMIT])),
        ..BASE
    },
    Scenario {
        name: "vfio_selftests::dma_mapping_mmio",
        about: "The PF's selftest that maps a BAR for DMA, which vfio's containers allow and iommufd does not.",
        run: |guest| Box::pin(on_pf(guest, &[DMA_MAPPING_MMIO])),
        ..BASE
    },
    Scenario {
        name: "vfio_selftests::iommufd_setup",
        about: "The PF's selftest that binds its character device to iommufd, and attaches it to page tables.",
        run: |guest| Box::pin(on_pf(guest, &[IOMMUFD_SETUP])),
        ..BASE
    },
    Scenario {
        name: "vfio_selftests::pci_device",
        about: "The PF's selftest of configuration space, BARs, MSI, MSI-X and reset.",
        run: |guest| Box::pin(on_pf(guest, &[PCI_DEVICE])),
        ..BASE
    },
    Scenario {
        name: "vfio_selftests::pci_driver",
        about: "The PF's selftest that lets the card itself copy memory and send interrupts.",
        // It maps a gigabyte for each test case, and the kernel pins all of it.
        needs: Needs { memory_mib: Some(2048), selftests: true, to_be_named: true, ..Needs::NOTHING },
        also: &[],
        run: |guest| Box::pin(on_pf(guest, &[PCI_DRIVER])),
        ..BASE
    },
    Scenario {
        name: "vfio_selftests::sriov_uapi",
        about: "The PF's selftest of the token that a VF's user needs if the PF has a user too.",
        detects: &["vfio-no-vf-token-with-iommufd"],
        run: |guest| Box::pin(on_pf(guest, &[SRIOV_UAPI])),
        ..BASE
    },
    Scenario {
        name: "vfio_selftests::on_a_vf",
        about: "All selftests that a VF can take, on a VF.",
        detects: &["vfio-dma-map-overflow-errno"],
        also: &[],
        run: |guest| Box::pin(on_a_vf(guest)),
        ..BASE
    },
    Scenario {
        name: "vfio_selftests::device_init",
        about: "The selftest that opens several devices at the same time, on the PF's VFs.",
        detects: &["vfio-opens-refuse-each-other"],
        also: &[],
        run: |guest| Box::pin(device_init(guest)),
        ..BASE
    },
];

/// A test program.
#[derive(Clone, Copy)]
struct Test {
    program: &'static str,
    /// The fixture of its test cases. None for all of them.
    fixture: Option<&'static str>,
    /// The variants of its test cases that need neither iommufd nor the device's character device.
    without_iommufd: &'static [&'static str],
}

const fn all_of(program: &'static str, without_iommufd: &'static [&'static str]) -> Test {
    Test { program, fixture: None, without_iommufd }
}

const CONTAINERS: &[&str] = &["vfio_type1_iommu", "vfio_type1v2_iommu"];

const DMA_MAPPING: Test = Test {
    program: "vfio_dma_mapping_test",
    fixture: Some("vfio_dma_mapping_test"),
    without_iommufd: &["vfio_type1_iommu_anonymous", "vfio_type1v2_iommu_anonymous"],
};
const DMA_MAP_LIMIT: Test =
    Test { program: "vfio_dma_mapping_test", fixture: Some("vfio_dma_map_limit_test"), without_iommufd: CONTAINERS };
const DMA_MAPPING_MMIO: Test = all_of("vfio_dma_mapping_mmio_test", CONTAINERS);
const IOMMUFD_SETUP: Test = all_of("vfio_iommufd_setup_test", &[]);
const PCI_DEVICE: Test = all_of("vfio_pci_device_test", &[]);
const PCI_DRIVER: Test = all_of("vfio_pci_driver_test", &[]);
const SRIOV_UAPI: Test = all_of(
    "vfio_pci_sriov_uapi_test",
    &[
        "vfio_type1_iommu_same_uuid",
        "vfio_type1_iommu_diff_uuid",
        "vfio_type1_iommu_null_uuid",
        "vfio_type1v2_iommu_same_uuid",
        "vfio_type1v2_iommu_diff_uuid",
        "vfio_type1v2_iommu_null_uuid",
    ],
);
const DEVICE_INIT: Test = all_of("vfio_pci_device_init_perf_test", CONTAINERS);

/// How long a program may take, in seconds on a machine with KVM. It ends each of its test cases itself after 30 s
/// (`kselftest_harness.h`, `TEST_TIMEOUT_DEFAULT`).
const PATIENCE: f64 = 120.0;

/// Runs tests on the PF.
async fn on_pf(guest: &Guest, tests: &[Test]) -> Result<Verdict, Error> {
    let pf = bound(guest).await?;
    run(guest, tests, &[pf.as_ref()]).await
}

/// Runs tests on devices that are bound to vfio-pci. If several fail, the verdict names the failures of all. On a kernel
/// without iommufd, only test cases run that do not need it.
async fn run(guest: &Guest, tests: &[Test], devices: &[&Device]) -> Result<Verdict, Error> {
    let addresses: Vec<_> = devices.iter().map(|device| device.bdf.to_string()).collect();
    let has_iommufd = guest.has_vfio_devices().await?;
    let mut verdict = None;
    for test in tests {
        if !has_iommufd && test.without_iommufd.is_empty() {
            continue;
        }
        let fixture = test.fixture.iter().flat_map(|fixture| ["-f", *fixture]);
        let variants = test.without_iommufd.iter().flat_map(|variant| ["-v", *variant]);
        // The first filter that matches decides, and a fixture includes all its variants.
        let filters: Vec<_> = if has_iommufd { fixture.collect() } else { variants.collect() };
        let args: Vec<_> = filters.into_iter().chain(addresses.iter().map(String::as_str)).collect();
        let of_test = guest.selftest(test.program, &args, guest.seconds(PATIENCE)).await?;
        verdict = Some(both(verdict, of_test));
    }
    verdict.ok_or_else(|| Error::Lacks("/dev/iommu or no /dev/vfio/devices".to_owned()))
}

/// The verdict of two tests: that of the worse one, or both failures.
fn both(before: Option<Verdict>, now: Verdict) -> Verdict {
    match (before, now) {
        (None | Some(Verdict::Pass), now) => now,
        (Some(Verdict::Fail(before)), Verdict::Fail(now)) if before.kind == now.kind => {
            let places = [before.function, now.function].into_iter().flatten().collect::<Vec<_>>();
            Verdict::fail(now.kind, &places.join(", "), format!("{}; {}", before.summary, now.summary))
        }
        (Some(before), _) => before,
    }
}

async fn on_a_vf(guest: &Guest) -> Result<Verdict, Error> {
    let vfs = guest.enable_vfs_for_vfio(guest.pf()?, 1).await?;
    let tests = [DMA_MAPPING, DMA_MAP_LIMIT, DMA_MAPPING_MMIO, IOMMUFD_SETUP, PCI_DEVICE];
    let verdict = run(guest, &tests, &[&vfs[0]]).await?;
    guest.set(guest.pf()?.numvfs(), 0).await?;
    Ok(verdict)
}

async fn device_init(guest: &Guest) -> Result<Verdict, Error> {
    let vfs = guest.enable_vfs_for_vfio(guest.pf()?, 4).await?;
    let verdict = run(guest, &[DEVICE_INIT], &vfs.iter().collect::<Vec<_>>()).await?;
    guest.set(guest.pf()?.numvfs(), 0).await?;
    Ok(verdict)
}
