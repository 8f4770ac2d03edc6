//! The options that choose the cells of a run. `run-matrix` runs them, `build` builds their kernels, `plan` divides them.

use anyhow::{Result, bail};
use harness::cell::PlannedCell;
use harness::evidence::AgainstNote;
use harness::lab::Lab;
use harness::matrix::plan::{Selection, plan, with_reference};
use harness::scenario::Scenario;
use kernels::Manifest;

use crate::against::{self, Reference};
use crate::own::Own;
use crate::scripts::Scripts;
use crate::select::Which;

/// Which cells.
#[derive(Clone, Debug, clap::Args)]
pub struct Chosen {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    pub own: Own,
    #[command(flatten)]
    scripts: Scripts,
    /// Compare each kernel with this reference, and fail only if something is worse. The reference is a revision of the
    /// --tree or a kernel (`stock`), which then runs too; or the results.json of an earlier run, or that run's folder
    /// (PATH:KERNEL if it has several kernels)
    #[arg(long, value_name = "REV|KERNEL|PATH")]
    pub against: Option<String>,
    /// Run every cell this many times
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
}

/// The cells, and what they need.
pub struct Planned {
    /// Their kernels.
    pub lab: Lab,
    /// The scenarios: those of the project, or the user's scripts.
    pub scenarios: Vec<Scenario>,
    /// The names of the user's own kernels.
    pub own: Vec<String>,
    /// The cells.
    pub cells: Vec<PlannedCell>,
    /// How many cells there are with `--all`.
    pub every: usize,
    /// What the kernels are compared with, if with anything.
    pub note: Option<AgainstNote>,
}

impl Chosen {
    /// The cells that the options choose. A reference kernel runs the same cells as the others.
    ///
    /// # Errors
    /// An option names something that does not exist, or the options choose nothing.
    pub fn plan(&self, profile: Option<&str>) -> Result<Planned> {
        let mut manifest = Manifest::of_project()?;
        let own = self.own.add_to(&mut manifest)?;
        let find = |word: &String| Reference::find(word, &self.own.tree, &mut manifest);
        let reference = self.against.as_ref().map(find).transpose()?;
        let lab = self.own.tree.lab(manifest, profile)?;
        let scenarios = self.scripts.scenarios(&[], lab.manifest(), &self.which.triggers)?;
        let (cells, every) = self.cells(&lab, &scenarios, own.clone(), reference.as_ref())?;
        let asked = self.against.as_deref().unwrap_or_default();
        let note = reference.map(|reference| reference.note(asked, lab.manifest())).transpose()?;
        Ok(Planned { lab, scenarios, own, cells, every, note })
    }

    /// The cells, and how many there are with `--all`.
    fn cells(
        &self,
        lab: &Lab,
        scenarios: &[Scenario],
        own: Vec<String>,
        reference: Option<&Reference>,
    ) -> Result<(Vec<PlannedCell>, usize)> {
        let (manifest, which) = (lab.manifest(), self.which.clone());
        let selection = Selection::from(Which { kernels: Own::kernels(own, which.kernels), ..which });
        let cells = |selection: &Selection| -> Result<Vec<PlannedCell>> {
            let cells = plan(manifest, scenarios, selection, self.repeat)?;
            let Some(Reference::Kernel(name)) = reference else { return Ok(cells) };
            Ok(with_reference(manifest, scenarios, &cells, against::variant(manifest, name)?))
        };
        let wanted = cells(&selection)?;
        if let (Some(Reference::Kernel(name)), true) = (reference, wanted.is_empty()) {
            bail!(
                "{name} would be compared with itself: name another kernel with --kernels, --rev or --kernel-image, or another \
                 reference with --against"
            );
        }
        Ok((wanted, cells(&Selection { all: true, ..selection })?.len()))
    }
}
