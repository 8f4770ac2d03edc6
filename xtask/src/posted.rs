//! The kernels of a posted series: `series` runs all of them, `bisect --series` searches them for one.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use harness::evidence::{Applies, SeriesNote};
use harness::lab::Lab;
use harness::matrix::series;
use kernels::series::{Series, Version};
use tempfile::TempDir;

use crate::own::OwnTree;
use crate::patched::Base;
use crate::ui::Ui;

/// How a series is read, and its base. The id of the argument for the series itself is `series`.
#[derive(Clone, Debug, clap::Args)]
pub struct Reading {
    /// The base of the series: a base of kernels.toml or, with --tree, a revision [default: the first base of
    /// kernels.toml; with --tree, the base-commit that the series names, or HEAD]
    #[arg(long, value_name = "REV", requires = "series")]
    base: Option<String>,
    /// 3-way merge a patch that does not apply, as `git am --3way` does
    #[arg(long = "3way", requires_all = ["series", "tree"])]
    three_way: bool,
    /// Also use diffs in replies, after the patches of the series
    #[arg(long, requires = "series")]
    inline: bool,
    /// Run the series even if it touches nothing that the scenarios exercise
    #[arg(long, requires = "series")]
    force: bool,
}

/// A series, with its kernels.
pub struct Posted {
    /// The base, and one kernel for each patch on top of the patches before it.
    pub lab: Lab,
    series: Series,
    files: Vec<PathBuf>,
    three_way: bool,
    of_tree: bool,
    _scratch: TempDir,
}

impl Reading {
    /// Reads a series: an mbox, a mail, a patch, a folder of them, a maildir, or `-` for stdin.
    ///
    /// # Errors
    /// The input is not a series, or touches nothing that the scenarios exercise. Errors of [`Base::lab`].
    pub fn read(&self, from: &Path, own: &OwnTree, profile: Option<&str>) -> Result<Posted> {
        let series = if from == Path::new("-") {
            let mut bytes = Vec::new();
            std::io::stdin().lock().read_to_end(&mut bytes).context("cannot read stdin")?;
            Series::of_bytes(&bytes, "stdin", self.inline)?
        } else {
            Series::read(from, self.inline)?
        };
        if !self.force {
            series.within_reach()?;
        }
        let scratch = tempfile::tempdir().context("cannot make a temporary folder")?;
        let files = series.write(scratch.path()).context("cannot write the patches into a temporary folder")?;
        let of_tree = own.path.is_some();
        let named = series.base_commit.as_deref().filter(|_| of_tree);
        let titles = series.patches.iter().map(|patch| patch.subject.clone());
        let patches: Vec<_> = titles.zip(files.iter().cloned()).collect();
        let lab = Base { tree: own, rev: self.base.as_deref().or(named), profile }.lab(&patches)?;
        Ok(Posted { lab, series, files, three_way: self.three_way, of_tree, _scratch: scratch })
    }
}

impl Posted {
    /// Finds how many patches apply, and prints the series. Builds nothing.
    ///
    /// # Errors
    /// The base cannot be fetched. A patch that does not apply is not an error.
    pub async fn look(&self, ui: &Arc<Ui>) -> Result<SeriesNote> {
        let note = series::look(&self.lab, &self.series, &self.files, self.three_way, ui.clone()).await?;
        introduce(&note, ui);
        Ok(note)
    }

    /// Copies the patches, as they were applied, into a folder.
    ///
    /// # Errors
    /// The files cannot be copied.
    pub fn keep(&self, folder: &Path) -> Result<()> {
        let copy = |file: &PathBuf| std::fs::copy(file, folder.join(file.file_name().unwrap_or_default())).map(drop);
        let copied = std::fs::create_dir_all(folder).and_then(|()| self.files.iter().try_for_each(copy));
        copied.with_context(|| format!("cannot write the patches into {}", folder.display()))
    }

    /// Advice on another base, for a series that does not apply to this one.
    pub fn elsewhere(&self) -> String {
        match (&self.series.base_commit, self.of_tree) {
            (Some(commit), false) => {
                format!("the series names the base-commit {commit}: use --tree PATH with a git tree that has it")
            }
            (None, false) => {
                "use --base for another base, or --tree PATH --base REV for a revision of a git tree".to_owned()
            }
            (_, true) => "use --base REV for another revision".to_owned(),
        }
    }
}

/// Prints the series before anything is built: its patches, and whether they apply.
fn introduce(note: &SeriesNote, ui: &Ui) {
    let version = if note.version > Version::FIRST { format!("version {}, ", note.version) } else { String::new() };
    let count = note.steps.len();
    ui.say(&format!(
        "\"{}\": {version}{count} patch{} on {}",
        note.subject,
        if count == 1 { "" } else { "es" },
        note.base_about
    ));
    for (number, step) in note.steps.iter().enumerate() {
        ui.say(&format!("  {}/{count} {} ({})", number + 1, step.subject, step.author));
        match &step.applies {
            Applies::Yes => {}
            Applies::NotTried => ui.say("      not tried: a patch before it does not apply"),
            Applies::No { why, lines } => {
                ui.say(&format!("      does not apply: {why}"));
                lines.iter().for_each(|line| ui.say(&format!("      {line}")));
            }
        }
    }
    note.notes.iter().for_each(|line| ui.say(&format!("  {line}")));
}
