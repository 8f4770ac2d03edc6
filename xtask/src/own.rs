//! The user's own kernels: the options for them, which several subcommands share.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use harness::lab::Lab;
use kernels::cache::Cache;
use kernels::tree::Tree;
use kernels::{CancelToken, Manifest, ReadyKernel};

/// The default revision.
pub const HEAD: &str = "HEAD";

/// The heading of these options in help texts.
const HEADING: &str = "Your own kernel";

/// A kernel tree of the user, and how its kernels are built.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct OwnTree {
    /// A git tree of Linux. Kernels are built from its revisions in a separate worktree; your checkout is not changed
    #[arg(help_heading = HEADING, long = "tree", id = "tree", value_name = "PATH")]
    pub path: Option<PathBuf>,
    /// A configuration fragment on top of the project's. May be given several times; later fragments override earlier
    /// ones
    #[arg(help_heading = HEADING, long, value_name = "FILE", requires = "tree")]
    pub config: Vec<PathBuf>,
    /// Build with lockdep and other kernel checks: the same as `--profile debug`
    #[arg(help_heading = HEADING, long, conflicts_with = "profile")]
    pub debug: bool,
}

/// The user's own kernels.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Own {
    #[command(flatten)]
    pub tree: OwnTree,
    /// A revision of the tree: tag, branch or hash. May be given several times [default: HEAD]
    #[arg(help_heading = HEADING, long, value_name = "REV", requires = "tree")]
    pub rev: Vec<String>,
    /// A prebuilt kernel: /boot/vmlinuz-*, a vmlinux with a PVH note, or a Debian package (linux-image-*.deb). May be
    /// given several times
    #[arg(help_heading = HEADING, long, value_name = "PATH", conflicts_with_all = ["debug", "profile"])]
    pub kernel_image: Vec<PathBuf>,
    /// The folder with the modules of that kernel [default: those in the package, or in /lib/modules]
    #[arg(help_heading = HEADING, long, value_name = "DIR", requires = "kernel_image")]
    pub modules: Option<PathBuf>,
}

impl OwnTree {
    /// The tree, if one is given.
    ///
    /// # Errors
    /// The path does not exist, or is not in a git repository.
    pub fn open(&self) -> Result<Option<Tree>> {
        Ok(self.path.as_deref().map(|path| Tree::open(path, &CancelToken::new())).transpose()?)
    }

    /// The name of the profile: `debug` with `--debug`, else the one that `--profile` names.
    pub fn profile<'a>(&self, named: Option<&'a str>) -> Option<&'a str> {
        if self.debug { Some("debug") } else { named }
    }

    /// The absolute paths of the configuration fragments.
    ///
    /// # Errors
    /// A fragment does not exist.
    pub fn fragments(&self) -> Result<Vec<PathBuf>> {
        let absolute = |file: &PathBuf| {
            if !file.is_file() {
                bail!("there is no file {}: --config takes a fragment of a kernel .config", file.display());
            }
            std::path::absolute(file).with_context(|| format!("cannot find {}", file.display()))
        };
        self.config.iter().map(absolute).collect()
    }

    /// A lab with the kernels of a manifest, under the profile that the options name, if any.
    ///
    /// # Errors
    /// The profile does not exist, or the folder of the cache cannot be determined.
    pub fn lab(&self, manifest: Manifest, profile: Option<&str>) -> Result<Lab> {
        Ok(Lab::of(self.under(manifest, profile)?, Cache::of_user()?))
    }

    /// A manifest under the profile that the options name, if any.
    ///
    /// # Errors
    /// The profile does not exist.
    pub fn under(&self, manifest: Manifest, profile: Option<&str>) -> Result<Manifest> {
        Ok(match self.profile(profile) {
            Some(profile) => manifest.under(profile)?,
            None => manifest,
        })
    }

    /// Adds revisions of the tree, if one is given, to a manifest. Returns the name of each kernel once.
    ///
    /// # Errors
    /// The tree or a revision does not exist.
    pub fn add_to(&self, manifest: &mut Manifest, revs: &[&str]) -> Result<Vec<String>> {
        let Some(tree) = self.open()? else { return Ok(Vec::new()) };
        let (config, cancel) = (self.fragments()?, CancelToken::new());
        let (mut names, mut added) = (Vec::new(), BTreeSet::new());
        for rev in revs {
            let revision = tree.revision(rev, &cancel)?;
            let name = name(rev, &revision.describe, &revision.commit.short);
            if !added.insert(name.clone()) {
                continue;
            }
            let name = free(manifest, name);
            manifest.add_revision(&name, revision, &config);
            names.push(name);
        }
        Ok(names)
    }
}

impl Own {
    /// The lab with the project's kernels and the user's own, under a profile if one is named. Also returns the names
    /// of the user's own.
    ///
    /// # Errors
    /// A path or a revision does not exist. Errors of [`Lab::open`].
    pub fn lab(&self, profile: Option<&str>) -> Result<(Lab, Vec<String>)> {
        let mut manifest = Manifest::of_project()?;
        let names = self.add_to(&mut manifest)?;
        Ok((self.tree.lab(manifest, profile)?, names))
    }

    /// Adds the kernels to a manifest, and returns their names.
    ///
    /// # Errors
    /// A path or a revision does not exist.
    pub fn add_to(&self, manifest: &mut Manifest) -> Result<Vec<String>> {
        let mut names = self.add_images(manifest)?;
        let head = [HEAD.to_owned()];
        let revs: Vec<_> = if self.rev.is_empty() { &head[..] } else { &self.rev }.iter().map(String::as_str).collect();
        names.extend(self.tree.add_to(manifest, &revs)?);
        Ok(names)
    }

    fn add_images(&self, manifest: &mut Manifest) -> Result<Vec<String>> {
        if self.modules.is_some() && self.kernel_image.len() > 1 {
            bail!("--modules belongs to one --kernel-image, but {} are given", self.kernel_image.len());
        }
        let modules = self.modules.as_ref().map(|folder| {
            if !folder.is_dir() {
                bail!("there is no folder {}: --modules takes a folder such as /lib/modules/6.1.0", folder.display());
            }
            std::path::absolute(folder).with_context(|| format!("cannot find {}", folder.display()))
        });
        let modules = modules.transpose()?;
        let mut names = Vec::new();
        for path in &self.kernel_image {
            if !path.is_file() {
                bail!("there is no file {}: --kernel-image takes a kernel, or a package with one", path.display());
            }
            let path = std::path::absolute(path).with_context(|| format!("cannot find {}", path.display()))?;
            let name = free(manifest, image_name(&path));
            manifest.add_ready(&name, ReadyKernel { path, modules: modules.clone() });
            names.push(name);
        }
        Ok(names)
    }

    /// The kernels to run: the user's own, and those that `--kernels` names.
    pub fn kernels(names: Vec<String>, named: Vec<String>) -> Vec<String> {
        names.into_iter().chain(named).collect::<BTreeSet<_>>().into_iter().collect()
    }
}

/// The name itself, or with a number if another kernel has it.
fn free(manifest: &Manifest, name: String) -> String {
    let taken = |name: &str| manifest.variant(name).is_ok() || manifest.base(name).is_ok();
    if !taken(&name) {
        return name;
    }
    let numbered = (1..).map(|number| format!("{name}-own{number}"));
    numbered.into_iter().find(|name| !taken(name)).unwrap_or(name)
}

/// Prefixes of the file names of kernels and of their packages. The release follows.
const BEGINNINGS: [&str; 7] = [
    "vmlinuz-",
    "vmlinux-",
    "bzImage-",
    "linux-binary-unsigned-",
    "linux-binary-",
    "linux-image-unsigned-",
    "linux-image-",
];

/// The name for a kernel image: its release. `vmlinuz-6.1.0-50-amd64`, `linux-image-6.1.0-50-amd64_6.1.176-1_amd64.deb`
/// and `/usr/lib/modules/6.1.0-50-amd64/vmlinuz` are `6.1.0-50-amd64`.
fn image_name(path: &Path) -> String {
    let (file, folder) = (path.file_name().unwrap_or_default(), path.parent().unwrap_or(Path::new("")));
    let is_with_modules = folder.parent().is_some_and(|parent| parent.ends_with("modules")) && file == "vmlinuz";
    let file = if is_with_modules { folder.file_name().unwrap_or(file) } else { file }.to_string_lossy();
    let name = file.strip_suffix(".deb").map_or(&*file, |package| package.split('_').next().unwrap_or(package));
    let name = BEGINNINGS.iter().find_map(|beginning| name.strip_prefix(beginning)).unwrap_or(name);
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    let name: String = name.chars().map(plain).collect();
    let name = name.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    if name.is_empty() { "image".to_owned() } else { name.to_owned() }
}

/// The name for a revision: the user's own word if it can name a folder and identifies the commit, else that of
/// `git describe`, else the short hash.
fn name(rev: &str, describe: &str, short: &str) -> String {
    let fits = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    };
    if fits(rev) && rev != HEAD && rev.len() < 40 {
        return rev.to_owned();
    }
    if fits(describe) { describe.to_owned() } else { short.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_keeps_its_name_if_that_identifies_the_commit() {
        let named = |rev: &str, describe: &str| name(rev, describe, "0123456789ab");
        assert_eq!(named("v6.12", "v6.12"), "v6.12");
        assert_eq!(named("HEAD", "v6.12-3-g0123456789ab"), "v6.12-3-g0123456789ab");
        assert_eq!(named("HEAD~3", "0123456789ab"), "0123456789ab");
        assert_eq!(named("pci/next", "pci/v6.12"), "0123456789ab");
        assert_eq!(named("0123456789abcdef0123456789abcdef01234567", "v6.12"), "v6.12");
    }

    #[test]
    fn an_image_is_named_after_its_release() {
        let named = |path: &str| image_name(Path::new(path));
        assert_eq!(named("/boot/vmlinuz-6.1.0-50-amd64"), "6.1.0-50-amd64");
        assert_eq!(named("/usr/lib/modules/7.3.4+deb13-amd64/vmlinuz"), "7.3.4-deb13-amd64");
        assert_eq!(named("linux-image-6.12.111+deb12-amd64_6.12.111-1~bpo12+1_amd64.deb"), "6.12.111-deb12-amd64");
        assert_eq!(named("/x/linux-binary-unsigned-7.3.4+deb13-amd64_7.3.4-1_amd64.deb"), "7.3.4-deb13-amd64");
        assert_eq!(
            (named("bzImage"), named("vmlinuz"), named("/")),
            ("bzImage".into(), "vmlinuz".into(), "image".into())
        );
    }
}
