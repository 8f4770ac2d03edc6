//! The ioctls of `include/uapi/linux/vfio.h`. Their numbers contain neither size nor direction.
//!
//! A structure with an array at its end is an array of words here: all its fields are `__u32`.

use std::ffi::c_char;
use std::os::fd::RawFd;

use nix::{ioctl_none_bad, ioctl_readwrite_bad, ioctl_write_int_bad, ioctl_write_ptr_bad, request_code_none};
use vfio_bindings::bindings::vfio::{
    VFIO_BASE, VFIO_TYPE, vfio_group_status, vfio_iommu_type1_dma_map, vfio_iommu_type1_dma_unmap, vfio_irq_info,
    vfio_region_info,
};

ioctl_none_bad!(api_version, request_code_none!(VFIO_TYPE, VFIO_BASE));
ioctl_write_int_bad!(set_iommu, request_code_none!(VFIO_TYPE, VFIO_BASE + 2));
ioctl_readwrite_bad!(group_status, request_code_none!(VFIO_TYPE, VFIO_BASE + 3), vfio_group_status);
ioctl_write_ptr_bad!(set_container, request_code_none!(VFIO_TYPE, VFIO_BASE + 4), RawFd);
ioctl_none_bad!(unset_container, request_code_none!(VFIO_TYPE, VFIO_BASE + 5));
ioctl_write_ptr_bad!(device_fd, request_code_none!(VFIO_TYPE, VFIO_BASE + 6), c_char);
ioctl_readwrite_bad!(region_info, request_code_none!(VFIO_TYPE, VFIO_BASE + 8), vfio_region_info);
ioctl_readwrite_bad!(irq_info, request_code_none!(VFIO_TYPE, VFIO_BASE + 9), vfio_irq_info);
// `vfio_irq_set`, with descriptors after it.
ioctl_write_ptr_bad!(set_irqs, request_code_none!(VFIO_TYPE, VFIO_BASE + 10), u32);
ioctl_none_bad!(reset, request_code_none!(VFIO_TYPE, VFIO_BASE + 11));
// `vfio_pci_hot_reset_info`, with `vfio_pci_dependent_device`s after it.
ioctl_readwrite_bad!(hot_reset_info, request_code_none!(VFIO_TYPE, VFIO_BASE + 12), u32);
// `vfio_iommu_type1_info`, with capabilities after it.
ioctl_readwrite_bad!(iommu_info, request_code_none!(VFIO_TYPE, VFIO_BASE + 12), u32);
// `vfio_pci_hot_reset`, with descriptors after it.
ioctl_write_ptr_bad!(hot_reset, request_code_none!(VFIO_TYPE, VFIO_BASE + 13), u32);
ioctl_readwrite_bad!(map_dma, request_code_none!(VFIO_TYPE, VFIO_BASE + 13), vfio_iommu_type1_dma_map);
ioctl_readwrite_bad!(unmap_dma, request_code_none!(VFIO_TYPE, VFIO_BASE + 14), vfio_iommu_type1_dma_unmap);
