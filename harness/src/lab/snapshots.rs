//! Booted guests to start from: each machine boots once, and all cells on it start from its snapshot.
//!
//! A snapshot belongs to one QEMU binary and one command line, which names kernel and initramfs by their contents. One that
//! does not restore is thrown away, and the cell boots. How often any of that is tried: [`crate::tries`].

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kernels::cache::{Cache, Key, KeyMaker, Lock};
use tokio::sync::Mutex;

use crate::classify::{self, console};
use crate::tries::{SNAPSHOTS, Sign};
use crate::vm::argv::{Channels, Machine};
use crate::vm::process;
use crate::vm::snapshot::{self, SnapshotError};
use crate::vm::transcript::Speaker;
use crate::vm::{BootError, Recorders, Vm};

/// The shelf of the cache.
const SHELF: &str = "snapshots";
/// Changes whenever a snapshot is taken at another point of a guest's life, or laid out in another way.
const FORMAT: &str = "2";
/// What the guest had printed by then, in an entry.
const CONSOLE: &str = "console.log";

/// The snapshots of a run.
pub struct Snapshots {
    cache: Cache,
    qemu: String,
    /// One for each machine. While its first cell boots and saves, the others wait for the snapshot.
    boots: Mutex<HashMap<String, Arc<Mutex<Boots>>>>,
}

/// What is known of guests that were booted on a machine.
#[derive(Default)]
struct Boots {
    /// How they failed to come up.
    silences: Vec<String>,
    /// They come up, and cannot be saved or had trouble.
    unsaved: bool,
    /// How many snapshots were made that did not restore at once.
    unrestored: usize,
}

impl Boots {
    /// Whether a snapshot may come of another guest.
    fn may_be_saved(&self) -> bool {
        !self.unsaved && self.unrestored < SNAPSHOTS
    }

    /// Why no other guest comes up either, if so many were silent. It is for all cells of a machine as for one.
    fn known(&self) -> Option<BootError> {
        let enough = !Sign::Silence.calls_for_another(self.silences.len());
        enough.then(|| BootError::Known(self.silences.join("; and again: ")))
    }
}

impl Snapshots {
    /// Snapshots in a cache, for a version of QEMU.
    pub fn new(cache: Cache, qemu: String) -> Snapshots {
        Snapshots { cache, qemu, boots: Mutex::default() }
    }

    /// A guest on this machine: restored, from a snapshot that is made now if there is none. If that cannot be, booted.
    ///
    /// # Errors
    /// Those of booting. That a guest could not be saved or restored is none.
    pub async fn start(&self, machine: Machine, recorders: Recorders, within: Duration) -> Result<Vm, BootError> {
        let key = self.key(&machine);
        if let Some(vm) = self.restore(&key, &machine, &recorders, within).await {
            return Ok(vm);
        }
        let restored = match self.make_once(&key, &machine, &recorders, within).await? {
            Made::Now => {
                let resumed = self.resume(&key, &machine, &recorders, within).await;
                if resumed.is_none() {
                    self.boots(&key).await.lock().await.unrestored += 1;
                }
                resumed
            }
            Made::Before => self.restore(&key, &machine, &recorders, within).await,
            Made::Not => None,
        };
        match restored {
            Some(vm) => Ok(vm),
            None => Vm::boot(machine, recorders, within).await,
        }
    }

    async fn boots(&self, key: &Key) -> Arc<Mutex<Boots>> {
        self.boots.lock().await.entry(key.as_str().to_owned()).or_default().clone()
    }

    fn key(&self, machine: &Machine) -> Key {
        let channels = Channels { qmp: "qmp".into(), agent: "agent".into(), console: "console".into() };
        KeyMaker::new()
            .with("format", FORMAT)
            .with("protocol", guest_protocol::VERSION.to_le_bytes())
            .with("qemu", &self.qemu)
            .with("binary", process::identity(&machine.qemu))
            .with("argv", machine.argv(&channels).join("\0"))
            .finish()
    }

    /// Makes a snapshot, unless someone else has done so meanwhile.
    async fn make_once(
        &self,
        key: &Key,
        machine: &Machine,
        recorders: &Recorders,
        within: Duration,
    ) -> Result<Made, BootError> {
        let boots = self.boots(key).await;
        let mut boots = boots.lock().await;
        if self.cache.find(SHELF, key).is_some() {
            return Ok(Made::Before);
        }
        if let Some(known) = boots.known() {
            return Err(known);
        }
        let lock = if boots.may_be_saved() { self.lock(key).await } else { None };
        let Some(lock) = lock else { return Ok(Made::Not) };
        if self.cache.find(SHELF, key).is_some() {
            return Ok(Made::Before);
        }
        match self.make(key, &lock, machine, recorders, within).await {
            Ok(()) => Ok(Made::Now),
            Err(Unmade::Guest(error)) => {
                if matches!(error, BootError::Silent(_)) {
                    let last = console::last_words(&console::log(&recorders.console));
                    boots.silences.push(format!("{error}; {last}"));
                }
                Err(error)
            }
            Err(Unmade::Snapshot) => {
                boots.unsaved = true;
                forget(&recorders.console);
                Ok(Made::Not)
            }
        }
    }

    /// The lock under which a snapshot is made. None in a cache that cannot be written.
    async fn lock(&self, key: &Key) -> Option<Lock> {
        let (cache, key) = (self.cache.clone(), key.clone());
        // It may have to wait for another process that makes this very snapshot.
        let lock = move || cache.lock_entry(SHELF, &key, || {}).ok();
        tokio::task::spawn_blocking(lock).await.ok().flatten()
    }

    /// The guest from a snapshot, if there is one that restores. Its console and transcript begin with the boot.
    async fn restore(&self, key: &Key, machine: &Machine, recorders: &Recorders, within: Duration) -> Option<Vm> {
        let entry = self.cache.find(SHELF, key)?;
        fs::copy(entry.join(CONSOLE), &recorders.console).ok()?;
        let said = snapshot::said(&entry).ok()?;
        said.lines().for_each(|line| (recorders.agent)(Speaker::Guest, line));
        self.resume(key, machine, recorders, within).await
    }

    /// The guest from a snapshot whose boot is on the console and in the transcript already.
    async fn resume(&self, key: &Key, machine: &Machine, recorders: &Recorders, within: Duration) -> Option<Vm> {
        let entry = self.cache.find(SHELF, key)?;
        match Vm::restore(machine.clone(), recorders.clone(), &entry, within).await {
            Ok(vm) => Some(vm),
            Err(_) => {
                self.cache.remove(SHELF, key);
                forget(&recorders.console);
                None
            }
        }
    }

    async fn make(
        &self,
        key: &Key,
        lock: &Lock,
        machine: &Machine,
        recorders: &Recorders,
        within: Duration,
    ) -> Result<(), Unmade> {
        let aside = self.cache.stage(SHELF, key, lock).map_err(|_| Unmade::Snapshot)?;
        Vm::boot_and_save(machine.clone(), recorders.clone(), aside.path(), within).await?;
        if had_trouble(&recorders.console) {
            return Err(Unmade::Snapshot);
        }
        fs::copy(&recorders.console, aside.path().join(CONSOLE)).map_err(|_| Unmade::Snapshot)?;
        self.cache.put(SHELF, key, aside).map_err(|_| Unmade::Snapshot)
    }
}

/// Whether there is a snapshot.
enum Made {
    /// It was made for this very cell, whose console and transcript show it.
    Now,
    /// Someone else made it.
    Before,
    /// It cannot be made.
    Not,
}

/// Why there is no snapshot.
enum Unmade {
    /// The guest did not come up.
    Guest(BootError),
    /// It could not be saved, or had better not; or its memory's file is why QEMU failed, as on a full disk. It may come up without.
    Snapshot,
}

impl From<SnapshotError> for Unmade {
    fn from(error: SnapshotError) -> Unmade {
        match error {
            SnapshotError::Boot(BootError::Qemu(_) | BootError::Gone(_)) => Unmade::Snapshot,
            SnapshotError::Boot(BootError::Ended(ended)) if ended.is_crash() => Unmade::Snapshot,
            SnapshotError::Boot(error) => Unmade::Guest(error),
            _ => Unmade::Snapshot,
        }
    }
}

/// Whether the kernel complained while it booted. Each cell from a snapshot of that would be blamed for it, in this run and in
/// later ones; and if the host was to blame, the next boot need not have it.
fn had_trouble(log: &Path) -> bool {
    !classify::classify(&console::log(log)).is_empty()
}

/// Removes a console's file: the boot that follows has one of its own.
fn forget(console: &Path) {
    let _ = fs::remove_file(console);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_with_a_complaint_is_trouble() {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/classify/fixtures");
        for (console, trouble) in [("clean-boot.log", false), ("rcu-stall-of-the-host.log", true), ("oops.log", true)] {
            let console = fixtures.join(console);
            assert!(console.is_file(), "there is no {}", console.display());
            assert_eq!(had_trouble(&console), trouble, "{}", console.display());
        }
    }
}
