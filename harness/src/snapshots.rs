//! Booted guests to start from: each machine boots once, and every later cell on it starts from its snapshot.
//!
//! A snapshot belongs to one QEMU binary and one command line, which names kernel and initramfs by their contents. One that
//! does not restore is thrown away, and the cell boots.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kernels::cache::{Cache, CacheError, Key, KeyMaker};
use tokio::sync::Mutex;

use crate::judge;
use crate::vm::argv::{Channels, Machine};
use crate::vm::{BootError, Recorders, Vm};

/// The shelf of the cache.
const SHELF: &str = "snapshots";
/// Changes whenever a snapshot is taken at another point of a guest's life, or laid out in another way.
const FORMAT: &str = "1";
/// QEMU's state of the guest, in an entry.
const STATE: &str = "state";
/// What the guest had printed by then.
const CONSOLE: &str = "console.log";

/// The snapshots of a run.
pub struct Snapshots {
    cache: Cache,
    qemu: String,
    /// One for each machine. While its first cell boots and saves, the others wait for the snapshot.
    boots: Mutex<HashMap<String, Arc<Mutex<Silences>>>>,
}

/// How guests on a machine failed to come up: each time the whole deadline passed, so there is no sense in many times.
#[derive(Default)]
struct Silences(Vec<String>);

/// After this many, no other guest is booted on a machine. One may be the test bed's fault.
const ENOUGH: usize = 2;

impl Snapshots {
    /// Snapshots in a cache, for a version of QEMU.
    pub fn new(cache: Cache, qemu: String) -> Snapshots {
        Snapshots { cache, qemu, boots: Mutex::default() }
    }

    /// A guest on this machine: restored if there is a snapshot, else booted, and saved for those to come.
    ///
    /// # Errors
    /// Those of booting. That a guest could not be saved or restored is none: it just boots.
    pub async fn start(&self, machine: Machine, recorders: Recorders, within: Duration) -> Result<Vm, BootError> {
        let key = self.key(&machine);
        if let Some(vm) = self.restore(&key, &machine, &recorders, within).await {
            return Ok(vm);
        }
        let boots = self.boots.lock().await.entry(key.as_str().to_owned()).or_default().clone();
        let mut silences = boots.lock().await;
        if let Some(vm) = self.restore(&key, &machine, &recorders, within).await {
            return Ok(vm);
        }
        if silences.0.len() >= ENOUGH {
            return Err(BootError::Known(silences.0.join("; and again: ")));
        }
        let vm = match Vm::boot(machine.clone(), recorders.clone(), within).await {
            Err(error @ BootError::Silent(_)) => {
                let last = judge::last_words(&judge::log(&recorders.console));
                silences.0.push(format!("{error}; {last}"));
                return Err(error);
            }
            booted => booted?,
        };
        match self.save(&key, &vm, &recorders.console).await {
            Ok(()) => Ok(vm),
            // A guest that stands still is of no use; another one boots, and is not saved.
            Err(_) => {
                drop(vm);
                Vm::boot(machine, recorders, within).await
            }
        }
    }

    fn key(&self, machine: &Machine) -> Key {
        let channels = Channels { qmp: "qmp".into(), agent: "agent".into(), console: "console".into() };
        KeyMaker::new()
            .with("format", FORMAT)
            .with("protocol", guest_protocol::VERSION.to_le_bytes())
            .with("qemu", &self.qemu)
            .with("argv", machine.argv(&channels).join("\0"))
            .finish()
    }

    /// The guest from a snapshot, if there is one that restores.
    async fn restore(&self, key: &Key, machine: &Machine, recorders: &Recorders, within: Duration) -> Option<Vm> {
        let entry = self.cache.find(SHELF, key)?;
        // The console goes on where the snapshot's left off, so that the cell's log is whole.
        fs::copy(entry.join(CONSOLE), &recorders.console).ok()?;
        match Vm::restore(machine.clone(), recorders.clone(), &entry.join(STATE), within).await {
            Ok(vm) => Some(vm),
            Err(_) => {
                self.cache.remove(SHELF, key);
                // The boot that follows has a console of its own.
                let _ = fs::remove_file(&recorders.console);
                None
            }
        }
    }

    async fn save(&self, key: &Key, vm: &Vm, console: &Path) -> Result<(), String> {
        let text = |error: CacheError| error.to_string();
        let aside = self.cache.stage(SHELF, key).map_err(text)?;
        vm.save(&aside.path().join(STATE)).await.map_err(|error| error.to_string())?;
        let copy: PathBuf = aside.path().join(CONSOLE);
        fs::copy(console, &copy).map_err(|error| format!("copy the console to {}: {error}", copy.display()))?;
        self.cache.put(SHELF, key, aside).map_err(text)
    }
}
