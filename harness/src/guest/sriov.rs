//! VFs: making them, finding them.

use guest_protocol::{Access, AttributeWrite, Command, Sched};

use super::{Device, Error, Guest, Pf};
use crate::vm::agent::Operation;

/// Where VFs are being enabled (`drivers/pci/iov.c`). The compiler may leave either out of a stack: it may put the second
/// into the first, or turn the first's call of the second into a jump.
pub const ENABLES_VFS: &[&str] = &["pci_enable_sriov", "sriov_enable"];

impl Guest {
    /// Reads an attribute that nothing should keep from answering.
    ///
    /// # Errors
    /// The agent's. The kernel's refusal is in the [`Access`].
    pub async fn read_now(&self, path: String) -> Result<Access, Error> {
        Ok(self.read(path).await?.accessed(self.prompt()).await?)
    }

    /// Writes an attribute that nothing should keep from taking it.
    ///
    /// # Errors
    /// The agent's. The kernel's refusal is in the [`Access`].
    pub async fn write_now(&self, path: String, data: impl ToString) -> Result<Access, Error> {
        Ok(self.write(path, data, Sched::default()).await?.accessed(self.prompt()).await?)
    }

    /// Writes an attribute whose write must succeed for the scenario to go on.
    ///
    /// # Errors
    /// The agent's; [`Error::Refused`].
    pub async fn set(&self, path: String, data: impl ToString) -> Result<Access, Error> {
        let access = self.write_now(path, data).await?;
        match &access.value {
            Ok(_) => Ok(access),
            Err(errno) => Err(Error::Refused { path: access.path, errno: errno.clone() }),
        }
    }

    /// Starts to write attributes by turns from a process of its own, so many rounds, or until [`Guest::stop`].
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
    /// The agent's; [`Error::Unprepared`] if it has none, or several.
    pub async fn interface(&self, pf: &Pf) -> Result<String, Error> {
        let mut names = self.agent().list(&pf.attribute("net"), self.prompt()).await?;
        match (names.pop(), names.as_slice()) {
            (Some(name), []) => Ok(name),
            (None, _) => Err(Error::Unprepared("the PF has no network interface".to_owned())),
            (Some(last), rest) => {
                let all = format!("{}, {last}", rest.join(", "));
                Err(Error::Unprepared(format!("the PF has {} network interfaces ({all}), not one", rest.len() + 1)))
            }
        }
    }

    /// Starts to read a register of the PHY of an interface, again and again, from a process of its own, until
    /// [`Guest::stop`].
    ///
    /// # Errors
    /// The agent's.
    pub async fn read_phy(&self, ifname: &str, register: u16) -> Result<Operation, Error> {
        Ok(self.agent().start(Command::ReadPhy { ifname: ifname.to_owned(), register }).await?)
    }

    /// Enables VFs of a PF that has none, and finds them.
    ///
    /// # Errors
    /// The agent's; [`Error::Refused`].
    pub async fn enable_vfs(&self, pf: &Pf, count: u16) -> Result<Vec<Device>, Error> {
        self.set(pf.numvfs(), count).await?;
        self.vfs(pf, count).await
    }

    /// Enables VFs that no driver takes, and gives them to vfio-pci.
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
    /// The agent's; [`Error::Unprepared`] for a link that leads to no PCI device.
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

    /// The target of a symbolic link.
    ///
    /// # Errors
    /// The agent's.
    pub async fn read_link(&self, path: &str) -> Result<String, Error> {
        let command = Command::ReadLink { path: path.to_owned() };
        Ok(self.agent().start(command).await?.target(self.prompt()).await?)
    }
}
