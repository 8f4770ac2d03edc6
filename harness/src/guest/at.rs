//! Acting while the kernel stands at a place of its code: a function's beginning. Only a guest whose clock is held can be
//! stopped there ([`crate::vm::gate`]).

use std::time::Duration;

use super::{Error, Guest};
use crate::notes::Note;
use crate::vm::drive::DriveError;
use crate::vm::event_log::WaitError;
use crate::vm::gate::Gate;
use crate::vm::starved::Late;

/// Where a guest is to be stopped.
pub struct Stopping<'a> {
    guest: &'a Guest,
    gate: &'a Gate,
    place: usize,
    symbol: &'a str,
}

impl Guest {
    /// Makes the guest stop when the kernel comes to this function from now on: the first time, and in the n-th repeat of a
    /// cell the n-th time. As a held guest always does the same, repeats try one place after the other. The scenario must
    /// have named the function ([`crate::scenario::Needs::places`]). None if the guest cannot be stopped there: its clock is
    /// the host's, or the kernel does not have the function, perhaps because it is inlined. The latter is noted.
    ///
    /// # Errors
    /// [`Error::Drive`].
    pub async fn stop_at<'a>(&'a self, symbol: &'a str) -> Result<Option<Stopping<'a>>, Error> {
        let Some(gate) = self.vm().gate() else { return Ok(None) };
        let places = self.vm().machine().places();
        let Some(place) = places.iter().position(|place| place.symbol == symbol) else {
            self.note(Note::NoPlace(symbol.to_owned()));
            return Ok(None);
        };
        gate.stop_at(place, self.repeat.into()).await.map_err(DriveError::from)?;
        Ok(Some(Stopping { guest: self, gate, place, symbol }))
    }
}

impl Stopping<'_> {
    /// Waits until the guest stands there. It stands until the scenario waits for something else.
    ///
    /// # Errors
    /// A deadline if the kernel does not come there in time, or [`Error::Lacks`] in a further repeat; [`Error::Drive`].
    pub async fn stopped(&self, within: Duration) -> Result<(), Error> {
        match self.guest.vm().time().timeout(within, self.gate.at_place(self.place)).await {
            Ok(stopped) => Ok(stopped.map_err(DriveError::from)?),
            Err(Late { within, starved }) => {
                self.gate.stop_at(self.place, 0).await.map_err(DriveError::from)?;
                if self.guest.repeat > 1 {
                    return Err(Error::Lacks(format!("call {} of {} here", self.guest.repeat, self.symbol)));
                }
                let awaited = format!("the kernel to come to {}", self.symbol);
                Err(WaitError::Deadline { awaited, within, starved, last: "it did not come there".to_owned() }.into())
            }
        }
    }
}
