//! The source of a base: fetched once and unpacked into the cache. After that, no network is needed.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::archive::{Mirror, Package, Patience, PrivateApt};
use crate::cache::{Cache, Key, KeyMaker};
use crate::error::BuildError;
use crate::event::{BuildEvent, CancelToken, Observer, Step};
use crate::job::{Job, JobError};
use crate::manifest::Source;
use crate::ready::ReadyKernel;
use crate::space;
use crate::tree::Revision;

/// The shelf of the cache with the sources.
const SHELF: &str = "sources";

/// A source that is unpacked into the cache.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kept<'a> {
    /// A Debian package.
    Package(&'a Package),
    /// A tarball or a tree.
    Path(&'a Path),
}

/// The ways to get a kernel.
pub(crate) enum Origin<'a> {
    /// It is built from a source in the cache.
    Kept(Kept<'a>),
    /// It is built from a revision of a user's tree.
    Git(&'a Revision),
    /// It was built elsewhere.
    Ready(&'a ReadyKernel),
}

impl Source {
    pub(crate) fn origin(&self) -> Origin<'_> {
        match self {
            Source::Package(package) => Origin::Kept(Kept::Package(package)),
            Source::Path(path) => Origin::Kept(Kept::Path(path)),
            Source::Git(revision) => Origin::Git(revision),
            Source::Ready(ready) => Origin::Ready(ready),
        }
    }
}

/// What identifies a source. It is written to a file in the source's entry, and is part of the key of every kernel that
/// is built from the source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// The package, the tarball or the tree.
    pub name: String,
    /// The package's version, or the commit of a repository.
    pub version: Option<String>,
    /// For a package or a tarball, its SHA-256. For a tree, the SHA-256 of its commit, or of the names, sizes and times
    /// of its files. For a revision of a user's tree, the hash of git's tree object. For a kernel that was built
    /// elsewhere, its key.
    pub sha256: String,
}

impl Identity {
    /// The identity of a revision of a user's tree. The hash of git's tree object depends on the files and on nothing
    /// else, so commits with the same files give the same kernel.
    pub(crate) fn of_revision(revision: &Revision) -> Identity {
        let Revision { tree, commit, describe } = revision;
        Identity {
            name: tree.path().display().to_string(),
            version: Some(format!("{describe} ({})", commit.id)),
            sha256: format!("git tree {}", commit.tree),
        }
    }

    /// The identity of a kernel that was built elsewhere.
    pub(crate) fn of_ready(ready: &ReadyKernel) -> Result<Identity, BuildError> {
        let sha256 = format!("ready {}", ready.key()?.as_str());
        Ok(Identity { name: ready.path.display().to_string(), version: None, sha256 })
    }

    /// Name and version on one line.
    pub(crate) fn words(&self) -> String {
        [Some(self.name.as_str()), self.version.as_deref()].into_iter().flatten().collect::<Vec<_>>().join(" ")
    }
}

/// A source in the cache.
#[derive(Clone, Debug)]
pub(crate) struct Unpacked {
    pub tree: PathBuf,
    pub identity: Identity,
}

/// The source, if it is in the cache. Needs no network, and does not read the source's files.
pub(crate) fn find(cache: &Cache, source: Kept) -> Option<Unpacked> {
    let key = key(source, &CancelToken::new()).ok()?;
    read_entry(cache.find(SHELF, &key)?).ok()
}

/// The source. If it is not in the cache, it is fetched and unpacked.
pub(crate) fn get(
    cache: &Cache,
    source: Kept,
    observer: &dyn Observer,
    cancel: &CancelToken,
) -> Result<Unpacked, BuildError> {
    let key = key(source, cancel)?;
    let what = name(source);
    let entry = cache.entry(
        SHELF,
        &key,
        || observer.event(BuildEvent::Waiting { what: what.clone() }),
        |aside| {
            space::check(cache.root(), space::FOR_SOURCE + space::FOR_BUILD)?;
            fill(aside, source, observer, cancel).map_err(|error| space::blame(error, cache.root(), space::FOR_SOURCE))
        },
    )?;
    read_entry(entry)
}

fn read_entry(entry: PathBuf) -> Result<Unpacked, BuildError> {
    let identity = read_identity(&entry)?;
    Ok(Unpacked { tree: entry.join("tree"), identity })
}

/// The file of an entry with what identifies its source.
const IDENTITY: &str = "source.json";

/// What identifies a source, from an entry.
pub(crate) fn read_identity(entry: &Path) -> Result<Identity, BuildError> {
    let note = entry.join(IDENTITY);
    let text = fs::read(&note).map_err(BuildError::io("read", &note))?;
    serde_json::from_slice(&text).map_err(|error| BuildError::io("read", &note)(error.into()))
}

/// Writes what identifies a source into an entry.
pub(crate) fn write_identity(entry: &Path, identity: &Identity) -> Result<(), BuildError> {
    let note = entry.join(IDENTITY);
    let text = serde_json::to_vec_pretty(identity).map_err(|error| BuildError::io("write", &note)(error.into()))?;
    fs::write(&note, text).map_err(BuildError::io("write", &note))
}

/// The key of a package, which is the same on all machines. None for a tarball or a tree of this machine.
pub(crate) fn package_key(source: Kept) -> Option<Key> {
    match source {
        Kept::Package(_) => key(source, &CancelToken::new()).ok(),
        Kept::Path(_) => None,
    }
}

fn name(source: Kept) -> String {
    match source {
        Kept::Package(package) => package.to_string(),
        Kept::Path(path) => path.display().to_string(),
    }
}

/// The key of a source, from what can be found out quickly. A package that was fetched once is not fetched again when a
/// newer version comes out: the same command must give the same kernels tomorrow.
fn key(source: Kept, cancel: &CancelToken) -> Result<Key, BuildError> {
    match source {
        Kept::Package(Package { name, suite }) => {
            let key = KeyMaker::new().with("package", name);
            Ok(suite.iter().fold(key, |key, suite| key.with("suite", suite)).finish())
        }
        Kept::Path(path) if path.is_dir() => {
            Ok(KeyMaker::new().with("tree", path_bytes(path)).with("state", tree_state(path, cancel)?.sha256).finish())
        }
        Kept::Path(path) => {
            let found = fs::metadata(path).map_err(BuildError::io("look at", path))?;
            let stamp = format!("{} {} {}", found.len(), found.mtime(), found.mtime_nsec());
            Ok(KeyMaker::new().with("tarball", path_bytes(path)).with("stamp", stamp).finish())
        }
    }
}

fn path_bytes(path: &Path) -> &[u8] {
    use std::os::unix::ffi::OsStrExt;
    path.as_os_str().as_bytes()
}

fn fill(aside: &Path, source: Kept, observer: &dyn Observer, cancel: &CancelToken) -> Result<(), BuildError> {
    let tree = aside.join("tree");
    fs::create_dir(&tree).map_err(BuildError::io("create", &tree))?;
    let step = |step, what: &str| observer.event(BuildEvent::Step { step, what: what.to_owned() });
    let identity = match source {
        Kept::Package(package) => {
            let download = aside.join("download");
            fs::create_dir(&download).map_err(BuildError::io("create", &download))?;
            let file = fetch(package, &download, &|what| step(Step::Fetch, what), cancel)?;
            step(Step::Unpack, &package.name);
            let identity = unpack_package(&package.name, &file, &download, &tree, cancel)?;
            fs::remove_dir_all(&download).map_err(BuildError::io("remove", &download))?;
            identity
        }
        Kept::Path(path) if path.is_dir() => {
            step(Step::Unpack, &name(source));
            copy_tree(path, aside, &tree, cancel)?
        }
        Kept::Path(path) => {
            step(Step::Unpack, &name(source));
            unpack(path, &tree, cancel)?;
            Identity { name: name(source), version: None, sha256: sha256(path)? }
        }
    };
    if !tree.join("Kbuild").exists() || !tree.join("scripts/kconfig").exists() {
        let path = match source {
            Kept::Package(package) => PathBuf::from(&package.name),
            Kept::Path(path) => path.to_owned(),
        };
        let problem = "this is no Linux kernel source: it has no Kbuild file or no scripts/kconfig".to_owned();
        return Err(BuildError::Source { path, problem });
    }
    let note = aside.join(IDENTITY);
    let text = serde_json::to_vec_pretty(&identity).map_err(|error| BuildError::io("write", &note)(error.into()))?;
    fs::write(&note, text).map_err(BuildError::io("write", &note))
}

/// Downloads a package into a folder. apt verifies it, and needs no root for that.
fn fetch(package: &Package, folder: &Path, begin: &dyn Fn(&str), cancel: &CancelToken) -> Result<PathBuf, BuildError> {
    match &package.suite {
        None => {
            begin(&package.name);
            fetch_from_machine(&package.name, folder, cancel)?;
        }
        Some(suite) => fetch_from_archive(package, suite, folder, begin, cancel)?,
    }
    only_file(folder, |name| name.ends_with(".deb"))?.ok_or_else(|| BuildError::Source {
        path: PathBuf::from(&package.name),
        problem: "apt-get download succeeded, but there is no .deb file in its folder".to_owned(),
    })
}

/// Downloads a package from the suites of this machine's own sources.
fn fetch_from_machine(package: &str, folder: &Path, cancel: &CancelToken) -> Result<(), BuildError> {
    let job = Job::new("apt-get").args(["-q", "download"]).arg(package).within(folder);
    match job.run(cancel) {
        Err(JobError::Failed { tail, .. })
            if tail.contains("Unable to locate package") || tail.contains("Can't find a source to download") =>
        {
            Err(BuildError::NoPackage { package: package.to_owned() })
        }
        result => result.map_err(BuildError::fetch(format!("the package {package}"))),
    }
}

/// Downloads a package from a suite of Debian's archive, whatever suites this machine's sources name.
fn fetch_from_archive(
    package: &Package,
    suite: &str,
    folder: &Path,
    begin: &dyn Fn(&str),
    cancel: &CancelToken,
) -> Result<(), BuildError> {
    let failed = || BuildError::archive(package);
    let mirror = Mirror::of_this_machine(cancel).map_err(failed())?;
    begin(&format!("{package}, from {}", mirror.uri));
    let lists = folder.join("apt");
    fs::create_dir(&lists).map_err(BuildError::io("create", &lists))?;
    let apt = PrivateApt::fetch(&lists, mirror, &[suite], Patience::Long, cancel).map_err(failed())?;
    apt.download(&package.name, folder, cancel).map_err(failed())
}

fn unpack_package(
    package: &str,
    file: &Path,
    scratch: &Path,
    tree: &Path,
    cancel: &CancelToken,
) -> Result<Identity, BuildError> {
    let unpacking = || BuildError::job(format!("unpacking {package}"));
    let version = Job::new("dpkg-deb").arg("-f").arg(file).arg("Version").output(cancel).map_err(unpacking())?;
    let identity =
        Identity { name: package.to_owned(), version: Some(version.trim().to_owned()), sha256: sha256(file)? };
    let content = scratch.join("content");
    Job::new("dpkg-deb").arg("-x").arg(file).arg(&content).run(cancel).map_err(unpacking())?;
    let tarball = find_tarball(&content.join("usr/src"))?.ok_or_else(|| BuildError::Source {
        path: PathBuf::from(package),
        problem: "the package has no kernel tarball in /usr/src".to_owned(),
    })?;
    unpack(&tarball, tree, cancel)?;
    Ok(identity)
}

/// Finds `linux-source-6.12.tar.xz` in the folder itself (Debian), or one folder deeper (Ubuntu).
fn find_tarball(folder: &Path) -> Result<Option<PathBuf>, BuildError> {
    let is_tarball = |name: &str| name.starts_with("linux-source-") && name.contains(".tar");
    if let Some(found) = only_file(folder, is_tarball)? {
        return Ok(Some(found));
    }
    match only_file(folder, |name| name.starts_with("linux-source-"))? {
        Some(deeper) if deeper.is_dir() => only_file(&deeper, is_tarball),
        _ => Ok(None),
    }
}

fn only_file(folder: &Path, wanted: impl Fn(&str) -> bool) -> Result<Option<PathBuf>, BuildError> {
    let entries = fs::read_dir(folder).map_err(BuildError::io("read", folder))?;
    Ok(entries
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(&wanted) && !path.is_symlink()))
}

/// Unpacks a tarball that contains a single folder. The files in that folder go directly into `tree`.
fn unpack(tarball: &Path, tree: &Path, cancel: &CancelToken) -> Result<(), BuildError> {
    Job::new("tar")
        .args(["--extract", "--no-same-owner", "--strip-components=1", "--file"])
        .arg(tarball)
        .arg("--directory")
        .arg(tree)
        .run(cancel)
        .map_err(BuildError::job(format!("unpacking {}", tarball.display())))
}

/// Copies a user's tree, which is only read.
fn copy_tree(from: &Path, scratch: &Path, tree: &Path, cancel: &CancelToken) -> Result<Identity, BuildError> {
    let identity = tree_state(from, cancel)?;
    let copying = || BuildError::job(format!("copying {}", from.display()));
    if let Some(commit) = &identity.version {
        let archive = scratch.join("archive.tar");
        let job = Job::new("git").args(["archive", "--format=tar", "--prefix=tree/", "-o"]).arg(&archive).arg(commit);
        job.within(from).run(cancel).map_err(copying())?;
        unpack(&archive, tree, cancel)?;
        fs::remove_file(&archive).map_err(BuildError::io("remove", &archive))?;
    } else {
        Job::new("cp")
            .args(["-a", "--reflink=auto", "--"])
            .arg(from.join("."))
            .arg(tree)
            .run(cancel)
            .map_err(copying())?;
    }
    if tree.join(".config").exists() {
        let problem =
            "a kernel was built in this tree, so make refuses another output folder: run `make mrproper` in it";
        return Err(BuildError::Source { path: from.to_owned(), problem: problem.to_owned() });
    }
    Ok(identity)
}

/// The identity of a user's tree: its commit, or, if it is no repository, its files with sizes and times.
fn tree_state(tree: &Path, cancel: &CancelToken) -> Result<Identity, BuildError> {
    let looking = || BuildError::job(format!("looking at {}", tree.display()));
    let mut identity = Identity { name: tree.display().to_string(), version: None, sha256: String::new() };
    if tree.join(".git").exists() {
        let git = || Job::new("git").arg("--no-optional-locks").within(tree);
        let status = git().args(["status", "--porcelain", "-uno"]).output(cancel).map_err(looking())?;
        if !status.trim().is_empty() {
            let problem = "this tree has changes that are not committed: commit or stash them".to_owned();
            return Err(BuildError::Source { path: tree.to_owned(), problem });
        }
        let commit = git().args(["rev-parse", "HEAD"]).output(cancel).map_err(looking())?.trim().to_owned();
        identity.sha256 = hex(Sha256::digest(&commit).as_slice());
        identity.version = Some(commit);
        return Ok(identity);
    }
    let find = Job::new("find").args([".", "-type", "f", "-printf", "%P %s %T@\\n"]).within(tree);
    let listing = find.output(cancel).map_err(looking())?;
    let mut files: Vec<&str> = listing.lines().collect();
    files.sort_unstable();
    identity.sha256 = hex(Sha256::digest(files.join("\n")).as_slice());
    Ok(identity)
}

fn sha256(file: &Path) -> Result<String, BuildError> {
    let mut hash = Sha256::new();
    let mut reader = File::open(file).map_err(BuildError::io("read", file))?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match reader.read(&mut buffer).map_err(BuildError::io("read", file))? {
            0 => break,
            read => hash.update(&buffer[..read]),
        }
    }
    Ok(hex(hash.finalize().as_slice()))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_in_the_cache_is_not_fetched_again() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path());
        let package = Package { name: "linux-source-6.12".to_owned(), suite: None };
        let source = Kept::Package(&package);
        assert!(find(&cache, source).is_none());
        let identity = Identity { name: name(source), version: Some("6.12.1-1".to_owned()), sha256: "00".to_owned() };
        let key = key(source, &CancelToken::new()).unwrap();
        let fill = |aside: &Path| {
            fs::write(aside.join("source.json"), serde_json::to_vec(&identity).unwrap())
                .map_err(BuildError::io("write", aside))
        };
        let entry = cache.entry(SHELF, &key, || {}, fill).unwrap();
        let found = find(&cache, source).unwrap();
        assert_eq!((found.tree, found.identity), (entry.join("tree"), identity));
        // If `get` fetched it, it would send an event.
        assert!(get(&cache, source, &|_| panic!("an event"), &CancelToken::new()).is_ok());
    }

    #[test]
    fn packages_of_different_suites_have_different_entries() {
        let of = |suite: Option<&str>| {
            let package = Package { name: "linux-source-7.3".to_owned(), suite: suite.map(str::to_owned) };
            key(Kept::Package(&package), &CancelToken::new()).unwrap()
        };
        assert_ne!(of(Some("trixie-backports")), of(Some("sid")));
        // Sources that are in caches already.
        assert_eq!(of(None), KeyMaker::new().with("package", "linux-source-7.3").finish());
    }

    #[test]
    fn tarballs_of_debian_and_ubuntu_are_found() {
        for place in ["linux-source-6.12.tar.xz", "linux-source-6.8.0/linux-source-6.8.0.tar.bz2"] {
            let folder = tempfile::tempdir().unwrap();
            let tarball = folder.path().join(place);
            fs::create_dir_all(tarball.parent().unwrap()).unwrap();
            fs::write(&tarball, "").unwrap();
            // Ubuntu has a link to the tarball in the outer folder.
            std::os::unix::fs::symlink(&tarball, folder.path().join("linux-source-6.8.0.tar.bz2")).unwrap();
            assert_eq!(find_tarball(folder.path()).unwrap(), Some(tarball));
        }
    }

    #[test]
    fn a_new_file_changes_the_identity_of_a_tree() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a"), "1").unwrap();
        let cancel = CancelToken::new();
        let state = || tree_state(folder.path(), &cancel).unwrap();
        let before = state();
        assert_eq!(before, state());
        fs::write(folder.path().join("b"), "").unwrap();
        assert_ne!(before, state());
    }

    #[test]
    fn a_file_is_hashed_with_sha256() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a");
        fs::write(&file, "abc").unwrap();
        assert_eq!(sha256(&file).unwrap(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
