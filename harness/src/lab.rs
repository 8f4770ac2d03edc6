//! What all cells of a run share: kernels, the guest image, the accelerator.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use guest_images::{ImageError, Initramfs};
use kernels::cache::{Cache, CacheError};
use kernels::{BuildEvent, Builder, CancelToken, KernelImage, Manifest, ManifestError};

use crate::accel::{self, Choice, Decision};
use crate::progress::{Event, Progress};
use crate::scenario::Scenario;
use crate::trigger::Trigger;
use crate::verdict::Verdict;
use crate::vm::argv::{Accel, Machine};
use crate::vm::process;
use crate::vm::topology::{Hotplug, Topology};

/// Where kernels and images are made, and what is known about them.
pub struct Lab {
    cache: Cache,
    builder: Arc<Builder>,
    cancel: CancelToken,
}

/// A run cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The cache.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The guest image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The thread that builds died.
    #[error("the build ended without a result: {0}")]
    Thread(String),
}

/// A kernel, or the verdict of all its cells: build-failed if that is the kernel's own fault, else infra.
pub type Image = Result<KernelImage, Verdict>;

/// All that guests are made of, built.
pub struct Parts {
    /// By variant.
    pub images: BTreeMap<String, Image>,
    /// The initramfs.
    pub initramfs: Initramfs,
    /// The accelerator.
    pub decision: Decision,
    /// The QEMU that runs them.
    pub qemu: OsString,
}

impl Lab {
    /// The project's own kernels, and the user's cache.
    ///
    /// # Errors
    /// A manifest that is wrong, or no place for the cache.
    pub fn open() -> Result<Lab, LabError> {
        Ok(Lab::of(Manifest::of_project()?, Cache::of_user()?))
    }

    /// Other kernels, or another cache.
    pub fn of(manifest: Manifest, cache: Cache) -> Lab {
        Lab { builder: Arc::new(Builder::new(manifest, cache.clone())), cache, cancel: CancelToken::new() }
    }

    /// The kernels that are known.
    pub fn manifest(&self) -> &Manifest {
        self.builder.manifest()
    }

    /// The cache.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Stops builds that are under way, within a fraction of a second.
    pub fn cancel(&self) {
        self.cancel.cancel();
    }

    /// The image of a variant, if it is built.
    pub fn find(&self, variant: &str) -> Option<KernelImage> {
        self.builder.find(variant)
    }

    /// Builds what is not built yet: these variants, the guest image; and decides on the accelerator. A kernel that does
    /// not build is not an error: its cells will say so.
    ///
    /// # Errors
    /// [`LabError`].
    pub async fn prepare(
        &self,
        variants: &[String],
        choice: Choice,
        progress: Arc<dyn Progress>,
    ) -> Result<Parts, LabError> {
        let (builder, cancel, cache) = (self.builder.clone(), self.cancel.clone(), self.cache.clone());
        let (wanted, teller) = (variants.to_vec(), progress.clone());
        let work = move || -> Result<_, LabError> {
            let initramfs = guest_images::build(&cache, &cancel, |line| teller.event(Event::Image { line }))?;
            let images = wanted.iter().map(|variant| (variant.clone(), image(&builder, variant, &cancel, &*teller)));
            Ok((initramfs, images.collect::<BTreeMap<_, _>>()))
        };
        let (initramfs, images) =
            tokio::task::spawn_blocking(work).await.map_err(|error| LabError::Thread(error.to_string()))??;
        let decision = match images.values().find_map(|image| image.as_ref().ok()) {
            Some(image) => {
                let trying = || progress.event(Event::TryingKvm);
                accel::decide(choice, &self.cache, &image.bzimage, &initramfs.path, trying).await?
            }
            // No guest will run.
            None => Decision::now(Accel::Tcg, "no kernel was built"),
        };
        progress.event(Event::Accelerator(&decision));
        Ok(Parts { images, initramfs, decision, qemu: process::program() })
    }
}

fn image(builder: &Builder, variant: &str, cancel: &CancelToken, progress: &dyn Progress) -> Image {
    if let Some(image) = builder.find(variant) {
        return Ok(image);
    }
    let began = Instant::now();
    let tell = |event: BuildEvent| progress.event(Event::Build { variant, event });
    match builder.build(variant, &tell, cancel) {
        Ok(image) => {
            progress.event(Event::Built { variant, took: began.elapsed() });
            Ok(image)
        }
        Err(error) => {
            let why = chain(&error);
            progress.event(Event::BuildFailed { variant, why: &why });
            Err(if error.is_of_the_kernel() { Verdict::BuildFailed(why) } else { Verdict::Infra(why) })
        }
    }
}

/// An error and its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// The machine of a cell.
pub fn machine(
    qemu: OsString,
    scenario: &Scenario,
    topology: Topology,
    trigger: Option<Trigger>,
    accel: Accel,
    kernel: PathBuf,
    initrd: PathBuf,
) -> Machine {
    let hotplug = match trigger {
        Some(Trigger::DeviceDelAcpi) => Hotplug::Acpi,
        _ => Hotplug::Native,
    };
    let append = scenario.append.iter().map(|&word| word.to_owned()).collect();
    Machine { qemu, topology, hotplug, accel, kernel, initrd, append }
}
