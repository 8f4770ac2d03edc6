//! Builds revisions of a user's tree in one source tree and one output tree, so that make only builds what changed from
//! one revision to the next.
//!
//! The source is a worktree of the project's own. A checkout gives new times to the files that it changes and leaves
//! the others alone, so kbuild sees what to build again. A killed build may leave an incomplete object that make would
//! take for a finished one. So each build begins by writing a mark file. If the mark of an earlier build is still
//! there, all files in the output tree that are newer than it are removed first.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::cache::{Cache, KeyMaker, Lock};
use crate::compile::{DebugInfo, Run, Trees};
use crate::config::{Symbols, Unmet};
use crate::error::BuildError;
use crate::event::{BuildEvent, Step};
use crate::files::remove;
use crate::manifest::Need;
use crate::site::{Site, configures};
use crate::tree::{Revision, Worktree};
use crate::{layout, patch, requirements, space};

/// The shelf of the cache with these output trees.
const SHELF: &str = "outputs";

/// How many commands a whole build of 6.12 runs, for the progress of the first build.
const COMMANDS: usize = 1900;

/// What a kernel's configuration must have.
pub(crate) struct Wanted<'a> {
    /// All symbols that are asked for.
    pub symbols: &'a Symbols,
    /// The symbols among them that the user asked for. None of these is left out.
    pub asked: &'a Symbols,
    /// The symbols among them that cells need.
    pub needs: &'a [Need],
}

/// The trees in which revisions of a user's tree are built. Locks keep other builds out as long as this value exists.
pub(crate) struct Follower<'a> {
    folder: PathBuf,
    cache: PathBuf,
    worktree: Worktree,
    site: Site<'a>,
    _lock: Lock,
}

/// A note of how the output tree was configured.
#[derive(Serialize, Deserialize)]
struct Configured {
    /// A hash of everything that the configuration was made from.
    from: String,
    /// A hash of the resulting configuration.
    config: String,
    /// The symbols that were left out.
    dropped: Vec<String>,
}

impl<'a> Follower<'a> {
    /// Takes the trees for a repository, a configuration and a compiler. Waits while another build has them.
    pub(crate) fn enter(
        cache: &Cache,
        revision: &Revision,
        symbols: &Symbols,
        compiler: &str,
        debug: DebugInfo,
        run: Run<'a>,
    ) -> Result<Follower<'a>, BuildError> {
        let Revision { tree, commit, .. } = revision;
        let waiting = || run.observer.event(BuildEvent::Waiting { what: "another build of the same tree".to_owned() });
        let worktree = tree.worktree(cache, "build", commit, waiting, run.cancel)?;
        let through = requirements::on_path("ccache").then_some("ccache gcc");
        let source = worktree.path().as_os_str();
        let key = KeyMaker::new().with("source", source.as_encoded_bytes()).with("symbols", symbols.to_string());
        let key = key.with("compiler", compiler).with("through", through.unwrap_or_default());
        let key = debug.add_to(key).finish();
        let lock = cache.lock(&format!("{SHELF}-{}", key.as_str()), waiting)?;
        let folder = cache.root().join(SHELF).join(key.as_str());
        fs::create_dir_all(&folder).map_err(BuildError::io("create", &folder))?;
        // `gc` goes by this time.
        let _ = File::open(&folder).and_then(|folder| folder.set_modified(SystemTime::now()));
        let trees = Trees { compiler: through, debug, ..Trees::new(worktree.path().to_owned(), folder.join("output")) };
        let follower =
            Follower { folder, cache: cache.root().to_owned(), worktree, site: Site::new(trees, run)?, _lock: lock };
        let is_new = !follower.worktree.path().join("Makefile").exists();
        space::check(cache.root(), follower.needed() + if is_new { space::FOR_SOURCE } else { 0 })?;
        Ok(follower)
    }

    /// How many bytes of disk a build takes. The first build in an output tree takes more than the ones after it.
    fn needed(&self) -> u64 {
        if self.site.trees.output.join("vmlinux").exists() { space::FOR_STEP } else { space::FOR_BUILD }
    }

    /// Builds a revision with patches on top. Returns the symbols that were left out of its configuration.
    pub(crate) fn build(
        &mut self,
        name: &str,
        revision: &Revision,
        patches: &[PathBuf],
        wanted: &Wanted,
    ) -> Result<Vec<String>, BuildError> {
        self.marked(|follower| {
            let dropped = follower.configured(name, revision, patches, wanted)?;
            follower.site.compile(name, &follower.folder.join("commands"), COMMANDS)?;
            Ok(dropped)
        })
    }

    /// Prepares the build of a revision with patches on top, and compiles one object of it.
    pub(crate) fn prepare(
        &mut self,
        name: &str,
        revision: &Revision,
        patches: &[PathBuf],
        wanted: &Wanted,
    ) -> Result<(), BuildError> {
        self.marked(|follower| {
            follower.configured(name, revision, patches, wanted)?;
            follower.site.step(Step::Compile, name);
            follower.site.object(layout::OBJECT)
        })
    }

    /// Does something in the trees, with a mark in the output tree meanwhile.
    fn marked<T>(&mut self, act: impl FnOnce(&mut Self) -> Result<T, BuildError>) -> Result<T, BuildError> {
        let mark = Mark::set(&self.folder, &self.site.trees.output)?;
        let needed = self.needed();
        let built = act(self);
        let built = built.map_err(|error| space::blame(error, &self.cache, needed));
        // A make that ends by itself, with or without an error, leaves no incomplete object, unless the disk is full.
        if built.as_ref().err().is_none_or(BuildError::is_of_the_kernel) {
            mark.take_away()?;
        }
        built
    }

    /// The trees and the log.
    pub(crate) fn site(&self) -> &Site<'a> {
        &self.site
    }

    /// A path for a temporary file.
    pub(crate) fn scratch(&self) -> PathBuf {
        self.folder.join("scratch")
    }

    /// Checks out a revision, patches it and configures it. Returns the symbols that were left out.
    fn configured(
        &mut self,
        name: &str,
        revision: &Revision,
        patches: &[PathBuf],
        wanted: &Wanted,
    ) -> Result<Vec<String>, BuildError> {
        self.site.step(Step::Prepare, &revision.describe);
        self.worktree.checkout(&revision.commit, self.site.run.cancel)?;
        let output = &self.site.trees.output;
        fs::create_dir_all(output).map_err(BuildError::io("create", output))?;
        let mut patched = Vec::new();
        if !patches.is_empty() {
            self.site.step(Step::Patch, name);
            patched = patch::apply(self.worktree.path(), patches, self.site.run.cancel)?;
        }
        self.configure(name, revision, &patched, wanted)
    }

    /// Makes the configuration, unless the output tree has it already. If the new configuration equals the old one, the
    /// old file is put back with its old time, so that make builds nothing again because of it.
    fn configure(
        &mut self,
        name: &str,
        revision: &Revision,
        patched: &[PathBuf],
        wanted: &Wanted,
    ) -> Result<Vec<String>, BuildError> {
        let note = self.folder.join("configured");
        let config = self.site.config();
        let before = self.folder.join("config");
        let from = self.made_from(revision, patched)?;
        let known = fs::read(&note).ok().and_then(|text| serde_json::from_slice::<Configured>(&text).ok());
        let is_there = |known: &Configured| known.from == from && sum(&config).is_some_and(|sum| sum == known.config);
        if let Some(known) = known.filter(is_there) {
            return Ok(known.dropped);
        }
        self.site.step(Step::Configure, name);
        remove(&note)?;
        if config.exists() {
            fs::rename(&config, &before).map_err(BuildError::io("put by", &config))?;
        }
        self.site.want(wanted.symbols)?;
        let unmet = wanted.symbols.unmet(&self.site.configure()?, self.worktree.path());
        let dropped = wanted.sort(unmet, self.worktree.path())?;
        if !dropped.is_empty() {
            self.site.run.observer.event(BuildEvent::Dropped { unmet: dropped.clone() });
        }
        if sum(&before).is_some() && sum(&before) == sum(&config) {
            fs::rename(&before, &config).map_err(BuildError::io("put back", &config))?;
        }
        let dropped: Vec<_> = dropped.iter().map(Unmet::to_string).collect();
        let configured = Configured { from, config: sum(&config).unwrap_or_default(), dropped };
        let text = serde_json::to_vec(&configured).unwrap_or_default();
        fs::write(&note, text).map_err(BuildError::io("write", &note))?;
        Ok(configured.dropped)
    }

    /// A hash of the files that the configuration depends on.
    fn made_from(&self, revision: &Revision, patched: &[PathBuf]) -> Result<String, BuildError> {
        let listing = self.worktree.git(["ls-tree", "-r", &revision.commit.id], self.site.run.cancel);
        let listing = listing.map_err(BuildError::job(format!("listing {}", revision.describe)))?;
        let mut sum = Sha256::new();
        for line in listing.lines() {
            if line.split_once('\t').is_some_and(|(_, file)| configures(Path::new(file))) {
                sum.update(line);
            }
        }
        for file in patched.iter().filter(|file| configures(file)) {
            sum.update(file.as_os_str().as_encoded_bytes());
            sum.update(fs::read(self.worktree.path().join(file)).unwrap_or_default());
        }
        Ok(crate::source::hex(sum.finalize().as_slice()))
    }
}

impl Wanted<'_> {
    /// The unmet symbols, if all of them can be left out.
    ///
    /// # Errors
    /// [`BuildError::Needs`], with those that cannot.
    fn sort(&self, unmet: Vec<Unmet>, source: &Path) -> Result<Vec<Unmet>, BuildError> {
        let mut dropped = Vec::new();
        let mut missing = Vec::new();
        for one in unmet {
            match self.must(&one) {
                Some(why) => missing.push((one, why)),
                None => dropped.push(one),
            }
        }
        if missing.is_empty() {
            return Ok(dropped);
        }
        let makefile = fs::read_to_string(source.join("Makefile")).unwrap_or_default();
        Err(BuildError::Needs { version: format!("Linux {}", version(&makefile)), missing })
    }

    /// Why a symbol must not be left out, if it must not.
    fn must(&self, unmet: &Unmet) -> Option<String> {
        if self.asked.name(&unmet.symbol) {
            return Some("a fragment of yours asks for it".to_owned());
        }
        let need = self.needs.iter().find(|need| need.symbols.contains(&unmet.symbol))?;
        (unmet.known || !need.implied).then(|| need.why.clone())
    }
}

/// The version at the beginning of a kernel's Makefile.
fn version(makefile: &str) -> String {
    let value = |name: &str| {
        let line = makefile.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix('='));
        line.unwrap_or_default().trim()
    };
    format!("{}.{}.{}{}", value("VERSION"), value("PATCHLEVEL"), value("SUBLEVEL"), value("EXTRAVERSION"))
}

/// A hash of a file. None if there is no such file.
fn sum(file: &Path) -> Option<String> {
    Some(crate::source::hex(Sha256::digest(fs::read(file).ok()?).as_slice()))
}

/// A mark file: it exists while a build runs in an output tree, and after a build was killed.
struct Mark(PathBuf);

impl Mark {
    /// Removes what a killed build has written, then sets the mark.
    fn set(folder: &Path, output: &Path) -> Result<Mark, BuildError> {
        let path = folder.join("building");
        if let Ok(left) = fs::metadata(&path) {
            remove_since(output, (left.ctime(), left.ctime_nsec()))?;
            remove(&path)?;
        }
        fs::write(&path, "").map_err(BuildError::io("write", &path))?;
        Ok(Mark(path))
    }

    fn take_away(self) -> Result<(), BuildError> {
        remove(&self.0)
    }
}

/// Removes all files whose `ctime` is at least `time`. Unlike `mtime`, `cp -p` and the like do not set it.
fn remove_since(folder: &Path, time: (i64, i64)) -> Result<(), BuildError> {
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.map_err(BuildError::io("read", folder))?.path();
        let stat = fs::symlink_metadata(&path).map_err(BuildError::io("look at", &path))?;
        if stat.is_dir() {
            remove_since(&path, time)?;
        } else if (stat.ctime(), stat.ctime_nsec()) >= time {
            remove(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unmet(symbol: &str, known: bool) -> Unmet {
        let reason = if known { "it depends on X" } else { "this kernel has no such symbol" };
        Unmet { symbol: symbol.to_owned(), wanted: "y".into(), found: "n".into(), reason: reason.into(), known }
    }

    #[test]
    fn symbols_that_cells_or_users_need_are_not_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let makefile = "# SPDX\nVERSION = 5\nPATCHLEVEL = 4\nSUBLEVEL = 0\nEXTRAVERSION = -rc8\nNAME = x\n";
        fs::write(folder.path().join("Makefile"), makefile).unwrap();
        let need =
            |symbol: &str, implied| Need { symbols: vec![symbol.to_owned()], why: format!("for {symbol}"), implied };
        let needs = [need("IGB", false), need("VFIO_GROUP", true)];
        let asked = Symbols::of_config("CONFIG_MINE=y\n");
        let wanted = Wanted { symbols: &Symbols::default(), asked: &asked, needs: &needs };
        let sort = |unmet| wanted.sort(unmet, folder.path()).map(|dropped| dropped.len());
        assert_eq!(sort(vec![unmet("NICE", true), unmet("NEW", false), unmet("VFIO_GROUP", false)]).unwrap(), 3);
        let error =
            sort(vec![unmet("IGB", false), unmet("VFIO_GROUP", true), unmet("MINE", false), unmet("NEW", false)]);
        insta::assert_snapshot!(error.unwrap_err(), @r"
        Linux 5.4.0-rc8 cannot be configured as cells need it:
          CONFIG_IGB=y was asked for and is n: this kernel has no such symbol
            (for IGB)
          CONFIG_VFIO_GROUP=y was asked for and is n: it depends on X
            (for VFIO_GROUP)
          CONFIG_MINE=y was asked for and is n: this kernel has no such symbol
            (a fragment of yours asks for it)
        ");
    }

    #[test]
    fn files_that_a_killed_build_wrote_are_removed_and_others_stay() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("output");
        fs::create_dir_all(output.join("drivers")).unwrap();
        let write = |name: &str| fs::write(output.join(name), name).unwrap();
        write("drivers/old.o");
        write("kept");
        // A file that was written in the same tick of the file system's clock as the mark would be removed as well.
        let time = |file: &Path| fs::metadata(file).map(|stat| (stat.ctime(), stat.ctime_nsec())).unwrap();
        let tick = folder.path().join("tick");
        while {
            fs::write(&tick, "").unwrap();
            time(&tick) == time(&output.join("kept"))
        } {}
        let left = Mark::set(folder.path(), &output).unwrap();
        write("drivers/new.o");
        write("kept.cmd");
        // `cp -p` sets an old mtime.
        File::open(output.join("kept.cmd")).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        drop(left);
        Mark::set(folder.path(), &output).unwrap().take_away().unwrap();
        assert!(output.join("drivers/old.o").exists() && output.join("kept").exists());
        assert!(!output.join("drivers/new.o").exists() && !output.join("kept.cmd").exists());
        write("fine");
        Mark::set(folder.path(), &output).unwrap();
        assert!(output.join("fine").exists());
    }
}
