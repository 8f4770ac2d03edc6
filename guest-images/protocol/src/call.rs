//! The calls of an owner that holds: what a driver in user space asks of vfio (`include/uapi/linux/vfio.h`).
//!
//! Each call is one system call, or one use of a descriptor that an earlier call has made. So its result can be compared
//! with the contract of that system call.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::text::counted;

/// A device for an owner to open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct VfioDevice {
    /// Its address, as `0000:01:00.0`.
    pub bdf: String,
    /// The VF token, a UUID, if the device needs one (`drivers/vfio/pci/vfio_pci_core.c`,
    /// `vfio_pci_validate_vf_token()`).
    #[serde(default)]
    pub vf_token: Option<String>,
}

/// A call of an owner. Its result is a [`Returned`], or the errno of the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum Call {
    /// Open a device with its group and a container, and arm its request eventfd. The errno is that of the first step
    /// that the kernel refuses; then nothing of the device stays open.
    Open(VfioDevice),
    /// Open the file of a device's IOMMU group, and close it again.
    OpenGroup {
        /// Address of the device.
        bdf: String,
    },
    /// Ask a device that the owner has open.
    On {
        /// Address of the device.
        bdf: String,
        /// What to ask.
        ask: Ask,
    },
    /// Read the eventfd of a vector that was armed, also after the device was closed. The value is how often it was
    /// signalled since the last such call.
    Signals {
        /// Address of the device.
        bdf: String,
        /// Index of the interrupt, as in [`Ask::Arm`].
        index: u32,
        /// The vector.
        vector: u32,
        /// How long to wait for a first signal, in milliseconds.
        within_ms: u16,
    },
    /// Read the beginning of a file that is not vfio's, with one `read(2)`. The bytes are what it has there.
    ReadFile {
        /// Absolute path.
        path: String,
        /// How many bytes at most.
        size: u32,
    },
    /// Read a folder with `getdents64(2)`, into memory that is there for the entries `.` and `..`, and not for those that
    /// follow, again and again while another thread of the owner forks. So the kernel has page faults while it writes
    /// them, and some of these wait for the fork. The value is the number of bytes.
    ReadFolder {
        /// Absolute path.
        path: String,
    },
}

/// What an owner asks of an open device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum Ask {
    /// `VFIO_DEVICE_GET_REGION_INFO`. The value is the size.
    Region {
        /// Index of the region (`VFIO_PCI_*_REGION_INDEX`).
        region: u32,
    },
    /// `pread(2)`. The value is the number of bytes, which follow.
    Read {
        /// Index of the region.
        region: u32,
        /// Offset in the region.
        at: u64,
        /// How many bytes.
        size: u32,
    },
    /// `pwrite(2)`. The value is the number of bytes that the kernel took.
    Write {
        /// Index of the region.
        region: u32,
        /// Offset in the region.
        at: u64,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// `mmap(2)` from the start of a region, for reads and writes.
    MapRegion {
        /// Index of the region.
        region: u32,
        /// How many bytes.
        size: u32,
    },
    /// Load four bytes from the mapping of a region. The errno is EFAULT if the load is answered with SIGBUS.
    Load {
        /// Index of the region.
        region: u32,
        /// Offset in the mapping.
        at: u32,
    },
    /// `VFIO_DEVICE_GET_IRQ_INFO`. The value is the number of vectors.
    Irqs {
        /// Index of the interrupt (`VFIO_PCI_*_IRQ_INDEX`).
        index: u32,
    },
    /// `VFIO_DEVICE_SET_IRQS`: connect the first vectors to an eventfd each.
    Arm {
        /// Index of the interrupt.
        index: u32,
        /// How many vectors.
        count: u32,
    },
    /// `VFIO_DEVICE_SET_IRQS` with no vectors. The eventfds stay open.
    Disarm {
        /// Index of the interrupt.
        index: u32,
    },
    /// `VFIO_DEVICE_RESET`.
    Reset,
    /// `VFIO_DEVICE_GET_PCI_HOT_RESET_INFO`. The value is the number of devices; the bytes are their structures.
    HotResetInfo,
    /// `VFIO_DEVICE_PCI_HOT_RESET` with the groups of these open devices.
    HotReset {
        /// Addresses of the devices.
        groups: Vec<String>,
    },
    /// `VFIO_IOMMU_MAP_DMA` of new memory in the device's container.
    MapDma {
        /// Address for the device.
        iova: u64,
        /// Size in bytes.
        size: u64,
    },
    /// `VFIO_IOMMU_UNMAP_DMA`. The value is the number of bytes that were unmapped.
    UnmapDma {
        /// Address for the device.
        iova: u64,
        /// Size in bytes.
        size: u64,
    },
    /// `VFIO_IOMMU_GET_INFO`. The value is how many mappings the container still takes
    /// (`VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL`).
    DmaAvail,
    /// `VFIO_GROUP_GET_DEVICE_FD` once more, with any name. The descriptor stays open until [`Ask::CloseAgain`].
    OpenAgain {
        /// What the kernel is to open.
        name: String,
    },
    /// Close the descriptors that [`Ask::OpenAgain`] has opened.
    CloseAgain,
    /// `VFIO_GROUP_UNSET_CONTAINER`.
    UnsetContainer,
    /// Close the device, and its group and container with their last device.
    Close,
}

/// What a call has returned.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Returned {
    /// Its value. 0 if the call has none.
    pub value: u64,
    /// The bytes that the kernel has given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bytes: Vec<u8>,
}

impl Call {
    /// The name of the system call or of vfio's ioctl.
    pub fn name(&self) -> &'static str {
        match self {
            Call::Open(_) => "VFIO_GROUP_GET_DEVICE_FD",
            Call::OpenGroup { .. } => "open",
            Call::Signals { .. } => "eventfd",
            Call::ReadFile { .. } => "read",
            Call::ReadFolder { .. } => "getdents64",
            Call::On { ask, .. } => ask.name(),
        }
    }
}

impl Ask {
    fn name(&self) -> &'static str {
        match self {
            Ask::Region { .. } => "VFIO_DEVICE_GET_REGION_INFO",
            Ask::Read { .. } => "pread",
            Ask::Write { .. } => "pwrite",
            Ask::MapRegion { .. } => "mmap",
            Ask::Load { .. } => "load",
            Ask::Irqs { .. } => "VFIO_DEVICE_GET_IRQ_INFO",
            Ask::Arm { .. } | Ask::Disarm { .. } => "VFIO_DEVICE_SET_IRQS",
            Ask::Reset => "VFIO_DEVICE_RESET",
            Ask::HotResetInfo => "VFIO_DEVICE_GET_PCI_HOT_RESET_INFO",
            Ask::HotReset { .. } => "VFIO_DEVICE_PCI_HOT_RESET",
            Ask::MapDma { .. } => "VFIO_IOMMU_MAP_DMA",
            Ask::UnmapDma { .. } => "VFIO_IOMMU_UNMAP_DMA",
            Ask::DmaAvail => "VFIO_IOMMU_GET_INFO",
            Ask::OpenAgain { .. } => "VFIO_GROUP_GET_DEVICE_FD",
            Ask::UnsetContainer => "VFIO_GROUP_UNSET_CONTAINER",
            Ask::CloseAgain | Ask::Close => "close",
        }
    }
}

/// The call as a verb and its object, as in "the owner could not `read 4 bytes at 0x0 of region 7 of 0000:01:00.0`".
impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Call::Open(VfioDevice { bdf, vf_token: None }) => write!(f, "open {bdf}"),
            Call::Open(VfioDevice { bdf, vf_token: Some(token) }) => write!(f, "open {bdf} with the token {token}"),
            Call::OpenGroup { bdf } => write!(f, "open the group of {bdf}"),
            Call::On { bdf, ask } => write!(f, "{ask} of {bdf}"),
            Call::Signals { bdf, index, vector, .. } => {
                write!(f, "read the eventfd of vector {vector} of interrupt {index} of {bdf}")
            }
            Call::ReadFile { path, .. } => write!(f, "read {path}"),
            Call::ReadFolder { path } => write!(f, "read the folder {path}"),
        }
    }
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = |size: u64| counted(size, "byte", "bytes");
        match self {
            Ask::Region { region } => write!(f, "get the size of region {region}"),
            Ask::Read { region, at, size } => {
                write!(f, "read {} at {at:#x} of region {region}", bytes(u64::from(*size)))
            }
            Ask::Write { region, at, bytes: data } => {
                write!(f, "write {} at {at:#x} of region {region}", bytes(data.len() as u64))
            }
            Ask::MapRegion { region, size } => write!(f, "map {} of region {region}", bytes(u64::from(*size))),
            Ask::Load { region, at } => write!(f, "load from {at:#x} of the mapped region {region}"),
            Ask::Irqs { index } => write!(f, "get the number of vectors of interrupt {index}"),
            Ask::Arm { index, count } => {
                write!(f, "arm {} of interrupt {index}", counted(u64::from(*count), "vector", "vectors"))
            }
            Ask::Disarm { index } => write!(f, "disarm interrupt {index}"),
            Ask::Reset => f.write_str("ask for a reset"),
            Ask::HotResetInfo => f.write_str("get the devices of a hot reset"),
            Ask::HotReset { groups } => {
                write!(f, "ask with {} for a hot reset", counted(groups.len() as u64, "group", "groups"))
            }
            Ask::MapDma { iova, size } => write!(f, "map {} for DMA at {iova:#x}", bytes(*size)),
            Ask::UnmapDma { iova, size } => write!(f, "unmap {} for DMA at {iova:#x}", bytes(*size)),
            Ask::DmaAvail => f.write_str("get the number of mappings that are left in the container"),
            Ask::OpenAgain { name } => write!(f, "open {name} in the group"),
            Ask::CloseAgain => f.write_str("close the further descriptors"),
            Ask::UnsetContainer => f.write_str("take the group out of the container"),
            Ask::Close => f.write_str("end the use"),
        }
    }
}
