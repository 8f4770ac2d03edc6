//! A shelf that machines share: kernels that one of them has built, for the caches of the others.
//!
//! `IOV_REGRESS_SHELF` names it: `s3://bucket/prefix`, `file:///folder`, or `http(s)://...`, which is only read. Credentials
//! come from the environment alone (`AWS_ACCESS_KEY_ID` and so on). An entry has the key that it has in the cache, and
//! is written once: who comes second keeps his own. A shelf that fails, lies or is slow costs a warning and a build: after
//! its first failure it is not asked again by this process.

mod pack;
mod store;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use crate::cache::Key;
use store::Store;

/// The environment variable with the shelf's address.
pub const VARIABLE: &str = "IOV_REGRESS_SHELF";

/// Why the shelf did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum SharedError {
    /// The address is not one of a shelf, or its folder is not there.
    #[error("{VARIABLE}={url}: {why}; it is s3://BUCKET/PREFIX, file:///FOLDER or http(s)://HOST/PATH")]
    Address {
        /// The address.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// The store failed.
    #[error("cannot {action} {name} at {url}: {cause}")]
    Store {
        /// What was being done.
        action: &'static str,
        /// With which object.
        name: String,
        /// The address of the shelf.
        url: String,
        /// Why.
        cause: String,
    },
    /// The content of an object is not what was put there.
    #[error("{name} at {url} is garbled ({why}): remove it there")]
    Garbled {
        /// The object.
        name: String,
        /// The address of the shelf.
        url: String,
        /// How that shows.
        why: String,
    },
    /// A folder of this machine cannot be read or written.
    #[error("cannot read or write {path}: {cause}")]
    Folder {
        /// The folder.
        path: String,
        /// Why.
        cause: std::io::Error,
    },
}

/// A shelf that machines share.
#[derive(Debug)]
pub struct SharedShelf {
    url: String,
    store: Result<Store, String>,
    /// It has failed once.
    failed: AtomicBool,
}

impl SharedShelf {
    /// The shelf that the environment names, the same for the whole process. None if it names none.
    pub fn of_env() -> Option<Arc<SharedShelf>> {
        static SHELF: OnceLock<Option<Arc<SharedShelf>>> = OnceLock::new();
        let url = || std::env::var(VARIABLE).ok().filter(|url| !url.is_empty());
        SHELF.get_or_init(|| url().map(|url| Arc::new(SharedShelf::at(&url)))).clone()
    }

    /// The shelf at an address. A wrong address shows when the shelf is used.
    pub fn at(url: &str) -> SharedShelf {
        SharedShelf { url: url.to_owned(), store: Store::open(url), failed: AtomicBool::new(false) }
    }

    /// Its address.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Whether it has failed in this process, and should not be asked again.
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst)
    }

    /// Whether entries can be put there, as far as the address says.
    pub fn is_writable(&self) -> bool {
        self.store.as_ref().is_ok_and(|store| store.writable)
    }

    /// Takes an entry into a folder. The result is false if the shelf does not have it.
    ///
    /// # Errors
    /// [`SharedError`]. What is in the folder then is no entry.
    pub fn take(&self, shelf: &str, key: &Key, into: &Path) -> Result<bool, SharedError> {
        self.noting(|store| {
            let name = object(shelf, key);
            let Some(bytes) = store.get(&name).map_err(self.failing("read", &name))? else { return Ok(false) };
            let garbled = |why: String| SharedError::Garbled { name: name.clone(), url: self.url.clone(), why };
            let packed = pack::checked(&bytes).map_err(garbled)?;
            pack::unpack(packed, into).map_err(|cause| folder(into, cause))?;
            Ok(true)
        })
    }

    /// Puts an entry there. The result is false if the shelf has it already, or is only read.
    ///
    /// # Errors
    /// [`SharedError`].
    pub fn put(&self, shelf: &str, key: &Key, entry: &Path) -> Result<bool, SharedError> {
        self.noting(|store| {
            if !store.writable {
                return Ok(false);
            }
            let name = object(shelf, key);
            if store.has(&name).map_err(self.failing("look for", &name))? {
                return Ok(false);
            }
            let bytes = pack::pack(entry).map_err(|cause| folder(entry, cause))?;
            store.put(&name, bytes).map_err(self.failing("write", &name))
        })
    }

    /// Tries the shelf: whether it answers, and whether it can be written. A line for people.
    ///
    /// # Errors
    /// [`SharedError`].
    pub fn check(&self) -> Result<String, SharedError> {
        self.noting(|store| {
            let name = format!("probe-{}", std::process::id());
            store.get(&name).map_err(self.failing("read", &name))?;
            if !store.writable {
                return Ok(format!("{} can be read", self.url));
            }
            store.put(&name, b"a probe".to_vec()).map_err(self.failing("write", &name))?;
            store.delete(&name).map_err(self.failing("delete", &name))?;
            Ok(format!("{} can be read and written", self.url))
        })
    }

    fn failing(&self, action: &'static str, name: &str) -> impl FnOnce(String) -> SharedError {
        let (name, url) = (name.to_owned(), self.url.clone());
        move |cause| SharedError::Store { action, name, url, cause }
    }

    /// Does something with the store, and notes a failure. What is garbled is one object, and not the shelf.
    fn noting<T>(&self, work: impl FnOnce(&Store) -> Result<T, SharedError>) -> Result<T, SharedError> {
        let result = match &self.store {
            Ok(store) => work(store),
            Err(why) => Err(SharedError::Address { url: self.url.clone(), why: why.clone() }),
        };
        if let Err(SharedError::Address { .. } | SharedError::Store { .. }) = &result {
            self.failed.store(true, Ordering::SeqCst);
        }
        result
    }
}

fn object(shelf: &str, key: &Key) -> String {
    format!("{shelf}/{}.tar.zst", key.as_str())
}

fn folder(path: &Path, cause: std::io::Error) -> SharedError {
    SharedError::Folder { path: path.display().to_string(), cause }
}

#[cfg(test)]
mod tests;
