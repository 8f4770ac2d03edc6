//! Processes that have devices open through vfio.

use std::time::Duration;

use guest_protocol::{Access, Command, Progress, Step, VfioDevice};

use super::{Device, Error, Guest};
use crate::vm::agent::{AgentError, Operation};

/// A process that has devices open through vfio, and carries out steps in order.
pub struct Owner {
    operation: Operation,
}

impl Guest {
    /// Starts a process that opens a device through vfio, and carries out these steps when the kernel requests the
    /// device back. Returns when the device is open.
    ///
    /// # Errors
    /// As [`Guest::open`].
    pub async fn own(&self, device: impl AsRef<Device>, on_request: Vec<Step>) -> Result<Owner, Error> {
        let steps = [vec![Step::AwaitRequest], on_request].concat();
        self.open(&[device.as_ref()], steps).await
    }

    /// Starts a process that opens devices through vfio, in this order, and then carries out these steps. Returns when
    /// the devices are open.
    ///
    /// # Errors
    /// The agent's; [`Error::Refused`] if the kernel refuses to open a device.
    pub async fn open(&self, devices: &[&Device], steps: Vec<Step>) -> Result<Owner, Error> {
        let device = |device: &&Device| VfioDevice { bdf: device.bdf.to_string(), vf_token: None };
        self.open_with_tokens(devices.iter().map(device).collect(), steps).await
    }

    /// As [`Guest::open`], for devices that may need a VF token.
    ///
    /// # Errors
    /// As [`Guest::open`].
    pub async fn open_with_tokens(&self, devices: Vec<VfioDevice>, steps: Vec<Step>) -> Result<Owner, Error> {
        self.try_open(devices, steps).await.map_err(refused)
    }

    /// As [`Guest::open_with_tokens`], for devices that the kernel may refuse.
    ///
    /// # Errors
    /// The agent's; the kernel's refusal is [`AgentError::Failed`].
    pub async fn try_open(&self, devices: Vec<VfioDevice>, steps: Vec<Step>) -> Result<Owner, AgentError> {
        let operation = self.agent().start(Command::Own { devices, steps }).await?;
        let opened = |progress: &Progress| matches!(progress, Progress::Opened { .. }).then_some(());
        operation.progress(self.prompt(), "the owner to have its devices open", opened).await?;
        Ok(Owner { operation })
    }
}

impl Owner {
    /// Its operation.
    pub fn operation(&self) -> &Operation {
        &self.operation
    }

    async fn reached(&self, within: Duration, awaited: &str, is: impl Fn(&Progress) -> bool) -> Result<(), Error> {
        self.operation.progress(within, awaited, |progress| is(progress).then_some(())).await.map_err(refused)
    }

    /// Waits until the kernel requests the device back.
    ///
    /// # Errors
    /// The agent's; [`Error::Refused`] if the kernel refuses one of its steps.
    pub async fn requested(&self, within: Duration) -> Result<(), Error> {
        let awaited = "vfio's removal request to reach the owner";
        self.reached(within, awaited, |progress| matches!(progress, Progress::Requested { .. })).await
    }

    /// Waits until the owner has read an attribute.
    ///
    /// # Errors
    /// The agent's; [`Error::Refused`] if the kernel refuses one of its steps.
    pub async fn has_read(&self, path: &str, within: Duration) -> Result<Access, Error> {
        let pick = |progress: &Progress| match progress {
            Progress::Read(access) if access.path == path => Some(access.clone()),
            _ => None,
        };
        self.operation.progress(within, &format!("the owner to have read {path}"), pick).await.map_err(refused)
    }

    /// Waits until the owner is at a hold: it keeps its devices open until [`Owner::go_on`].
    ///
    /// # Errors
    /// The agent's; [`Error::Refused`] if the kernel refuses one of its steps.
    pub async fn holding(&self, within: Duration) -> Result<(), Error> {
        self.reached(within, "the owner to hold its devices", |progress| matches!(progress, Progress::Holding)).await
    }

    /// Lets the owner continue after a hold.
    ///
    /// # Errors
    /// The agent's.
    pub async fn go_on(&self, guest: &Guest) -> Result<(), AgentError> {
        guest.agent().call(Command::Continue { target: self.operation.id() }, guest.prompt()).await?;
        Ok(())
    }

    /// Waits until the owner has released all its devices.
    ///
    /// # Errors
    /// The agent's; [`Error::Refused`] if the kernel refuses one of its steps.
    pub async fn released(&self, within: Duration) -> Result<(), Error> {
        self.reached(within, "the owner to release its devices", |progress| matches!(progress, Progress::Released))
            .await
    }
}

/// The errnos of vfio if the kernel or the machine lacks something: no group or container (ENOENT), or no interrupt
/// remapping (EPERM). These are errors of the test bed, which provides the kernel's configuration and the machine.
const LACKING: &[&str] = &["ENOENT", "EPERM"];

/// A kernel must let an owner open devices that are bound to vfio-pci, and use vfio's operations on them.
fn refused(error: AgentError) -> Error {
    match error {
        AgentError::Failed { ref failure, .. }
            if failure.errno.as_ref().is_some_and(|errno| LACKING.contains(&errno.name.as_str())) =>
        {
            error.into()
        }
        error => Error::of_grant("vfio", error),
    }
}

#[cfg(test)]
mod tests {
    use guest_protocol::{Errno, Failure};

    use super::*;

    #[test]
    fn a_missing_vfio_feature_is_not_a_refusal() {
        let failed = |code, name: &str| {
            let errno = Some(Errno { code, name: name.to_owned() });
            let failure = Failure { message: "open /dev/vfio/12".to_owned(), errno };
            refused(AgentError::Failed { what: "own 0000:01:00.0 through vfio".to_owned(), failure })
        };
        assert!(matches!(failed(16, "EBUSY"), Error::Refused { at, .. } if at == "vfio"));
        for (code, name) in [(2, "ENOENT"), (1, "EPERM")] {
            assert!(matches!(failed(code, name), Error::Agent(_)), "{name}");
        }
    }
}
