//! A series that was posted, as kernels: `series` runs all of them, `bisect --series` looks for one.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use harness::evidence::{Applies, SeriesNote};
use harness::lab::Lab;
use harness::matrix::series;
use kernels::series::Series;
use tempfile::TempDir;

use crate::own::OwnTree;
use crate::patched::Base;
use crate::ui::Ui;

/// How a series is read, and what it goes on. The argument for the series itself is called `series`.
#[derive(Clone, Debug, clap::Args)]
pub struct Reading {
    /// What the series applies to: a base of kernels.toml, or with --tree a revision [default: the first base; with --tree
    /// the commit that the series names, or HEAD]
    #[arg(long, value_name = "REV", requires = "series")]
    base: Option<String>,
    /// Merge a patch that does not fit, by the files of the tree that it was made on
    #[arg(long = "3way", requires_all = ["series", "tree"])]
    three_way: bool,
    /// Take diffs in replies too, after the patches of the series
    #[arg(long, requires = "series")]
    inline: bool,
    /// Run the series even if it touches nothing that the scenarios exercise
    #[arg(long, requires = "series")]
    force: bool,
}

/// A series with the kernels that it makes.
pub struct Posted {
    /// The base and, patch after patch, the kernels on it.
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
    /// What is no series, or out of the scenarios' reach; and those of [`Base::lab`].
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
    /// Looks how far it applies, and says what is known before anything is built.
    ///
    /// # Errors
    /// Those of fetching the base; that a patch does not apply is none.
    pub async fn look(&self, ui: &Arc<Ui>) -> Result<SeriesNote> {
        let note = series::look(&self.lab, &self.series, &self.files, self.three_way, ui.clone()).await?;
        introduce(&note, ui);
        Ok(note)
    }

    /// Copies the patches into a folder, as they were applied.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn keep(&self, folder: &Path) -> Result<()> {
        let copy = |file: &PathBuf| std::fs::copy(file, folder.join(file.file_name().unwrap_or_default())).map(drop);
        let copied = std::fs::create_dir_all(folder).and_then(|()| self.files.iter().try_for_each(copy));
        copied.with_context(|| format!("cannot write the patches into {}", folder.display()))
    }

    /// Where it may apply if it does not here.
    pub fn elsewhere(&self) -> String {
        match (&self.series.base_commit, self.of_tree) {
            (Some(commit), false) => format!("it says it is based on {commit}: --tree PATH takes that from a git tree"),
            (None, false) => "--base takes another base, --tree PATH --base REV a revision of a git tree".to_owned(),
            (_, true) => "--base REV takes another revision".to_owned(),
        }
    }
}

/// What is known before anything is built.
fn introduce(note: &SeriesNote, ui: &Ui) {
    let version = if note.version > 1 { format!("version {}, ", note.version) } else { String::new() };
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
