//! Interrupts of a device, which signal eventfds.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::eventfd::EventFd;
use vfio_bindings::bindings::vfio::{
    VFIO_IRQ_SET_ACTION_TRIGGER, VFIO_IRQ_SET_DATA_EVENTFD, VFIO_IRQ_SET_DATA_NONE, vfio_irq_info,
};

use super::ioctl;

/// Connects the first vectors of an index to an eventfd each.
pub fn arm(device: &OwnedFd, index: u32, eventfds: &[EventFd]) -> Result<(), Errno> {
    set(device, VFIO_IRQ_SET_DATA_EVENTFD, index, eventfds)
}

/// Disconnects all vectors of an index.
pub fn disarm(device: &OwnedFd, index: u32) -> Result<(), Errno> {
    set(device, VFIO_IRQ_SET_DATA_NONE, index, &[])
}

/// Number of vectors of an index.
pub fn count(device: &OwnedFd, index: u32) -> Result<u32, Errno> {
    let mut info = vfio_irq_info { argsz: size_of::<vfio_irq_info>() as u32, index, ..vfio_irq_info::default() };
    // SAFETY: VFIO_DEVICE_GET_IRQ_INFO writes at most `argsz` bytes to the structure, which lives longer than the call.
    unsafe { ioctl::irq_info(device.as_raw_fd(), &mut info) }?;
    Ok(info.count)
}

/// `VFIO_DEVICE_SET_IRQS`, for vectors from 0.
fn set(device: &OwnedFd, data: u32, index: u32, eventfds: &[EventFd]) -> Result<(), Errno> {
    let fds = eventfds.iter().map(|eventfd| eventfd.as_fd().as_raw_fd() as u32);
    // The fields of `vfio_irq_set`: argsz, flags, index, start, count.
    let mut words = vec![0, data | VFIO_IRQ_SET_ACTION_TRIGGER, index, 0, eventfds.len() as u32];
    words.extend(fds);
    words[0] = size_of_val(words.as_slice()) as u32;
    // SAFETY: VFIO_DEVICE_SET_IRQS reads `argsz` bytes: the header and the descriptors after it.
    unsafe { ioctl::set_irqs(device.as_raw_fd(), words.as_ptr()) }.map(drop)
}

#[cfg(test)]
mod tests {
    use vfio_bindings::bindings::vfio::vfio_irq_set;

    /// The kernel expects the descriptors directly after the header (`vfio_set_irqs_validate_and_prepare()`).
    #[test]
    fn the_header_has_five_words() {
        assert_eq!(size_of::<vfio_irq_set>(), 5 * size_of::<u32>());
    }
}
