//! Memory that a device may access: mappings of a container (`drivers/vfio/vfio_iommu_type1.c`).

use guest_protocol::Ask;
use harness::guest::{Guest, Halt, OpenDevice, UserDriver, judged, must};
use harness::scenario::Scenario;

use crate::check::bound;

/// The metadata that all scenarios of this family share.
const BASE: Scenario = Scenario {
    also: &["igb+amd-iommu", "igb+virtio-iommu"],
    ..Scenario::of(|guest| Box::pin(judged(mappings(guest))))
};

/// The scenarios of this family.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "vfio_dma::mappings",
        about: "A driver in user space maps memory for DMA. Mappings that overlap or are not aligned must be refused, an \
                unmap must take what it names and nothing else, and locked memory and the number of mappings that are \
                left must come back.",
        run: |guest| Box::pin(judged(mappings(guest))),
        ..BASE
    },
    Scenario {
        name: "vfio_dma::containers",
        about: "A device is put into a container, maps memory, and leaves it, again and again. The page tables of the \
                IOMMU and the locked memory must not become more.",
        run: |guest| Box::pin(judged(containers(guest))),
        ..BASE
    },
];

const PAGE: u64 = 4096;

/// Size of a mapping.
const SIZE: u64 = 4 * PAGE;

/// An address for DMA. It is far from the ranges that IOMMUs reserve for interrupts (`0xfee00000`, `0x8000000`).
const IOVA: u64 = 0x1_0000_0000;

async fn mappings(guest: &Guest) -> Result<(), Halt> {
    let pf = bound(guest).await?;
    let driver = guest.user_driver(&[&pf.device]).await?;
    let device = driver.device(pf);
    let map = |iova, size| Ask::MapDma { iova, size };
    let (avail, locked) = (device.does(Ask::DmaAvail).await?, locked(&driver).await?);
    // Three neighbours.
    for number in 0..3 {
        device.does(map(IOVA + number * SIZE, SIZE)).await?;
    }
    accounts(&driver, &device, avail - 3, locked + 3 * SIZE, "after three maps").await?;

    for (iova, size) in [(IOVA, SIZE), (IOVA + SIZE, PAGE), (IOVA + 2 * SIZE + PAGE, SIZE), (IOVA - PAGE, 2 * PAGE)] {
        device.refused(map(iova, size), "EEXIST").await?;
    }
    for (iova, size) in [(IOVA + 8 * SIZE + 1, SIZE), (IOVA + 8 * SIZE, SIZE + 1)] {
        device.refused(map(iova, size), "EINVAL").await?;
    }
    for (iova, size) in [(IOVA + 1, SIZE), (IOVA, SIZE + 1), (IOVA, 0), (IOVA, PAGE), (IOVA + PAGE, SIZE - PAGE)] {
        device.refused(Ask::UnmapDma { iova, size }, "EINVAL").await?;
    }
    accounts(&driver, &device, avail - 3, locked + 3 * SIZE, "after refused maps and unmaps").await?;

    unmaps(&device, IOVA + 8 * SIZE, SIZE, 0).await?;
    unmaps(&device, IOVA, SIZE, SIZE).await?;
    unmaps(&device, IOVA, SIZE, 0).await?;
    accounts(&driver, &device, avail - 2, locked + 2 * SIZE, "after an unmap of the first of three").await?;
    device.refused(map(IOVA + SIZE, SIZE), "EEXIST").await?;
    device.does(map(IOVA, SIZE)).await?;
    unmaps(&device, IOVA, 3 * SIZE, 3 * SIZE).await?;
    accounts(&driver, &device, avail, locked, "after an unmap of all").await?;
    device.does(map(IOVA, SIZE)).await?;
    device.does(Ask::Close).await?;
    let left = self::locked(&driver).await?;
    must(left == locked, "VmLck", || {
        format!("VmLck is {left} after a close of a container with a mapping, and was {locked} before")
    })?;
    driver.end().await
}

async fn unmaps(device: &OpenDevice<'_>, iova: u64, size: u64, must_be: u64) -> Result<(), Halt> {
    let unmapped = device.does(Ask::UnmapDma { iova, size }).await?;
    must(unmapped == must_be, "VFIO_IOMMU_UNMAP_DMA", || {
        format!("an unmap of {size:#x} bytes at {iova:#x} reported {unmapped:#x} bytes, and must report {must_be:#x}")
    })
}

/// The container's and the process's accounts must have these values.
async fn accounts(
    driver: &UserDriver<'_>,
    device: &OpenDevice<'_>,
    avail: u64,
    locked: u64,
    when: &str,
) -> Result<(), Halt> {
    let came = device.does(Ask::DmaAvail).await?;
    must(came == avail, "VFIO_IOMMU_GET_INFO", || {
        format!("{when}, the container still takes {came} mappings, and must take {avail}")
    })?;
    let came = self::locked(driver).await?;
    must(came == locked, "VmLck", || format!("{when}, VmLck is {came} bytes, and must be {locked}"))
}

/// Locked memory of the owner in bytes: `VmLck` of proc_pid_status(5).
async fn locked(driver: &UserDriver<'_>) -> Result<u64, Halt> {
    Ok(number_after(&driver.file("/proc/self/status".to_owned(), 4096).await?, "VmLck:").unwrap_or(0) * 1024)
}

/// The number after a word of a file of `/proc`.
fn number_after(text: &[u8], name: &str) -> Option<u64> {
    let text = String::from_utf8_lossy(text);
    let mut words = text.split_whitespace().skip_while(|word| *word != name);
    words.nth(1)?.parse().ok()
}

/// How often to use a container. Each one has two pages of tables at least.
const ROUNDS: u64 = 24;

/// Pages that other users of the IOMMU may take or give back meanwhile.
const OTHERS: u64 = ROUNDS / 2;

async fn containers(guest: &Guest) -> Result<(), Halt> {
    let pf = bound(guest).await?;
    let driver = guest.user_driver(&[]).await?;
    let device = driver.device(pf);
    let locked = locked(&driver).await?;
    let mut after_first = None;
    for round in 0..ROUNDS {
        device.opens().await?;
        device.does(Ask::MapDma { iova: IOVA, size: SIZE }).await?;
        device.does(Ask::Close).await?;
        if round == 0 {
            after_first = tables(&driver).await?;
        }
    }
    let left = self::locked(&driver).await?;
    must(left == locked, "VmLck", || {
        format!("VmLck is {left} after {ROUNDS} uses of a container, and was {locked} before")
    })?;
    if let (Some(before), Some(after)) = (after_first, tables(&driver).await?) {
        must(after < before + OTHERS, "nr_iommu_pages", || {
            format!(
                "after {ROUNDS} uses of a container there are {after} pages of the IOMMU's tables, and after the first \
                 use there were {before}"
            )
        })?;
    }
    driver.end().await
}

/// Pages that the tables of IOMMUs have. Kernels before 6.11 do not count them (`drivers/iommu/iommu-pages.h`).
async fn tables(driver: &UserDriver<'_>) -> Result<Option<u64>, Halt> {
    Ok(number_after(&driver.file("/proc/vmstat".to_owned(), 16 << 10).await?, "nr_iommu_pages"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_proc() {
        assert_eq!(number_after(b"VmPin:\t 1 kB\nVmLck:\t      48 kB\n", "VmLck:"), Some(48));
        assert_eq!(number_after(b"nr_iommu_pages 12\n", "nr_iommu_pages"), Some(12));
        assert_eq!(number_after(b"", "VmLck:"), None);
    }
}
