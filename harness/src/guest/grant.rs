//! Requests that a kernel must grant: to accept a value, to bind a device, to open one. A refusal is a failure of the
//! kernel.

use std::future::{self, Future};
use std::time::Duration;

use guest_protocol::{Access, Command, Errno};

use super::{Device, Error, FOREVER, Guest};
use crate::vm::agent::{AgentError, Operation};

/// The link from a device to its driver.
const DRIVER: &str = "driver";

/// Where sysfs lists a kernel's PCI drivers and PCI devices.
const DRIVERS: &str = "/sys/bus/pci/drivers";
const DEVICES: &str = "/sys/bus/pci/devices";

impl Guest {
    /// Binds a device to a driver.
    ///
    /// # Errors
    /// The agent's; [`Error::Refused`] if the device is not bound although the kernel has both driver and device.
    pub async fn bind(&self, device: impl AsRef<Device>, driver: &str) -> Result<(), Error> {
        let bdf = device.as_ref().bdf.to_string();
        let command = Command::Bind { bdf: bdf.clone(), driver: driver.to_owned() };
        match self.agent().call(command, self.prompt()).await {
            Ok(_) => Ok(()),
            // If a driver's probe fails, only the kernel log shows it: the write to `drivers_probe` returns no errno.
            Err(AgentError::Failed { what, failure }) if failure.errno.is_none() => {
                let has_driver = self.list(DRIVERS).await?.iter().any(|name| name == driver);
                let has_device = self.list(DEVICES).await?.contains(&bdf);
                match has_driver && has_device {
                    true => Err(Error::Refused { at: DRIVER.to_owned(), what, why: failure.message }),
                    false => Err(AgentError::Failed { what, failure }.into()),
                }
            }
            Err(error) => Err(Error::of_grant(DRIVER, error)),
        }
    }

    /// Waits for the end of a write that the kernel must accept.
    ///
    /// # Errors
    /// The agent's; [`Error::Refused`].
    pub async fn granted(&self, write: &Operation) -> Result<Access, Error> {
        granted(write, self.prompt()).await
    }

    /// Waits for the effect of a write that the kernel must accept.
    ///
    /// # Errors
    /// Those of the wait; [`Error::Refused`] as soon as the kernel refuses the write, without waiting any longer.
    pub async fn unless_refused<T>(
        &self,
        write: &Operation,
        coming: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let refused = async {
            match granted(write, FOREVER).await {
                Err(error @ Error::Refused { .. }) => error,
                // The write may end before its effect comes. If the guest is lost, `coming` returns the error.
                _ => future::pending().await,
            }
        };
        tokio::select! {
            biased;
            came = coming => came,
            refused = refused => Err(refused),
        }
    }

    /// The names in a folder of sysfs that must exist.
    ///
    /// # Errors
    /// The agent's; [`Error::Refused`].
    pub async fn list(&self, path: &str) -> Result<Vec<String>, Error> {
        self.agent().list(path, self.prompt()).await.map_err(|error| Error::of_grant(name_of(path), error))
    }
}

/// Waits for the end of a write that the kernel must accept.
pub(super) async fn granted(write: &Operation, within: Duration) -> Result<Access, Error> {
    let access = write.accessed(within).await?;
    match &access.value {
        Ok(_) => Ok(access),
        Err(errno) => Err(Error::refused(name_of(&access.path), write.what(), errno)),
    }
}

impl Error {
    /// The kernel returned an errno where it must not.
    pub(super) fn refused(at: &str, what: &str, errno: &Errno) -> Error {
        Error::Refused { at: at.to_owned(), what: what.to_owned(), why: shown(errno) }
    }

    /// The agent could not do what a kernel must grant. It is a refusal if the kernel returned an errno.
    pub(super) fn of_grant(at: &str, error: AgentError) -> Error {
        match error {
            AgentError::Failed { what, failure } => match &failure.errno {
                Some(errno) => {
                    let why = format!("{}; {}", failure.message, shown(errno));
                    Error::Refused { at: at.to_owned(), what, why }
                }
                None => AgentError::Failed { what, failure }.into(),
            },
            error => error.into(),
        }
    }
}

fn shown(errno: &Errno) -> String {
    format!("{} (errno {})", errno.name, errno.code)
}

/// The name of an attribute, a link or a folder.
pub(super) fn name_of(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use guest_protocol::Failure;

    use super::*;

    fn failed(errno: Option<Errno>) -> AgentError {
        let message = "open /dev/vfio/12: Device or resource busy (os error 16)".to_owned();
        AgentError::Failed { what: "own 0000:01:00.0 through vfio".to_owned(), failure: Failure { message, errno } }
    }

    fn busy() -> Errno {
        Errno { code: 16, name: "EBUSY".to_owned() }
    }

    #[test]
    fn a_refusal_names_what_and_the_errno() {
        let path = "/sys/devices/pci0000:00/0000:00:10.0/0000:01:00.0/sriov_numvfs";
        let error = Error::refused(name_of(path), &format!("write \"2\" to {path}"), &busy());
        insta::assert_snapshot!(error, @r#"the kernel refused to write "2" to /sys/devices/pci0000:00/0000:00:10.0/0000:01:00.0/sriov_numvfs: EBUSY (errno 16)"#);
        let error = Error::of_grant("vfio", failed(Some(busy())));
        insta::assert_snapshot!(error, @"the kernel refused to own 0000:01:00.0 through vfio: open /dev/vfio/12: Device or resource busy (os error 16); EBUSY (errno 16)");
    }

    #[test]
    fn a_failure_without_an_errno_is_not_a_refusal() {
        assert!(matches!(Error::of_grant("vfio", failed(None)), Error::Agent(AgentError::Failed { .. })));
        let version = AgentError::Version { theirs: 0 };
        assert!(matches!(Error::of_grant("vfio", version), Error::Agent(AgentError::Version { .. })));
    }

    #[test]
    fn the_name_of_a_path_is_its_last_component() {
        for (path, name) in
            [("/sys/bus/pci/rescan", "rescan"), ("/sys/devices/0000:00:10.0/", "0000:00:10.0"), ("one", "one")]
        {
            assert_eq!(name_of(path), name);
        }
    }
}
