//! The checks after a scenario that passed: no task is stuck, the places in sysfs agree with each other, registers are
//! what they were, removed devices are freed, and a card that was removed works when it is put back.

use std::collections::BTreeSet;

use guest_protocol::{Command, Inventory, Message, Sched};
use kernels::FailureKind;

use super::agreement::{Disagreement, disagreements};
use super::restored::is_right_behind;
use super::{Ending, Error, Guest, Pf, Plugged, Slot};
use crate::notes::{Lockdep, Note};
use crate::verdict::Verdict;

/// How long two places may disagree before that is a verdict, and how long to wait for an event between two checks; on
/// a machine with KVM, in seconds. The kernel does not change all places at once, so they are checked again.
const PATIENCE: f64 = 5.0;
const INTERVAL: f64 = 0.3;

/// The result of putting a card back.
#[derive(Debug)]
pub enum Back {
    /// The card has its driver again. Then the guest has these functions.
    There(Pf, Inventory),
    /// The card has no driver, or the kernel shows something wrong.
    Failed(Verdict),
    /// There was no card to put back. The functions that the guest has, if that had to be asked.
    Nothing(Option<Inventory>),
}

/// What must be in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    /// The places in which sysfs shows functions agree.
    Sysfs,
    /// And the registers of functions are what they were before the scenario.
    Hardware,
}

/// A function on the stack of pciehp's interrupt thread while it handles events. After a removal the thread switches
/// the slot's power off, sleeps for a second, and turns the power indicator off; QEMU ejects the card that is in the
/// slot then (`drivers/pci/hotplug/pciehp_ctrl.c`, `remove_board()`; QEMU `hw/pci/pcie.c`,
/// `pcie_cap_slot_write_config()`).
const PCIEHP: &str = "pciehp_ist";

/// The number of VFs to enable on a card that was put back; igb allows seven.
const VFS: u16 = 2;

impl Guest {
    /// Checks the guest after a scenario that passed. Such a scenario has ended all its operations. Returns the functions that
    /// the guest has, or the verdict if something is wrong.
    ///
    /// # Errors
    /// Those of the checks. A deadline if the guest does not become stable: then there is no verdict.
    pub(crate) async fn aftermath(&self) -> Result<Result<Inventory, Verdict>, Error> {
        let (time, began) = (self.vm().time(), self.vm().time().now());
        let stuck = self.stuck().await?;
        if !stuck.is_empty() {
            return Ok(Err(self.deadlock(&stuck, &[])));
        }
        let order = match self.in_order(Scope::Hardware).await? {
            Ok(inventory) => match self.nothing_left().await {
                Verdict::Pass => Ok(inventory),
                failed => Err(failed),
            },
            failed => failed,
        };
        self.note(Note::Aftermath((time.now() - began).as_secs_f64()));
        Ok(order)
    }

    /// Puts the card back that was removed first, and waits until it has its driver. The card must have been the only
    /// function in its slot, and the slot must still be empty. A card is put back at most once.
    ///
    /// # Errors
    /// Those of the steps. A deadline if the card is not found and the slot's `adapter` does not report it: then there
    /// is no verdict.
    pub async fn put_back(&self) -> Result<Back, Error> {
        let (time, began) = (self.vm().time(), self.vm().time().now());
        let Some((pf, trigger)) = self.first_removed().await else { return Ok(Back::Nothing(None)) };
        let inventory = match self.inventory().await? {
            Ok(inventory) => inventory,
            Err(verdict) => return Ok(Back::Failed(verdict)),
        };
        let alone = self.pfs().iter().filter(|other| other.slot == pf.slot).count() == 1;
        if !alone || self.has_plugged() || !is_empty(&pf.slot, &inventory) {
            return Ok(Back::Nothing(Some(inventory)));
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
        let order = self.in_order(Scope::Hardware).await?;
        self.note(Note::PutBack((time.now() - began).as_secs_f64()));
        Ok(order.map_or_else(Back::Failed, |inventory| Back::There(pf, inventory)))
    }

    /// Puts a card back, enables VFs on it, and disables them again.
    ///
    /// # Errors
    /// As [`Guest::put_back`]; [`Error::Unprepared`] if there is nothing to put back.
    pub async fn put_back_and_use(&self) -> Result<Verdict, Error> {
        let pf = match self.put_back().await? {
            Back::There(pf, _) => pf,
            Back::Failed(verdict) => return Ok(verdict),
            Back::Nothing(_) => return Err(Error::Unprepared("there is no removed card to put back".to_owned())),
        };
        for vfs in [VFS, 0] {
            let write = self.write(pf.numvfs(), vfs, Sched::default()).await?;
            if let Ending::Stuck(stuck) = self.ending(&[&write]).await? {
                return Ok(self.deadlock(&stuck, &[]));
            }
            if let Err(errno) = write.accessed(self.prompt()).await?.value {
                let summary =
                    format!("on the card that was put back, writing {vfs} to sriov_numvfs fails with {}", errno.name);
                return Ok(Verdict::fail(FailureKind::WrongState, "sriov_numvfs", summary));
            }
            match self.agreement().await? {
                Verdict::Pass => {}
                failed => return Ok(failed),
            }
        }
        Ok(Verdict::Pass)
    }

    /// Uses the cards that are left, removes them through sysfs, and checks that the kernel has freed them then: who counts
    /// as their user and never puts the reference shows only now. `inventory` has the functions that the guest has. It is not
    /// asked for here, because that costs a twentieth of a cell.
    ///
    /// # Errors
    /// Those of the checks. A deadline if a removal does not end and no task is stuck: then there is no verdict.
    pub(crate) async fn use_and_clear(&self, inventory: Inventory) -> Result<Verdict, Error> {
        match self.works_again(&inventory).await? {
            Verdict::Pass => {}
            failed => return Ok(failed),
        }
        let cards = cards(&inventory, &self.hardware.slots);
        if cards.is_empty() {
            return Ok(Verdict::Pass);
        }
        for devpath in cards {
            let removal = self.write(format!("/sys{devpath}/remove"), 1, Sched::default()).await?;
            if let Ending::Stuck(stuck) = self.ending(&[&removal]).await? {
                return Ok(self.deadlock(&stuck, &[]));
            }
            if let Err(errno) = removal.accessed(self.prompt()).await?.value {
                let summary = format!("at the end, writing 1 to {devpath}/remove fails with {}", errno.name);
                return Ok(Verdict::fail(FailureKind::WrongState, "remove", summary));
            }
        }
        match self.agreement().await? {
            Verdict::Pass => Ok(self.nothing_left().await),
            failed => Ok(failed),
        }
    }

    /// Whether all places in which the kernel shows its PCI functions agree, at once or after a short time.
    ///
    /// # Errors
    /// Those of the checks. [`Error::Unprepared`] if the disagreements keep changing: then there is no verdict.
    pub async fn agreement(&self) -> Result<Verdict, Error> {
        Ok(self.in_order(Scope::Sysfs).await?.map_or_else(|failed| failed, |_| Verdict::Pass))
    }

    /// The guest's PCI functions if all that this scope names is in order, at once or after a short time. Otherwise the
    /// verdict.
    ///
    /// # Errors
    /// As [`Guest::agreement`].
    async fn in_order(&self, scope: Scope) -> Result<Result<Inventory, Verdict>, Error> {
        let messages = self.agent().messages();
        let time = self.vm().time();
        let (began, mut since) = (time.now(), time.now());
        let mut standing: BTreeSet<Disagreement> = BTreeSet::new();
        loop {
            let position = messages.position();
            let inventory = match self.inventory().await? {
                Ok(inventory) => inventory,
                Err(verdict) => return Ok(Err(verdict)),
            };
            let mut now = disagreements(&inventory);
            if scope == Scope::Hardware {
                now.append(&mut self.not_restored(&inventory).await?);
            }
            if now.is_empty() {
                if let Some(on) = inventory.debug_locks {
                    self.note(Note::Lockdep(if on { Lockdep::On } else { Lockdep::Off }));
                }
                return Ok(Ok(inventory));
            }
            standing.retain(|disagreement| now.contains(disagreement));
            if standing.is_empty() {
                (standing, since) = (now, time.now());
            }
            if time.now() - since > self.seconds(PATIENCE) {
                return Ok(Err(wrong(&standing)));
            }
            if time.now() - began > self.prompt() {
                let all: Vec<_> = standing.iter().map(ToString::to_string).collect();
                return Err(Error::Unprepared(format!("the state of the guest keeps changing: {}", all.join("; "))));
            }
            let event = |message: &Message| matches!(message, Message::Uevent { .. }).then_some(());
            match messages.wait(position, self.seconds(INTERVAL), "a uevent", event).await {
                Err(error) if !error.is_deadline() => return Err(error.into()),
                _ => {}
            }
        }
    }

    /// The guest's PCI functions. A deadlock verdict if the agent's read is stuck: reading `sriov_numvfs` may take a
    /// lock.
    async fn inventory(&self) -> Result<Result<Inventory, Verdict>, Error> {
        let look = self.agent().start(Command::Inventory).await?;
        if let Ending::Stuck(stuck) = self.ending(&[&look]).await? {
            return Ok(Err(self.deadlock(&stuck, &[])));
        }
        Ok(Ok(look.inventory(self.prompt()).await?))
    }

    /// The verdict if the card did not get its driver. The kernel fails only if its own `adapter` attribute reports a
    /// card.
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
        let summary = format!("{error}; the slot's adapter attribute reads 1");
        Ok(Verdict::fail(FailureKind::WrongState, "adapter", summary))
    }
}

/// Whether the kernel has the slot's port, and no function behind it.
fn is_empty(slot: &Slot, inventory: &Inventory) -> bool {
    let below = format!("{}/", slot.port.devpath);
    inventory.folders.contains(&slot.port.devpath) && !inventory.folders.iter().any(|folder| folder.starts_with(&below))
}

/// The folders of the cards in slots, without those that go with a card above them.
fn cards(inventory: &Inventory, slots: &[Slot]) -> Vec<String> {
    let functions = inventory.functions.values().filter(|function| function.physfn.is_none());
    let folders = functions.map(|function| &function.devpath);
    let mut cards: Vec<String> = Vec::new();
    let in_slots: BTreeSet<&String> =
        folders.filter(|path| slots.iter().any(|slot| is_right_behind(&slot.port, path))).collect();
    for path in in_slots {
        if !cards.iter().any(|card| path.starts_with(&format!("{card}/"))) {
            cards.push(path.clone());
        }
    }
    cards
}

fn wrong(standing: &BTreeSet<Disagreement>) -> Verdict {
    let attribute = standing.first().map_or("", |first| first.attribute);
    let all: Vec<_> = standing.iter().map(ToString::to_string).collect();
    Verdict::fail(FailureKind::WrongState, attribute, format!("after the scenario: {}", all.join("; ")))
}

#[cfg(test)]
mod tests {
    use guest_protocol::PciFunction;

    use super::*;
    use crate::guest::Device;

    #[test]
    fn cards_are_removed_without_their_vfs_and_without_what_is_below_them() {
        let port = |name: &str, devpath: &str| Slot {
            id: name.to_owned(),
            number: 1,
            port: Device { bdf: "0000:00:10.0".parse().unwrap(), devpath: devpath.to_owned() },
        };
        let mut inventory = Inventory::default();
        for (bdf, devpath, physfn) in [
            ("0000:00:10.0", "/rp0", None),
            ("0000:01:00.0", "/rp0/pf", None),
            ("0000:01:10.0", "/rp0/vf", Some("0000:01:00.0")),
            ("0000:02:00.0", "/rp1/up", None),
            ("0000:03:00.0", "/rp1/up/dp0", None),
            ("0000:04:00.0", "/rp1/up/dp0/pf", None),
        ] {
            let function =
                PciFunction { devpath: devpath.to_owned(), physfn: physfn.map(str::to_owned), ..Default::default() };
            inventory.functions.insert(bdf.to_owned(), function);
        }
        let slots = [port("rp0", "/rp0"), port("rp1", "/rp1"), port("dp0", "/rp1/up/dp0")];
        assert_eq!(cards(&inventory, &slots), ["/rp0/pf", "/rp1/up"]);
    }
}
