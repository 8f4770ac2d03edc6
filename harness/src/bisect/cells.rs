//! Judging commits: builds the kernel of a commit, and runs one cell on it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kernels::cache::KeyMaker;
use kernels::tree::Tree;
use kernels::{CancelToken, Unknown, split_profile};

use super::git::Revision;
use super::memory::Memory;
use super::ruling::Observed;
use crate::cell::{CellId, PlannedCell};
use crate::lab::{Lab, LabError, chain};
use crate::matrix::{Request, Runner};
use crate::progress::{Event, Progress};
use crate::report::Report;
use crate::scenario::Scenario;
use crate::trigger::Trigger;
use crate::verdict::{Expected, Verdict};

/// The cell that judges commits, and how it runs.
pub struct Cells {
    /// The known kernels and the cache.
    pub lab: Lab,
    /// The kernels of the commits.
    pub kernels: Kernels,
    /// The scenario that runs on each kernel.
    pub scenario: Scenario,
    /// The topology of the guest.
    pub topology: String,
    /// How the device is removed.
    pub trigger: Option<Trigger>,
    /// How cells run. The cells of this request are ignored.
    pub how: Request,
    /// Receives the events of builds and cells.
    pub progress: Arc<dyn Progress>,
}

/// The kernels of commits.
pub enum Kernels {
    /// Revisions of a user's tree. The kernels of the lab have no profile.
    OfTree {
        /// The tree.
        tree: Tree,
        /// The user's configuration fragments.
        config: Vec<PathBuf>,
        /// The profile of the kernels, if any.
        profile: Option<String>,
    },
    /// Kernels of the lab, by their names: `base`, `patch-1`, ...
    OfSeries {
        /// The options of `run` that select them.
        options: Vec<String>,
    },
}

impl Cells {
    /// The remembered verdicts of cells with this scenario, trigger and configuration.
    ///
    /// # Errors
    /// If a fragment cannot be read, or the profile is unknown.
    pub fn memory(&self) -> Result<Memory, LabError> {
        let mut config = KeyMaker::new();
        for fragment in self.fragments()? {
            let text = std::fs::read(&fragment).map_err(|source| kernels::cache::CacheError::Io {
                action: "read",
                path: fragment.clone(),
                source,
            })?;
            config = config.with("fragment", text);
        }
        let mut asked = vec![
            ("scenario", self.scenario.name.to_owned()),
            ("topology", self.topology.clone()),
            ("trigger", Trigger::name_of(self.trigger).to_owned()),
            ("config", config.finish().as_str().to_owned()),
            ("profile", self.profile().unwrap_or_default().to_owned()),
            ("quick", self.how.care.quick.to_string()),
        ];
        if let Some(script) = self.scenario.needs.script {
            asked.push(("script", script.key()?.as_str().to_owned()));
        }
        Ok(Memory::new(self.lab.cache().clone(), asked))
    }

    fn profile(&self) -> Option<&str> {
        match &self.kernels {
            Kernels::OfTree { profile, .. } => profile.as_deref(),
            Kernels::OfSeries { .. } => self.lab.manifest().profile.as_ref().map(|profile| profile.name.as_str()),
        }
    }

    /// The fragments that the kernels are configured with. Empty for a series: the keys in its commits include the
    /// fragments.
    fn fragments(&self) -> Result<Vec<PathBuf>, LabError> {
        let Kernels::OfTree { config, profile, .. } = &self.kernels else { return Ok(Vec::new()) };
        let manifest = self.lab.manifest();
        let profile = match profile {
            None => None,
            Some(name) => {
                let known = || manifest.profiles.iter().map(|profile| profile.name.as_str());
                let found = manifest.profiles.iter().find(|profile| profile.name == *name);
                Some(found.ok_or_else(|| Unknown::new("profile", name, known()))?)
            }
        };
        let own = manifest.own.iter().flat_map(|own| &own.config);
        Ok(own.chain(profile.iter().flat_map(|profile| &profile.config)).chain(config).cloned().collect())
    }

    /// Builds a commit and runs the cell on it. An error on the way is [`Verdict::Infra`], which says nothing about the
    /// commit.
    pub async fn run(&self, revision: &Revision) -> Observed {
        self.try_run(revision)
            .await
            .unwrap_or_else(|why| Observed { verdict: Verdict::Infra(chain(&*why)), evidence: None })
    }

    async fn try_run(&self, revision: &Revision) -> Result<Observed, Box<dyn std::error::Error + Send + Sync>> {
        let (lab, variant) = self.kernel(revision).await?;
        let id = CellId {
            scenario: self.scenario.name.to_owned(),
            topology: self.topology.clone(),
            trigger: self.trigger,
            variant,
            repeat: 1,
        };
        let cell = PlannedCell { id, expected: Expected::None };
        let request = Request { cells: vec![cell.clone()], ..self.how.clone() };
        let scenarios = std::slice::from_ref(&self.scenario);
        let runner = Runner::prepare(&lab, scenarios, &request, self.progress.clone()).await?;
        let runner = match &self.kernels {
            Kernels::OfTree { .. } => runner,
            Kernels::OfSeries { options } => runner.of_series(options),
        };
        let record = runner.cell(&cell, &*self.progress, None).await?;
        Report::of(runner.folder())?.write_files()?;
        Ok(Observed { verdict: record.verdict, evidence: Some(runner.folder().join(cell.id.folder())) })
    }

    /// A lab with the kernel of a commit, and the name of the kernel in that lab.
    async fn kernel(&self, revision: &Revision) -> Result<(Lab, String), Box<dyn std::error::Error + Send + Sync>> {
        let mut manifest = self.lab.manifest().clone();
        let Kernels::OfTree { tree, config, profile } = &self.kernels else {
            let found = manifest.variants.iter().find(|variant| split_profile(&variant.name).0 == revision.short);
            let known = || manifest.variants.iter().map(|variant| variant.name.as_str());
            let name = found.ok_or_else(|| Unknown::new("kernel", &revision.short, known()))?.name.clone();
            return Ok((self.lab.with(manifest), name));
        };
        let (of, id) = (tree.clone(), revision.id.clone());
        let look = move || of.revision(&id, &CancelToken::new());
        let found = tokio::task::spawn_blocking(look).await??;
        manifest.add_revision(&revision.short, found, config);
        let manifest = match profile {
            Some(profile) => manifest.under(profile)?,
            None => manifest,
        };
        let name = manifest.variants.last().map(|variant| variant.name.clone()).unwrap_or_default();
        Ok((self.lab.with(manifest), name))
    }
}

/// Passes on events of builds and errors, and the accelerator once. It drops the events of cells, because the result of
/// a cell is reported as that of its commit.
pub struct OfCommits {
    to: Arc<dyn Progress>,
    accelerator: AtomicBool,
}

impl OfCommits {
    /// Passes events on to another receiver.
    pub fn new(to: Arc<dyn Progress>) -> OfCommits {
        OfCommits { to, accelerator: AtomicBool::new(false) }
    }
}

impl Progress for OfCommits {
    fn event(&self, event: Event<'_>) {
        match event {
            Event::CellStarted { .. } | Event::CellFinished { .. } | Event::CellWithoutKernel { .. } => {}
            Event::Accelerator(_) if self.accelerator.swap(true, Ordering::Relaxed) => {}
            event => self.to.event(event),
        }
    }
}
