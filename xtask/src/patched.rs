//! The kernels of a series on a base: `series` runs all of them, `run` repeats one.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use harness::lab::Lab;
use harness::matrix::series::{self, Patch};
use kernels::{Manifest, Source};

use crate::own::{HEAD, OwnTree};

/// The base that patches are applied to.
pub struct Base<'a> {
    /// The user's tree, if the base is one of its revisions.
    pub tree: &'a OwnTree,
    /// A revision of the tree, or a base of the manifest [default: HEAD, or the first].
    pub rev: Option<&'a str>,
}

impl Base<'_> {
    /// The manifest with this base, and the name of the base in it.
    ///
    /// # Errors
    /// The base or the revision does not exist.
    pub fn find(&self) -> Result<(Manifest, String)> {
        let mut manifest = Manifest::of_project()?;
        let added = self.tree.add_to(&mut manifest, &[self.rev.unwrap_or(HEAD)])?;
        let base = match added.into_iter().next() {
            Some(name) => name,
            None => self.named(&manifest)?,
        };
        Ok((manifest, base))
    }

    /// The lab with this base, and with one kernel for each patch on top of the patches before it, under a profile if
    /// one is named.
    ///
    /// # Errors
    /// Those of [`Base::find`]. The profile does not exist.
    pub fn lab(&self, patches: &[Patch], profile: Option<&str>) -> Result<Lab> {
        let (manifest, base) = self.find()?;
        self.tree.lab(kernels_on(manifest, &base, patches)?, profile)
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

/// The manifest with the kernels of a series on one of its bases.
///
/// # Errors
/// The manifest does not have the base.
pub fn kernels_on(manifest: Manifest, base: &str, patches: &[Patch]) -> Result<Manifest> {
    let about = match &manifest.base(base)?.source {
        Source::Package(package) => format!("{base} ({package})"),
        Source::Path(path) => format!("{base} ({})", path.display()),
        Source::Git(revision) => format!("{} ({})", revision.describe, revision.commit.subject),
        Source::Ready(ready) => format!("{base} ({})", ready.path.display()),
    };
    Ok(series::kernels(manifest, base, &about, patches))
}

/// The patches that a run of `series` wrote into a folder, in their order. They need no more work: `series` has
/// extracted them from mails, and merged them if asked to.
///
/// # Errors
/// The folder does not exist, or has no patches.
pub fn kept(folder: &Path) -> Result<Vec<Patch>> {
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
    Ok(files.into_iter().zip(1..).map(|(file, place)| numbered(file, place)).collect())
}

/// A patch with the number that its file name begins with. A patch that the base has already has no file, so this is
/// not always its place in the folder.
fn numbered(file: PathBuf, place: usize) -> Patch {
    let title = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let number = title.split('-').next().and_then(|digits| digits.parse().ok());
    Patch { number: number.unwrap_or(place), title, file }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_patch_has_the_number_of_its_file() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["0002-a.patch", "0005-b.patch", "notes.txt"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let found: Vec<_> = kept(folder.path()).unwrap().into_iter().map(|patch| (patch.number, patch.title)).collect();
        assert_eq!(found, [(2, "0002-a".to_owned()), (5, "0005-b".to_owned())]);
        assert!(kept(&folder.path().join("gone")).unwrap_err().to_string().contains("--series takes the folder"));
    }
}
