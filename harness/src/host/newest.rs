//! The newest QEMU that Debian offers for its stable release, in the cache and beside the one that is installed. It comes
//! with the libraries of its own release, down to the C library. So it runs on older releases too, and on Ubuntu.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use kernels::archive::{ArchiveFile, Mirror, Patience, PrivateApt};
use kernels::cache::{Cache, CacheError, Key, KeyMaker};
use kernels::{ArchiveError, CancelToken};

use super::Check;
use super::command::{self, CommandError};
use super::os::{Installer, OsRelease};
use super::probe::QEMU_PACKAGE;
use super::qemu::{PROGRAM, Qemu, QemuError};
use crate::vm::version::Version;

/// The suite with the newest QEMU.
const SUITE: &str = "trixie-backports";

/// The suites that the packages of [`SUITE`] need.
const SUITES: [&str; 3] = ["trixie", "trixie-updates", SUITE];

/// The version that [`SUITE`] had when [`ADDS`] was written.
const NEWEST: Version = Version { major: 11, minor: 1 };

/// What QEMU can do since [`NEWEST`], and could not in Debian's earlier versions.
const ADDS: &str =
    "removals of NVMe cards by all triggers, device-del-acpi behind an AMD IOMMU, and SR-IOV of virtio-net";

/// The shelf of the cache.
const SHELF: &str = "qemu";

/// The file of an entry with the names of its packages.
const PACKAGES: &str = "packages.txt";

/// The program of an entry.
const WRAPPER: &str = include_str!("qemu-of-cache.sh");

/// Unpacking a package takes a second at most.
const UNPACK_DEADLINE: Duration = Duration::from_secs(120);

/// How often progress is reported.
const REPORT: Duration = Duration::from_secs(3);

/// A QEMU in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewestQemu {
    /// The program. It is for `IOV_REGRESS_QEMU`.
    pub program: PathBuf,
    /// The version of its package.
    pub version: String,
    /// Whether it was in the cache already.
    pub was_there: bool,
}

/// Why the newest QEMU could not be put into the cache.
#[derive(Debug, thiserror::Error)]
pub enum NewestQemuError {
    /// The distribution has no apt.
    #[error("this needs apt-get and dpkg-deb, and {os} does not have them: set IOV_REGRESS_QEMU to a QEMU of your own")]
    NotApt {
        /// The distribution.
        os: String,
    },
    /// The path of the cache cannot be used.
    #[error(
        "the path of the cache, {}, has a colon, and paths of libraries cannot have one: set IOV_REGRESS_CACHE to \
         another folder", path.display()
    )]
    Colon {
        /// The folder of the cache.
        path: PathBuf,
    },
    /// A package could not be had from the archive.
    #[error("cannot get QEMU of {SUITE}")]
    Archive(#[from] ArchiveError),
    /// apt did not list the package with QEMU.
    #[error("apt lists {count} packages for QEMU of {SUITE}, and {QEMU_PACKAGE} is not among them")]
    NoPackage {
        /// How many packages it lists.
        count: usize,
    },
    /// A package could not be unpacked.
    #[error("cannot unpack {package}")]
    Unpack {
        /// The name of its file.
        package: String,
        /// Why.
        source: CommandError,
    },
    /// The unpacked QEMU cannot run guests.
    #[error("QEMU of {SUITE} is unpacked, and does not work on this machine")]
    Qemu(#[from] QemuError),
    /// A file could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The cache failed.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

/// Says that there is a newer QEMU, and what it adds, if this one is older. Asks nothing over the network.
pub(super) fn check(os: &OsRelease, qemu: &Qemu) -> Option<Check> {
    if qemu.version >= NEWEST || os.installer() != Installer::Apt {
        return None;
    }
    let what = format!("not needed; QEMU {NEWEST} adds {ADDS}; `cargo xtask setup --newest-qemu` gets it");
    Some(Check::ok("newer QEMU", what))
}

/// Marks a QEMU of the cache as used, because `cargo xtask gc` removes entries that are not. Others stay as they are.
pub(super) fn mark_used(program: &OsStr) {
    if let Some(entry) = Path::new(program).parent()
        && entry.join(PACKAGES).is_file()
        && let Ok(entry) = File::open(entry)
    {
        // In a read-only cache this fails, and `gc` cannot remove anything there either.
        let _ = entry.set_modified(SystemTime::now());
    }
}

/// Puts the newest QEMU into the cache, if it is not there yet. Needs no root, and installs nothing. Passes lines about
/// its progress to `say`.
///
/// # Errors
/// The machine has no apt; a package cannot be downloaded, verified or unpacked; or the result does not run here.
pub fn newest_qemu(cache: &Cache, say: &mut dyn FnMut(&str)) -> Result<NewestQemu, NewestQemuError> {
    let os = OsRelease::of_this_machine();
    if os.installer() != Installer::Apt {
        return Err(NewestQemuError::NotApt { os: os.name().to_owned() });
    }
    if cache.root().as_os_str().as_encoded_bytes().contains(&b':') {
        return Err(NewestQemuError::Colon { path: cache.root().to_owned() });
    }
    let cancel = CancelToken::new();
    let mirror = Mirror::of_this_machine(&cancel)?;
    say(&format!("asking {} for QEMU of {SUITE} ...", mirror.uri));
    let scratch = scratch(cache)?;
    let apt = PrivateApt::fetch(scratch.path(), mirror, &SUITES, Patience::Long, &cancel)?;
    let files = apt.files_of(&[QEMU_PACKAGE], SUITE, &cancel)?;
    let version = version_among(&files)?;
    let key = key(&files);
    let found =
        |entry: PathBuf, was_there| NewestQemu { program: entry.join(PROGRAM), version: version.clone(), was_there };
    if let Some(entry) = cache.find(SHELF, &key) {
        return Ok(found(entry, true));
    }
    let lock = cache.lock_entry(SHELF, &key, || say("waiting for another setup ..."))?;
    if let Some(entry) = cache.find(SHELF, &key) {
        return Ok(found(entry, true));
    }
    let aside = cache.stage(SHELF, &key, &lock)?;
    let folder = download(&apt, &files, say, &cancel)?;
    fill(aside.path(), &folder, &files, say)?;
    Qemu::at(aside.path().join(PROGRAM).as_os_str())?;
    cache.put(SHELF, &key, aside)?;
    Ok(found(cache.root().join(SHELF).join(key.as_str()), false))
}

/// A folder for the lists and the packages, on the disk of the cache. `cargo xtask gc` removes what a killed setup leaves.
fn scratch(cache: &Cache) -> Result<tempfile::TempDir, NewestQemuError> {
    let shelf = cache.root().join(SHELF);
    let made =
        fs::create_dir_all(&shelf).and_then(|()| tempfile::Builder::new().prefix(".new-lists-").tempdir_in(&shelf));
    made.map_err(|source| NewestQemuError::Write { path: shelf, source })
}

/// The version of QEMU among the files of packages. apt writes a colon in a version as `%3a` in the name of a file.
fn version_among(files: &[ArchiveFile]) -> Result<String, NewestQemuError> {
    let version = |file: &ArchiveFile| {
        let rest = file.name.strip_prefix(QEMU_PACKAGE)?.strip_prefix('_')?;
        Some(rest.split('_').next()?.replace("%3a", ":"))
    };
    files.iter().find_map(version).ok_or(NewestQemuError::NoPackage { count: files.len() })
}

/// The key of an entry: what apt verifies each package with, and the program that starts it.
fn key(files: &[ArchiveFile]) -> Key {
    let key = KeyMaker::new().with("program", WRAPPER);
    files.iter().fold(key, |key, file| key.with(&file.name, &file.hash)).finish()
}

fn download(
    apt: &PrivateApt,
    files: &[ArchiveFile],
    say: &mut dyn FnMut(&str),
    cancel: &CancelToken,
) -> Result<PathBuf, ArchiveError> {
    let bytes: u64 = files.iter().map(|file| file.bytes).sum();
    say(&format!("downloading {} packages ({} MB) ...", files.len(), bytes.div_ceil(1_000_000)));
    let mut reported = Instant::now();
    let mut on_file = |number: usize| {
        if reported.elapsed() >= REPORT {
            reported = Instant::now();
            say(&format!("downloading package {number} of {} ...", files.len()));
        }
    };
    apt.download_all(&[QEMU_PACKAGE], SUITE, &mut on_file, cancel)
}

/// Unpacks the packages into an entry, and writes the program that starts QEMU.
fn fill(
    entry: &Path,
    packages: &Path,
    files: &[ArchiveFile],
    say: &mut dyn FnMut(&str),
) -> Result<(), NewestQemuError> {
    let root = entry.join("root");
    say(&format!("unpacking {} packages ...", files.len()));
    let mut reported = Instant::now();
    for (number, file) in files.iter().enumerate() {
        if reported.elapsed() >= REPORT {
            reported = Instant::now();
            say(&format!("unpacking package {} of {} ...", number + 1, files.len()));
        }
        let mut unpack = Command::new("dpkg-deb");
        unpack.arg("-x").arg(packages.join(&file.name)).arg(&root);
        command::stdout_of(&mut unpack, UNPACK_DEADLINE)
            .map_err(|source| NewestQemuError::Unpack { package: file.name.clone(), source })?;
    }
    let write = |path: &Path| {
        let path = path.to_owned();
        move |source| NewestQemuError::Write { path, source }
    };
    without_privileges(&root).map_err(write(&root))?;
    let names: String = files.iter().map(|file| format!("{}\n", file.name)).collect();
    let list = entry.join(PACKAGES);
    fs::write(&list, names).map_err(write(&list))?;
    let program = entry.join(PROGRAM);
    fs::write(&program, WRAPPER).map_err(write(&program))?;
    fs::set_permissions(&program, Permissions::from_mode(0o755)).map_err(write(&program))
}

/// Clears the bits with which a program runs as its owner. Unpacked by root, an old `su` must not be left anywhere.
fn without_privileges(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            without_privileges(&entry.path())?;
        } else if kind.is_file() {
            let mode = entry.metadata()?.permissions().mode();
            if mode & 0o6000 != 0 {
                fs::set_permissions(entry.path(), Permissions::from_mode(mode & 0o777))?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, hash: &str) -> ArchiveFile {
        ArchiveFile { name: name.to_owned(), bytes: 1, hash: hash.to_owned() }
    }

    #[test]
    fn the_version_is_that_of_the_package_with_qemu() {
        let files = [
            file("qemu-system-x86-xen_1%3a9_amd64.deb", "SHA256:0"),
            file("qemu-system-x86_1%3a11.1.3+ds-1~bpo13+1_amd64.deb", "SHA256:1"),
        ];
        assert_eq!(version_among(&files).unwrap(), "1:11.1.3+ds-1~bpo13+1");
        assert!(matches!(version_among(&files[..1]), Err(NewestQemuError::NoPackage { count: 1 })));
    }

    #[test]
    fn another_package_or_another_content_makes_another_entry() {
        let one = key(&[file("a", "SHA256:1")]);
        assert_ne!(one, key(&[file("a", "SHA256:2")]));
        assert_ne!(one, key(&[file("b", "SHA256:1")]));
        assert_eq!(one, key(&[file("a", "SHA256:1")]));
    }

    /// An entry whose loader prints its arguments and the folder of modules, one in each line.
    fn entry(folder: &Path) -> PathBuf {
        let libraries = folder.join("root/usr/lib/x86_64-linux-gnu");
        fs::create_dir_all(&libraries).unwrap();
        for (path, content) in [
            (libraries.join("ld-linux-x86-64.so.2"), "#!/bin/sh\nprintf '%s\\n' \"$QEMU_MODULE_DIR\" \"$@\"\n"),
            (folder.join(PROGRAM), WRAPPER),
        ] {
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        }
        folder.join(PROGRAM)
    }

    #[test]
    fn the_program_passes_on_every_argument_and_path_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("a $folder's \"name\" * \\");
        fs::create_dir(&place).unwrap();
        let arguments = ["-device", "igb,id=a b", "", "$HOME", "it's \"quoted\" \\ *"];
        let mut command = Command::new(entry(&place));
        let output = command::stdout_of(command.args(arguments), UNPACK_DEADLINE).unwrap();
        let root = place.join("root").display().to_string();
        let libraries = format!("{root}/usr/lib/x86_64-linux-gnu");
        let own = [
            format!("{libraries}/qemu"),
            "--library-path".to_owned(),
            format!("{libraries}:{root}/usr/lib"),
            format!("{root}/usr/bin/qemu-system-x86_64"),
        ];
        let firmware = ["usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"];
        let firmware = firmware.iter().flat_map(|name| ["-L".to_owned(), format!("{root}/{name}")]);
        let expected: Vec<_> = own.into_iter().chain(firmware).chain(arguments.map(str::to_owned)).collect();
        assert_eq!(output.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn the_program_can_be_started_through_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let program = entry(folder.path());
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&program, &link).unwrap();
        let output = |program: &Path| command::stdout_of(&mut Command::new(program), UNPACK_DEADLINE).unwrap();
        assert_eq!(output(&link), output(&program));
    }

    #[test]
    fn an_entry_that_runs_counts_as_used() {
        let folder = tempfile::tempdir().unwrap();
        let program = entry(folder.path());
        let old = SystemTime::now() - Duration::from_secs(1000);
        let age = || {
            mark_used(program.as_os_str());
            folder.path().metadata().unwrap().modified().unwrap().elapsed().unwrap().as_secs()
        };
        let set_old = || File::open(folder.path()).unwrap().set_modified(old).unwrap();
        set_old();
        assert!(age() >= 1000, "this is no entry yet");
        fs::write(folder.path().join(PACKAGES), "").unwrap();
        set_old();
        assert!(age() < 500);
    }

    #[test]
    fn programs_lose_the_bits_of_their_owner() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("deep/su");
        fs::create_dir(folder.path().join("deep")).unwrap();
        fs::write(&program, "").unwrap();
        fs::set_permissions(&program, Permissions::from_mode(0o6755)).unwrap();
        std::os::unix::fs::symlink("nowhere", folder.path().join("link")).unwrap();
        without_privileges(folder.path()).unwrap();
        assert_eq!(program.metadata().unwrap().permissions().mode() & 0o7777, 0o755);
    }

    #[test]
    fn only_an_older_qemu_has_a_newer_one() {
        let os = OsRelease { id: "debian".to_owned(), ..OsRelease::default() };
        let qemu = |major, minor| Qemu {
            binary: PROGRAM.into(),
            version: Version { major, minor },
            banner: String::new(),
            devices: String::new(),
        };
        assert_eq!(check(&os, &qemu(11, 1)), None);
        assert!(check(&os, &qemu(10, 0)).unwrap().to_string().contains("--newest-qemu"));
    }
}
