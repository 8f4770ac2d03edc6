//! Which clock guests run on: their own, held by a plugin of QEMU, wherever that is possible.

use std::ffi::OsStr;

use kernels::cache::Cache;

use super::plugin::{self, Plugin};
use crate::vm::argv::{Accel, Engine};
use crate::vm::clock::{Clock, Held};

/// The clock that the user asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The guest's own clock, which is held. The host's if guests run under KVM, or if QEMU takes no plugin.
    #[default]
    Guest,
    /// The host's.
    Host,
}

/// The accelerator with the clock of the guests, and why it is the host's although the other was asked for.
pub fn decide(choice: Choice, accel: Accel, cache: &Cache, qemu: &OsStr) -> (Engine, Option<String>) {
    let host = Engine { accel, clock: Clock::Host };
    match (choice, accel) {
        (Choice::Host, _) => (host, None),
        (Choice::Guest, Accel::Kvm) => (host, Some("the CPU executes the guests' instructions".to_owned())),
        (Choice::Guest, Accel::Tcg) => match plugin::for_qemu(Plugin::Gate, cache, qemu) {
            Ok(plugin) => (Engine { accel, clock: Clock::Held(Held { plugin, places: Vec::new() }) }, None),
            Err(error) => (host, Some(error.to_string())),
        },
    }
}
