//! Opens PCI devices through vfio, as an application does (`Documentation/driver-api/vfio.rst`).
//!
//! Constants and structures are from rust-vmm's `vfio-bindings`. Its `vfio-ioctls` crate is not used: when its device
//! is dropped, it reads the device's sysfs folder again and panics if the folder is gone. That happens here, because
//! owners release devices that are being removed.

mod call;
mod ioctl;
mod irqs;
mod memory;

use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;
use vfio_bindings::bindings::vfio::{
    VFIO_API_VERSION, VFIO_GROUP_FLAGS_VIABLE, VFIO_PCI_REQ_IRQ_INDEX, VFIO_TYPE1v2_IOMMU, vfio_group_status,
};

pub use call::Caller;

use self::memory::Mapping;
use crate::error::{AgentError, doing};

/// The open devices, in the order of opening. Devices of one IOMMU group share the group's descriptor and container.
#[derive(Default)]
pub struct Devices(Vec<Device>);

/// An open device with its request eventfd.
///
/// Rust drops the fields in this order, which is the order in which an application closes them: device, group,
/// container.
pub struct Device {
    bdf: String,
    device: OwnedFd,
    requests: EventFd,
    /// Further descriptors from the group.
    again: Vec<OwnedFd>,
    /// The mapping of a region, with the region's index.
    mapped: Option<(u32, Mapping)>,
    group: Rc<Group>,
}

/// An IOMMU group in a container of its own.
struct Group {
    file: File,
    container: File,
    number: u32,
}

impl Devices {
    /// Opens a device and arms its request eventfd.
    pub fn open(&mut self, bdf: &str, vf_token: Option<&str>) -> Result<(), AgentError> {
        let number = group_number(bdf)?;
        let shared = self.0.iter().find(|device| device.group.number == number).map(|device| device.group.clone());
        let group = shared.map_or_else(|| Group::open(number).map(Rc::new), Ok)?;
        // `drivers/vfio/pci/vfio_pci_core.c`, `vfio_pci_core_match()`.
        let name = vf_token.map_or_else(|| bdf.to_owned(), |token| format!("{bdf} vf_token={token}"));
        let device = device_fd(&group.file, &name)?;
        let requests = doing("make an eventfd", EventFd::new)?;
        doing("arm the request eventfd", || {
            irqs::arm(&device, VFIO_PCI_REQ_IRQ_INDEX, std::slice::from_ref(&requests))
        })?;
        self.0.push(Device { bdf: bdf.to_owned(), device, requests, again: Vec::new(), mapped: None, group });
        Ok(())
    }

    /// An open device by address.
    pub fn find(&mut self, bdf: &str) -> Result<&mut Device, AgentError> {
        let position = self.position(bdf)?;
        Ok(&mut self.0[position])
    }

    fn position(&self, bdf: &str) -> Result<usize, AgentError> {
        let position = self.0.iter().position(|device| device.bdf == bdf);
        position.ok_or_else(|| AgentError::Refused(format!("{bdf} is not open")))
    }

    /// Closes one device.
    pub fn close(&mut self, bdf: &str) -> Result<(), AgentError> {
        drop(self.0.remove(self.position(bdf)?));
        Ok(())
    }

    /// Closes all devices, in the order of opening.
    pub fn close_all(&mut self) {
        self.0.drain(..).for_each(drop);
    }

    /// The open devices.
    pub fn iter(&self) -> impl Iterator<Item = &Device> {
        self.0.iter()
    }

    /// Whether no device is open.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Device {
    /// Lets programs that this process starts have the device open, too.
    pub fn inherit(&self) -> Result<(), AgentError> {
        doing("let programs inherit a device", || fcntl(&self.device, FcntlArg::F_SETFD(FdFlag::empty())).map(drop))
    }

    /// Number of its IOMMU group.
    pub fn group(&self) -> u32 {
        self.group.number
    }
}

/// Waits without a time limit until the kernel asks for one of these devices, and returns its address.
pub fn wait_for_request(devices: &Devices) -> Result<String, AgentError> {
    let mut fds: Vec<_> =
        devices.iter().map(|device| PollFd::new(device.requests.as_fd(), PollFlags::POLLIN)).collect();
    loop {
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) => break,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(AgentError::io("wait for the request eventfds", errno)),
        }
    }
    let asked = devices.iter().zip(&fds).find(|(_, fd)| fd.any().unwrap_or(false)).map(|(device, _)| device);
    let asked =
        asked.ok_or_else(|| AgentError::Refused("the owner waits for a request but has no device open".to_owned()))?;
    doing("read the request eventfd", || asked.requests.read())?;
    Ok(asked.bdf.clone())
}

impl Group {
    fn open(number: u32) -> Result<Group, AgentError> {
        let container = open("/dev/vfio/vfio")?;
        let file = open(&format!("/dev/vfio/{number}"))?;
        check_version(&container)?;
        check_viable(&file, number)?;
        let fd = container.as_raw_fd();
        // SAFETY: VFIO_GROUP_SET_CONTAINER reads an int, which lives longer than the call.
        check("put the group into the container", || unsafe { ioctl::set_container(file.as_raw_fd(), &fd) })?;
        // SAFETY: VFIO_SET_IOMMU takes its argument by value.
        let set_iommu = || unsafe { ioctl::set_iommu(container.as_raw_fd(), VFIO_TYPE1v2_IOMMU as i32) };
        check("set the container's IOMMU to type 1 v2", set_iommu)?;
        Ok(Group { file, container, number })
    }
}

fn group_number(bdf: &str) -> Result<u32, AgentError> {
    let link = format!("/sys/bus/pci/devices/{bdf}/iommu_group");
    let target =
        doing(&format!("find the IOMMU group of {bdf} (is there a vIOMMU?): read {link}"), || fs::read_link(&link))?;
    let number = target.file_name().and_then(|name| name.to_str()?.parse().ok());
    number.ok_or_else(|| {
        AgentError::Refused(format!("{link} points to {}, whose name is not the number of a group", target.display()))
    })
}

fn open(path: &str) -> Result<File, AgentError> {
    doing(&format!("open {path}"), || File::options().read(true).write(true).open(Path::new(path)))
}

fn check_version(container: &File) -> Result<(), AgentError> {
    // SAFETY: VFIO_GET_API_VERSION takes no argument.
    let version = check("ask for vfio's version", || unsafe { ioctl::api_version(container.as_raw_fd()) })?;
    if version == VFIO_API_VERSION as i32 {
        return Ok(());
    }
    Err(AgentError::Refused(format!("this kernel's vfio has version {version}; the agent speaks {VFIO_API_VERSION}")))
}

fn check_viable(group: &File, number: u32) -> Result<(), AgentError> {
    let mut status = vfio_group_status { argsz: size_of::<vfio_group_status>() as u32, flags: 0 };
    // SAFETY: VFIO_GROUP_GET_STATUS writes at most `argsz` bytes to the structure, which lives longer than the call.
    check("ask for the group's status", || unsafe { ioctl::group_status(group.as_raw_fd(), &mut status) })?;
    if status.flags & VFIO_GROUP_FLAGS_VIABLE != 0 {
        return Ok(());
    }
    Err(AgentError::Refused(format!("IOMMU group {number} is not viable: bind all its devices to vfio-pci first")))
}

fn device_fd(group: &File, name: &str) -> Result<OwnedFd, AgentError> {
    let action = format!("open {name} in its group (is it bound to vfio-pci?)");
    let name = CString::new(name).map_err(|_| AgentError::Refused(format!("{name:?} is not the name of a device")))?;
    // SAFETY: VFIO_GROUP_GET_DEVICE_FD reads a string that ends with NUL and lives longer than the call.
    let open = || unsafe { ioctl::device_fd(group.as_raw_fd(), name.as_ptr()) };
    let fd = check(&action, open)?;
    // SAFETY: the descriptor is new, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn check(action: &str, call: impl FnOnce() -> Result<i32, Errno>) -> Result<i32, AgentError> {
    doing(action, call)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_device_is_named() {
        let failure = Devices::default().open("ffff:ff:1f.7", None).err().unwrap().failure();
        assert_eq!(failure.errno.unwrap().name, "ENOENT");
        assert!(failure.message.contains("find the IOMMU group of ffff:ff:1f.7"), "{}", failure.message);
        let failure = Devices::default().find("ffff:ff:1f.7").err().unwrap().failure();
        assert_eq!(failure.message, "ffff:ff:1f.7 is not open");
    }
}
