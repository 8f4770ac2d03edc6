//! The folder of a QEMU's sockets: private, and gone with its guest, or at the latest when the next harness looks.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Once;

use tempfile::TempDir;

/// What the names of these folders begin with; the harness's process id and a random part follow.
const PREFIX: &str = "iov-regress-";

/// What the names of this process's folders begin with.
pub fn prefix() -> String {
    format!("{PREFIX}{}-", std::process::id())
}

/// Makes one. The first time in a process, removes those of harnesses that were killed and could not do so.
///
/// # Errors
/// Those of the file system.
pub fn folder() -> io::Result<TempDir> {
    static SWEEP: Once = Once::new();
    let folder = std::env::temp_dir();
    SWEEP.call_once(|| sweep(&folder));
    tempfile::Builder::new().prefix(&prefix()).tempdir_in(folder)
}

/// What cannot be removed is somebody else's, and stays.
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
    fn what_the_dead_left_is_removed_and_nothing_else() {
        let temp = tempfile::tempdir().unwrap();
        // Above the largest process id that Linux gives (PID_MAX_LIMIT, 2^22).
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
