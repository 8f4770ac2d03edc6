//! What `bisect` and `bisect-step` have in common: which cell judges a commit of which tree, and how.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use harness::bisect::{Asked, Cells, Judged, Mark, OfCommits};
use harness::cell::CellId;
use harness::lab::Lab;
use harness::plan::{Selection, plan};
use harness::trigger::Trigger;
use kernels::CancelToken;
use kernels::tree::Tree;

use crate::machine::workspace;
use crate::own::fragments;
use crate::select::How;
use crate::ui::Ui;

/// How commits are judged.
#[derive(clap::Args)]
pub struct Judging {
    /// The trigger, for scenarios that remove a device: device-del, device-del-acpi, yank, sysfs-remove
    #[arg(short, long)]
    trigger: Option<String>,
    /// The topology [default: the scenario's own]
    #[arg(long)]
    topology: Option<String>,
    /// How many runs decide on a commit, by majority: more than one for a bug that shows only now and then
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub runs: u16,
    /// Take every failure for the one that is looked for
    #[arg(long)]
    pub any_failure: bool,
    /// A configuration fragment on top of ours; may be given several times, the last has the last word
    #[arg(long, value_name = "FILE")]
    config: Vec<PathBuf>,
    /// Build with lockdep and checks: the same as `--profile debug`
    #[arg(long, conflicts_with = "profile")]
    debug: bool,
    /// Judge commits again that were judged before
    #[arg(long)]
    pub restart: bool,
    #[command(flatten)]
    how: How,
}

impl Judging {
    /// The cells that judge commits of a tree, and what is asked, in words.
    ///
    /// # Errors
    /// A scenario or trigger that there is not or that is several, and a tree that is none.
    pub fn cells(&self, tree: &Path, scenario: &str, ui: Arc<Ui>) -> Result<(Cells, Asked)> {
        let lab = Lab::open(None)?;
        let id = self.cell(&lab, scenario)?;
        let scenarios = scenarios::all();
        let found = scenarios.into_iter().find(|found| found.name == id.scenario);
        let scenario = found.with_context(|| format!("there is no scenario {}", id.scenario))?;
        let tree = Tree::open(tree, &CancelToken::new())?;
        let profile = if self.debug { Some("debug".to_owned()) } else { self.how.profile.clone() };
        let snapshots = self.runs > 1;
        let mut how = self.how.clone().request(Vec::new());
        // A kernel that runs one cell is not worth a snapshot.
        how.snapshots &= snapshots;
        if !self.how.has_place() {
            how.out = workspace().join("target/bisect");
        }
        let config = fragments(&self.config)?;
        let asked = asked(&id, &tree, profile.as_deref(), &config);
        let CellId { topology, trigger, .. } = id;
        let progress = Arc::new(OfCommits::new(ui));
        Ok((Cells { lab, tree, config, profile, scenario, topology, trigger, how, progress }, asked))
    }

    /// The one cell that is meant.
    fn cell(&self, lab: &Lab, scenario: &str) -> Result<CellId> {
        let first = lab.manifest().variants.first().context("the manifest has no kernels")?;
        let selection = Selection {
            kernels: vec![first.name.clone()],
            scenarios: vec![scenario.to_owned()],
            triggers: self.trigger.iter().cloned().collect(),
            topologies: self.topology.iter().cloned().collect(),
            all: false,
        };
        let cells = plan(lab.manifest(), &scenarios::all(), &selection, 1)?;
        let [cell] = cells.as_slice() else {
            let name = |cell: &harness::cell::PlannedCell| {
                let CellId { scenario, topology, .. } = &cell.id;
                format!("\n  {scenario} --topology {topology} --trigger {}", cell.id.trigger_name())
            };
            bail!(
                "one cell judges a commit, and that names {}; say which:{}",
                cells.len(),
                cells.iter().map(name).collect::<String>()
            );
        };
        Ok(cell.id.clone())
    }
}

fn asked(id: &CellId, tree: &Tree, profile: Option<&str>, config: &[PathBuf]) -> Asked {
    let mut words = vec!["cargo", "xtask", "run", &id.scenario].into_iter().map(str::to_owned).collect::<Vec<_>>();
    let mut option = |name: &str, value: String| words.extend([name.to_owned(), value]);
    option("--topology", id.topology.clone());
    if let Some(trigger) = id.trigger {
        option("--trigger", trigger.name().to_owned());
    }
    if let Some(profile) = profile {
        option("--profile", profile.to_owned());
    }
    config.iter().for_each(|file| option("--config", file.display().to_string()));
    option("--tree", tree.path().display().to_string());
    words.push("--rev".to_owned());
    let trigger = id.trigger.map(|trigger| format!(", {}", Trigger::name(trigger))).unwrap_or_default();
    Asked { cell: format!("{} on {}{trigger}", id.scenario, id.topology), repeat: shell_words::join(words) }
}

/// What a commit is, in a line: `0123456789ab PCI: subject: bad (deadlock at sriov_numvfs_show)`.
pub fn told(judged: &Judged) -> String {
    let mark = match judged.ruling.mark {
        Mark::Good => "good",
        Mark::Bad => "bad",
        Mark::Skip => "skipped",
    };
    let flaky = if judged.ruling.flaky { ", FLAKY" } else { "" };
    let remembered = if judged.remembered { "; judged before" } else { "" };
    format!("{}: {mark} ({}{flaky}{remembered})", judged.revision, judged.ruling.why)
}
