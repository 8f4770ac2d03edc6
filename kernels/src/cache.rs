//! The cache that all runs on a machine share.
//!
//! An entry is a folder that is named by a hash of its ingredients. It is written under another name and then renamed,
//! under an exclusive lock. So a reader never sees an incomplete entry. When two runs need the same entry, the first
//! builds it, and the second waits and then finds it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// A cache.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

/// What went wrong with the cache.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// Neither `IOV_REGRESS_CACHE` nor `HOME` is set.
    #[error("no place for the cache: set IOV_REGRESS_CACHE to a folder (HOME is not set either)")]
    NoHome,
    /// An operation on a file failed.
    #[error("cannot {action} {path}{}", advice(source), path = path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file or folder.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

/// What the user can do about an error in the cache. The text follows that of the error.
pub fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; make room, or set IOV_REGRESS_CACHE to a folder that has it"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "; set IOV_REGRESS_CACHE to a folder that can be written"
        }
        _ => "",
    }
}

impl CacheError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CacheError {
        let path = path.to_owned();
        move |source| CacheError::Io { action, path, source }
    }
}

impl Cache {
    /// The user's cache: `IOV_REGRESS_CACHE`, else `~/.cache/iov-regress`.
    ///
    /// # Errors
    /// [`CacheError::NoHome`].
    pub fn of_user() -> Result<Cache, CacheError> {
        if let Some(root) = std::env::var_os("IOV_REGRESS_CACHE").filter(|root| !root.is_empty()) {
            return Ok(Cache::at(root));
        }
        let home = std::env::var_os("HOME").filter(|home| !home.is_empty()).ok_or(CacheError::NoHome)?;
        Ok(Cache::at(Path::new(&home).join(".cache/iov-regress")))
    }

    /// A cache in a folder, which need not exist yet.
    pub fn at(root: impl Into<PathBuf>) -> Cache {
        Cache { root: root.into() }
    }

    /// Its folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of an entry, if the cache has it.
    pub fn find(&self, shelf: &str, key: &Key) -> Option<PathBuf> {
        let path = self.root.join(shelf).join(key.as_str());
        let folder = File::open(&path).ok().filter(|_| path.is_dir())?;
        // `gc` goes by this time. In a read-only cache this fails, and `gc` cannot remove anything there either.
        let _ = folder.set_modified(SystemTime::now());
        Some(path)
    }

    /// The folder of an entry. If the cache does not have it, `fill` writes it into the folder that it is given. While
    /// one process fills an entry, others that need the same entry wait; `waiting` is called once before that.
    ///
    /// # Errors
    /// Those of `fill`, and of the file system. The entry is not in the cache then.
    pub fn entry<E: From<CacheError>>(
        &self,
        shelf: &str,
        key: &Key,
        waiting: impl FnOnce(),
        fill: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<PathBuf, E> {
        if let Some(path) = self.find(shelf, key) {
            return Ok(path);
        }
        let lock = self.lock_entry(shelf, key, waiting)?;
        if let Some(path) = self.find(shelf, key) {
            return Ok(path);
        }
        let aside = self.stage(shelf, key, &lock)?;
        fill(aside.path())?;
        self.put(shelf, key, aside)?;
        Ok(self.root.join(shelf).join(key.as_str()))
    }

    /// Takes the lock under which an entry is written, as [`Cache::lock`] does.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn lock_entry(&self, shelf: &str, key: &Key, waiting: impl FnOnce()) -> Result<Lock, CacheError> {
        self.lock(&format!("{shelf}-{}", key.as_str()), waiting)
    }

    /// A folder to write an entry into while its lock is held, for [`Cache::put`]. Dropping it removes it.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn stage(&self, shelf: &str, key: &Key, _held: &Lock) -> Result<TempDir, CacheError> {
        let shelf = self.root.join(shelf);
        fs::create_dir_all(&shelf).map_err(CacheError::io("create", &shelf))?;
        let prefix = format!(".new-{}-", key.as_str());
        sweep(&shelf, &prefix);
        aside(&shelf, &prefix)
    }

    /// Makes a folder the entry of a key. If another process has made the entry meanwhile, that entry stays.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn put(&self, shelf: &str, key: &Key, folder: TempDir) -> Result<(), CacheError> {
        let path = self.root.join(shelf).join(key.as_str());
        match fs::rename(folder.path(), &path) {
            // The folder has its final name now. The guard would try to remove the old name.
            Ok(()) => drop(folder.keep()),
            Err(_) if path.is_dir() => {}
            Err(error) => return Err(CacheError::io("move into place", &path)(error)),
        }
        Ok(())
    }

    /// Removes an entry, if the cache has it. It disappears in one step. Processes that have files of it open can still
    /// read them.
    pub fn remove(&self, shelf: &str, key: &Key) {
        let shelf = self.root.join(shelf);
        // After a failure the entry is still there. The next run finds it and removes it again.
        if let Ok(aside) = aside(&shelf, ".old-") {
            let _ = fs::rename(shelf.join(key.as_str()), aside.path());
        }
    }

    /// Takes a named lock that all processes with this cache share. If another process holds it, calls `waiting` once
    /// and waits. The lock is released when the guard is dropped or the process ends.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn lock(&self, name: &str, waiting: impl FnOnce()) -> Result<Lock, CacheError> {
        let (file, path) = self.lock_file(name)?;
        if file.try_lock().is_err() {
            waiting();
            file.lock().map_err(CacheError::io("wait for the lock", &path))?;
        }
        Ok(Lock { _file: file })
    }

    /// Takes a named lock, unless another process holds it: then the result is `None`.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn try_lock(&self, name: &str) -> Result<Option<Lock>, CacheError> {
        let (file, _) = self.lock_file(name)?;
        Ok(file.try_lock().is_ok().then_some(Lock { _file: file }))
    }

    fn lock_file(&self, name: &str) -> Result<(File, PathBuf), CacheError> {
        let folder = self.root.join("locks");
        fs::create_dir_all(&folder).map_err(CacheError::io("create", &folder))?;
        let path = folder.join(name);
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(CacheError::io("open the lock", &path))?;
        Ok((file, path))
    }
}

/// A new folder on a shelf, with a name that no entry has.
fn aside(shelf: &Path, prefix: &str) -> Result<TempDir, CacheError> {
    let folder = tempfile::Builder::new().prefix(prefix).tempdir_in(shelf);
    folder.map_err(CacheError::io("create a folder in", shelf))
}

/// Removes the folders that killed runs have left behind. The caller holds the lock of the key in the prefix, so no
/// other process uses these folders. A folder that cannot be removed only takes disk space.
fn sweep(shelf: &Path, prefix: &str) {
    for entry in fs::read_dir(shelf).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// A lock that is held.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// The name of an entry: a hash of all its ingredients.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key(String);

impl Key {
    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Makes a [`Key`] from named ingredients.
#[derive(Debug, Default)]
pub struct KeyMaker(Sha256);

impl KeyMaker {
    /// A key without ingredients.
    pub fn new() -> KeyMaker {
        KeyMaker::default()
    }

    /// Adds an ingredient. Name and content are hashed with their lengths, so that two different lists of ingredients
    /// never give the same input.
    #[must_use]
    pub fn with(mut self, name: &str, content: impl AsRef<[u8]>) -> KeyMaker {
        for part in [name.as_bytes(), content.as_ref()] {
            self.0.update((part.len() as u64).to_le_bytes());
            self.0.update(part);
        }
        self
    }

    /// The key: 32 hexadecimal digits.
    pub fn finish(self) -> Key {
        Key(self.0.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(content: &str) -> Key {
        KeyMaker::new().with("content", content).finish()
    }

    #[test]
    fn an_entry_is_filled_once() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path());
        for round in 0..2 {
            let path = cache
                .entry::<CacheError>(
                    "things",
                    &key("a"),
                    || {},
                    |aside| {
                        assert_eq!(round, 0, "filled twice");
                        fs::write(aside.join("f"), "x").map_err(CacheError::io("write", aside))
                    },
                )
                .unwrap();
            assert_eq!(fs::read_to_string(path.join("f")).unwrap(), "x");
        }
    }

    #[test]
    fn a_failed_fill_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path());
        let result = cache.entry("things", &key("a"), || {}, |_| Err(CacheError::NoHome));
        assert!(result.is_err());
        assert!(cache.find("things", &key("a")).is_none());
        assert_eq!(fs::read_dir(folder.path().join("things")).unwrap().count(), 0);
    }

    #[test]
    fn the_leftovers_of_a_killed_run_are_removed_by_the_next_run_for_the_same_entry() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path());
        let left = |content| folder.path().join(format!("things/.new-{}-x1y2z3", key(content).as_str()));
        for content in ["a", "b"] {
            fs::create_dir_all(left(content).join("deeper")).unwrap();
        }
        cache.entry::<CacheError>("things", &key("a"), || {}, |_| Ok(())).unwrap();
        assert!(!left("a").exists() && left("b").exists());
    }

    #[test]
    fn an_entry_is_put_and_removed_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path());
        let lock = cache.lock_entry("things", &key("a"), || {}).unwrap();
        for number in 0..2 {
            let aside = cache.stage("things", &key("a"), &lock).unwrap();
            fs::write(aside.path().join("f"), number.to_string()).unwrap();
            cache.put("things", &key("a"), aside).unwrap();
        }
        let entry = cache.find("things", &key("a")).unwrap();
        assert_eq!(fs::read_to_string(entry.join("f")).unwrap(), "0");
        cache.remove("things", &key("a"));
        cache.remove("things", &key("a"));
        assert!(cache.find("things", &key("a")).is_none());
        assert_eq!(fs::read_dir(folder.path().join("things")).unwrap().count(), 0);
    }

    #[test]
    fn concurrent_fills_happen_once() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path());
        let fills = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    cache
                        .entry::<CacheError>(
                            "things",
                            &key("a"),
                            || {},
                            |_| {
                                fills.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                                Ok(())
                            },
                        )
                        .unwrap()
                });
            }
        });
        assert_eq!(fills.into_inner(), 1);
    }

    #[test]
    fn moving_a_character_from_content_to_name_changes_the_key() {
        let one = KeyMaker::new().with("a", "bc").finish();
        let other = KeyMaker::new().with("ab", "c").finish();
        assert_ne!(one, other);
        assert_eq!(one.as_str().len(), 32);
    }
}
