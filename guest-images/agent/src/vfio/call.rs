//! The calls of an owner that holds ([`Call`]).

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;

use guest_protocol::{Ask, Call, Returned};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use vfio_bindings::bindings::vfio::vfio_region_info;

use super::memory::{self, Mapping};
use super::{Device, Devices, device_fd, group_number, ioctl, irqs, open};
use crate::error::{self, AgentError};

/// Makes calls, and keeps what outlives the device that it was made for: eventfds, and memory for DMA.
#[derive(Default)]
pub struct Caller {
    eventfds: HashMap<(String, u32), Vec<EventFd>>,
    memory: Vec<Mapping>,
}

/// What the kernel answers to a call.
type Answer<T> = Result<T, Errno>;

impl Caller {
    /// Makes a call. The error is the kernel's answer.
    ///
    /// # Errors
    /// [`AgentError`] if the call could not be made.
    pub fn make(
        &mut self,
        call: &Call,
        devices: &mut Devices,
    ) -> Result<Result<Returned, guest_protocol::Errno>, AgentError> {
        let result = match call {
            Call::Open(device) => devices.open(&device.bdf, device.vf_token.as_deref()).map(|()| Returned::default()),
            Call::OpenGroup { bdf } => {
                group_number(bdf).and_then(|number| open(&format!("/dev/vfio/{number}"))).map(|_| Returned::default())
            }
            Call::On { bdf, ask: Ask::Close } => devices.close(bdf).map(|()| Returned::default()),
            Call::On { bdf, ask: Ask::OpenAgain { name } } => devices.find(bdf)?.open_again(name),
            Call::On { bdf, ask: Ask::HotReset { groups } } => {
                let groups = groups.iter().map(|bdf| Ok(devices.find(bdf)?.group.file.as_raw_fd() as u32));
                let groups = groups.collect::<Result<Vec<_>, AgentError>>()?;
                made(call, devices.find(bdf)?.hot_reset(&groups))
            }
            Call::On { bdf, ask } => made(call, self.ask(devices.find(bdf)?, ask)),
            Call::Signals { bdf, index, vector, within_ms } => {
                let armed = self.eventfds.get(&(bdf.clone(), *index)).and_then(|armed| armed.get(*vector as usize));
                let armed = armed.ok_or_else(|| AgentError::Refused(format!("cannot {call}: it was not armed")))?;
                made(call, signals(armed, *within_ms))
            }
            Call::ReadFile { path, size } => made(call, read_file(path, *size)),
            Call::ReadFolder { path } => {
                made(call, File::open(path).map_err(of_io).and_then(|folder| memory::read_folder(&folder)).map(value))
            }
        };
        match result {
            Ok(returned) => Ok(Ok(returned)),
            Err(AgentError::Io { source, .. }) if source.raw_os_error().is_some() => {
                Ok(Err(error::errno(source.raw_os_error().unwrap_or_default())))
            }
            Err(error) => Err(error),
        }
    }

    fn ask(&mut self, device: &mut Device, ask: &Ask) -> Answer<Returned> {
        let container = &device.group.container;
        match ask {
            Ask::Region { region } => device.region(*region).map(|info| value(info.size)),
            Ask::Read { region, at, size } => device.read(*region, *at, *size),
            Ask::Write { region, at, bytes } => device.write(*region, *at, bytes),
            Ask::MapRegion { region, size } => device.map(*region, *size),
            Ask::Load { region, at } => {
                let mapped = device.mapped.as_ref().filter(|(mapped, _)| mapped == region).ok_or(Errno::EBADF)?;
                mapped.1.load(*at as usize).map(|bytes| Returned { value: 4, bytes: bytes.to_vec() })
            }
            Ask::Irqs { index } => irqs::count(&device.device, *index).map(|count| value(u64::from(count))),
            Ask::Arm { index, count } => {
                let new = || EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC);
                let eventfds = (0..*count).map(|_| new()).collect::<Answer<Vec<_>>>()?;
                irqs::arm(&device.device, *index, &eventfds)?;
                self.eventfds.insert((device.bdf.clone(), *index), eventfds);
                Ok(Returned::default())
            }
            Ask::Disarm { index } => irqs::disarm(&device.device, *index).map(|()| Returned::default()),
            // SAFETY: VFIO_DEVICE_RESET takes no argument.
            Ask::Reset => unsafe { ioctl::reset(device.device.as_raw_fd()) }.map(|_| Returned::default()),
            Ask::HotResetInfo => device.hot_reset_info(),
            Ask::MapDma { iova, size } => {
                let memory = Mapping::new(*size as usize)?;
                memory::map_dma(container, &memory, *iova, *size)?;
                self.memory.push(memory);
                Ok(Returned::default())
            }
            Ask::UnmapDma { iova, size } => memory::unmap_dma(container, *iova, *size).map(value),
            Ask::DmaAvail => memory::dma_avail(container).map(|avail| value(u64::from(avail))),
            Ask::CloseAgain => {
                device.again.clear();
                Ok(Returned::default())
            }
            Ask::UnsetContainer => {
                // SAFETY: VFIO_GROUP_UNSET_CONTAINER takes no argument.
                unsafe { ioctl::unset_container(device.group.file.as_raw_fd()) }.map(|_| Returned::default())
            }
            // These need all devices.
            Ask::HotReset { .. } | Ask::OpenAgain { .. } | Ask::Close => Err(Errno::ENOSYS),
        }
    }
}

impl Device {
    fn region(&self, index: u32) -> Answer<vfio_region_info> {
        let argsz = size_of::<vfio_region_info>() as u32;
        let mut info = vfio_region_info { argsz, index, ..vfio_region_info::default() };
        // SAFETY: VFIO_DEVICE_GET_REGION_INFO writes at most `argsz` bytes to the structure.
        unsafe { ioctl::region_info(self.device.as_raw_fd(), &mut info) }?;
        Ok(info)
    }

    fn read(&self, region: u32, at: u64, size: u32) -> Answer<Returned> {
        let mut bytes = vec![0; size as usize];
        let length = self.file()?.read_at(&mut bytes, self.region(region)?.offset + at).map_err(of_io)?;
        bytes.truncate(length);
        Ok(Returned { value: length as u64, bytes })
    }

    fn write(&self, region: u32, at: u64, bytes: &[u8]) -> Answer<Returned> {
        let length = self.file()?.write_at(bytes, self.region(region)?.offset + at).map_err(of_io)?;
        Ok(value(length as u64))
    }

    /// The device as a file. It is another descriptor of the same open file.
    fn file(&self) -> Answer<File> {
        self.device.try_clone().map(File::from).map_err(of_io)
    }

    fn map(&mut self, region: u32, size: u32) -> Answer<Returned> {
        let mapping = Mapping::of(&self.device, size as usize, self.region(region)?.offset as i64)?;
        self.mapped = Some((region, mapping));
        Ok(Returned::default())
    }

    fn open_again(&mut self, name: &str) -> Result<Returned, AgentError> {
        self.again.push(device_fd(&self.group.file, name)?);
        Ok(Returned::default())
    }

    /// The devices follow after three words: argsz, flags, count. Each has two words.
    fn hot_reset_info(&self) -> Answer<Returned> {
        const DEVICES: usize = 64;
        let mut words = vec![0u32; 3 + 2 * DEVICES];
        words[0] = size_of_val(words.as_slice()) as u32;
        // SAFETY: VFIO_DEVICE_GET_PCI_HOT_RESET_INFO writes at most `argsz` bytes.
        unsafe { ioctl::hot_reset_info(self.device.as_raw_fd(), words.as_mut_ptr()) }?;
        let devices = words[3..].iter().take(2 * words[2] as usize).flat_map(|word| word.to_ne_bytes());
        Ok(Returned { value: u64::from(words[2]), bytes: devices.collect() })
    }

    /// The descriptors follow after three words: argsz, flags, count.
    fn hot_reset(&self, groups: &[u32]) -> Answer<Returned> {
        let mut words = vec![0, 0, groups.len() as u32];
        words.extend(groups);
        words[0] = size_of_val(words.as_slice()) as u32;
        // SAFETY: VFIO_DEVICE_PCI_HOT_RESET reads `argsz` bytes: the header and the descriptors after it.
        unsafe { ioctl::hot_reset(self.device.as_raw_fd(), words.as_ptr()) }.map(|_| Returned::default())
    }
}

/// How often an eventfd was signalled since the last time. Waits for a first signal.
fn signals(eventfd: &EventFd, within_ms: u16) -> Answer<Returned> {
    poll(&mut [PollFd::new(eventfd.as_fd(), PollFlags::POLLIN)], PollTimeout::from(within_ms))?;
    match eventfd.read() {
        Ok(count) => Ok(value(count)),
        Err(Errno::EAGAIN) => Ok(value(0)),
        Err(errno) => Err(errno),
    }
}

fn read_file(path: &str, size: u32) -> Answer<Returned> {
    let mut bytes = vec![0; size as usize];
    let length = File::open(path).and_then(|mut file| file.read(&mut bytes)).map_err(of_io)?;
    bytes.truncate(length);
    Ok(Returned { value: length as u64, bytes })
}

fn value(value: u64) -> Returned {
    Returned { value, bytes: Vec::new() }
}

fn of_io(error: io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(nix::libc::EIO))
}

fn made(call: &Call, result: Answer<Returned>) -> Result<Returned, AgentError> {
    error::doing(&call.to_string(), || result)
}

#[cfg(test)]
mod tests {
    use vfio_bindings::bindings::vfio::{vfio_pci_dependent_device, vfio_pci_hot_reset, vfio_pci_hot_reset_info};

    use super::*;

    #[test]
    fn the_headers_of_hot_resets_have_three_words() {
        assert_eq!(size_of::<vfio_pci_hot_reset>(), 3 * size_of::<u32>());
        assert_eq!(size_of::<vfio_pci_hot_reset_info>(), 3 * size_of::<u32>());
        assert_eq!(size_of::<vfio_pci_dependent_device>(), 2 * size_of::<u32>());
    }

    #[test]
    fn signals_are_counted_once() {
        let eventfd = EventFd::from_flags(EfdFlags::EFD_NONBLOCK).unwrap();
        assert_eq!(signals(&eventfd, 0), Ok(value(0)));
        eventfd.write(1).unwrap();
        eventfd.write(1).unwrap();
        assert_eq!(signals(&eventfd, 1000), Ok(value(2)));
        assert_eq!(signals(&eventfd, 0), Ok(value(0)));
    }

    #[test]
    fn the_errno_of_a_call_is_its_answer_and_no_failure() {
        let call = Call::ReadFile { path: "/nonexistent".to_owned(), size: 8 };
        let answer = Caller::default().make(&call, &mut Devices::default()).unwrap();
        assert_eq!(answer.unwrap_err().name, "ENOENT");
        let call = Call::On { bdf: "ffff:ff:1f.7".to_owned(), ask: Ask::Reset };
        let failure = Caller::default().make(&call, &mut Devices::default()).unwrap_err().failure();
        assert_eq!(failure.message, "ffff:ff:1f.7 is not open");
    }
}
