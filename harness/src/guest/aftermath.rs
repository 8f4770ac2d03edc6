//! What a kernel looks like after a scenario that it survived: nobody stuck, everything that it shows in agreement, and
//! a card that was removed works when it is put back.

use std::collections::BTreeSet;

use guest_protocol::{Command, Inventory, Message, Sched};
use kernels::FailureKind;
use tokio::time::Instant;

use super::agreement::{Disagreement, disagreements};
use super::{Ending, Error, Guest, Pf, Plugged, Slot};
use crate::notes::{Lockdep, Note};
use crate::verdict::Verdict;

/// How long two places may disagree before that is a verdict, and how long to wait for an event between two looks; on a
/// machine with KVM, in seconds. What is shown changes here first and there later, so it is looked at again.
const PATIENCE: f64 = 5.0;
const LOOK: f64 = 0.3;

/// What became of a card that was put back.
#[derive(Debug)]
pub enum Back {
    /// It has its driver again.
    There(Pf),
    /// It has not, or the kernel shows something wrong.
    Failed(Verdict),
    /// There was none to put back.
    Nothing,
}

/// pciehp's thread when it is at work. After a removal it cuts the power, sleeps for a second, and turns the indicator
/// off; QEMU ejects whatever is in the slot by then (`drivers/pci/hotplug/pciehp_ctrl.c`, `remove_board()`; QEMU
/// `hw/pci/pcie.c`, `pcie_cap_slot_write_config()`).
const PCIEHP: &str = "pciehp_ist";

/// VFs to make of a card that was put back; igb has seven.
const VFS: u16 = 2;

impl Guest {
    /// Looks at the guest after a scenario that ended well. A scenario that passes has ended what it began.
    ///
    /// # Errors
    /// Those of the looks, and a deadline if the guest does not come to rest: no verdict.
    pub(crate) async fn aftermath(&self) -> Result<Verdict, Error> {
        let began = Instant::now();
        let stuck = self.stuck().await?;
        if !stuck.is_empty() {
            return Ok(self.deadlock(&stuck, &[]));
        }
        let verdict = self.agreement().await?;
        self.note(Note::Aftermath(began.elapsed().as_secs_f64()));
        Ok(verdict)
    }

    /// Puts the card back that was removed first, if that was the only one in its slot and the slot is still empty, and
    /// waits until it has its driver. It is not put back twice.
    ///
    /// # Errors
    /// Those of the steps; a deadline if the card is not found and the kernel does not say that it is there: no verdict.
    pub async fn put_back(&self) -> Result<Back, Error> {
        let began = Instant::now();
        let Some((pf, trigger)) = self.first_removed().await else { return Ok(Back::Nothing) };
        let inventory = match self.inventory().await? {
            Ok(inventory) => inventory,
            Err(verdict) => return Ok(Back::Failed(verdict)),
        };
        let alone = self.pfs().iter().filter(|other| other.slot == pf.slot).count() == 1;
        if !alone || self.has_plugged() || !is_empty(&pf.slot, &inventory) {
            return Ok(Back::Nothing);
        }
        self.none_in(PCIEHP, self.prompt()).await?;
        let card = match trigger.empties_slot() {
            true => self.plug(&pf.slot, &pf.function.id).await?,
            false => self.rescan(&pf).await?,
        };
        let pf = match self.plugged(&card, self.prompt()).await {
            Ok(pf) => pf,
            Err(error) => return Ok(Back::Failed(self.missing(&card, error).await?)),
        };
        let verdict = self.agreement().await?;
        self.note(Note::PutBack(began.elapsed().as_secs_f64()));
        Ok(if verdict == Verdict::Pass { Back::There(pf) } else { Back::Failed(verdict) })
    }

    /// Puts a card back and makes VFs of it, and takes them away again.
    ///
    /// # Errors
    /// As [`Guest::put_back`]; [`Error::Unprepared`] if there is nothing to put back.
    pub async fn put_back_and_use(&self) -> Result<Verdict, Error> {
        let pf = match self.put_back().await? {
            Back::There(pf) => pf,
            Back::Failed(verdict) => return Ok(verdict),
            Back::Nothing => return Err(Error::Unprepared("no card is out of its slot".to_owned())),
        };
        for vfs in [VFS, 0] {
            let write = self.write(pf.numvfs(), vfs, Sched::default()).await?;
            if let Ending::Stuck(stuck) = self.ending(&[&write]).await? {
                return Ok(self.deadlock(&stuck, &[]));
            }
            if let Err(errno) = write.accessed(self.prompt()).await?.value {
                let summary = format!("the card that was put back answers {} to {vfs} VFs", errno.name);
                return Ok(Verdict::fail(FailureKind::WrongState, "sriov_numvfs", summary));
            }
            match self.agreement().await? {
                Verdict::Pass => {}
                failed => return Ok(failed),
            }
        }
        Ok(Verdict::Pass)
    }

    /// Whether all places in which the kernel shows its PCI functions agree, or come to agree.
    ///
    /// # Errors
    /// Those of the looks, and a deadline if what disagrees keeps changing: no verdict.
    pub async fn agreement(&self) -> Result<Verdict, Error> {
        let messages = self.agent().messages();
        let (began, mut since) = (Instant::now(), Instant::now());
        let mut standing: BTreeSet<Disagreement> = BTreeSet::new();
        loop {
            let position = messages.position();
            let inventory = match self.inventory().await? {
                Ok(inventory) => inventory,
                Err(verdict) => return Ok(verdict),
            };
            let now = disagreements(&inventory);
            if now.is_empty() {
                if let Some(on) = inventory.debug_locks {
                    self.note(Note::Lockdep(if on { Lockdep::On } else { Lockdep::Off }));
                }
                return Ok(Verdict::Pass);
            }
            standing.retain(|disagreement| now.contains(disagreement));
            if standing.is_empty() {
                (standing, since) = (now, Instant::now());
            }
            if since.elapsed() > self.seconds(PATIENCE) {
                return Ok(wrong(&standing));
            }
            if began.elapsed() > self.prompt() {
                let all: Vec<_> = standing.iter().map(ToString::to_string).collect();
                return Err(Error::Unprepared(format!("the guest does not come to rest: {}", all.join("; "))));
            }
            let event = |message: &Message| matches!(message, Message::Uevent { .. }).then_some(());
            match messages.wait(position, self.seconds(LOOK), "a uevent", event).await {
                Err(error) if !error.is_deadline() => return Err(error.into()),
                _ => {}
            }
        }
    }

    /// What the guest shows; or the verdict on one that does not answer, as reading `sriov_numvfs` may take a lock.
    async fn inventory(&self) -> Result<Result<Inventory, Verdict>, Error> {
        let look = self.agent().start(Command::Inventory).await?;
        if let Ending::Stuck(stuck) = self.ending(&[&look]).await? {
            return Ok(Err(self.deadlock(&stuck, &[])));
        }
        Ok(Ok(look.inventory(self.prompt()).await?))
    }

    /// The card did not get its driver. The kernel is to blame if it says itself that there is a card.
    async fn missing(&self, card: &Plugged, error: Error) -> Result<Verdict, Error> {
        if !error.is_deadline() {
            return Err(error);
        }
        let stuck = self.stuck().await?;
        if !stuck.is_empty() {
            return Ok(self.deadlock(&stuck, &[]));
        }
        let adapter = self.read_now(card.slot().attribute("adapter")).await?;
        if adapter.value.as_deref() != Ok("1") {
            return Err(error);
        }
        let summary = format!("{error}; yet the slot's adapter reads as 1");
        Ok(Verdict::fail(FailureKind::WrongState, "adapter", summary))
    }
}

/// Whether the kernel has the slot's port, and nothing behind it.
fn is_empty(slot: &Slot, inventory: &Inventory) -> bool {
    let below = format!("{}/", slot.port.devpath);
    inventory.folders.contains(&slot.port.devpath) && !inventory.folders.iter().any(|folder| folder.starts_with(&below))
}

fn wrong(standing: &BTreeSet<Disagreement>) -> Verdict {
    let attribute = standing.first().map_or("", |first| first.attribute);
    let all: Vec<_> = standing.iter().map(ToString::to_string).collect();
    Verdict::fail(FailureKind::WrongState, attribute, format!("after the scenario: {}", all.join("; ")))
}
