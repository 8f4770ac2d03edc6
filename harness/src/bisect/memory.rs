//! Remembered verdicts by the content of commits. So no commit is judged twice: in a bisection, after it is resumed, in
//! another bisection, or by `git bisect run`.

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

/// The folder of the cache. Its entries are files.
const SHELF: &str = "verdicts";

/// To be increased with each change of the code after which the same kernel may get another verdict.
const JUDGING: &str = "2";

/// The remembered verdicts for one question, on commits with any content.
#[derive(Clone, Debug)]
pub struct Memory {
    cache: Cache,
    asked: Vec<(&'static str, String)>,
    /// If set, old verdicts are ignored, except for these contents, which were judged since then.
    afresh: Option<Arc<Mutex<HashSet<String>>>>,
}

/// The verdicts on one content. It is locked: other processes wait until the one that has it is done.
#[derive(Debug)]
pub struct Page {
    path: PathBuf,
    observed: Vec<Observed>,
    _lock: Lock,
}

impl Memory {
    /// Verdicts in a cache. `asked` names everything that a verdict depends on, except for the kernel's content:
    /// scenario, trigger, configuration, ...
    pub fn new(cache: Cache, asked: Vec<(&'static str, String)>) -> Memory {
        Memory { cache, asked, afresh: None }
    }

    /// The same, but old verdicts on a content are forgotten the first time it is judged.
    #[must_use]
    pub fn afresh(self) -> Memory {
        Memory { afresh: Some(Arc::default()), ..self }
    }

    /// The question as the beginning of a key.
    pub fn question(&self) -> KeyMaker {
        let maker = KeyMaker::new().with("judging", JUDGING).with("harness", env!("CARGO_PKG_VERSION"));
        self.asked.iter().fold(maker, |maker, (name, content)| maker.with(name, content))
    }

    /// The cache.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// The verdicts on a commit's content.
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
    // If the file is damaged, or another version wrote it, the commit is judged again.
    let observed = text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
    // The cache deletes entries by the time of their last use. An error does not matter: a cache that cannot be written
    // does not delete entries.
    let _ = File::open(&path).and_then(|file| file.set_modified(SystemTime::now()));
    Ok(Page { path, observed, _lock: lock })
}

impl Page {
    /// All runs, oldest first.
    pub fn observed(&self) -> &[Observed] {
        &self.observed
    }

    /// Adds a run. A verdict that says nothing about the kernel ([`Verdict::Infra`]) is not kept.
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
