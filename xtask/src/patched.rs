//! The kernels of a series on a base: `series` runs all of them, `run` repeats one.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use harness::lab::Lab;
use harness::matrix::series;
use kernels::{Manifest, Source};

use crate::own::{HEAD, OwnTree};

/// The base that patches are applied to.
pub struct Base<'a> {
    /// The user's tree, if the base is one of its revisions.
    pub tree: &'a OwnTree,
    /// A revision of the tree, or a base of the manifest [default: HEAD, or the first].
    pub rev: Option<&'a str>,
    /// The profile of all the kernels.
    pub profile: Option<&'a str>,
}

impl Base<'_> {
    /// The lab with this base, and with one kernel for each patch on top of the patches before it. Each patch has a
    /// title.
    ///
    /// # Errors
    /// The base, the revision or the profile does not exist.
    pub fn lab(&self, patches: &[(String, PathBuf)]) -> Result<Lab> {
        let mut manifest = Manifest::of_project()?;
        let added = self.tree.add_to(&mut manifest, &[self.rev.unwrap_or(HEAD)])?;
        let base = match added.into_iter().next() {
            Some(name) => name,
            None => self.named(&manifest)?,
        };
        let about = match &manifest.base(&base)?.source {
            Source::Package(package) => format!("{base} ({package})"),
            Source::Path(path) => format!("{base} ({})", path.display()),
            Source::Git(revision) => format!("{} ({})", revision.describe, revision.commit.subject),
            Source::Ready(ready) => format!("{base} ({})", ready.path.display()),
        };
        self.tree.lab(series::kernels(manifest, &base, &about, patches), self.profile)
    }

    /// The base of the manifest that the options name, or the first.
    fn named(&self, manifest: &Manifest) -> Result<String> {
        let first = manifest.bases.first().map(|base| base.name.as_str()).unwrap_or_default();
        let wanted = self.rev.unwrap_or(first);
        let advice = || {
            format!(
                "without --tree, --base names a base of kernels.toml; for a revision use --tree PATH --base {wanted}"
            )
        };
        Ok(manifest.base(wanted).with_context(advice)?.name.clone())
    }
}

/// The patches that a run of `series` wrote into a folder, in their order. They need no more work: `series` has
/// extracted them from mails, and merged them if asked to.
///
/// # Errors
/// The folder does not exist, or has no patches.
pub fn kept(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let shown = folder.display();
    let advice =
        || format!("cannot read {shown}: --series takes the folder `patches` of a run of `cargo xtask series`");
    let folder = std::path::absolute(folder).with_context(advice)?;
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(advice)? {
        let path = entry.with_context(advice)?.path();
        if path.extension().is_some_and(|extension| extension == "patch") {
            files.push(path);
        }
    }
    if files.is_empty() {
        bail!("there is no *.patch in {shown}: --series takes the folder `patches` of a run of `cargo xtask series`");
    }
    files.sort();
    let titled = |file: PathBuf| (file.file_stem().unwrap_or_default().to_string_lossy().into_owned(), file);
    Ok(files.into_iter().map(titled).collect())
}
