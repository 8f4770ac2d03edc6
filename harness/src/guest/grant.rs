//! What a kernel must grant: to take a value, to bind a device, to open one. Refusing it is a failure of the kernel.

use std::future::{self, Future};
use std::time::Duration;

use guest_protocol::{Access, Command, Errno};

use super::{Device, EVER, Error, Guest};
use crate::vm::agent::{AgentError, Operation};

/// Where a driver shows that it has a device: a link of the device.
const DRIVER: &str = "driver";

/// The drivers and the devices that a kernel has.
const DRIVERS: &str = "/sys/bus/pci/drivers";
const DEVICES: &str = "/sys/bus/pci/devices";

impl Guest {
    /// Gives a device to a driver.
    ///
    /// # Errors
    /// The agent's; [`Error::Refused`] if the driver does not get it, although the kernel has both.
    pub async fn bind(&self, device: impl AsRef<Device>, driver: &str) -> Result<(), Error> {
        let bdf = device.as_ref().bdf.to_string();
        let command = Command::Bind { bdf: bdf.clone(), driver: driver.to_owned() };
        match self.agent().call(command, self.prompt()).await {
            Ok(_) => Ok(()),
            // A driver whose probe fails says so on the console alone: whoever wrote to `drivers_probe` gets no errno.
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

    /// Waits until a write is over that the kernel must take.
    ///
    /// # Errors
    /// The agent's; [`Error::Refused`].
    pub async fn granted(&self, write: &Operation) -> Result<Access, Error> {
        granted(write, self.prompt()).await
    }

    /// Waits for what a write leads to that the kernel must take.
    ///
    /// # Errors
    /// Those of the wait; [`Error::Refused`] as soon as the kernel refuses the write: then there is nothing to wait for.
    pub async fn unless_refused<T>(
        &self,
        write: &Operation,
        coming: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let refused = async {
            match granted(write, EVER).await {
                Err(error @ Error::Refused { .. }) => error,
                // A write may be over before what it leads to; of a guest that is lost, whoever waits is told.
                _ => future::pending().await,
            }
        };
        tokio::select! {
            biased;
            came = coming => came,
            refused = refused => Err(refused),
        }
    }

    /// The names in a folder that the kernel must have.
    ///
    /// # Errors
    /// The agent's; [`Error::Refused`].
    pub async fn list(&self, path: &str) -> Result<Vec<String>, Error> {
        self.agent().list(path, self.prompt()).await.map_err(|error| Error::of_grant(name_of(path), error))
    }
}

/// Waits until a write is over that the kernel must take.
pub(super) async fn granted(write: &Operation, within: Duration) -> Result<Access, Error> {
    let access = write.accessed(within).await?;
    match &access.value {
        Ok(_) => Ok(access),
        Err(errno) => Err(Error::refused(name_of(&access.path), write.what(), errno)),
    }
}

impl Error {
    /// The kernel answered with an errno where it must not.
    pub(super) fn refused(at: &str, what: &str, errno: &Errno) -> Error {
        Error::Refused { at: at.to_owned(), what: what.to_owned(), why: shown(errno) }
    }

    /// The agent could not do what a kernel must grant: a refusal, if it was the kernel that said no.
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
    fn what_the_agent_cannot_do_by_itself_is_no_refusal() {
        assert!(matches!(Error::of_grant("vfio", failed(None)), Error::Agent(AgentError::Failed { .. })));
        let version = AgentError::Version { theirs: 0 };
        assert!(matches!(Error::of_grant("vfio", version), Error::Agent(AgentError::Version { .. })));
    }

    #[test]
    fn attributes_and_folders_have_names() {
        for (path, name) in
            [("/sys/bus/pci/rescan", "rescan"), ("/sys/devices/0000:00:10.0/", "0000:00:10.0"), ("one", "one")]
        {
            assert_eq!(name_of(path), name);
        }
    }
}
