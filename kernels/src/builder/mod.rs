//! From a variant's name to its image: found in the cache, or built.

mod layouts;
mod shared;

use std::fs;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use crate::archive::Package;
use crate::cache::{Cache, Key, KeyMaker};
use crate::compile::{DebugInfo, Run};
use crate::config::Symbols;
use crate::error::BuildError;
use crate::event::{BuildEvent, CancelToken, Observer, Step};
use crate::follow::{Follower, Wanted};
use crate::image::{self, KernelImage, Note};
use crate::job::Job;
use crate::layout::{self, Trees};
use crate::manifest::{Base, Manifest, Variant};
use crate::ready::ReadyKernel;
use crate::series::SeriesPatch;
use crate::series::fit::{self, Fit, Manner};
use crate::shared::SharedShelf;
use crate::site::Site;
use crate::source::{self, Identity, Kept, Origin, Unpacked};
use crate::space;
use crate::tree::Revision;
use crate::workshop::Workshop;

/// Part of the key of each image. To be raised when this crate builds something else from the same ingredients. Version
/// 1 could build a kernel that still had the patches of the variant before it.
const RECIPE: &str = "2";
/// Part of the key of each image. To be raised when other files of the same output tree are put into the cache.
const KEPT: &str = "2";

/// Builds the kernels of a manifest into a cache.
#[derive(Debug)]
pub struct Builder {
    manifest: Manifest,
    cache: Cache,
    jobs: usize,
    compiler: OnceLock<String>,
    debug: DebugInfo,
    /// The shelf that machines share.
    shelf: Option<Arc<SharedShelf>>,
}

/// The ingredients of a variant that must be known before anything is built.
struct Recipe<'a> {
    variant: &'a Variant,
    base: &'a Base,
    symbols: Symbols,
    /// The symbols that the variant sets beside those of its base.
    further: Symbols,
    /// Key of the base's trees.
    base_key: Key,
    /// Key of the variant's image.
    key: Key,
    /// Key of the layouts of its structs.
    layout_key: Key,
    /// Whether neither a patch nor a symbol can change these, so that they are those of the base.
    has_layouts_of_base: bool,
}

impl Recipe<'_> {
    /// The image in an entry of the cache, with `source` as its source. The entry may have been built from another
    /// source with the same content.
    fn image(&self, cache: &Cache, entry: &Path, source: &Identity) -> Result<KernelImage, BuildError> {
        let layout = layout::file(cache, &self.layout_key);
        let image = KernelImage::at(entry, layout, self.key.as_str(), &self.variant.name, &self.base.name)?;
        Ok(KernelImage { source: source.words(), ..image })
    }
}

impl Builder {
    /// A builder that runs as many commands in parallel as the host has CPUs.
    pub fn new(manifest: Manifest, cache: Cache) -> Builder {
        let jobs = std::thread::available_parallelism().map_or(1, NonZero::get);
        Builder { manifest, cache, jobs, compiler: OnceLock::new(), debug: DebugInfo::default(), shelf: None }
    }

    /// The same kernels, but their vmlinux has types and variables for a debugger. It fits a guest or a dump of the kernel
    /// without them: code, data and addresses are the same.
    pub fn with_types(self) -> Builder {
        Builder { debug: DebugInfo::Types, ..self }
    }

    /// The cache.
    pub(crate) fn cache(&self) -> &Cache {
        &self.cache
    }

    /// How many commands it runs in parallel.
    pub(crate) fn jobs(&self) -> usize {
        self.jobs
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The Debian source packages of these bases that are not in the cache yet. A build on these bases downloads them.
    pub fn packages_to_download<'a>(&self, bases: impl IntoIterator<Item = &'a Base>) -> Vec<Package> {
        let package = |base: &Base| match base.source.origin() {
            Origin::Kept(kept @ Kept::Package(package)) if source::find(&self.cache, kept).is_none() => {
                Some(package.clone())
            }
            _ => None,
        };
        let mut packages: Vec<_> = bases.into_iter().filter_map(package).collect();
        packages.sort();
        packages.dedup();
        packages
    }

    /// Tries to apply patches in their order to a base. `files` are the files that the patches were written to. The
    /// base's source is fetched if it is not in the cache.
    ///
    /// The file of a patch that does not apply as it is, but in a way that `manner` allows, then holds a patch that
    /// does.
    ///
    /// # Errors
    /// [`BuildError`] of the host. A patch that does not apply is not an error: the result says so.
    pub fn fit(
        &self,
        base: &str,
        patches: &[SeriesPatch],
        files: &[PathBuf],
        manner: Manner,
        observer: &dyn Observer,
        cancel: &CancelToken,
    ) -> Result<Fit, BuildError> {
        match self.manifest.base(base)?.source.origin() {
            Origin::Kept(kept) => {
                let source = source::get(&self.cache, kept, observer, cancel)?;
                fit::fit(fit::Origin::Tree(&source.tree), patches, files, manner, cancel)
            }
            Origin::Git(revision) => fit::fit(fit::Origin::Revision(revision), patches, files, manner, cancel),
            Origin::Ready(ready) => Err(ready.unpatchable()),
        }
    }

    /// The image of a variant, if it is in the cache. Takes milliseconds and needs no network.
    pub fn find(&self, variant: &str) -> Option<KernelImage> {
        let (recipe, identity) = self.at_hand(variant)?;
        let entry = self.cache.find(image::SHELF, &recipe.key)?;
        recipe.image(&self.cache, &entry, &identity).ok()
    }

    /// Removes the image of a variant from the cache, if it is there.
    pub fn forget(&self, variant: &str) {
        if let Some(key) = self.key(variant) {
            self.cache.remove(image::SHELF, &key);
        }
    }

    /// The key of a variant's image, whether the image is built or not: a hash of all its ingredients. None if the
    /// source is not in the cache.
    pub fn key(&self, variant: &str) -> Option<Key> {
        Some(self.at_hand(variant)?.0.key)
    }

    /// The ingredients of a variant, if they are known without fetching anything.
    fn at_hand(&self, variant: &str) -> Option<(Recipe<'_>, Identity)> {
        let variant = self.manifest.variant(variant).ok()?;
        let base = self.manifest.base(&variant.base).ok()?;
        let identity = match base.source.origin() {
            Origin::Kept(kept) => self.known_identity(kept)?,
            Origin::Git(revision) => Identity::of_revision(revision),
            Origin::Ready(ready) => Identity::of_ready(ready).ok()?,
        };
        Some((self.recipe(variant, base, &identity).ok()?, identity))
    }

    /// The image of a variant, built if it is not in the cache. Blocks until the image is there; `cancel` ends it
    /// early. Builds can run at the same time, in one process or in several: an entry that two builds need is built
    /// once.
    ///
    /// # Errors
    /// [`BuildError`]. A failed build leaves no incomplete entry in the cache.
    pub fn build(
        &self,
        variant: &str,
        observer: &dyn Observer,
        cancel: &CancelToken,
    ) -> Result<KernelImage, BuildError> {
        let variant = self.manifest.variant(variant)?;
        let base = self.manifest.base(&variant.base)?;
        let kept = match base.source.origin() {
            Origin::Kept(kept) => kept,
            Origin::Git(revision) => return self.build_revision(variant, base, revision, observer, cancel),
            Origin::Ready(ready) => return self.take(variant, base, ready, observer, cancel),
        };
        if let Some(image) = self.without_source(kept, variant, base, observer) {
            return Ok(image);
        }
        let source = source::get(&self.cache, kept, observer, cancel)?;
        let recipe = self.recipe(variant, base, &source.identity)?;
        if let Some(image) = self.found_or_taken(&recipe, &source.identity, observer) {
            return Ok(image);
        }
        let mut built = false;
        let waiting = || observer.event(BuildEvent::Waiting { what: format!("another build of {}", variant.name) });
        let entry = self.cache.entry(image::SHELF, &recipe.key, waiting, |aside| {
            space::check(self.cache.root(), space::FOR_BUILD)?;
            let log = self.log(&recipe)?;
            let run = Run { observer, cancel, jobs: self.jobs, log: &log };
            let began = Instant::now();
            Workshop::enter(&self.cache, &recipe.base_key, &source.tree, &recipe.symbols, self.debug, run)
                .and_then(|workshop| self.fill(aside, &recipe, workshop, &source))
                .map_err(|error| space::blame(error, self.cache.root(), space::FOR_BUILD))?;
            observer.event(BuildEvent::Built { took: began.elapsed() });
            built = true;
            Ok::<(), BuildError>(())
        })?;
        if built {
            self.put_on_shelf(&recipe, Some(kept), observer);
        }
        recipe.image(&self.cache, &entry, &source.identity)
    }

    /// The image of a variant of a revision of a user's tree.
    fn build_revision(
        &self,
        variant: &Variant,
        base: &Base,
        revision: &Revision,
        observer: &dyn Observer,
        cancel: &CancelToken,
    ) -> Result<KernelImage, BuildError> {
        let identity = Identity::of_revision(revision);
        let recipe = self.recipe(variant, base, &identity)?;
        let asked = Symbols::of_fragments(&base.asked)?;
        let wanted = self.wanted(&recipe.symbols, &asked);
        if let Some(image) = self.found_or_taken(&recipe, &identity, observer) {
            return Ok(image);
        }
        let mut built = false;
        let waiting = || observer.event(BuildEvent::Waiting { what: format!("another build of {}", variant.name) });
        let entry = self.cache.entry(image::SHELF, &recipe.key, waiting, |aside| {
            // Build the revision without patches first, to compare with. After that, only what the patches change is
            // built.
            let plain = match variant.is_plain() {
                true => None,
                false => {
                    let plain = Variant { name: base.name.clone(), patches: Vec::new(), ..variant.clone() };
                    Some(self.build_revision(&plain, base, revision, observer, cancel)?)
                }
            };
            let log = self.log(&recipe)?;
            let run = Run { observer, cancel, jobs: self.jobs, log: &log };
            let began = Instant::now();
            Follower::enter(&self.cache, revision, &recipe.symbols, self.compiler()?, self.debug, run)
                .and_then(|mut follower| {
                    let dropped = follower.build(&variant.name, revision, &variant.patches, &wanted)?;
                    let output = follower.site().trees.output.clone();
                    if let Some(plain) = plain {
                        let code = |vmlinux: &Path| follower.site().code(vmlinux, &follower.scratch());
                        if code(&plain.vmlinux)? == code(&output.join("vmlinux"))? {
                            return Err(BuildError::NoEffect { variant: variant.name.clone() });
                        }
                    }
                    let site = follower.site();
                    self.keep(aside, &recipe, site, &output, &identity, dropped)?;
                    self.keep_layout_of_build(&recipe, site, Trees::in_place(&site.trees.source, &output))
                })
                .map_err(|error| space::blame(error, self.cache.root(), space::FOR_BUILD))?;
            observer.event(BuildEvent::Built { took: began.elapsed() });
            built = true;
            Ok::<(), BuildError>(())
        })?;
        if built {
            self.put_on_shelf(&recipe, None, observer);
        }
        recipe.image(&self.cache, &entry, &identity)
    }

    /// The image of a kernel that was built elsewhere.
    fn take(
        &self,
        variant: &Variant,
        base: &Base,
        ready: &ReadyKernel,
        observer: &dyn Observer,
        cancel: &CancelToken,
    ) -> Result<KernelImage, BuildError> {
        if !variant.is_plain() {
            return Err(ready.unpatchable());
        }
        let identity = Identity::of_ready(ready)?;
        let recipe = self.recipe(variant, base, &identity)?;
        let waiting = || observer.event(BuildEvent::Waiting { what: format!("{} to be unpacked", variant.name) });
        let entry = self.cache.entry(image::SHELF, &recipe.key, waiting, |aside| {
            observer.event(BuildEvent::Step { step: Step::Unpack, what: variant.name.clone() });
            let release = ready
                .unpack(aside, &aside.join(image::BOOT), cancel)
                .map_err(|error| space::blame(error, self.cache.root(), space::FOR_BUILD))?;
            let note = Note {
                release,
                source: identity.clone(),
                patches: Vec::new(),
                compiler: "unknown".to_owned(),
                dropped: Vec::new(),
            };
            note.write(aside)
        })?;
        recipe.image(&self.cache, &entry, &identity)
    }

    fn fill(&self, entry: &Path, recipe: &Recipe, mut workshop: Workshop, source: &Unpacked) -> Result<(), BuildError> {
        let base = workshop.base(&recipe.base.name)?;
        let is_plain = recipe.variant.is_plain();
        let output = if is_plain { base } else { workshop.variant(recipe.variant, &base, &recipe.further)? };
        let site = workshop.site();
        self.keep(entry, recipe, site, &output, &source.identity, Vec::new())?;
        // If the base was there already, its own source tree has the patches of another variant.
        let tree = if is_plain { &source.tree } else { &site.trees.source };
        self.keep_layout_of_build(recipe, site, Trees { source: tree, recorded: &site.trees.source, output: &output })?;
        workshop.leave()
    }

    /// Copies the results of a build from the output tree into an entry.
    fn keep(
        &self,
        entry: &Path,
        recipe: &Recipe,
        site: &Site,
        output: &Path,
        source: &Identity,
        dropped: Vec<String>,
    ) -> Result<(), BuildError> {
        site.step(Step::Collect, &recipe.variant.name);
        let file_name = |patch: &PathBuf| Some(patch.file_name()?.to_string_lossy().into_owned());
        let note = Note {
            release: Site::release(output)?,
            source: source.clone(),
            patches: recipe.variant.patches.iter().filter_map(file_name).collect(),
            compiler: self.compiler()?.to_owned(),
            dropped,
        };
        image::collect(output, site.log(), entry, &note)?;
        site.strip(&output.join("vmlinux"), &entry.join(image::BOOT))
    }

    /// What the configuration of a revision of a user's tree must have.
    fn wanted<'a>(&'a self, symbols: &'a Symbols, asked: &'a Symbols) -> Wanted<'a> {
        let needs = self.manifest.own.as_ref().map(|own| own.needs.as_slice()).unwrap_or_default();
        Wanted { symbols, asked, needs }
    }

    fn recipe<'a>(&self, variant: &'a Variant, base: &'a Base, source: &Identity) -> Result<Recipe<'a>, BuildError> {
        let fragments: Vec<_> = base.config.iter().chain(&base.asked).cloned().collect();
        let symbols = Symbols::of_fragments(&fragments)?;
        let base_key = KeyMaker::new()
            .with("recipe", RECIPE)
            .with("source", &source.sha256)
            .with("symbols", symbols.to_string())
            .with("compiler", self.compiler()?);
        let base_key = self.debug.add_to(base_key).finish();
        let mut key = KeyMaker::new().with("base", base_key.as_str()).with("kept", KEPT);
        let mut layout_key = layout::ingredients(KeyMaker::new().with("base", base_key.as_str()));
        let further = Symbols::of_fragments(&variant.config)?;
        let mut has_layouts_of_base = true;
        if !variant.config.is_empty() {
            has_layouts_of_base = false;
            key = key.with("config", further.to_string());
            layout_key = layout_key.with("config", further.to_string());
        }
        for patch in &variant.patches {
            let text = fs::read(patch).map_err(BuildError::io("read", patch))?;
            key = key.with("patch", changes(&text));
            if layout::influences(changes(&text)) {
                has_layouts_of_base = false;
                layout_key = layout_key.with("patch", changes(&text));
            }
        }
        let (key, layout_key) = (key.finish(), layout_key.finish());
        Ok(Recipe { variant, base, symbols, further, base_key, key, layout_key, has_layouts_of_base })
    }

    /// The versions of compiler and linker.
    pub(crate) fn compiler(&self) -> Result<&str, BuildError> {
        if let Some(known) = self.compiler.get() {
            return Ok(known);
        }
        let mut versions = Vec::new();
        for program in ["gcc", "ld"] {
            let job = Job::new(program).arg("--version");
            let output = job.output(&CancelToken::new()).map_err(BuildError::job(format!("{program} --version")))?;
            versions.push(output.lines().next().unwrap_or_default().to_owned());
        }
        Ok(self.compiler.get_or_init(|| versions.join(", ")))
    }

    /// Where the log of a build goes. It is kept when the build fails.
    fn log(&self, recipe: &Recipe) -> Result<PathBuf, BuildError> {
        let folder = self.cache.root().join("logs");
        fs::create_dir_all(&folder).map_err(BuildError::io("create", &folder))?;
        Ok(folder.join(format!("{}-{}.log", recipe.variant.name, recipe.key.as_str())))
    }
}

/// The diff of a patch, without the commit message before it. Another message does not need another build.
fn changes(patch: &[u8]) -> &[u8] {
    const START: &[u8] = b"\ndiff --git ";
    match patch.windows(START.len()).position(|window| window == START) {
        Some(start) => &patch[start..],
        None => patch,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::CacheError;
    use crate::manifest::Source;

    #[test]
    fn a_package_in_the_cache_is_not_downloaded() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path());
        let manifest = Manifest::load(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap();
        let package = match &manifest.bases[0].source {
            Source::Package(package) => package.clone(),
            other => panic!("the first base of the project comes from {other:?}, not from a package"),
        };
        let builder = Builder::new(manifest, cache.clone());
        let to_download = |count| builder.packages_to_download(builder.manifest().bases.iter().take(count));
        assert!(to_download(1).contains(&package));
        assert_eq!(to_download(2).len(), 2, "a package for each base");

        let key = KeyMaker::new().with("package", &package.name).finish();
        let identity = Identity { name: package.name.clone(), version: None, sha256: String::new() };
        let fill = |entry: &Path| {
            fs::write(entry.join("source.json"), serde_json::to_vec(&identity).unwrap()).unwrap();
            Ok::<(), CacheError>(())
        };
        cache.entry("sources", &key, || {}, fill).unwrap();
        assert!(to_download(1).is_empty());
    }
}
