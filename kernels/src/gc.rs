//! Keeps the cache small: finds and removes entries that were not used for a while. All of them can be made again.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::cache::{Cache, CacheError};
use crate::tree;

/// Folders of the cache that hold no entries.
const NOT_ENTRIES: [&str; 1] = ["locks"];

/// An entry that was not used for long enough to be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stale {
    /// Its folder or file.
    pub path: PathBuf,
    /// How many bytes of disk it takes. A file with several hard links counts once for each of them.
    pub bytes: u64,
}

/// All that was not used within this time: entries of all shelves, build logs, and leftovers of killed runs. An entry
/// is used when it is found or made.
///
/// # Errors
/// If the cache cannot be listed. A cache that does not exist is an empty one.
pub fn stale(cache: &Cache, unused_for: Duration) -> Result<Vec<Stale>, CacheError> {
    let mut found = Vec::new();
    for shelf in list(cache.root())? {
        if shelf.is_dir() && !NOT_ENTRIES.iter().any(|name| shelf.ends_with(name)) {
            let old = list(&shelf)?.into_iter().filter(|entry| age(entry).is_some_and(|age| age >= unused_for));
            found.extend(old.map(|path| Stale { bytes: size(&path), path }));
        }
    }
    Ok(found)
}

/// Removes a stale entry. The result is `false` if another run holds the entry's lock, so that it stays.
///
/// # Errors
/// If the lock is free and the entry cannot be removed.
pub fn remove(cache: &Cache, stale: &Stale) -> Result<bool, CacheError> {
    let names: Vec<_> = stale.path.components().rev().take(2).map(|part| part.as_os_str().to_string_lossy()).collect();
    let Some(_lock) = cache.try_lock(&format!("{}-{}", names[1], names[0]))? else { return Ok(false) };
    if names[1] == tree::SHELF {
        tree::forget(&stale.path);
    }
    let result = if stale.path.is_dir() { fs::remove_dir_all(&stale.path) } else { fs::remove_file(&stale.path) };
    result.map_err(|source| CacheError::Io { action: "remove", path: stale.path.clone(), source })?;
    Ok(true)
}

fn list(folder: &Path) -> Result<Vec<PathBuf>, CacheError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(CacheError::Io { action: "list", path: folder.to_owned(), source }),
    };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    Ok(paths)
}

/// How long ago a file or folder was changed. None if it was removed meanwhile.
fn age(path: &Path) -> Option<Duration> {
    let modified = fs::symlink_metadata(path).ok()?.modified().ok()?;
    // If the clock was set back, the time may be in the future.
    Some(SystemTime::now().duration_since(modified).unwrap_or_default())
}

fn size(path: &Path) -> u64 {
    let Ok(metadata) = fs::symlink_metadata(path) else { return 0 };
    let own = std::os::unix::fs::MetadataExt::blocks(&metadata) * 512;
    let below: u64 = match metadata.is_dir() {
        true => fs::read_dir(path).into_iter().flatten().flatten().map(|entry| size(&entry.path())).sum(),
        false => 0,
    };
    own + below
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::cache::KeyMaker;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    #[test]
    fn only_unused_entries_that_no_run_holds_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path());
        let entry = |name: &str| {
            let key = KeyMaker::new().with("name", name).finish();
            let fill = |aside: &Path| {
                fs::write(aside.join("f"), [0; 5000]).unwrap();
                Ok::<_, CacheError>(())
            };
            let path = cache.entry("things", &key, || {}, fill).unwrap();
            File::open(&path).unwrap().set_modified(SystemTime::now() - 2 * DAY).unwrap();
            (key, path)
        };
        let used = entry("used");
        let old = entry("old");
        let held = entry("held");
        cache.find("things", &used.0).unwrap();
        let _lock = cache.lock(&format!("things-{}", held.0.as_str()), || {}).unwrap();

        assert_eq!(stale(&cache, 3 * DAY).unwrap(), []);
        let found = stale(&cache, DAY).unwrap();
        let paths: std::collections::BTreeSet<_> = found.iter().map(|stale| stale.path.clone()).collect();
        assert_eq!(paths, [old.1.clone(), held.1.clone()].into());
        for stale in &found {
            assert!(stale.bytes >= 5000, "{stale:?}");
            assert_eq!(remove(&cache, stale).unwrap(), stale.path == old.1);
        }
        assert!(used.1.is_dir() && held.1.is_dir() && !old.1.exists());
    }

    #[test]
    fn a_cache_that_does_not_exist_has_no_stale_entries() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(stale(&Cache::at(folder.path().join("none")), DAY).unwrap(), []);
    }
}
