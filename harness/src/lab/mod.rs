//! The parts that all cells of a run share: kernels, the guest image, the accelerator.

pub mod images;
pub mod looks;
pub mod selftests;
pub mod snapshots;

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use guest_images::{ImageError, Initramfs};
use images::{Image, Images};
use kernels::cache::{Cache, CacheError};
use kernels::series::{Fit, Manner, SeriesPatch};
use kernels::shared::SharedShelf;
use kernels::{
    BuildError, BuildEvent, Builder, CancelToken, KernelImage, Manifest, ManifestError, Observer, Profile, Unknown,
};
use looks::Looks;
use selftests::Tests;

use crate::host::Qemu;
use crate::host::accel::{self, Choice, Decision};
use crate::host::clock;
use crate::progress::{Event, Progress};
use crate::scenario::Scenario;
use crate::trigger::{Hotplug, Trigger};
use crate::verdict::Verdict;
use crate::vm::argv::{Accel, Engine, MEMORY_MIB, Machine};
use crate::vm::clock::Clock;
use crate::vm::topology::Topology;
use crate::vm::tsc;

/// The manifest of kernels, the builder and the cache.
pub struct Lab {
    cache: Cache,
    builder: Arc<Builder>,
    cancel: CancelToken,
}

/// Why a run cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The manifest is wrong.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The manifest does not have the profile.
    #[error(transparent)]
    Profile(#[from] Unknown),
    /// The cache failed.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The guest image could not be built.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// No kernel could be built, and the kernels are not at fault.
    #[error("no kernel could be built, so there is nothing to run:\n{}", .0.join("\n"))]
    NoKernel(Vec<String>),
    /// The source of a kernel could not be fetched or read.
    #[error("{0}")]
    Source(String),
    /// The build thread panicked.
    #[error("the build ended without a result: {0}")]
    Thread(String),
}

/// Everything that guests are made of. Some kernels may not be built yet.
pub struct Parts {
    /// The kernels, as they are built.
    pub images: Images,
    /// The initramfs, without modules.
    pub initramfs: Initramfs,
    /// The one with a shell, without modules, if a scenario is a script.
    pub shell: Option<Initramfs>,
    /// The vfio selftests of the kernels, which are built when a cell needs them.
    pub selftests: Tests,
    /// What looks at guests need to know of the kernels.
    pub looks: Looks,
    /// The cache, in which the initramfs with modules is made.
    pub cache: Cache,
    /// Why this accelerator was chosen.
    pub decision: Decision,
    /// What executes the guests' instructions, and by which clock.
    pub engine: Engine,
    /// The QEMU that runs them.
    pub qemu: OsString,
    /// The profile of the kernels, if they have one.
    pub profile: Option<Profile>,
}

impl Lab {
    /// The project's own kernels, with or without a profile, and the user's cache.
    ///
    /// # Errors
    /// If the manifest is wrong or does not have the profile, or if there is no folder for the cache.
    pub fn open(profile: Option<&str>) -> Result<Lab, LabError> {
        let manifest = Manifest::of_project()?;
        let manifest = match profile {
            Some(profile) => manifest.under(profile)?,
            None => manifest,
        };
        Ok(Lab::of(manifest, Cache::of_user()?))
    }

    /// A lab with these kernels and this cache.
    pub fn of(manifest: Manifest, cache: Cache) -> Lab {
        Lab {
            builder: Arc::new(Builder::new(manifest, cache.clone()).with_shelf(SharedShelf::of_env())),
            cache,
            cancel: CancelToken::new(),
        }
    }

    /// A lab with other kernels and the same cache. [`Lab::cancel`] of either cancels the builds of both.
    pub fn with(&self, manifest: Manifest) -> Lab {
        Lab { cancel: self.cancel.clone(), ..Lab::of(manifest, self.cache.clone()) }
    }

    /// The manifest of the kernels.
    pub fn manifest(&self) -> &Manifest {
        self.builder.manifest()
    }

    /// The cache.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Cancels running builds, within a fraction of a second.
    pub fn cancel(&self) {
        self.cancel.cancel();
    }

    /// The image of a variant, if it is built.
    pub fn find(&self, variant: &str) -> Option<KernelImage> {
        self.builder.find(variant)
    }

    /// Removes the image of a variant from the cache, if it is there.
    pub fn forget(&self, variant: &str) {
        self.builder.forget(variant);
    }

    /// A hash of everything that a variant is built from. Kernels with the same hash are the same. None if the source
    /// is not in the cache yet.
    pub fn key(&self, variant: &str) -> Option<String> {
        Some(self.builder.key(variant)?.as_str().to_owned())
    }

    /// Whether the source of a base is in the cache or on this machine, so that nothing must be fetched for it.
    pub fn is_at_hand(&self, base: &str) -> bool {
        self.manifest().base(base).is_ok_and(|base| self.builder.packages_to_download([base]).is_empty())
    }

    /// Tries to apply patches, which are in `files`, to a base. Fetches the source of the base if it is not in the
    /// cache ([`Builder::fit`]).
    ///
    /// # Errors
    /// [`LabError`]. A patch that does not apply is not an error.
    pub async fn fit(
        &self,
        base: &str,
        patches: &[SeriesPatch],
        files: &[PathBuf],
        manner: Manner,
        progress: Arc<dyn Progress>,
    ) -> Result<Fit, LabError> {
        let (builder, cancel, base) = (self.builder.clone(), self.cancel.child(), base.to_owned());
        let (patches, files) = (patches.to_vec(), files.to_vec());
        let trying = move || {
            let tell = |event: BuildEvent| progress.event(Event::Build { variant: &base, event });
            builder.fit(&base, &patches, &files, manner, &tell, &cancel)
        };
        let fit = tokio::task::spawn_blocking(trying).await.map_err(|error| LabError::Thread(error.to_string()))?;
        fit.map_err(|error| LabError::Source(chain(&error)))
    }

    /// The image of a variant whose vmlinux has types and variables for a debugger. It is built if it is not in the cache.
    ///
    /// # Errors
    /// [`LabError::Source`]: the build failed, or its kernel is not the one that is in the cache without types.
    pub async fn with_types(&self, variant: &str, progress: Arc<dyn Progress>) -> Result<KernelImage, LabError> {
        let builder = Builder::new(self.manifest().clone(), self.cache.clone()).with_types();
        let (plain, cancel, variant) = (self.find(variant), self.cancel.child(), variant.to_owned());
        let building = move || {
            let tell = |event: BuildEvent| progress.event(Event::Build { variant: &variant, event });
            let image = builder.build(&variant, &tell, &cancel).map_err(|error| chain(&error))?;
            let map = |image: &KernelImage| {
                fs::read(&image.system_map).map_err(|error| format!("{}: {error}", image.system_map.display()))
            };
            match plain {
                Some(plain) if map(&plain)? != map(&image)? => {
                    Err(format!("{variant} with types has other addresses than without"))
                }
                _ => Ok(image),
            }
        };
        let built = tokio::task::spawn_blocking(building).await.map_err(|error| LabError::Thread(error.to_string()))?;
        built.map_err(LabError::Source)
    }

    /// Builds what is not built yet, and decides on the accelerator. Returns when the guest image and one kernel are
    /// built. The other kernels follow. A kernel that does not build is not an error: its cells get that verdict.
    ///
    /// # Errors
    /// [`LabError`].
    pub async fn prepare(
        &self,
        variants: &[String],
        choice: Choice,
        clock: clock::Choice,
        qemu: &Qemu,
        progress: Arc<dyn Progress>,
    ) -> Result<Parts, LabError> {
        let initramfs = self.initramfs(progress.clone()).await?;
        let images = self.build(variants.to_vec(), progress.clone());
        let selftests = Tests::new(self.builder.clone(), self.cancel.child(), progress.clone());
        let looks = Looks::new(self.builder.clone(), self.cancel.child(), progress.clone());
        let decision = match images.first().await {
            Ok(image) => {
                let initramfs = initramfs_for(&self.cache, &initramfs, &image)?;
                let trying = || progress.event(Event::TryingKvm);
                accel::decide(choice, &self.cache, qemu, &image.boot, &initramfs.path, trying).await?
            }
            Err(verdicts) => match infra_reasons(&verdicts) {
                Some(reasons) => return Err(LabError::NoKernel(reasons)),
                None => Decision::now(Accel::Tcg, "no kernel was built"),
            },
        };
        progress.event(Event::Accelerator(&decision));
        let (engine, why) = clock::decide(clock, decision.accel, &self.cache, &qemu.binary);
        progress.event(Event::Clock { is_held: engine.clock != Clock::Host, why: why.as_deref() });
        let profile = self.manifest().profile.clone();
        let cache = self.cache.clone();
        let qemu = qemu.binary.clone();
        Ok(Parts { images, initramfs, shell: None, selftests, looks, cache, decision, engine, qemu, profile })
    }

    /// The guest image.
    async fn initramfs(&self, progress: Arc<dyn Progress>) -> Result<Initramfs, LabError> {
        let (cache, cancel) = (self.cache.clone(), self.cancel.clone());
        let make = move || guest_images::build(&cache, &cancel, |line| progress.event(Event::Image { line }));
        let made = tokio::task::spawn_blocking(make).await.map_err(|error| LabError::Thread(error.to_string()))?;
        Ok(made?)
    }

    /// Adds the initramfs with a shell to the parts of a run: with the usual tools, or with a root file system of the user's.
    ///
    /// # Errors
    /// [`LabError::Image`].
    pub async fn add_shell(
        &self,
        parts: &mut Parts,
        root: Option<PathBuf>,
        progress: Arc<dyn Progress>,
    ) -> Result<(), LabError> {
        let (cache, cancel, initramfs) = (self.cache.clone(), self.cancel.clone(), parts.initramfs.clone());
        let make = move || match root {
            Some(root) => guest_images::with_root(&cache, &initramfs, &root),
            None => guest_images::with_shell(&cache, &initramfs, &cancel, |line| progress.event(Event::Image { line })),
        };
        let made = tokio::task::spawn_blocking(make).await.map_err(|error| LabError::Thread(error.to_string()))?;
        parts.shell = Some(made?);
        Ok(())
    }

    /// Builds kernels that are not built yet, and the guest image for each, and waits for all. Those in `with_tests` get
    /// their vfio selftests too. Runs nothing. The result has each kernel with its image, or the verdict that its cells
    /// would have.
    ///
    /// # Errors
    /// [`LabError`], if the guest image cannot be built. A kernel that does not build is not an error.
    pub async fn build_all(
        &self,
        variants: &[String],
        with_tests: &[String],
        progress: Arc<dyn Progress>,
    ) -> Result<Vec<(String, Image)>, LabError> {
        let initramfs = self.initramfs(progress.clone()).await?;
        let images = self.build(variants.to_vec(), progress.clone());
        let selftests = Tests::new(self.builder.clone(), self.cancel.child(), progress.clone());
        let mut all = Vec::new();
        for variant in variants {
            let mut image = images.of(variant).await;
            if let Ok(built) = &image {
                initramfs_for(&self.cache, &initramfs, built)?;
                self.share(variant, progress.clone()).await;
                if with_tests.contains(variant)
                    && let Err(verdict) = selftests.of(variant).await
                    && !matches!(verdict, Verdict::Skip(_))
                {
                    image = Err(verdict);
                }
            }
            all.push((variant.clone(), image));
        }
        Ok(all)
    }

    /// Puts a kernel of the cache on the shelf that machines share, if there is one.
    async fn share(&self, variant: &str, progress: Arc<dyn Progress>) {
        let (builder, variant) = (self.builder.clone(), variant.to_owned());
        let sharing = move || {
            let tell = |event: BuildEvent| progress.event(Event::Build { variant: &variant, event });
            builder.share(&variant, &tell);
        };
        // What goes wrong was told, and costs nothing but a build elsewhere.
        let _ = tokio::task::spawn_blocking(sharing).await;
    }

    /// Starts to build kernels, one after the other, on a separate thread. Kernels that are built already come first.
    fn build(&self, variants: Vec<String>, progress: Arc<dyn Progress>) -> Images {
        let (builder, cancel) = (self.builder.clone(), self.cancel.child());
        let (arrivals, images) = Images::to_come(cancel.clone());
        let (found, absent): (Vec<_>, Vec<_>) = variants
            .into_iter()
            .map(|variant| (builder.find(&variant), variant))
            .partition(|(image, _)| image.is_some());
        for (image, variant) in found {
            image.into_iter().for_each(|image| arrivals.put(&variant, Ok(image)));
        }
        if !absent.is_empty() {
            tokio::task::spawn_blocking(move || {
                for (_, variant) in absent {
                    arrivals.put(&variant, image(&builder, &variant, &cancel, &*progress));
                }
            });
        }
        images
    }
}

/// The initramfs for a kernel: with its modules, if it has any.
///
/// # Errors
/// Those of the file system and of the cache.
pub fn initramfs_for(cache: &Cache, initramfs: &Initramfs, image: &KernelImage) -> Result<Initramfs, ImageError> {
    match image.modules.as_slice() {
        [] => Ok(initramfs.clone()),
        modules => guest_images::with_modules(cache, initramfs, modules),
    }
}

fn image(builder: &Builder, variant: &str, cancel: &CancelToken, progress: &dyn Progress) -> Image {
    let tell = |event: BuildEvent| progress.event(Event::Build { variant, event });
    let built = match builder.build(variant, &tell, cancel) {
        Err(error) if error.is_without_effect() => base_image(builder, variant, &tell, cancel).unwrap_or(Err(error)),
        built => built,
    };
    built.map_err(|error| {
        let why = chain(&error);
        if !cancel.is_cancelled() {
            progress.event(Event::BuildFailed { variant, why: &why });
        }
        if error.is_of_the_kernel() { Verdict::BuildFailed(why) } else { Verdict::Infra(why) }
    })
}

/// The kernel of the base, for a variant that is not in the manifest and whose patches change nothing. A patch of a
/// series may change nothing. For a variant of the manifest, that is a mistake.
fn base_image(
    builder: &Builder,
    variant: &str,
    observer: &dyn Observer,
    cancel: &CancelToken,
) -> Option<Result<KernelImage, BuildError>> {
    let manifest = builder.manifest();
    let own = manifest.variant(variant).ok().filter(|variant| !variant.known)?;
    let plain = manifest.variants.iter().find(|other| other.base == own.base && other.is_plain())?;
    let built = builder.build(&plain.name, observer, cancel);
    Some(built.map(|image| KernelImage { variant: variant.to_owned(), ..image }))
}

/// The reasons why these kernels were not built, if no kernel is at fault. None if any of them is at fault, or if there
/// are no verdicts.
fn infra_reasons(verdicts: &[Verdict]) -> Option<Vec<String>> {
    let why = |verdict: &Verdict| match verdict {
        Verdict::Infra(why) => Some(why.clone()),
        _ => None,
    };
    let mut reasons: Vec<_> = verdicts.iter().map(why).collect::<Option<_>>()?;
    reasons.sort();
    reasons.dedup();
    (!reasons.is_empty()).then_some(reasons)
}

/// An error and its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// The machine of a cell, with as much memory as the scenario needs on kernels without a profile.
pub fn machine(
    qemu: OsString,
    scenario: &Scenario,
    topology: Topology,
    trigger: Option<Trigger>,
    engine: Engine,
    kernel: PathBuf,
    initrd: PathBuf,
) -> Machine {
    let hotplug = trigger.map_or(Hotplug::Native, Trigger::hotplug);
    let Engine { accel, clock } = engine;
    // With KVM, the hypervisor tells the guest the frequency of the TSC. A held guest's TSC does not have the host's.
    let tsc = if accel == Accel::Tcg && clock == Clock::Host { tsc::word() } else { None };
    let append = scenario.append.iter().map(|&word| word.to_owned()).chain(tsc).collect();
    let memory_mib = scenario.needs.memory_mib.unwrap_or(MEMORY_MIB);
    Machine { qemu, topology, hotplug, accel, clock, memory_mib, kernel, initrd, append, traced: None, monitor: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_ends_early_only_if_no_kernel_is_at_fault() {
        let full = || Verdict::Infra("disk full".to_owned());
        let broken = || Verdict::BuildFailed("does not compile".to_owned());
        assert_eq!(infra_reasons(&[full(), full()]), Some(vec!["disk full".to_owned()]));
        assert_eq!(infra_reasons(&[full(), broken()]), None);
        assert_eq!(infra_reasons(&[broken()]), None);
        assert_eq!(infra_reasons(&[]), None);
    }
}
