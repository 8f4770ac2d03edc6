//! Snapshots of booted guests: each machine boots once, and all cells on it start from its snapshot.
//!
//! A snapshot belongs to one QEMU binary and one command line, which names kernel and initramfs by their contents. A
//! snapshot that cannot be restored is deleted, and the cell boots. How often all this is tried: [`crate::tries`].

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
/// To be increased if the point at which a snapshot is taken changes, or its layout.
const FORMAT: &str = "2";
/// The file in an entry with the console output until the snapshot.
const CONSOLE: &str = "console.log";

/// The snapshots of a run.
pub struct Snapshots {
    cache: Cache,
    qemu: String,
    /// One entry for each machine. While its first cell boots and saves, the other cells wait for the snapshot.
    boots: Mutex<HashMap<String, Arc<Mutex<Boots>>>>,
}

/// The results of boots on a machine.
#[derive(Default)]
struct Boots {
    /// The boots that failed because the agent did not answer.
    timeouts: Vec<String>,
    /// A guest booted, but could not be saved, or printed a splat.
    unsaved: bool,
    /// How many snapshots were saved that could not be restored right afterwards.
    unrestored: usize,
}

impl Boots {
    /// Whether another guest may give a snapshot.
    fn may_be_saved(&self) -> bool {
        !self.unsaved && self.unrestored < SNAPSHOTS
    }

    /// The error for all further cells of this machine, if so many boots have failed that another one would fail too.
    fn known(&self) -> Option<BootError> {
        let enough = !Sign::Silence.calls_for_another(self.timeouts.len());
        enough.then(|| BootError::Known(self.timeouts.join("; and again: ")))
    }
}

impl Snapshots {
    /// Snapshots in a cache, for a version of QEMU.
    pub fn new(cache: Cache, qemu: String) -> Snapshots {
        Snapshots { cache, qemu, boots: Mutex::default() }
    }

    /// A guest on this machine, restored from a snapshot. If there is no snapshot, makes one. If no snapshot can be
    /// made or restored, boots the guest.
    ///
    /// # Errors
    /// Those of booting. A guest that cannot be saved or restored is not an error.
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
        let channels =
            Channels { qmp: "qmp".into(), agent: "agent".into(), gate: "gate".into(), console: "console".into() };
        let machine = Machine { clock: machine.clock.without_places(), traced: None, monitor: None, ..machine.clone() };
        KeyMaker::new()
            .with("format", FORMAT)
            .with("protocol", guest_protocol::VERSION.to_le_bytes())
            .with("qemu", &self.qemu)
            .with("binary", process::identity(&machine.qemu))
            .with("argv", machine.argv(&channels).join("\0"))
            .finish()
    }

    /// Makes a snapshot, unless another cell or process has done so in the meantime.
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
                    boots.timeouts.push(format!("{error}; {last}"));
                }
                Err(error)
            }
            Err(Unmade::Snapshot) => {
                boots.unsaved = true;
                delete_log(&recorders.console);
                Ok(Made::Not)
            }
        }
    }

    /// The lock to make a snapshot. None in a cache that cannot be written.
    async fn lock(&self, key: &Key) -> Option<Lock> {
        let (cache, key) = (self.cache.clone(), key.clone());
        // On a blocking thread: another process that makes the same snapshot may hold the lock.
        let lock = move || cache.lock_entry(SHELF, &key, || {}).ok();
        tokio::task::spawn_blocking(lock).await.ok().flatten()
    }

    /// Restores a guest from a snapshot. None if there is no snapshot that can be restored. The guest's console log and
    /// transcript begin with the boot.
    async fn restore(&self, key: &Key, machine: &Machine, recorders: &Recorders, within: Duration) -> Option<Vm> {
        let entry = self.cache.find(SHELF, key)?;
        fs::copy(entry.join(CONSOLE), &recorders.console).ok()?;
        let said = snapshot::said(&entry).ok()?;
        said.lines().for_each(|line| (recorders.agent)(Speaker::Guest, line));
        self.resume(key, machine, recorders, within).await
    }

    /// Restores a guest from a snapshot, when its boot is already in the console log and in the transcript.
    async fn resume(&self, key: &Key, machine: &Machine, recorders: &Recorders, within: Duration) -> Option<Vm> {
        let entry = self.cache.find(SHELF, key)?;
        match Vm::restore(machine.clone(), recorders.clone(), &entry, within).await {
            Ok(vm) => Some(vm),
            Err(_) => {
                self.cache.remove(SHELF, key);
                delete_log(&recorders.console);
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
        // What is traced is the cell, not the boot before its snapshot.
        let machine = Machine { traced: None, monitor: None, ..machine.clone() };
        Vm::boot_and_save(machine, recorders.clone(), aside.path(), within).await?;
        if had_splat(&recorders.console) {
            return Err(Unmade::Snapshot);
        }
        fs::copy(&recorders.console, aside.path().join(CONSOLE)).map_err(|_| Unmade::Snapshot)?;
        self.cache.put(SHELF, key, aside).map_err(|_| Unmade::Snapshot)
    }
}

/// Whether there is a snapshot.
enum Made {
    /// It was made by booting for this cell. Its console log and transcript contain the boot.
    Now,
    /// Another cell or process made it.
    Before,
    /// It cannot be made.
    Not,
}

/// Why there is no snapshot.
enum Unmade {
    /// The guest did not boot.
    Guest(BootError),
    /// The guest could not or must not be saved, or QEMU failed because of the memory file, for example on a full disk.
    /// The guest may boot without a snapshot.
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

/// Whether the kernel printed a splat while it booted. Every cell from such a snapshot would fail because of it, in
/// this run and in later ones. If the host was the cause, the next boot may have no splat.
fn had_splat(log: &Path) -> bool {
    !classify::classify(&console::log(log)).is_empty()
}

/// Deletes a console log, because the next boot writes a new one.
fn delete_log(console: &Path) {
    let _ = fs::remove_file(console);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_with_a_splat_is_recognized() {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/classify/fixtures");
        for (console, splat) in [("clean-boot.log", false), ("rcu-stall-of-the-host.log", true), ("oops.log", true)] {
            let console = fixtures.join(console);
            assert!(console.is_file(), "there is no {}", console.display());
            assert_eq!(had_splat(&console), splat, "{}", console.display());
        }
    }
}
