//! Where the kernels of one base are built: one pair of trees, always under the same names, and the base's output tree
//! put by, from which each variant starts.
//!
//! kbuild decides by names and times what it need not build again, so a variant gets a copy of the base's output tree
//! in the very place where the base was built. The source tree stays from one build to the next, as laying it out takes
//! longer than compiling what a patch changes: the files that were patched are put back, with their old times. A build
//! that fails, or is killed in the middle, leaves no note of what it patched; then the next one throws everything away,
//! so that there is nothing it could trust by mistake.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::cache::{Cache, Key, Lock};
use crate::compile::{Run, Trees};
use crate::config::Symbols;
use crate::error::BuildError;
use crate::event::{BuildEvent, Step};
use crate::files::remove;
use crate::job::Job;
use crate::patch;
use crate::site::{Site, configures};

/// Commands that a base took on 6.12, for the first build's progress.
const BASE_COMMANDS: usize = 1900;
/// Commands that a variant took which changes drivers/pci.
const VARIANT_COMMANDS: usize = 60;

/// The note of what the last build patched, for the next one to put back.
const PATCHED: &str = "work/patched";

/// The trees of one base. Held under a lock: there is one build in them at a time.
pub(crate) struct Workshop<'a> {
    folder: PathBuf,
    site: Site<'a>,
    source: &'a Path,
    wanted: &'a Symbols,
    /// Files of the source tree that are not as in the cache; none as long as the tree is as the last build has left it.
    patched: Option<Vec<PathBuf>>,
    _lock: Lock,
}

impl<'a> Workshop<'a> {
    /// Enters the workshop for a base, waiting until nobody else is in it.
    pub(crate) fn enter(
        cache: &Cache,
        key: &Key,
        source: &'a Path,
        wanted: &'a Symbols,
        run: Run<'a>,
    ) -> Result<Workshop<'a>, BuildError> {
        let waiting = || run.observer.event(BuildEvent::Waiting { what: "another build of the same base".to_owned() });
        let lock = cache.lock(&format!("trees-{}", key.as_str()), waiting)?;
        let folder = cache.root().join("trees").join(key.as_str());
        fs::create_dir_all(&folder).map_err(BuildError::io("create", &folder))?;
        let work = folder.join("work");
        let trees = Trees::new(work.join("source"), work.join("output"));
        let site = Site::new(trees, run)?;
        Ok(Workshop { folder, site, source, wanted, patched: None, _lock: lock })
    }

    /// The base's output tree, built if it is not there.
    pub(crate) fn base(&mut self, name: &str) -> Result<PathBuf, BuildError> {
        let base = self.folder.join("base");
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

    /// The output tree of a variant, built on top of the base's. It is there until [`Workshop::leave`].
    pub(crate) fn variant(&mut self, name: &str, base: &Path, patches: &[PathBuf]) -> Result<PathBuf, BuildError> {
        self.lay_out(name, Some(base))?;
        self.site.step(Step::Patch, name);
        let patched = patch::apply(&self.site.trees.source, patches, self.site.run.cancel)?;
        // The base's configuration is complete, and stays so if nothing changes that it is made from.
        if patched.iter().any(|file| configures(file)) {
            self.site.step(Step::Configure, name);
            self.configure()?;
        }
        self.patched = Some(patched);
        self.site.compile(name, &self.folder.join("variant-commands"), VARIANT_COMMANDS)?;
        let scratch = self.folder.join("work/stripped");
        let code = |output: &Path| self.site.code(&output.join("vmlinux"), &scratch);
        if code(base)? == code(&self.site.trees.output)? {
            return Err(BuildError::NoEffect { variant: name.to_owned() });
        }
        Ok(self.site.trees.output.clone())
    }

    /// Clears up, and leaves the source tree for the next one to enter. If a workshop is not left this way, the next one
    /// throws away what is in it. If nothing was built, as the base was there, the note of the last build still holds.
    pub(crate) fn leave(self) -> Result<(), BuildError> {
        let Some(patched) = self.patched else { return Ok(()) };
        remove(&self.site.trees.output)?;
        let (aside, note) = (self.folder.join("work/patched.new"), self.folder.join(PATCHED));
        let files: Vec<_> = patched.iter().map(|file| file.to_string_lossy()).collect();
        let text = serde_json::to_vec(&files).unwrap_or_default();
        fs::write(&aside, text).map_err(BuildError::io("write", &aside))?;
        fs::rename(&aside, &note).map_err(BuildError::io("move into place", &note))
    }

    /// Where it is all done.
    pub(crate) fn site(&self) -> &Site<'a> {
        &self.site
    }

    /// A source tree that shares its files with the one in the cache, and a fresh output tree.
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

    /// Makes the source tree what it was before the last build patched it, if that build has left a note. From here on
    /// there is no note, until this workshop is left.
    fn put_back(&self) -> Result<bool, BuildError> {
        let note = self.folder.join(PATCHED);
        let Ok(text) = fs::read(&note) else { return Ok(false) };
        fs::remove_file(&note).map_err(BuildError::io("remove", &note))?;
        let Ok(files) = serde_json::from_slice::<Vec<PathBuf>>(&text) else { return Ok(false) };
        remove(&self.site.trees.output)?;
        for file in files {
            let (original, patched) = (self.source.join(&file), self.site.trees.source.join(&file));
            remove(&patched)?;
            match fs::hard_link(&original, &patched) {
                // The patch has brought it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                linked => linked.map_err(BuildError::io("put back", &patched))?,
            }
        }
        Ok(true)
    }

    /// Lets the kernel complete its configuration and checks that it kept what was asked for.
    fn configure(&mut self) -> Result<(), BuildError> {
        let config = self.site.configure()?;
        let unmet = self.wanted.unmet(&config, &self.site.trees.source);
        if unmet.is_empty() { Ok(()) } else { Err(BuildError::Config { unmet }) }
    }
}
