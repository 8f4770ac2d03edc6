//! The layouts of a kernel's structs: made when the kernel is built, or later for a kernel that was built without them.

use std::error::Error;
use std::path::{Path, PathBuf};

use super::{Builder, Recipe};
use crate::compile::Run;
use crate::config::Symbols;
use crate::error::{BuildError, LayoutError};
use crate::event::{BuildEvent, CancelToken, Observer};
use crate::follow::Follower;
use crate::image::KernelImage;
use crate::layout::{self, Layout, Origin, Trees};
use crate::site::Site;
use crate::source::{self, Identity};
use crate::space;
use crate::tree::Revision;
use crate::workshop::Workshop;

impl Builder {
    /// How the structs of a kernel of this manifest are laid out. If the cache does not have it, it is made. That takes
    /// seconds if the output tree of the kernel's base is there, and else about a minute: the build is prepared and a
    /// few files are compiled, but no kernel is built.
    ///
    /// # Errors
    /// [`BuildError`]: among others [`BuildError::Layout`] for a kernel that was built elsewhere and has no BTF.
    pub fn layout(
        &self,
        image: &KernelImage,
        observer: &dyn Observer,
        cancel: &CancelToken,
    ) -> Result<Layout, BuildError> {
        let read = match Layout::of_image(image) {
            Err(LayoutError::Missing { .. }) => {
                let layout = self.make_layout(image, observer, cancel)?;
                Layout::of_image(&KernelImage { layout, ..image.clone() })
            }
            read => read,
        };
        read.map_err(BuildError::layout(&image.layout))
    }

    /// The symbols of a kernel, as the text of a `System.map`.
    ///
    /// # Errors
    /// [`BuildError::Layout`] for a kernel that was built elsewhere and has no table of all its symbols.
    pub fn symbols(&self, image: &KernelImage, cancel: &CancelToken) -> Result<String, BuildError> {
        layout::symbols(image, cancel)
    }

    /// Makes the file with the layouts of a kernel, and returns its path.
    fn make_layout(
        &self,
        image: &KernelImage,
        observer: &dyn Observer,
        cancel: &CancelToken,
    ) -> Result<PathBuf, BuildError> {
        space::check(self.cache.root(), space::FOR_STEP)?;
        let variant = self.manifest.variant(&image.variant)?;
        let base = self.manifest.base(&variant.base)?;
        let recipe = |identity: &Identity| self.recipe(variant, base, identity);
        let recipe = match base.source.origin() {
            source::Origin::Kept(kept) => {
                let source = source::get(&self.cache, kept, observer, cancel)?;
                let recipe = recipe(&source.identity)?;
                self.layout_of_kept(&recipe, &source.tree, observer, cancel)?;
                recipe
            }
            source::Origin::Git(revision) => {
                let recipe = recipe(&Identity::of_revision(revision))?;
                self.layout_of_revision(&recipe, revision, observer, cancel)?;
                recipe
            }
            source::Origin::Ready(ready) => {
                let recipe = recipe(&Identity::of_ready(ready)?)?;
                self.keep_layout(&recipe, &Origin::Ready(&image.boot, &image.modules), observer, cancel)?;
                recipe
            }
        };
        Ok(layout::file(&self.cache, &recipe.layout_key))
    }

    /// Makes the layouts in the stored trees of the base, or, if these are not the kernel's, in trees of its own.
    fn layout_of_kept(
        &self,
        recipe: &Recipe,
        source: &Path,
        observer: &dyn Observer,
        cancel: &CancelToken,
    ) -> Result<(), BuildError> {
        let built = Workshop::built(&self.cache, &recipe.base_key).filter(|_| recipe.has_layouts_of_base);
        if let Some((recorded, output)) = built {
            let trees = Trees { source, recorded: &recorded, output: &output };
            return self.keep_layout(recipe, &Origin::Trees(trees), observer, cancel);
        }
        let log = self.log(recipe)?;
        let run = Run { observer, cancel, jobs: self.jobs, log: &log };
        let mut workshop = Workshop::enter(&self.cache, &recipe.base_key, source, &recipe.symbols, self.debug, run)?;
        workshop.prepare(recipe.variant, &recipe.further)?;
        self.keep_layout(recipe, &of_site(workshop.site()), observer, cancel)?;
        workshop.leave()
    }

    fn layout_of_revision(
        &self,
        recipe: &Recipe,
        revision: &Revision,
        observer: &dyn Observer,
        cancel: &CancelToken,
    ) -> Result<(), BuildError> {
        let log = self.log(recipe)?;
        let run = Run { observer, cancel, jobs: self.jobs, log: &log };
        let Recipe { variant, base, symbols, .. } = recipe;
        let mut follower = Follower::enter(&self.cache, revision, symbols, self.compiler()?, self.debug, run)?;
        let asked = Symbols::of_fragments(&base.asked)?;
        follower.prepare(&variant.name, revision, &variant.patches, &self.wanted(symbols, &asked))?;
        self.keep_layout(recipe, &of_site(follower.site()), observer, cancel)
    }

    /// Makes the layouts of a kernel that was just built in these trees. A failure is only written to the log of the
    /// build: the kernel can be used without. [`Builder::layout`] tries again, and says what is wrong.
    pub(super) fn keep_layout_of_build(&self, recipe: &Recipe, site: &Site, trees: Trees) -> Result<(), BuildError> {
        match self.keep_layout(recipe, &Origin::Trees(trees), site.run.observer, site.run.cancel) {
            Err(BuildError::Cancelled) => Err(BuildError::Cancelled),
            Err(error) => {
                let causes = std::iter::successors(Some(&error as &dyn Error), |&error| error.source());
                let causes: Vec<_> = causes.map(ToString::to_string).collect();
                site.say(&format!("no layouts of structs: {}", causes.join(": ")));
                Ok(())
            }
            kept => kept,
        }
    }

    fn keep_layout(
        &self,
        recipe: &Recipe,
        origin: &Origin,
        observer: &dyn Observer,
        cancel: &CancelToken,
    ) -> Result<(), BuildError> {
        let waiting = || observer.event(BuildEvent::Waiting { what: "another reader of the same structs".to_owned() });
        layout::keep(&self.cache, &recipe.layout_key, waiting, origin, cancel)
    }
}

/// The trees of a build, which still lie where they were built.
fn of_site<'a>(site: &'a Site) -> Origin<'a> {
    Origin::Trees(Trees::in_place(&site.trees.source, &site.trees.output))
}
