//! What the checks of this machine look at.

use std::path::{Path, PathBuf};

use anyhow::Result;
use harness::cell::PlannedCell;
use harness::host::Wanted;
use harness::host::accel;
use harness::lab::Lab;
use harness::vm::argv::Accel;
use kernels::cache::Cache;
use kernels::{Base, Builder, Manifest, Package};

/// This machine, and what the manifest needs on it.
pub struct Machine {
    cache: Cache,
    needed: Vec<Package>,
    others: Vec<Package>,
    accelerator: Option<String>,
}

impl Machine {
    /// Reads the manifest and the cache. The kernel source of the first base is needed, as the default run uses it.
    ///
    /// # Errors
    /// The manifest is invalid, or the folder of the cache cannot be determined.
    pub fn look() -> Result<Machine> {
        let first = Manifest::of_project()?.bases.into_iter().next();
        Machine::for_bases(|base| first.as_ref() == Some(base))
    }

    /// The same, for a run with kernels of these bases.
    ///
    /// # Errors
    /// The manifest is invalid, or the folder of the cache cannot be determined.
    pub fn for_bases(is_needed: impl Fn(&Base) -> bool) -> Result<Machine> {
        let cache = Cache::of_user()?;
        let builder = Builder::new(Manifest::of_project()?, cache.clone());
        let (needed, others): (Vec<_>, Vec<_>) = builder.manifest().bases.iter().partition(|base| is_needed(base));
        let accelerator = accel::last(&cache).map(|decision| match decision.accel {
            Accel::Kvm => format!("guests run under KVM: {}", decision.why),
            Accel::Tcg => format!("guests run under TCG: {}", decision.why),
        });
        let download = |bases| builder.packages_to_download(bases);
        Ok(Machine { needed: download(needed), others: download(others), cache, accelerator })
    }

    /// The same, for a run of these cells.
    ///
    /// # Errors
    /// The manifest is invalid, or the folder of the cache cannot be determined.
    pub fn for_cells(lab: &Lab, cells: &[PlannedCell]) -> Result<Machine> {
        let variants = lab.manifest().variants.iter();
        let run: Vec<_> = variants.filter(|variant| cells.iter().any(|cell| cell.id.variant == variant.name)).collect();
        Machine::for_bases(|base| run.iter().any(|variant| variant.base == base.name))
    }

    /// What the checks look at.
    pub fn wanted(&self) -> Wanted<'_> {
        Wanted {
            cache: self.cache.root(),
            kernel_sources: &self.needed,
            other_sources: &self.others,
            accelerator: self.accelerator.as_deref(),
        }
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
