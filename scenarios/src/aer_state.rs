//! What a kernel shows of errors that a root port reports: counters, events, and the registers that it must clear.

use std::collections::BTreeMap;
use std::time::Duration;

use guest_protocol::Message;
use harness::guest::{AerError, Device, Ending, Error, Guest, Halt, Slot, register};

use crate::aer::RECOVERED;
use crate::check::{lost, wrong};

/// Time between two reads of counters.
const LOOK: Duration = Duration::from_millis(100);

/// Bits of Root Error Command with which a root port raises interrupts (PCI Express 5.0, section 7.8.4.9).
const ROOT_INTERRUPTS: u32 = 7;

/// How recovery ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All drivers agreed to go on.
    Successful,
    /// One of them did not, or there was none.
    Failed,
}

impl End {
    /// The word of the kernel's message.
    fn word(self) -> &'static str {
        match self {
            End::Successful => "device recovery successful",
            End::Failed => "device recovery failed",
        }
    }
}

/// The uevents of a device in a recovery, by their `ERROR_EVENT` (`drivers/pci/pci-driver.c`, `pci_uevent_ers()`).
pub const GOES_ON: &[&str] = &["BEGIN_RECOVERY", "SUCCESSFUL_RECOVERY"];
/// Those of a device whose driver knows of errors, if recovery fails.
pub const GIVES_UP: &[&str] = &["BEGIN_RECOVERY", "FAILED_RECOVERY"];
/// Those of a device without such a driver.
pub const CANNOT: &[&str] = &["FAILED_RECOVERY"];

/// The files with the counters of a kind of error: of the device, with the names of the total and of the error; and of
/// the root port (`Documentation/ABI/testing/sysfs-bus-pci-devices-aer_stats`).
struct Counters {
    of_device: &'static str,
    total: &'static str,
    name: &'static str,
    of_root_port: &'static str,
}

fn counters(error: AerError) -> Counters {
    match error {
        AerError::BadTlp => Counters {
            of_device: "aer_dev_correctable",
            total: "TOTAL_ERR_COR",
            name: "BadTLP",
            of_root_port: "aer_rootport_total_err_cor",
        },
        AerError::CompletionTimeout => Counters {
            of_device: "aer_dev_nonfatal",
            total: "TOTAL_ERR_NONFATAL",
            name: "CmpltTO",
            of_root_port: "aer_rootport_total_err_nonfatal",
        },
        AerError::DataLinkProtocol => Counters {
            of_device: "aer_dev_fatal",
            total: "TOTAL_ERR_FATAL",
            name: "DLP",
            of_root_port: "aer_rootport_total_err_fatal",
        },
    }
}

const DEVICE_FILES: [&str; 3] = ["aer_dev_correctable", "aer_dev_nonfatal", "aer_dev_fatal"];
const ROOT_FILES: [&str; 3] =
    ["aer_rootport_total_err_cor", "aer_rootport_total_err_nonfatal", "aer_rootport_total_err_fatal"];

/// How the names of totals in these files begin.
const TOTAL: &str = "TOTAL_ERR";

/// The counters of some functions: by function and file, and by name within the file.
type Counts = BTreeMap<String, i64>;

async fn counts(guest: &Guest, root: &Device, others: &[&Device]) -> Result<Counts, Error> {
    let mut counts = Counts::new();
    for file in ROOT_FILES {
        let read = guest.read_now(root.attribute(file)).await?;
        counts.insert(format!("{file} of {}", root.bdf), read.shown().parse().unwrap_or(-1));
    }
    for device in std::iter::once(&root).chain(others) {
        for file in DEVICE_FILES {
            let read = guest.read_now(device.attribute(file)).await?;
            let lines = read.shown().lines().filter_map(|line| line.rsplit_once(' '));
            counts.extend(
                lines.map(|(name, count)| (format!("{name} in {file} of {}", device.bdf), count.parse().unwrap_or(-1))),
            );
        }
    }
    Ok(counts)
}

/// A hierarchy below a root port in which errors are reported.
pub struct Hierarchy<'a> {
    /// The guest.
    pub guest: &'a Guest,
    /// The slot of the root port.
    pub slot: &'a Slot,
    /// The functions in the slot.
    pub functions: Vec<&'a Device>,
}

impl Hierarchy<'_> {
    /// Has the port report a correctable error, and waits until the kernel has counted it.
    pub async fn corrected(&self, when: &str) -> Result<(), Halt> {
        let guest = self.guest;
        let before = counts(guest, &self.slot.port, &self.functions).await?;
        let expected = self.expected(&before, AerError::BadTlp);
        guest.inject(self.slot, AerError::BadTlp).await?;
        // The kernel sends no event, and its versions log different messages.
        let patience = guest.vm().time().patience(guest.prompt());
        while counts(guest, &self.slot.port, &self.functions).await? != expected {
            if patience.is_over().is_some() {
                return self.counted(&before, &expected, when).await;
            }
            guest.vm().time().pause(LOOK).await;
        }
        self.cleared(when).await
    }

    /// Has the port report an error, and waits until recovery has ended. Each function must send its events, in this
    /// order, and no others.
    pub async fn recovers(
        &self,
        error: AerError,
        end: End,
        events: &[(&Device, &[&str])],
        when: &str,
    ) -> Result<(), Halt> {
        let (guest, messages) = (self.guest, self.guest.agent().messages());
        let before = counts(guest, &self.slot.port, &self.functions).await?;
        let expected = self.expected(&before, error);
        let from = messages.position();
        guest.inject(self.slot, error).await?;
        let said = async |within| guest.says(from, RECOVERED, within).await.map(drop);
        match guest.ending_with(&[], said).await {
            Ok(Ending::Done) => {}
            Ok(Ending::Stuck(stuck)) => return Err(Halt::Failed(guest.deadlock(&stuck, &["pcie_do_recovery"]))),
            Err(error) if error.is_deadline() => {
                let summary = format!("{when}, {} reported an error, and there was no recovery", self.slot.id);
                return Err(lost("pcie_do_recovery", summary));
            }
            Err(error) => return Err(error.into()),
        }
        for (device, expected) in events {
            self.sent(device, expected, from, when).await?;
        }
        let message = guest.said(from, RECOVERED);
        if message.len() != 1 || !message.iter().all(|text| text.contains(end.word())) {
            let said = message.join("\", \"");
            let summary = format!(
                "{when}, after an error of {} the kernel said \"{said}\", not once {}",
                self.slot.id,
                end.word()
            );
            return Err(wrong("pcie_do_recovery", summary));
        }
        self.counted(&before, &expected, when).await?;
        match end {
            End::Successful => self.cleared(when).await,
            End::Failed => self.armed(when).await,
        }
    }

    /// Checks the recovery events of a device, in order.
    async fn sent(&self, device: &Device, expected: &[&str], from: usize, when: &str) -> Result<(), Halt> {
        let messages = self.guest.agent().messages();
        let last = expected.last().copied();
        let is_last = |message: &Message| (recovery_event(message, device).as_deref() == last).then_some(());
        let awaited = format!("the recovery events of {}", device.bdf);
        match messages.wait(from, self.guest.prompt(), &awaited, is_last).await {
            Err(error) if !error.is_deadline() => return Err(error.into()),
            _ => {}
        }
        let came = messages.collect(from, |message| recovery_event(message, device));
        if came == expected {
            return Ok(());
        }
        let (came, must) = (came.join(", "), expected.join(", "));
        let came = if came.is_empty() { "none" } else { &came };
        let summary = format!("{when}, the recovery events of {} are {came}, and must be {must}", device.bdf);
        Err(lost("pci_uevent_ers", summary))
    }

    /// The counters after an error.
    fn expected(&self, before: &Counts, error: AerError) -> Counts {
        let Counters { of_device, total, name, of_root_port } = counters(error);
        let mut after = before.clone();
        let mut more = |key: String| *after.entry(key).or_default() += 1;
        more(format!("{of_root_port} of {}", self.slot.port.bdf));
        more(format!("{total} in {of_device} of {}", self.slot.port.bdf));
        more(format!("{name} in {of_device} of {}", self.slot.port.bdf));
        after
    }

    /// Compares the counters with those before an error and those that must be there.
    async fn counted(&self, before: &Counts, expected: &Counts, when: &str) -> Result<(), Halt> {
        let is = counts(self.guest, &self.slot.port, &self.functions).await?;
        // Errors that are left of a failed recovery count again, by their names and not in the total.
        let counts =
            |key: &str| key.starts_with("aer_") || key.starts_with(TOTAL) || before.get(key) != expected.get(key);
        let differs = expected.iter().find(|(key, value)| counts(key) && is.get(*key) != Some(value));
        let Some((key, must)) = differs else { return Ok(()) };
        let is = is.get(key).map_or_else(|| "not there".to_owned(), ToString::to_string);
        let file = key.split(' ').find(|word| word.starts_with("aer_")).unwrap_or("aer_stats");
        Err(wrong(file, format!("{when}, {key} is {is}, and must be {must}")))
    }

    /// Checks that the port has no error left.
    async fn cleared(&self, when: &str) -> Result<(), Halt> {
        self.armed(when).await?;
        let registers = self.guest.registers(&self.slot.port).await?;
        // A fatal error stays in the status of a port that was not reset itself.
        let nonfatal = registers.value(register::UNCORRECTABLE_STATUS)?
            & !registers.value(register::UNCORRECTABLE_SEVERITY)?
            & !registers.value(register::UNCORRECTABLE_MASK)?;
        for (name, is) in [
            (register::DEVICE_STATUS.name, registers.value(register::DEVICE_STATUS)?),
            (register::CORRECTABLE_STATUS.name, registers.value(register::CORRECTABLE_STATUS)?),
            (register::UNCORRECTABLE_STATUS.name, nonfatal),
        ] {
            if is != 0 {
                let bdf = self.slot.port.bdf;
                return Err(wrong(name, format!("{when}, {name} of {bdf} still has the errors {is:#x}")));
            }
        }
        Ok(())
    }

    /// Checks that the root port reports the next error: nothing is pending, and interrupts are on.
    async fn armed(&self, when: &str) -> Result<(), Halt> {
        let port = self.guest.registers(&self.slot.port).await?;
        let (status, command) = (port.value(register::ROOT_STATUS)?, port.value(register::ROOT_COMMAND)?);
        if status != 0 {
            let name = register::ROOT_STATUS.name;
            return Err(wrong(name, format!("{when}, {name} is {status:#x}, and must be 0")));
        }
        if command & ROOT_INTERRUPTS != ROOT_INTERRUPTS {
            let name = register::ROOT_COMMAND.name;
            return Err(wrong(name, format!("{when}, {name} is {command:#x}, which enables not all interrupts")));
        }
        Ok(())
    }
}

/// The `ERROR_EVENT` of a uevent of a device.
fn recovery_event(message: &Message, device: &Device) -> Option<String> {
    match message {
        Message::Uevent { uevent, .. } if uevent.devpath == device.devpath => uevent.env.get("ERROR_EVENT").cloned(),
        _ => None,
    }
}
