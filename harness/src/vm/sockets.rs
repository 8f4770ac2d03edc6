//! The private folder of a QEMU's sockets. It is removed with its guest, or else by the next harness.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Once;

use tempfile::TempDir;

/// The prefix of the names of these folders. The harness's process id and a random part follow.
const PREFIX: &str = "iov-regress-";

/// The prefix of the names of this process's folders.
pub fn prefix() -> String {
    format!("{PREFIX}{}-", std::process::id())
}

/// Creates a folder. The first call in a process also removes the folders of harnesses that were killed.
///
/// # Errors
/// Those of the file system.
pub fn folder() -> io::Result<TempDir> {
    static SWEEP: Once = Once::new();
    let folder = std::env::temp_dir();
    SWEEP.call_once(|| sweep(&folder));
    tempfile::Builder::new().prefix(&prefix()).tempdir_in(folder)
}

/// Removes the folders of dead processes. Folders of other users cannot be removed, and stay.
fn sweep(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(owner) = owner(&name.to_string_lossy()) else { continue };
        if !Path::new("/proc").join(owner.to_string()).exists() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// The process that made a folder of this name, if it is one of ours.
fn owner(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split_once('-')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_folders_of_dead_processes_are_removed() {
        let temp = tempfile::tempdir().unwrap();
        // Above the largest process id of Linux (PID_MAX_LIMIT, 2^22).
        let names = [("iov-regress-4194305-abc", true), ("iov-regress-abc", false), ("other-4194305-abc", false)];
        let own = format!("{PREFIX}{}-abc", std::process::id());
        for name in names.iter().map(|(name, _)| *name).chain([own.as_str()]) {
            fs::create_dir(temp.path().join(name)).unwrap();
        }
        sweep(temp.path());
        for (name, removed) in names {
            assert_eq!(!temp.path().join(name).exists(), removed, "{name}");
        }
        assert!(temp.path().join(own).exists());
    }
}
