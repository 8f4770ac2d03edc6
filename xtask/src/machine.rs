//! What the checks of the machine are to look at.

use std::path::{Path, PathBuf};

use anyhow::Result;
use harness::accel;
use harness::host::Wanted;
use harness::vm::argv::Accel;
use kernels::cache::Cache;
use kernels::{Builder, Manifest};

/// This machine, with what the manifest wants of it.
pub struct Machine {
    cache: Cache,
    packages: Vec<String>,
    accelerator: Option<String>,
}

impl Machine {
    /// Reads the manifest and the cache.
    ///
    /// # Errors
    /// If the manifest is not right, or there is no place for the cache.
    pub fn look() -> Result<Machine> {
        let cache = Cache::of_user()?;
        let builder = Builder::new(Manifest::load(&workspace().join("kernels"))?, cache.clone());
        let accelerator = accel::last(&cache).map(|decision| match decision.accel {
            Accel::Kvm => format!("guests run under KVM: {}", decision.why),
            Accel::Tcg => format!("guests run under TCG: {}", decision.why),
        });
        Ok(Machine { cache, packages: builder.packages_to_download(), accelerator })
    }

    /// What to look at.
    pub fn wanted(&self) -> Wanted<'_> {
        Wanted { cache: self.cache.root(), kernel_sources: &self.packages, accelerator: self.accelerator.as_deref() }
    }

    /// The cache.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }
}

/// The checkout that this program was built from.
pub fn workspace() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_owned()
}
