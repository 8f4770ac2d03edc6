//! VFs: enabling them, finding them. Reads and writes of attributes that must not block.

use guest_protocol::{Access, AttributeWrite, Command, Sched};

use super::grant::name_of;
use super::{Device, Error, Guest, Pf};
use crate::vm::agent::Operation;

/// The functions that enable VFs (`drivers/pci/iov.c`). Either may be missing from a stack: the compiler may inline the
/// second into the first, or make the first's call of the second a tail call.
pub const ENABLES_VFS: &[&str] = &["pci_enable_sriov", "sriov_enable"];

/// The beginning of the name of the virtio device of a PCI function, which has the function's interface
/// (`drivers/virtio/virtio.c`, `register_virtio_device()`).
const VIRTIO: &str = "virtio";

impl Guest {
    /// Reads an attribute, where the read should not block.
    ///
    /// # Errors
    /// The agent's. The kernel's refusal is in the [`Access`].
    pub async fn read_now(&self, path: String) -> Result<Access, Error> {
        Ok(self.read(path).await?.accessed(self.prompt()).await?)
    }

    /// Writes an attribute, where the write should not block.
    ///
    /// # Errors
    /// The agent's. The kernel's refusal is in the [`Access`].
    pub async fn write_now(&self, path: String, data: impl ToString) -> Result<Access, Error> {
        Ok(self.write(path, data, Sched::default()).await?.accessed(self.prompt()).await?)
    }

    /// Writes an attribute, where the kernel must accept the value and not block.
    ///
    /// # Errors
    /// The agent's; [`Error::Refused`].
    pub async fn set(&self, path: String, data: impl ToString) -> Result<Access, Error> {
        self.granted(&self.write(path, data, Sched::default()).await?).await
    }

    /// Sets an interface up or down.
    ///
    /// # Errors
    /// The agent's; [`Error::Refused`].
    pub async fn set_link(&self, ifname: &str, up: bool) -> Result<(), Error> {
        let command = Command::SetLink { ifname: ifname.to_owned(), up };
        let set = self.agent().call(command, self.prompt()).await;
        set.map(drop).map_err(|error| Error::of_grant("RTM_NEWLINK", error))
    }

    /// Sets the MAC address of a VF through its PF's interface, as `ip link set PF vf N mac` does.
    ///
    /// # Errors
    /// The agent's; [`Error::Refused`].
    pub async fn set_vf_mac(&self, ifname: &str, vf: u32, mac: [u8; 6]) -> Result<(), Error> {
        let command = Command::SetVfMac { ifname: ifname.to_owned(), vf, mac };
        let set = self.agent().call(command, self.prompt()).await;
        set.map(drop).map_err(|error| Error::of_grant("IFLA_VF_MAC", error))
    }

    /// Reads up to `length` bytes of a file from an offset on, where the read must succeed and not block.
    ///
    /// # Errors
    /// The agent's; [`Error::Refused`]; [`Error::Unprepared`] if the agent answers with something else than bytes.
    pub async fn read_bytes(&self, path: String, at: u64, length: u32) -> Result<Vec<u8>, Error> {
        let read = self.agent().start(Command::ReadBytes { path: path.clone(), at, length }).await?;
        let digits = match read.accessed(self.prompt()).await?.value {
            Ok(digits) => digits,
            Err(errno) => {
                let (at, what) = (name_of(&path).to_owned(), format!("read {path}"));
                return Err(Error::Refused { at, what, why: errno.name });
            }
        };
        let byte = |at: usize| digits.get(at..at + 2).and_then(|two| u8::from_str_radix(two, 16).ok());
        let bytes: Option<Vec<u8>> = (0..digits.len()).step_by(2).map(byte).collect();
        bytes.ok_or_else(|| Error::Unprepared(format!("the agent's answer for {path} is not bytes: {digits}")))
    }

    /// Starts to write attributes in alternation in a separate process, for this number of rounds, or until
    /// [`Guest::stop_cycle`].
    ///
    /// # Errors
    /// The agent's.
    pub async fn cycle(&self, writes: &[(String, &str)], rounds: Option<u32>) -> Result<Operation, Error> {
        let write = |(path, data): &(String, &str)| AttributeWrite { path: path.clone(), data: (*data).to_owned() };
        Ok(self.agent().start(Command::Cycle { writes: writes.iter().map(write).collect(), rounds }).await?)
    }

    /// Name of a PF's network interface.
    ///
    /// # Errors
    /// The agent's; [`Error::Refused`] if it has none, [`Error::Unprepared`] if it has several.
    pub async fn interface(&self, pf: &Pf) -> Result<String, Error> {
        let folder = match self.list(&pf.attribute("")).await?.into_iter().find(|name| name.starts_with(VIRTIO)) {
            Some(device) => format!("{device}/net"),
            None => "net".to_owned(),
        };
        let mut names = self.list(&pf.attribute(&folder)).await?;
        match (names.pop(), names.as_slice()) {
            (Some(name), []) => Ok(name),
            (None, _) => Err(Error::Unprepared("the PF has no network interface".to_owned())),
            (Some(last), rest) => {
                let all = format!("{}, {last}", rest.join(", "));
                Err(Error::Unprepared(format!("the PF has {} network interfaces ({all}), not one", rest.len() + 1)))
            }
        }
    }

    /// Starts to read a register of an interface's PHY repeatedly in a separate process, until [`Guest::stop`].
    ///
    /// # Errors
    /// The agent's.
    pub async fn read_phy(&self, ifname: &str, register: u16) -> Result<Operation, Error> {
        Ok(self.agent().start(Command::ReadPhy { ifname: ifname.to_owned(), register }).await?)
    }

    /// Enables VFs on a PF that has none, and finds them.
    ///
    /// # Errors
    /// The agent's; [`Error::Refused`].
    pub async fn enable_vfs(&self, pf: &Pf, count: u16) -> Result<Vec<Device>, Error> {
        self.set(pf.numvfs(), count).await?;
        self.vfs(pf, count).await
    }

    /// Enables VFs without probing drivers for them, and binds them to vfio-pci.
    ///
    /// # Errors
    /// The agent's; [`Error::Refused`].
    pub async fn enable_vfs_for_vfio(&self, pf: &Pf, count: u16) -> Result<Vec<Device>, Error> {
        self.set(pf.attribute("sriov_drivers_autoprobe"), 0).await?;
        let vfs = self.enable_vfs(pf, count).await?;
        for vf in &vfs {
            self.bind(vf, "vfio-pci").await?;
        }
        Ok(vfs)
    }

    /// The first VFs of a PF, by their `virtfn` links.
    ///
    /// # Errors
    /// The agent's; [`Error::Refused`] if there are fewer; [`Error::Unprepared`] for a link that leads to no PCI
    /// device.
    pub async fn vfs(&self, pf: &Pf, count: u16) -> Result<Vec<Device>, Error> {
        let mut vfs = Vec::new();
        for number in 0..count {
            let path = pf.attribute(&format!("virtfn{number}"));
            let target = self.read_link(&path).await?;
            let name = target.rsplit('/').next().unwrap_or(&target);
            let bdf = name.parse().map_err(|error| Error::Unprepared(format!("{path} leads to {target}: {error}")))?;
            vfs.push(Device::below(&pf.slot.port.devpath, bdf));
        }
        Ok(vfs)
    }

    /// The target of a symbolic link of sysfs that must exist.
    ///
    /// # Errors
    /// The agent's; [`Error::Refused`].
    pub async fn read_link(&self, path: &str) -> Result<String, Error> {
        let command = Command::ReadLink { path: path.to_owned() };
        let target = self.agent().start(command).await?.target(self.prompt()).await;
        target.map_err(|error| Error::of_grant(name_of(path), error))
    }
}
