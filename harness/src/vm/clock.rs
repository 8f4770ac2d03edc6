//! Whose clock a guest runs on: the host's, or its own, which stands still whenever the harness wants it to.

use std::fmt;
use std::path::PathBuf;

/// The clock of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Clock {
    /// The guest's time goes on as the host's does.
    #[default]
    Host,
    /// The guest's time is the number of its instructions. While all its CPUs are idle, it jumps to the next timer. A
    /// plugin stops the guest after each line of its agent, until the harness says go ([`super::gate`]). Only for TCG.
    Held(Held),
}

/// What a machine with a held clock needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The plugin that stops the guest, compiled for the QEMU of the machine ([`crate::vm::gate`]).
    pub plugin: PathBuf,
    /// Where the guest can be stopped. They do not change the guest, so they are not part of what a snapshot depends
    /// on.
    pub places: Vec<Place>,
}

/// An instruction of the kernel at which the guest is stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its symbol.
    pub symbol: String,
    /// Its virtual address: guests have no KASLR.
    pub address: u64,
}

impl Clock {
    /// Its name, as in the record of a run.
    pub fn name(&self) -> &'static str {
        match self {
            Clock::Host => "host",
            Clock::Held(_) => "guest",
        }
    }

    /// The same clock, with these places.
    pub fn with_places(self, places: Vec<Place>) -> Clock {
        match self {
            Clock::Host => Clock::Host,
            Clock::Held(held) => Clock::Held(Held { places, ..held }),
        }
    }

    /// The same clock, without places.
    pub fn without_places(&self) -> Clock {
        self.clone().with_places(Vec::new())
    }
}

/// As in the plugin's argument `at=`.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_written_as_the_plugin_reads_it() {
        let place = Place { symbol: "pci_reset_function".to_owned(), address: 0xffff_ffff_814c_0a30 };
        assert_eq!(place.to_string(), "0xffffffff814c0a30");
    }
}
