//! A driver in user space: a process that uses devices through vfio call by call, and whose calls have results that a
//! scenario compares with the contract of vfio (`include/uapi/linux/vfio.h`, `Documentation/driver-api/vfio.rst`).

use std::time::Duration;

use guest_protocol::{Ask, Call, Command, Errno, Progress, Returned, Step, VfioDevice};
use kernels::FailureKind;

use super::{Came, Device, Error, Guest, Halt, Owner, must};
use crate::verdict::Verdict;

/// In milliseconds.
const MINUTE: u16 = 60_000;

/// A driver in user space.
pub struct UserDriver<'a> {
    guest: &'a Guest,
    owner: Owner,
}

/// A device that a driver in user space has open, or has had open.
pub struct OpenDevice<'a> {
    driver: &'a UserDriver<'a>,
    bdf: String,
}

impl Guest {
    /// Starts a driver in user space. Returns when it has these devices open.
    ///
    /// # Errors
    /// As [`Guest::open`].
    pub async fn user_driver(&self, devices: &[&Device]) -> Result<UserDriver<'_>, Error> {
        Ok(UserDriver { guest: self, owner: self.open(devices, vec![Step::Hold]).await? })
    }
}

impl UserDriver<'_> {
    /// The device by its address. It need not be open.
    pub fn device(&self, device: impl AsRef<Device>) -> OpenDevice<'_> {
        OpenDevice { driver: self, bdf: device.as_ref().bdf.to_string() }
    }

    /// Makes a call, and waits for what the kernel returns.
    ///
    /// # Errors
    /// [`Halt::Failed`] with a deadlock if the call never returns; the agent's.
    pub async fn call(&self, call: Call) -> Result<Result<Returned, Errno>, Halt> {
        let (guest, operation) = (self.guest, self.owner.operation());
        let awaited = format!("the owner to {call}");
        let told = guest.agent().start(Command::Call { target: operation.id(), call }).await?;
        let answer = |progress: &Progress| match progress {
            Progress::Called { id, result } if *id == told.id() => Some(result.clone()),
            _ => None,
        };
        let wait = async |within| Ok(operation.progress(within, &awaited, answer).await?);
        match guest.unless_stuck(operation, wait).await? {
            Came::Yes(result) => Ok(result),
            Came::Stuck(stuck) => Err(Halt::Failed(guest.deadlock(&[stuck], &[]))),
        }
    }

    /// Makes a call that the kernel must grant.
    ///
    /// # Errors
    /// As [`UserDriver::call`]; [`Halt::Failed`] if the kernel refuses it.
    pub async fn does(&self, call: Call) -> Result<Returned, Halt> {
        let (at, what) = (call.name(), call.to_string());
        match self.call(call).await? {
            Ok(returned) => Ok(returned),
            Err(errno) => {
                let summary = format!("a call to {what} gave {}, and must succeed", errno.name);
                Err(Halt::Failed(Verdict::fail(FailureKind::WrongState, at, summary)))
            }
        }
    }

    /// Makes a call that the kernel must refuse with this errno.
    ///
    /// # Errors
    /// As [`UserDriver::call`]; [`Halt::Failed`] if another answer comes.
    pub async fn refused(&self, call: Call, errno: &str) -> Result<(), Halt> {
        let (at, what) = (call.name(), call.to_string());
        let came = match self.call(call).await? {
            Ok(returned) => returned.to_string(),
            Err(errno) => errno.name,
        };
        must(came == errno, at, || format!("a call to {what} gave {came}, and must give {errno}"))
    }

    /// How often the eventfd of a vector was signalled since the last time, also after the device was closed. Waits so
    /// long for a first signal, and at most a minute.
    ///
    /// # Errors
    /// As [`UserDriver::does`].
    pub async fn signals(
        &self,
        device: impl AsRef<Device>,
        index: u32,
        vector: u32,
        within: Duration,
    ) -> Result<u64, Halt> {
        let within_ms = u16::try_from(within.as_millis()).unwrap_or(MINUTE).min(MINUTE);
        let bdf = device.as_ref().bdf.to_string();
        Ok(self.does(Call::Signals { bdf, index, vector, within_ms }).await?.value)
    }

    /// The beginning of a file.
    ///
    /// # Errors
    /// As [`UserDriver::does`].
    pub async fn file(&self, path: String, size: u32) -> Result<Vec<u8>, Halt> {
        Ok(self.does(Call::ReadFile { path, size }).await?.bytes)
    }

    /// Ends the process after it has closed all its devices.
    ///
    /// # Errors
    /// [`Halt::Failed`] with a deadlock if it cannot end; the agent's.
    pub async fn end(self) -> Result<(), Halt> {
        self.owner.go_on(self.guest).await?;
        match self.guest.passes_unless_stuck(&[self.owner.operation()], &[]).await? {
            Verdict::Pass => Ok(()),
            failed => Err(Halt::Failed(failed)),
        }
    }
}

impl OpenDevice<'_> {
    /// Its PCI address.
    pub fn bdf(&self) -> &str {
        &self.bdf
    }

    fn on(&self, ask: Ask) -> Call {
        Call::On { bdf: self.bdf.clone(), ask }
    }

    /// Opens it.
    ///
    /// # Errors
    /// As [`UserDriver::call`].
    pub async fn open(&self, vf_token: Option<&str>) -> Result<Result<Returned, Errno>, Halt> {
        self.driver.call(self.opening(vf_token)).await
    }

    /// The call that opens it.
    pub fn opening(&self, vf_token: Option<&str>) -> Call {
        Call::Open(VfioDevice { bdf: self.bdf.clone(), vf_token: vf_token.map(str::to_owned) })
    }

    /// Opens it. The kernel must grant that.
    ///
    /// # Errors
    /// As [`UserDriver::does`].
    pub async fn opens(&self) -> Result<(), Halt> {
        self.driver.does(self.opening(None)).await.map(drop)
    }

    /// Asks for something. See [`UserDriver::call`].
    ///
    /// # Errors
    /// As there.
    pub async fn call(&self, ask: Ask) -> Result<Result<Returned, Errno>, Halt> {
        self.driver.call(self.on(ask)).await
    }

    /// Asks for something that the kernel must grant. Returns its value.
    ///
    /// # Errors
    /// As [`UserDriver::does`].
    pub async fn does(&self, ask: Ask) -> Result<u64, Halt> {
        Ok(self.driver.does(self.on(ask)).await?.value)
    }

    /// Asks for something that the kernel must refuse.
    ///
    /// # Errors
    /// As [`UserDriver::refused`].
    pub async fn refused(&self, ask: Ask, errno: &str) -> Result<(), Halt> {
        self.driver.refused(self.on(ask), errno).await
    }

    /// Reads all of these bytes of a region.
    ///
    /// # Errors
    /// As [`UserDriver::does`]; [`Halt::Failed`] if fewer come.
    pub async fn read(&self, region: u32, at: u64, size: u32) -> Result<Vec<u8>, Halt> {
        let call = self.on(Ask::Read { region, at, size });
        let (name, what) = (call.name(), call.to_string());
        let bytes = self.driver.does(call).await?.bytes;
        must(bytes.len() == size as usize, name, || format!("a call to {what} gave {} bytes", bytes.len()))?;
        Ok(bytes)
    }

    /// Reads a little-endian number of 32 bits from a region.
    ///
    /// # Errors
    /// As [`OpenDevice::read`].
    pub async fn read32(&self, region: u32, at: u64) -> Result<u32, Halt> {
        let bytes = self.read(region, at, 4).await?;
        Ok(bytes.first_chunk().copied().map_or(0, u32::from_le_bytes))
    }

    /// Writes all of these bytes to a region.
    ///
    /// # Errors
    /// As [`UserDriver::does`]; [`Halt::Failed`] if the kernel takes fewer.
    pub async fn write(&self, region: u32, at: u64, bytes: &[u8]) -> Result<(), Halt> {
        let call = self.on(Ask::Write { region, at, bytes: bytes.to_vec() });
        let (name, what) = (call.name(), call.to_string());
        let taken = self.driver.does(call).await?.value;
        must(taken == bytes.len() as u64, name, || format!("a call to {what} took {taken} bytes"))
    }

    /// Writes a little-endian number of 32 bits to a region.
    ///
    /// # Errors
    /// As [`OpenDevice::write`].
    pub async fn write32(&self, region: u32, at: u64, value: u32) -> Result<(), Halt> {
        self.write(region, at, &value.to_le_bytes()).await
    }

    /// Loads a number of 32 bits from a region that it has mapped.
    ///
    /// # Errors
    /// As [`UserDriver::does`].
    pub async fn load32(&self, region: u32, at: u32) -> Result<u32, Halt> {
        let bytes = self.driver.does(self.on(Ask::Load { region, at })).await?.bytes;
        Ok(bytes.first_chunk().copied().map_or(0, u32::from_le_bytes))
    }

    /// The devices that a hot reset resets.
    ///
    /// # Errors
    /// As [`UserDriver::does`].
    pub async fn hot_reset_devices(&self) -> Result<u64, Halt> {
        self.does(Ask::HotResetInfo).await
    }
}
