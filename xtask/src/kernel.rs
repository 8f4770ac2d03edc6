//! The options that name the kernel of one cell: one of the project's, the user's own, or one of a series.

use std::path::PathBuf;

use anyhow::{Result, bail};
use harness::lab::Lab;

use crate::own::Own;
use crate::patched::{Base, kept};

/// Where the kernel of a cell comes from. The name of the kernel is another argument, with the id `kernel`.
#[derive(Clone, Debug, clap::Args)]
pub struct Origin {
    #[command(flatten)]
    own: Own,
    /// Run on a kernel of a series: the folder `patches` that a run of `cargo xtask series` wrote. Then --kernel is
    /// `base`, or for example `patch-2` for the base with the first two patches
    #[arg(long, value_name = "DIR", requires = "kernel", conflicts_with = "kernel_image")]
    pub series: Option<PathBuf>,
    /// The base of the series: a base of kernels.toml or, with --tree, a revision, like --rev [default: the first base;
    /// with --tree, HEAD]
    #[arg(long, value_name = "REV", requires = "series", conflicts_with = "rev")]
    base: Option<String>,
}

impl Origin {
    /// The lab that has the kernel, under a profile if one is named. Also returns the names of the user's own kernels.
    ///
    /// # Errors
    /// A tree, a revision, a file, the patches or the profile do not exist.
    pub fn lab(&self, profile: Option<&str>) -> Result<(Lab, Vec<String>)> {
        // --debug is a profile, too, and must not be named twice.
        let profile = profile.filter(|_| !self.own.tree.debug);
        let Some(folder) = &self.series else { return self.own.lab(profile) };
        let rev = match self.own.rev.as_slice() {
            [] => self.base.as_deref(),
            [rev] => Some(rev.as_str()),
            revs => bail!("a series has one base, but {} --rev are given", revs.len()),
        };
        Ok((Base { tree: &self.own.tree, rev }.lab(&kept(folder)?, profile)?, Vec::new()))
    }
}
