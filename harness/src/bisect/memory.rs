//! What was seen of which content, so that nothing is judged twice: not in the same bisection, not when it is resumed, not
//! in another one, and not by `git bisect run`.

use std::collections::HashSet;
use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use kernels::cache::{Cache, CacheError, Key, KeyMaker, Lock};

use super::git::Revision;
use super::ruling::Observed;
use crate::evidence::{EvidenceError, write_whole};
use crate::verdict::Verdict;

/// The shelf of the cache. Its entries are files.
const SHELF: &str = "verdicts";

/// Changes whenever the same kernel may be judged in another way.
const JUDGING: &str = "2";

/// Verdicts on one question, of all contents.
#[derive(Clone, Debug)]
pub struct Memory {
    cache: Cache,
    asked: Vec<(&'static str, String)>,
    /// What was seen before is forgotten, but for these contents.
    afresh: Option<Arc<Mutex<HashSet<String>>>>,
}

/// What was seen of one content. While one process has it, others wait for what it will see.
#[derive(Debug)]
pub struct Page {
    path: PathBuf,
    observed: Vec<Observed>,
    _lock: Lock,
}

impl Memory {
    /// In a cache; `asked` names all that a verdict depends on, but for the kernel's content: scenario, trigger,
    /// configuration, ...
    pub fn new(cache: Cache, asked: Vec<(&'static str, String)>) -> Memory {
        Memory { cache, asked, afresh: None }
    }

    /// The same, with what was seen until now forgotten as it comes up.
    #[must_use]
    pub fn afresh(self) -> Memory {
        Memory { afresh: Some(Arc::default()), ..self }
    }

    /// What is asked, as a key.
    pub fn question(&self) -> KeyMaker {
        let maker = KeyMaker::new().with("judging", JUDGING).with("harness", env!("CARGO_PKG_VERSION"));
        self.asked.iter().fold(maker, |maker, (name, content)| maker.with(name, content))
    }

    /// The cache.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// What was seen of a commit's content.
    ///
    /// # Errors
    /// Those of the cache.
    pub async fn of(&self, revision: &Revision) -> Result<Page, CacheError> {
        let key = self.question().with("tree", &revision.tree).finish();
        let is_new = |seen: &Arc<Mutex<HashSet<String>>>| {
            seen.lock().unwrap_or_else(PoisonError::into_inner).insert(key.as_str().to_owned())
        };
        let forget = self.afresh.as_ref().is_some_and(is_new);
        let cache = self.cache.clone();
        let open = move || open(&cache, &key, forget);
        tokio::task::spawn_blocking(open).await.unwrap_or_else(|died| {
            let path = PathBuf::from(SHELF);
            Err(CacheError::Io { action: "wait for", path, source: std::io::Error::other(died) })
        })
    }
}

fn open(cache: &Cache, key: &Key, forget: bool) -> Result<Page, CacheError> {
    let lock = cache.lock_entry(SHELF, key, || {})?;
    let folder = cache.root().join(SHELF);
    fs::create_dir_all(&folder).map_err(|source| CacheError::Io { action: "create", path: folder.clone(), source })?;
    let path = folder.join(key.as_str());
    let text = if forget { None } else { fs::read(&path).ok() };
    // What another version has written, or half a disk, is as good as nothing: the commit is judged again.
    let observed = text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
    // When it was last used decides how long it stays. In a cache that cannot be written, that is no matter.
    let _ = File::open(&path).and_then(|file| file.set_modified(SystemTime::now()));
    Ok(Page { path, observed, _lock: lock })
}

impl Page {
    /// All of it, in the order in which it was seen.
    pub fn observed(&self) -> &[Observed] {
        &self.observed
    }

    /// Adds what was just seen. What says nothing about the kernel is not kept.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn add(&mut self, observed: Observed) -> Result<(), EvidenceError> {
        if matches!(observed.verdict, Verdict::Infra(_)) {
            return Ok(());
        }
        self.observed.push(observed);
        let text = serde_json::to_vec_pretty(&self.observed).unwrap_or_default();
        write_whole(&self.path, &text)
    }
}
