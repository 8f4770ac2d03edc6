//! The kernel's own selftests of vfio (`tools/testing/selftests/vfio`, since 6.18): programs that test the kernel from
//! user space. They are built from the source of the kernel under test, or, if that has none, from that of the base that
//! the manifest names.
//!
//! The programs are static, because the guest has no libraries. They are in the cache once for each source.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Component, Path, PathBuf};

use crate::builder::Builder;
use crate::cache::{Key, KeyMaker};
use crate::compile::FirstError;
use crate::error::BuildError;
use crate::event::{BuildEvent, CancelToken, Observer, Step};
use crate::files::remove;
use crate::job::{Job, JobError};
use crate::manifest::{Base, Variant};
use crate::patch;
use crate::requirements::{Requirement, selftest_requirements};
use crate::source::{self, Identity, Origin};
use crate::space;
use crate::tree::Revision;

/// Part of the key of each entry. To be raised when the same sources are built in another way.
const RECIPE: &str = "1";

/// The shelf of the cache with the programs.
const SHELF: &str = "selftests";

/// The folder of the tests in the source.
const TESTS: &str = "tools/testing/selftests/vfio";

/// The parts of the source that the build reads. The tests have links to some headers of drivers too.
const READ: [&str; 5] = ["Makefile", "scripts", "include", "arch/x86", "tools"];

/// The parts of the source whose content decides what the programs do: patches of other files do not change them.
const DECIDING: [&str; 4] = ["tools/testing/selftests/", "tools/include/", "include/uapi/", "arch/x86/include/uapi/"];

/// Selftests in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selftests {
    /// The folder of the programs.
    pub folder: PathBuf,
    /// The exact source that they come from: package and version, or path and commit.
    pub source: String,
}

/// A source that has the tests.
struct Tests<'a> {
    /// What progress lines call it.
    name: &'a str,
    identity: Identity,
    place: Place<'a>,
    /// The patches that change the tests, or what they are built from.
    patches: Vec<PathBuf>,
}

/// Where the files of a source are.
enum Place<'a> {
    Tree(PathBuf),
    Revision(&'a Revision),
}

impl Builder {
    /// The vfio selftests for a variant, built if they are not in the cache. Fetches the source that they come from if
    /// it is not in the cache. Blocks until they are there; `cancel` ends it early.
    ///
    /// # Errors
    /// [`BuildError`]. [`BuildError::MissingLibrary`] and those of fetching a source say that this host cannot build
    /// them.
    pub fn vfio_selftests(
        &self,
        variant: &str,
        observer: &dyn Observer,
        cancel: &CancelToken,
    ) -> Result<Selftests, BuildError> {
        let variant = self.manifest().variant(variant)?;
        let tests = self.tests(variant, observer, cancel)?;
        let key = self.selftests_key(&tests)?;
        let waiting = || observer.event(BuildEvent::Waiting { what: "another build of the selftests".to_owned() });
        let folder = self.cache().entry(SHELF, &key, waiting, |aside| {
            if let Some(missing) = selftest_requirements().iter().find(|requirement| !requirement.is_met()) {
                return Err(BuildError::from(missing));
            }
            space::check(self.cache().root(), space::FOR_BUILD)?;
            let log = self.cache().root().join("logs").join(format!("selftests-{}.log", key.as_str()));
            let work = Work { folder: &aside.join("work"), log: &log, jobs: self.jobs(), observer, cancel };
            work.fill(aside, &tests).map_err(|error| space::blame(error, self.cache().root(), space::FOR_BUILD))
        })?;
        Ok(Selftests { folder, source: tests.identity.words() })
    }

    /// The source of the variant if it has the tests, else that of the base that the manifest names.
    fn tests<'a>(
        &'a self,
        variant: &'a Variant,
        observer: &dyn Observer,
        cancel: &CancelToken,
    ) -> Result<Tests<'a>, BuildError> {
        let base = self.manifest().base(&variant.base)?;
        if let Some(tests) = self.tests_of(base, &variant.patches, observer, cancel)? {
            return Ok(tests);
        }
        let Some(other) = &self.manifest().selftests else {
            return Err(BuildError::NoSelftests { base: base.name.clone(), other: None });
        };
        let none = || BuildError::NoSelftests { base: base.name.clone(), other: Some(other.clone()) };
        self.tests_of(self.manifest().base(other)?, &[], observer, cancel)?.ok_or_else(none)
    }

    fn tests_of<'a>(
        &self,
        base: &'a Base,
        patches: &[PathBuf],
        observer: &dyn Observer,
        cancel: &CancelToken,
    ) -> Result<Option<Tests<'a>>, BuildError> {
        let (identity, place) = match base.source.origin() {
            Origin::Kept(kept) => {
                let found = source::get(self.cache(), kept, observer, cancel)?;
                (found.identity, Place::Tree(found.tree))
            }
            Origin::Git(revision) => (Identity::of_revision(revision), Place::Revision(revision)),
            Origin::Ready(_) => return Ok(None),
        };
        let patches = deciding(patches)?;
        let tests = Tests { name: &base.name, identity, place, patches };
        Ok(tests.exist(cancel)?.then_some(tests))
    }

    fn selftests_key(&self, tests: &Tests) -> Result<Key, BuildError> {
        let key = KeyMaker::new()
            .with("recipe", RECIPE)
            .with("source", &tests.identity.sha256)
            .with("compiler", self.compiler()?);
        let add = |key: KeyMaker, patch: &PathBuf| {
            let text = fs::read(patch).map_err(BuildError::io("read", patch))?;
            Ok::<_, BuildError>(key.with("patch", text))
        };
        Ok(tests.patches.iter().try_fold(key, add)?.finish())
    }
}

impl From<&Requirement> for BuildError {
    fn from(missing: &Requirement) -> BuildError {
        BuildError::MissingLibrary { what: missing.name, why: missing.why, package: missing.debian_package }
    }
}

impl Tests<'_> {
    fn exist(&self, cancel: &CancelToken) -> Result<bool, BuildError> {
        let makefile = format!("{TESTS}/Makefile");
        match &self.place {
            Place::Tree(tree) => Ok(tree.join(makefile).is_file()),
            Place::Revision(revision) => revision.tree.has(&revision.commit, &makefile, cancel),
        }
    }

    /// Puts files and folders of the source into a folder. Files of a tree in the cache get a second name there.
    fn take(&self, paths: &BTreeSet<PathBuf>, to: &Path, cancel: &CancelToken) -> Result<(), BuildError> {
        match &self.place {
            Place::Tree(tree) => {
                let job = Job::new("cp").args(["-a", "--link", "--parents", "--"]).args(paths).arg(to).within(tree);
                job.run(cancel).map_err(BuildError::job(format!("copying {}", tree.display())))
            }
            Place::Revision(revision) => revision.tree.archive(&revision.commit, paths, to, cancel),
        }
    }
}

/// Those of some patches that change files that decide what the tests do.
fn deciding(patches: &[PathBuf]) -> Result<Vec<PathBuf>, BuildError> {
    let mut found = Vec::new();
    for patch in patches {
        let text = fs::read(patch).map_err(BuildError::io("read", patch))?;
        if is_deciding(&String::from_utf8_lossy(&text)) {
            found.push(patch.clone());
        }
    }
    Ok(found)
}

fn is_deciding(patch: &str) -> bool {
    let files = patch.lines().filter_map(|line| line.strip_prefix("+++ b/").or_else(|| line.strip_prefix("--- a/")));
    files.into_iter().any(|file| DECIDING.iter().any(|part| file.starts_with(part)))
}

/// One build of the tests.
struct Work<'a> {
    /// The folder for the source and everything that the build writes.
    folder: &'a Path,
    log: &'a Path,
    jobs: usize,
    observer: &'a dyn Observer,
    cancel: &'a CancelToken,
}

impl Work<'_> {
    /// Builds the tests, and moves the programs into a folder.
    fn fill(&self, to: &Path, tests: &Tests) -> Result<(), BuildError> {
        let (source, programs) = (self.folder.join("source"), self.folder.join("programs"));
        for folder in [self.folder, &source, &programs] {
            fs::create_dir(folder).map_err(BuildError::io("create", folder))?;
        }
        self.step(Step::Prepare, tests);
        self.lay_out(&source, tests)?;
        self.step(Step::Compile, tests);
        self.compile(&source, &programs)?;
        let mut count = 0;
        for program in fs::read_dir(&programs).map_err(BuildError::io("list", &programs))?.flatten() {
            if is_program(&program.path()) {
                let place = to.join(program.file_name());
                fs::rename(program.path(), &place).map_err(BuildError::io("move into place", &place))?;
                count += 1;
            }
        }
        if count == 0 {
            let problem = format!("make has built no program from {TESTS}; its output is in {}", self.log.display());
            return Err(BuildError::Source { path: PathBuf::from(&tests.identity.name), problem });
        }
        remove(self.folder)
    }

    fn step(&self, step: Step, tests: &Tests) {
        self.observer.event(BuildEvent::Step { step, what: format!("the vfio selftests of {}", tests.name) });
    }

    /// The part of the source that the build needs, with the patches that change it.
    fn lay_out(&self, source: &Path, tests: &Tests) -> Result<(), BuildError> {
        tests.take(&READ.iter().map(PathBuf::from).collect(), source, self.cancel)?;
        let mut targets = BTreeSet::new();
        let folder = source.join(TESTS);
        add_targets(source, &folder, &mut targets).map_err(BuildError::io("list", &folder))?;
        if !targets.is_empty() {
            tests.take(&targets, source, self.cancel)?;
        }
        patch::apply_part(source, &tests.patches, &DECIDING, self.cancel)
    }

    /// The tests need the headers of the same source (`Documentation/dev-tools/kselftest.rst`).
    fn compile(&self, source: &Path, programs: &Path) -> Result<(), BuildError> {
        if let Some(logs) = self.log.parent() {
            fs::create_dir_all(logs).map_err(BuildError::io("create", logs))?;
        }
        let mut log = File::create(self.log).map_err(BuildError::io("create", self.log))?;
        let headers = self.folder.join("headers");
        let make = || Job::new("make").arg(format!("-j{}", self.jobs));
        let install = make().arg("-C").arg(source).arg(joined("O=", &headers)).arg("headers");
        self.logged(install, source, &mut log)?;
        let tests = source.join(TESTS);
        // Warnings of a compiler that the tests were not written for are no errors. Messages name files below the
        // folder of the tests, wherever that is.
        let mut flags = joined("EXTRA_CFLAGS=-Wno-error -ffile-prefix-map=", &tests);
        flags.push("/=");
        let build = make().arg("-C").arg(&tests).arg(joined("OUTPUT=", programs)).arg(flags);
        let build = build.arg(joined("KHDR_INCLUDES=-isystem ", headers.join("usr/include")));
        self.logged(build.arg("LDFLAGS=-static -pthread -s"), source, &mut log)
    }

    fn logged(&self, make: Job, source: &Path, log: &mut File) -> Result<(), BuildError> {
        let mut first = FirstError::default();
        match make.logged(self.cancel, log, |line| first.look_at(line, source)) {
            Ok(()) => Ok(()),
            Err(JobError::Failed { tail, .. }) => {
                Err(BuildError::Selftests { first: first.found(&tail), log: self.log.to_owned() })
            }
            Err(other) => Err(BuildError::job("make")(other)),
        }
    }
}

fn joined(name: &str, path: impl AsRef<Path>) -> OsString {
    let mut joined = OsString::from(name);
    joined.push(path.as_ref());
    joined
}

/// The files outside of the copied parts that links in and below a folder lead to, as paths relative to the source.
fn add_targets(source: &Path, folder: &Path, targets: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let (entry, kind) = entry.and_then(|entry| entry.file_type().map(|kind| (entry.path(), kind)))?;
        if kind.is_dir() {
            add_targets(source, &entry, targets)?;
        } else if kind.is_symlink() && !entry.exists() {
            let target = plain(&folder.join(fs::read_link(&entry)?));
            targets.extend(target.strip_prefix(source).ok().map(Path::to_owned));
        }
    }
    Ok(())
}

/// A path without `..`. The files need not exist.
fn plain(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut plain, component| {
        match component {
            Component::ParentDir => drop(plain.pop()),
            other => plain.push(other),
        }
        plain
    })
}

/// Whether a file that make has written is a program, and not an object or a list of dependencies.
fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.extension().is_none()
        && file.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o100 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_patches_of_the_tests_or_their_headers_decide() {
        let patch = |file: &str| format!("Subject: x\n\n--- a/{file}\n+++ b/{file}\n@@ -1 +1 @@\n-a\n+b\n");
        for (file, decides) in [
            ("tools/testing/selftests/vfio/vfio_pci_device_test.c", true),
            ("include/uapi/linux/vfio.h", true),
            ("drivers/vfio/pci/vfio_pci_core.c", false),
            ("arch/x86/kvm/x86.c", false),
        ] {
            assert_eq!(is_deciding(&patch(file)), decides, "{file}");
        }
        assert!(is_deciding("--- /dev/null\n+++ b/tools/testing/selftests/vfio/new.c\n"));
    }

    #[test]
    fn links_that_lead_out_of_the_copied_parts_are_found() {
        let source = tempfile::tempdir().unwrap();
        let tests = source.path().join(TESTS);
        fs::create_dir_all(tests.join("lib")).unwrap();
        fs::write(tests.join("there.h"), "").unwrap();
        let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, tests.join(name)).unwrap();
        link("../../../../../drivers/net/regs.h", "lib/regs.h");
        link("../there.h", "lib/there.h");
        link("/etc/no/such/file", "lib/outside.h");
        let mut targets = BTreeSet::new();
        add_targets(source.path(), &tests, &mut targets).unwrap();
        assert_eq!(targets.into_iter().collect::<Vec<_>>(), [Path::new("drivers/net/regs.h")]);
    }
}
