//! An apt with lists and a configuration of its own. It needs no root, and neither reads nor changes what the machine's
//! apt knows about packages. Only proxies and the like come from the machine's configuration.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::ArchiveError;
use super::mirror::Mirror;
use super::policy::{self, Offers};
use super::{CancelToken, Job};
use crate::job::JobError;

/// Hooks that run after an update: PackageKit's, AppStream's, and those of container images. They are for the machine's
/// own lists. A file after all others must clear them, because `-o` only adds to a list.
const WITHOUT_HOOKS: &str = "\
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
";

/// The names of Debian's kernel source packages begin with this.
const KERNEL_SOURCE: &str = "linux-source-";

/// How long the private apt tries to reach the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// It tries several times. Cancelling ends it.
    Long,
    /// It tries once, and gives up after this time.
    Brief(Duration),
}

impl Patience {
    fn options(self) -> [&'static str; 2] {
        match self {
            Patience::Long => ["-oAcquire::Retries=3", "-oAcquire::http::Timeout=30"],
            Patience::Brief(_) => ["-oAcquire::Retries=0", "-oAcquire::http::Timeout=10"],
        }
    }

    fn limit(self, job: Job) -> Job {
        match self {
            Patience::Long => job,
            Patience::Brief(deadline) => job.deadline(deadline),
        }
    }
}

/// Suites of a mirror, with their lists in a folder.
#[derive(Debug)]
pub struct PrivateApt {
    folder: PathBuf,
    mirror: Mirror,
    suites: Vec<String>,
    patience: Patience,
}

/// A file of the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveFile {
    /// Its name. It has the name, the version and the architecture of the package.
    pub name: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// Its hash, with the name of the algorithm before it.
    pub hash: String,
}

impl PrivateApt {
    /// Fetches the lists of suites into an existing folder, and has apt verify them.
    ///
    /// # Errors
    /// The archive cannot be reached or verified, or has no such suite; the job was cancelled.
    pub fn fetch(
        folder: &Path,
        mirror: Mirror,
        suites: &[&str],
        patience: Patience,
        cancel: &CancelToken,
    ) -> Result<PrivateApt, ArchiveError> {
        let names = suites.iter().map(|&suite| suite.to_owned()).collect();
        let apt = PrivateApt { folder: folder.to_owned(), mirror, suites: names, patience };
        for made in ["state/lists/partial", "cache/archives/partial"].map(|name| folder.join(name)) {
            fs::create_dir_all(&made).map_err(ArchiveError::write(&made))?;
        }
        let files = [
            (apt.sources(), apt.mirror.stanza(suites)),
            (apt.hooks(), WITHOUT_HOOKS.to_owned()),
            (apt.status(), String::new()),
        ];
        for (path, content) in files {
            fs::write(&path, content).map_err(ArchiveError::write(&path))?;
        }
        // Without this mode an index that cannot be fetched is only a warning.
        let update = apt.job("apt-get").args(["-oAPT::Update::Error-Mode=any", "update"]);
        patience.limit(update).run(cancel).map_err(|error| apt.failed(error))?;
        Ok(apt)
    }

    /// The mirror that was asked.
    pub fn mirror(&self) -> &Mirror {
        &self.mirror
    }

    /// The versions that the suites have of packages.
    ///
    /// # Errors
    /// apt cannot be run.
    pub fn offers(&self, packages: &[String], cancel: &CancelToken) -> Result<Offers, ArchiveError> {
        policy::ask(self.job("apt-cache"), packages, cancel)
    }

    /// Says that the suites do not have a kernel source package, and which ones they have.
    ///
    /// # Errors
    /// apt cannot be run.
    pub fn gone(&self, package: &str, cancel: &CancelToken) -> Result<ArchiveError, ArchiveError> {
        let names = self.job("apt-cache").args(["pkgnames", KERNEL_SOURCE]).output(cancel)?;
        let mut names: Vec<_> = names.lines().filter_map(|name| Some((version_of(name)?, name.to_owned()))).collect();
        names.sort();
        let names: Vec<_> = names.into_iter().map(|(_, name)| name).collect();
        let offers = self.offers(&names, cancel)?;
        let version = |name: &String| offers.get(name).and_then(|offer| offer.candidate.clone());
        Ok(ArchiveError::Gone {
            package: package.to_owned(),
            suite: self.suites.join(", "),
            mirror: self.mirror.uri.clone(),
            offered: names.iter().filter_map(|name| Some((name.clone(), version(name)?))).collect(),
        })
    }

    /// Downloads a package into a folder, and has apt verify it.
    ///
    /// # Errors
    /// The suites do not have it, the archive cannot be reached, the file is not the one that the lists name, or the job
    /// was cancelled.
    pub fn download(&self, package: &str, into: &Path, cancel: &CancelToken) -> Result<(), ArchiveError> {
        if !self.offers(&[package.to_owned()], cancel)?.contains_key(package) {
            return Err(self.gone(package, cancel)?);
        }
        let job = self.job("apt-get").args(["download", package]).within(into);
        job.run(cancel).map_err(|error| self.failed(error))
    }

    /// The files of packages from a suite, and of all packages that they need. As no package counts as installed, these
    /// are enough on any machine.
    ///
    /// # Errors
    /// The suites do not have what is needed, or apt cannot be run.
    pub fn files_of(
        &self,
        packages: &[&str],
        suite: &str,
        cancel: &CancelToken,
    ) -> Result<Vec<ArchiveFile>, ArchiveError> {
        let job = self.install(packages, suite).args(["--print-uris", "-oAcquire::ForceHash=SHA256"]);
        let mut files: Vec<_> = job.output(cancel)?.lines().filter_map(file).collect();
        files.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(files)
    }

    /// Downloads these files, and has apt verify them. Returns the folder that they are in. Passes the number of each
    /// file to `on_file` when its download begins.
    ///
    /// # Errors
    /// As for [`PrivateApt::download`].
    pub fn download_all(
        &self,
        packages: &[&str],
        suite: &str,
        on_file: &mut dyn FnMut(usize),
        cancel: &CancelToken,
    ) -> Result<PathBuf, ArchiveError> {
        let mut count = 0;
        let job = self.install(packages, suite).arg("--download-only");
        let followed = job.lines(cancel, |line| {
            if line.starts_with("Get:") {
                count += 1;
                on_file(count);
            }
        });
        followed.map_err(|error| self.failed(error))?;
        Ok(self.folder.join("cache/archives"))
    }

    fn install(&self, packages: &[&str], suite: &str) -> Job {
        let options = ["-y", "-oAPT::Install-Recommends=false", "-t", suite, "install"];
        self.job("apt-get").args(options).args(packages)
    }

    fn failed(&self, error: JobError) -> ArchiveError {
        ArchiveError::of_fetch(error, &self.mirror, &self.suites)
    }

    /// A program of apt with the private configuration.
    fn job(&self, program: &str) -> Job {
        let option = |name: &str, value: &Path| {
            let mut option = std::ffi::OsString::from(format!("-o{name}="));
            option.push(value);
            option
        };
        let nothing = Path::new("/dev/null");
        let places = [
            option("Dir::Etc::sourcelist", &self.sources()),
            option("Dir::Etc::sourceparts", nothing),
            option("Dir::Etc::preferences", nothing),
            option("Dir::Etc::preferencesparts", nothing),
            option("Dir::State", &self.folder.join("state")),
            option("Dir::State::status", &self.status()),
            option("Dir::Cache", &self.folder.join("cache")),
        ];
        let mut hooks = std::ffi::OsString::from("-c=");
        hooks.push(self.hooks());
        Job::new(program)
            .arg(hooks)
            .args(places)
            // No translations of descriptions, and no data for graphical package managers.
            .args(["-q", "-oAcquire::Languages=none", "-oAcquire::IndexTargets::deb::DEP-11::DefaultEnabled=false"])
            .args(self.patience.options())
    }

    fn sources(&self) -> PathBuf {
        self.folder.join("archive.sources")
    }

    fn hooks(&self) -> PathBuf {
        self.folder.join("without-hooks.conf")
    }

    /// The list of installed packages. It is empty.
    fn status(&self) -> PathBuf {
        self.folder.join("status")
    }
}

/// The version of the kernel of a source package: `linux-source-6.12` is 6.12. None for other packages.
fn version_of(package: &str) -> Option<Vec<u32>> {
    package.strip_prefix(KERNEL_SOURCE)?.split('.').map(|number| number.parse().ok()).collect()
}

/// A line of `apt-get --print-uris`: `'URI' NAME BYTES ALGORITHM:HASH`.
pub(super) fn file(line: &str) -> Option<ArchiveFile> {
    let mut words = line.strip_prefix('\'')?.split_once("' ")?.1.split_whitespace();
    let (name, bytes, hash) = (words.next()?, words.next()?.parse().ok()?, words.next()?);
    Some(ArchiveFile { name: name.to_owned(), bytes, hash: hash.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apt(folder: &Path) -> PrivateApt {
        let mirror = Mirror { uri: "http://mirror.example.org/debian".to_owned(), signed_by: "/k.gpg".to_owned() };
        let suites = vec!["trixie-backports".to_owned()];
        PrivateApt { folder: folder.to_owned(), mirror, suites, patience: Patience::Long }
    }

    #[test]
    fn kernel_source_packages_sort_by_version() {
        let mut names =
            ["linux-source-6.12", "linux-source-6.1", "linux-source-rt", "linux-source-", "linux-source-7.2"]
                .map(|name| (version_of(name), name));
        names.sort();
        let sorted: Vec<_> = names.iter().filter(|(version, _)| version.is_some()).map(|(_, name)| *name).collect();
        assert_eq!(sorted, ["linux-source-6.1", "linux-source-6.12", "linux-source-7.2"]);
    }

    #[test]
    fn the_files_of_an_installation_are_read() {
        let line = "'http://mirror.example.org/debian/pool/main/q/qemu/qemu-system-x86_11.1.3%2bds-1%7ebpo13%2b1_amd64.deb' \
                    qemu-system-x86_1%3a11.1.3+ds-1~bpo13+1_amd64.deb 10364 SHA256:00ff";
        let found = file(line).unwrap();
        assert_eq!(found.name, "qemu-system-x86_1%3a11.1.3+ds-1~bpo13+1_amd64.deb");
        assert_eq!((found.bytes, found.hash.as_str()), (10364, "SHA256:00ff"));
        assert_eq!(file("Reading package lists..."), None);
    }

    #[test]
    fn apt_reads_nothing_of_this_machines_sources_and_runs_no_hook() {
        let folder = tempfile::tempdir().unwrap();
        // apt.conf cannot express every path. Options on the command line can.
        let inside = folder.path().join("a \"folder\" of mine");
        fs::create_dir(&inside).unwrap();
        let apt = apt(&inside);
        fs::write(apt.hooks(), WITHOUT_HOOKS).unwrap();
        let machine = inside.join("hooks.conf");
        fs::write(&machine, "APT::Update::Post-Invoke-Success { \"touch /made\"; };\n").unwrap();
        let Ok(dump) = apt.job("apt-config").arg("dump").env("APT_CONFIG", &machine).output(&CancelToken::new()) else {
            // A machine without apt.
            assert!(!crate::requirements::on_path("apt-config"));
            return;
        };
        let value =
            |name: &str| dump.lines().filter_map(|line| line.strip_prefix(name)).next_back().unwrap_or_default();
        assert_eq!(value("Dir::Etc::sourceparts "), "\"/dev/null\";");
        assert_eq!(value("Dir::State "), format!("\"{}\";", inside.join("state").display()));
        assert!(!dump.contains("touch /made"), "{dump}");
    }
}
