//! What `bisect` and `bisect-step` have in common: which cell judges a commit, and how.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use harness::bisect::{Asked, Cells, Judged, Kernels, Mark, Memory, OfCommits};
use harness::cell::CellId;
use harness::lab::Lab;
use harness::matrix::Request;
use harness::matrix::plan::{Selection, plan};
use harness::scenario::Scenario;
use harness::script::Script;
use harness::trigger::Trigger;
use kernels::tree::Tree;

use crate::machine::workspace;
use crate::names;
use crate::own::OwnTree;
use crate::scripts::Scripts;
use crate::select::How;
use crate::ui::Ui;

/// How commits are judged.
#[derive(clap::Args)]
pub struct Judging {
    /// The trigger. Needed for a scenario that removes a device in several ways
    #[arg(short, long, value_parser = names::triggers())]
    trigger: Option<String>,
    /// The topology: PCI devices and ports of the guest [default: the scenario's own]
    #[arg(long, value_name = "NAME", value_parser = names::topologies())]
    topology: Option<String>,
    /// Up to this many runs for each commit; stops once a majority is reached. Use more than 1 for a bug that
    /// reproduces only randomly
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub runs: u16,
    /// Count every failure as bad, not only the one that is searched for
    #[arg(long)]
    pub any_failure: bool,
    /// Ignore remembered verdicts: judge every commit anew
    #[arg(long)]
    pub restart: bool,
    #[command(flatten)]
    pub own: OwnTree,
    #[command(flatten)]
    scripts: Scripts,
    #[command(flatten)]
    how: How,
}

impl Judging {
    /// The profile of the kernels, if any.
    pub fn profile(&self) -> Option<&str> {
        self.own.profile(self.how.profile.as_deref())
    }

    /// Where runs write their folders.
    pub fn place(&self) -> PathBuf {
        if self.how.has_place() { self.request().out } else { workspace().join("target/bisect") }
    }

    fn request(&self) -> Request {
        self.how.clone().request(Vec::new())
    }

    /// The cells that judge commits of a tree, and a description of the question.
    ///
    /// # Errors
    /// Errors of [`Judging::cells`]. A configuration fragment does not exist.
    pub fn cells_of(&self, tree: Tree, scenario: Option<&str>, ui: &Arc<Ui>) -> Result<(Cells, Asked)> {
        let (config, profile) = (self.own.fragments()?, self.profile().map(str::to_owned));
        self.cells(Lab::open(None)?, Kernels::OfTree { tree, config, profile }, scenario, ui)
    }

    /// The cells that judge kernels, and a description of the question.
    ///
    /// # Errors
    /// The options name no cell, or several.
    pub fn cells(&self, lab: Lab, kernels: Kernels, scenario: Option<&str>, ui: &Arc<Ui>) -> Result<(Cells, Asked)> {
        let scenarios = self.scripts.scenarios(&[], lab.manifest(), self.trigger.as_slice())?;
        let id = self.cell(&lab, &scenarios, scenario)?;
        let found = scenarios.into_iter().find(|found| found.name == id.scenario);
        let scenario = found.with_context(|| format!("there is no scenario {}", id.scenario))?;
        let request = self.request();
        // A kernel that runs one cell is not worth a snapshot.
        let how = Request { snapshots: request.snapshots && self.runs > 1, out: self.place(), ..request };
        let asked = asked(&id, &scenario, &kernels, self.profile());
        let CellId { topology, trigger, .. } = id;
        let progress = Arc::new(OfCommits::new(ui.clone()));
        Ok((Cells { lab, kernels, scenario, topology, trigger, how, progress }, asked))
    }

    /// The remembered verdicts of these cells; an empty memory with `--restart`.
    ///
    /// # Errors
    /// Errors of [`Cells::memory`].
    pub fn memory(&self, cells: &Cells) -> Result<Memory> {
        let memory = cells.memory()?;
        Ok(if self.restart { memory.afresh() } else { memory })
    }

    /// The one cell that the options name.
    fn cell(&self, lab: &Lab, scenarios: &[Scenario], scenario: Option<&str>) -> Result<CellId> {
        let first = lab.manifest().variants.first().context("the manifest has no kernels")?;
        let selection = Selection {
            kernels: vec![first.name.clone()],
            scenarios: scenario.map(str::to_owned).into_iter().collect(),
            triggers: self.trigger.iter().cloned().collect(),
            topologies: self.topology.iter().cloned().collect(),
            ..Selection::default()
        };
        let cells = plan(lab.manifest(), scenarios, &selection, 1)?;
        let [cell] = cells.as_slice() else {
            let name = |cell: &harness::cell::PlannedCell| {
                let CellId { scenario, topology, .. } = &cell.id;
                format!("\n  {scenario} --topology {topology} --trigger {}", cell.id.trigger_name())
            };
            bail!(
                "one cell judges a commit, but these options name {}; choose one:{}",
                cells.len(),
                cells.iter().map(name).collect::<String>()
            );
        };
        Ok(cell.id.clone())
    }
}

fn asked(id: &CellId, scenario: &Scenario, kernels: &Kernels, profile: Option<&str>) -> Asked {
    let mut words: Vec<_> = ["cargo", "xtask", "run"].map(str::to_owned).into();
    match scenario.needs.script {
        Some(script) => words.extend(script.again.iter().cloned()),
        None => words.push(id.scenario.clone()),
    }
    let mut option = |name: &str, value: String| words.extend([name.to_owned(), value]);
    option("--topology", id.topology.clone());
    if let Some(trigger) = id.trigger {
        option("--trigger", trigger.name().to_owned());
    }
    if let Some(profile) = profile {
        option("--profile", profile.to_owned());
    }
    match kernels {
        Kernels::OfTree { tree, config, .. } => {
            config.iter().for_each(|file| option("--config", file.display().to_string()));
            option("--tree", tree.path().display().to_string());
            words.push("--rev".to_owned());
        }
        Kernels::OfSeries { options } => {
            words.extend(options.iter().cloned());
            words.push("--kernel".to_owned());
        }
    }
    let trigger = id.trigger.map(|trigger| format!(", {}", Trigger::name(trigger))).unwrap_or_default();
    let text = scenario.needs.script.and_then(Script::quoted);
    Asked {
        cell: format!("{} on {}{trigger}", id.scenario, id.topology),
        repeat: shell_words::join(words),
        script: text.map(|text| (id.scenario.clone(), text)),
    }
}

/// The verdict on a commit, in one line: `0123456789ab PCI: subject: bad (deadlock at sriov_numvfs_show)`.
pub fn verdict_line(judged: &Judged) -> String {
    let mark = match judged.ruling.mark {
        Mark::Good => "good",
        Mark::Bad => "bad",
        Mark::Skip => "skipped",
    };
    let flaky = if judged.ruling.flaky { ", FLAKY" } else { "" };
    let remembered = if judged.remembered { "; judged before" } else { "" };
    format!("{}: {mark} ({}{flaky}{remembered})", judged.revision, judged.ruling.why)
}
