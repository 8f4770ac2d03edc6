//! Builds the kernels of one base: in one source tree and one output tree, which always have the same paths.
//!
//! kbuild decides by paths and times what it must build again. So the base is built first, and its output tree is
//! stored. For each variant, the stored tree is copied to the path where the base was built, and only what the patches
//! change is compiled.
//!
//! The source tree stays from one build to the next, because making it takes longer than compiling what a patch
//! changes. After a build, a note says which files were patched. The next build replaces these with the original files,
//! which have their old times. A build that fails or is killed leaves no note. Then the next build removes both trees
//! and begins with new ones, so that it never uses a tree in an unknown state.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::cache::{Cache, Key, Lock};
use crate::compile::{DebugInfo, Run, Trees};
use crate::config::Symbols;
use crate::error::BuildError;
use crate::event::{BuildEvent, Step};
use crate::files::remove;
use crate::job::Job;
use crate::manifest::Variant;
use crate::site::{Site, configures};
use crate::{layout, patch};

/// How many commands the build of base 6.12 runs, for the progress of the first build.
const BASE_COMMANDS: usize = 1900;
/// How many commands the build of a variant runs that changes drivers/pci.
const VARIANT_COMMANDS: usize = 60;

/// The note of which files the last build patched.
const PATCHED: &str = "work/patched";

/// The shelf of the cache with the trees of bases.
const SHELF: &str = "trees";
/// The stored output tree, in the folder of a base.
const BASE: &str = "base";
/// The source tree, in the folder of a base.
const SOURCE: &str = "work/source";

/// The trees of one base. A lock keeps other builds out as long as this value exists.
pub(crate) struct Workshop<'a> {
    folder: PathBuf,
    site: Site<'a>,
    source: &'a Path,
    wanted: &'a Symbols,
    /// The patched files of the source tree. `None` until this build has changed the tree.
    patched: Option<Vec<PathBuf>>,
    _lock: Lock,
}

impl<'a> Workshop<'a> {
    /// Takes the trees of a base. Waits while another build has them.
    pub(crate) fn enter(
        cache: &Cache,
        key: &Key,
        source: &'a Path,
        wanted: &'a Symbols,
        debug: DebugInfo,
        run: Run<'a>,
    ) -> Result<Workshop<'a>, BuildError> {
        let waiting = || run.observer.event(BuildEvent::Waiting { what: "another build of the same base".to_owned() });
        let lock = cache.lock(&format!("{SHELF}-{}", key.as_str()), waiting)?;
        let folder = cache.root().join(SHELF).join(key.as_str());
        fs::create_dir_all(&folder).map_err(BuildError::io("create", &folder))?;
        let trees = Trees { debug, ..Trees::new(folder.join(SOURCE), folder.join("work/output")) };
        let site = Site::new(trees, run)?;
        Ok(Workshop { folder, site, source, wanted, patched: None, _lock: lock })
    }

    /// The stored output tree of the base. The base is built if there is none.
    pub(crate) fn base(&mut self, name: &str) -> Result<PathBuf, BuildError> {
        let base = self.folder.join(BASE);
        if base.is_dir() {
            return Ok(base);
        }
        self.lay_out(name, None)?;
        self.site.step(Step::Configure, name);
        self.site.want(self.wanted)?;
        self.configure()?;
        self.site.compile(name, &self.folder.join("base-commands"), BASE_COMMANDS)?;
        fs::rename(&self.site.trees.output, &base).map_err(BuildError::io("move into place", &base))?;
        Ok(base)
    }

    /// Builds a variant, with `further` symbols, in a copy of the base's output tree. The result is there until
    /// [`Workshop::leave`].
    pub(crate) fn variant(&mut self, variant: &Variant, base: &Path, further: &Symbols) -> Result<PathBuf, BuildError> {
        let name = &variant.name;
        self.lay_out(name, Some(base))?;
        self.patch(variant, further)?;
        self.site.compile(name, &self.folder.join("variant-commands"), VARIANT_COMMANDS)?;
        let scratch = self.folder.join("work/stripped");
        let code = |output: &Path| self.site.code(&output.join("vmlinux"), &scratch);
        if code(base)? == code(&self.site.trees.output)? {
            return Err(BuildError::NoEffect { variant: name.clone() });
        }
        Ok(self.site.trees.output.clone())
    }

    /// Prepares the build of a variant and compiles one object of it. The trees are there until [`Workshop::leave`].
    pub(crate) fn prepare(&mut self, variant: &Variant, further: &Symbols) -> Result<(), BuildError> {
        let name = &variant.name;
        let base = self.folder.join(BASE);
        let stored = base.is_dir().then_some(&*base);
        self.lay_out(name, stored)?;
        if stored.is_none() {
            self.site.step(Step::Configure, name);
            self.site.want(self.wanted)?;
            self.configure()?;
        }
        self.patch(variant, further)?;
        self.site.step(Step::Compile, name);
        self.site.object(layout::OBJECT)
    }

    /// The output tree of a base that was built, and the path of the source tree at that time.
    pub(crate) fn built(cache: &Cache, key: &Key) -> Option<(PathBuf, PathBuf)> {
        let folder = cache.root().join(SHELF).join(key.as_str());
        let base = folder.join(BASE);
        base.is_dir().then(|| (folder.join(SOURCE), base))
    }

    /// Applies the patches of a variant to the source tree, and its symbols to the configuration.
    fn patch(&mut self, variant: &Variant, further: &Symbols) -> Result<(), BuildError> {
        self.site.step(Step::Patch, &variant.name);
        let patched = patch::apply(&self.site.trees.source, &variant.patches, self.site.run.cancel)?;
        // The base's configuration is still complete if nothing changes that it depends on.
        if !variant.config.is_empty() || patched.iter().any(|file| configures(file)) {
            self.site.step(Step::Configure, &variant.name);
            self.site.add(further)?;
            self.configure_as(&self.wanted.with(further))?;
        }
        self.patched = Some(patched);
        Ok(())
    }

    /// Removes the output tree and writes the note for the next build. Without this call the next build removes both
    /// trees. If the source tree was not changed, because only the stored base was needed, the note of the last build
    /// stays.
    pub(crate) fn leave(self) -> Result<(), BuildError> {
        let Some(patched) = self.patched else { return Ok(()) };
        remove(&self.site.trees.output)?;
        let aside = self.folder.join("work/patched.new");
        let note = self.folder.join(PATCHED);
        let files: Vec<_> = patched.iter().map(|file| file.to_string_lossy()).collect();
        let text = serde_json::to_vec(&files).unwrap_or_default();
        fs::write(&aside, text).map_err(BuildError::io("write", &aside))?;
        fs::rename(&aside, &note).map_err(BuildError::io("move into place", &note))
    }

    /// The trees and the log.
    pub(crate) fn site(&self) -> &Site<'a> {
        &self.site
    }

    /// Makes a source tree whose files are hard links to those in the cache, and an output tree: a copy of the base's,
    /// or an empty one.
    fn lay_out(&mut self, what: &str, base: Option<&Path>) -> Result<(), BuildError> {
        self.site.step(Step::Prepare, what);
        self.patched = Some(Vec::new());
        let copy = |arguments: &[&str], from: &Path, to: &Path| {
            let job = Job::new("cp").args(arguments).arg("--").arg(from).arg(to);
            job.run(self.site.run.cancel).map_err(BuildError::job(format!("copying {}", from.display())))
        };
        if !self.put_back()? {
            let work = self.folder.join("work");
            remove(&work)?;
            fs::create_dir(&work).map_err(BuildError::io("create", &work))?;
            copy(&["-a", "--link"], self.source, &self.site.trees.source)?;
        }
        match base {
            Some(base) => copy(&["-a", "--reflink=auto"], base, &self.site.trees.output),
            None => fs::create_dir(&self.site.trees.output).map_err(BuildError::io("create", &self.site.trees.output)),
        }
    }

    /// Replaces the files that the last build patched with the original ones, and removes the note. The result is
    /// `false` if there is no note, so that the state of the source tree is unknown.
    fn put_back(&self) -> Result<bool, BuildError> {
        let note = self.folder.join(PATCHED);
        let Ok(text) = fs::read(&note) else { return Ok(false) };
        fs::remove_file(&note).map_err(BuildError::io("remove", &note))?;
        let Ok(files) = serde_json::from_slice::<Vec<PathBuf>>(&text) else { return Ok(false) };
        remove(&self.site.trees.output)?;
        for file in files {
            let original = self.source.join(&file);
            let patched = self.site.trees.source.join(&file);
            remove(&patched)?;
            match fs::hard_link(&original, &patched) {
                // The patch created the file.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                linked => linked.map_err(BuildError::io("put back", &patched))?,
            }
        }
        Ok(true)
    }

    /// Completes the configuration and checks that all symbols of the base have the values that were asked for.
    fn configure(&mut self) -> Result<(), BuildError> {
        self.configure_as(self.wanted)
    }

    /// Completes the configuration and checks that all symbols have the values that were asked for.
    fn configure_as(&mut self, wanted: &Symbols) -> Result<(), BuildError> {
        let config = self.site.configure()?;
        let unmet = wanted.unmet(&config, &self.site.trees.source);
        if unmet.is_empty() { Ok(()) } else { Err(BuildError::Config { unmet }) }
    }
}
