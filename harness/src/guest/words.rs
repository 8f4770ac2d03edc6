//! The words of a script that only the host can carry out: the script says them with `iov` in the guest, and the harness
//! does them while the script waits.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use guest_protocol::{Answer, Command, Function, Message, SlotName, Word, WordId};
use kernels::{FailureKind, Unknown};

use super::removal::Removal;
use super::{AerError, Error, FOREVER, Guest, Pf, Slot};
use crate::trigger::Trigger;
use crate::verdict::Verdict;
use crate::vm::agent::AgentError;

/// QEMU's names of the errors that a port can report.
const ERRORS: [(&str, AerError); 3] =
    [("BAD_TLP", AerError::BadTlp), ("COMP_TIME", AerError::CompletionTimeout), ("DLP", AerError::DataLinkProtocol)];

/// Cards that the script has plugged in.
type Cards = Mutex<Vec<Pf>>;

impl Guest {
    /// Has the agent hear the words of scripts.
    ///
    /// # Errors
    /// The agent's.
    pub(super) async fn hear_words(&self) -> Result<(), Error> {
        self.agent().call(Command::HearWords, self.prompt()).await?;
        Ok(())
    }

    /// Carries out the words of scripts, several at a time, until one of them ends its script with a verdict. `from` is a
    /// position of the messages before the first word.
    ///
    /// # Errors
    /// Those of what the words do. A word that makes no sense is no error: the script is told.
    pub(super) async fn serve_words(&self, from: usize) -> Result<Verdict, Error> {
        let cards = Cards::default();
        let mut running = FuturesUnordered::new();
        let mut heard = BTreeSet::new();
        loop {
            tokio::select! {
                biased;
                Some(done) = running.next() => { let _: () = done?; }
                word = self.word(&heard, from) => match word? {
                    (_, Word::End { kind, at, summary }) => return Ok(verdict(kind.as_deref(), &at, summary)),
                    (id, word) => {
                        heard.insert(id);
                        running.push(self.carry_out(id, word, &cards));
                    }
                }
            }
        }
    }

    /// Waits for a word that is none of these. A script that was killed may have said some before.
    async fn word(&self, heard: &BTreeSet<WordId>, from: usize) -> Result<(WordId, Word), Error> {
        let asked = |message: &Message| match message {
            Message::Asked { id, word, .. } if !heard.contains(id) => Some((*id, word.clone())),
            _ => None,
        };
        Ok(self.agent().messages().wait(from, FOREVER, "a word of the script", asked).await?)
    }

    async fn carry_out(&self, id: WordId, word: Word, cards: &Cards) -> Result<(), Error> {
        let answer = match self.answer(&word, cards).await {
            Ok(answer) => answer,
            Err(Refusal::Word(why)) => Answer::Refused(why),
            Err(Refusal::Error(error)) => return Err(error),
        };
        match self.agent().call(Command::Answer { word: id, answer }, self.prompt()).await {
            // Who said it has been killed.
            Ok(_) | Err(AgentError::Failed { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn answer(&self, word: &Word, cards: &Cards) -> Result<Answer, Refusal> {
        match word {
            Word::Pf { number } => {
                let there = || {
                    Refusal::Word(format!("the topology has {} PFs, and number {number} is not one", self.pfs().len()))
                };
                self.pfs().get(*number).map(function).ok_or_else(there)
            }
            Word::Slot { number } => {
                let slots = &self.hardware.slots;
                let there =
                    || Refusal::Word(format!("the topology has {} slots, and number {number} is not one", slots.len()));
                slots.get(*number).map(|slot| Answer::Slot(name(slot))).ok_or_else(there)
            }
            Word::Remove { bdf, by } => self.remove_named(bdf, by.as_deref(), cards).await,
            Word::Plug { slot } => {
                let slot = match slot {
                    Some(slot) => self.slot_of(slot)?,
                    None => self
                        .hardware
                        .slots
                        .first()
                        .ok_or_else(|| Refusal::Word("the topology has no slot".to_owned()))?,
                };
                let number = locked(cards).len() + 1;
                let card = self.plug(slot, &format!("card{number}")).await.map_err(said)?;
                let pf = self.plugged(&card, self.prompt()).await.map_err(said)?;
                let answer = function(&pf);
                locked(cards).push(pf);
                Ok(answer)
            }
            Word::Inject { slot, error } => {
                let unknown =
                    || Refusal::Word(Unknown::new("error", error, ERRORS.iter().map(|(name, _)| *name)).to_string());
                let (_, error) = ERRORS.iter().find(|(name, _)| name == error).ok_or_else(unknown)?;
                self.inject(self.slot_of(slot)?, *error).await.map_err(said)?;
                Ok(Answer::Done)
            }
            // Whoever waits for the next word takes this one.
            Word::End { .. } => Ok(Answer::Done),
        }
    }

    /// Removes a PF, and waits until the removal is complete.
    async fn remove_named(&self, bdf: &str, by: Option<&str>, cards: &Cards) -> Result<Answer, Refusal> {
        let all: Vec<Pf> = self.pfs().iter().cloned().chain(locked(cards).iter().cloned()).collect();
        // A card that was plugged in may have the address of one that was removed before.
        let pf = all.iter().rev().find(|pf| pf.device.bdf.to_string() == bdf);
        let pf = pf.ok_or_else(|| {
            let known: Vec<_> = all.iter().map(|pf| pf.device.bdf.to_string()).collect();
            Refusal::Word(format!("{bdf} is no PF in a slot; these are: {}", known.join(", ")))
        })?;
        let trigger = match by {
            Some(name) => trigger(name)?,
            None => self.trigger.ok_or_else(|| {
                let why = "no trigger is named: use --by, or run the script with --trigger or `# iov: triggers = ...`";
                Refusal::Word(why.to_owned())
            })?,
        };
        let hotplug = self.vm().machine().hotplug;
        if trigger.hotplug() != hotplug {
            let why = format!(
                "{trigger} needs slots of another kind than this guest has: run the script with --trigger {trigger}"
            );
            return Err(Refusal::Word(why));
        }
        let removal = Removal::start(&self.vm, pf, trigger).await.map_err(said)?;
        self.removals.lock().await.push(removal.clone());
        removal.completed(&self.vm, FOREVER).await.map_err(Refusal::Error)?;
        Ok(Answer::Done)
    }

    /// The slot with this id, or with a port of this address.
    fn slot_of(&self, word: &str) -> Result<&Slot, Refusal> {
        let slots = &self.hardware.slots;
        let found = slots.iter().find(|slot| slot.id == word || slot.port.bdf.to_string() == word);
        found.ok_or_else(|| {
            Refusal::Word(Unknown::new("slot", word, slots.iter().map(|slot| slot.id.as_str())).to_string())
        })
    }
}

/// Why a word is not carried out.
enum Refusal {
    /// The script is told.
    Word(String),
    /// The scenario ends.
    Error(Error),
}

/// What QEMU or the kernel said about a word. The script may go on after it.
fn said(error: Error) -> Refusal {
    match error {
        error if error.ended().is_some() => Refusal::Error(error),
        error => Refusal::Word(error.to_string()),
    }
}

fn locked(cards: &Cards) -> std::sync::MutexGuard<'_, Vec<Pf>> {
    cards.lock().unwrap_or_else(PoisonError::into_inner)
}

fn function(pf: &Pf) -> Answer {
    let sysfs = format!("/sys{}", pf.devpath());
    Answer::Function(Function { bdf: pf.device.bdf.to_string(), sysfs, slot: name(&pf.slot) })
}

fn name(slot: &Slot) -> SlotName {
    SlotName { id: slot.id.clone(), number: slot.number, port: slot.port.bdf.to_string() }
}

fn trigger(name: &str) -> Result<Trigger, Refusal> {
    let found = Trigger::ALL.iter().find(|trigger| trigger.name() == name).copied();
    let unknown = || Unknown::new("trigger", name, Trigger::ALL.iter().map(|one| one.name())).to_string();
    found.ok_or_else(|| Refusal::Word(unknown()))
}

/// The verdict that a script ends with. A kind that nobody knows is a wrong state: the guest's `iov` knows them all.
fn verdict(kind: Option<&str>, at: &str, summary: String) -> Verdict {
    let Some(kind) = kind else { return Verdict::Skip(summary) };
    let kind = FailureKind::ALL.into_iter().find(|one| one.name() == kind).unwrap_or(FailureKind::WrongState);
    Verdict::fail(kind, at, summary)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_names_the_kind_of_its_failure() {
        let stale = verdict(Some("stale-read"), "sriov_numvfs", "still reads 0".to_owned());
        assert_eq!(stale, Verdict::fail(FailureKind::StaleRead, "sriov_numvfs", "still reads 0".to_owned()));
        assert_eq!(verdict(None, "", "no VFs".to_owned()), Verdict::Skip("no VFs".to_owned()));
        for kind in ["blocked", "stale-read", "lost-event", "wrong-state"] {
            assert!(FailureKind::ALL.iter().any(|known| known.name() == kind), "{kind}");
        }
    }
}
