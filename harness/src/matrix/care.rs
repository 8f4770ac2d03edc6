//! What is done with each guest beside its scenario.

use std::time::Duration;

/// What is done with each guest beside its scenario, if the user asks for something else than usual.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Care {
    /// Skip the checks that a removed card works when it is put back, and that cards can be used again and removed.
    pub quick: bool,
    /// Dump the guest's memory at the end of each cell, not only after a deadlock.
    pub dump: bool,
    /// Look at who waits for whom each time that this much of the guest's time has passed, not only when something takes
    /// long. It costs 5 ms a look, and the guest executes an alarm for each.
    pub look_every: Option<Duration>,
}
