//! The kernels of a posted series: `series` runs all of them, `bisect --series` searches them for one.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use harness::evidence::{Applies, SeriesNote};
use harness::lab::Lab;
use harness::matrix::series::base::{self, Choice};
use harness::matrix::series::{self, Patch};
use harness::text::counted;
use kernels::series::{Manner, Series, Version};
use kernels::{CancelToken, Manifest, Source};
use tempfile::TempDir;

use crate::own::{HEAD, OwnTree};
use crate::patched::{Base, kernels_on};
use crate::ui::Ui;

/// How a series is read, and its base. The id of the argument for the series itself is `series`.
#[derive(Clone, Debug, clap::Args)]
pub struct Reading {
    /// The base of the series: a base of kernels.toml or, with --tree, a revision [default: the newest base of
    /// kernels.toml to which the whole series applies, else that to which most patches apply; with --tree, the
    /// base-commit that the series names, or HEAD]
    #[arg(long, value_name = "REV", requires = "series")]
    base: Option<String>,
    /// 3-way merge a patch that does not apply, as `git am --3way` does
    #[arg(long = "3way", requires_all = ["series", "tree"])]
    three_way: bool,
    /// Do not take a patch that fits only with less context
    #[arg(long, requires = "series")]
    strict: bool,
    /// Also use diffs in replies, after the patches of the series
    #[arg(long, requires = "series")]
    inline: bool,
    /// Run the series even if it touches nothing that the scenarios exercise
    #[arg(long, requires = "series")]
    force: bool,
}

/// A series that was read, and the bases that it can be tried on.
pub struct Posted {
    /// The bases.
    pub lab: Lab,
    series: Series,
    bases: Vec<String>,
    manner: Manner,
    own: OwnTree,
    profile: Option<String>,
    scratch: TempDir,
}

/// A series on its base, with its kernels.
pub struct Placed<'a> {
    /// The base, and one kernel for each patch on top of the patches before it.
    pub lab: Lab,
    /// Its description.
    pub note: SeriesNote,
    posted: &'a Posted,
    choice: Choice,
}

impl Reading {
    /// Reads a series: an mbox, a mail, a patch, a folder of them, a maildir, or `-` for stdin.
    ///
    /// # Errors
    /// The input is not a series, or touches nothing that the scenarios exercise. Errors of [`Base::find`]. The profile
    /// does not exist.
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
        let (manifest, bases) = self.bases(&series, own)?;
        own.under(manifest.clone(), profile)?;
        Ok(Posted {
            lab: own.lab(manifest, None)?,
            series,
            bases,
            manner: Manner { merge: self.three_way, strict: self.strict },
            own: own.clone(),
            profile: profile.map(str::to_owned),
            scratch: tempfile::tempdir().context("cannot make a temporary folder")?,
        })
    }

    /// The bases to try, the newest first, and a manifest that has them.
    fn bases(&self, series: &Series, own: &OwnTree) -> Result<(Manifest, Vec<String>)> {
        let of_tree = own.path.is_some();
        let named = series.base_commit.as_deref().filter(|_| of_tree);
        let rev = self.base.as_deref().or(named);
        if rev.is_none() && !of_tree {
            let manifest = Manifest::of_project()?;
            let bases = base::newest_first(&manifest);
            return Ok((manifest, bases));
        }
        let (manifest, base) = Base { tree: own, rev }.find()?;
        Ok((manifest, vec![base]))
    }
}

impl Posted {
    /// Chooses the base, finds how many patches apply to it, and prints the series. Builds nothing.
    ///
    /// # Errors
    /// No base can be fetched. A patch that does not apply is not an error.
    pub async fn place(&self, ui: &Arc<Ui>) -> Result<Placed<'_>> {
        let choice = self.choose(&self.bases, ui).await?;
        let patches = series::patches(&self.series, &choice);
        let manifest = kernels_on(self.lab.manifest().clone(), choice.base(), &patches)?;
        let lab = self.lab.with(self.own.under(manifest, self.profile.as_deref())?);
        let note = series::note(&lab, &self.series, &choice);
        introduce(&note, ui);
        Ok(Placed { lab, note, posted: self, choice })
    }

    async fn choose(&self, bases: &[String], ui: &Arc<Ui>) -> Result<Choice> {
        Ok(base::choose(&self.lab, &self.series, bases, self.scratch.path(), self.manner, ui.clone()).await?)
    }
}

impl Placed<'_> {
    /// Copies the patches, as they are applied, into a folder.
    ///
    /// # Errors
    /// The files cannot be copied.
    pub fn keep(&self, folder: &Path) -> Result<()> {
        let patches = series::patches(&self.posted.series, &self.choice);
        let copy = |patch: &Patch| {
            std::fs::copy(&patch.file, folder.join(patch.file.file_name().unwrap_or_default())).map(drop)
        };
        let copied = std::fs::create_dir_all(folder).and_then(|()| patches.iter().try_for_each(copy));
        copied.with_context(|| format!("cannot write the patches into {}", folder.display()))
    }

    /// Why no patch of the series can be tested on this base, and what to test instead.
    ///
    /// # Errors
    /// Those of git, and of trying the series on other bases.
    pub async fn nothing_to_test(&self, ui: &Arc<Ui>) -> Result<String> {
        let Some(bases) = self.choice.is_in() else {
            return Ok(format!("no patch applies, so there is nothing to run; {}", self.elsewhere()));
        };
        let other = match self.of_tree() {
            true => self.before_it_was_merged()?,
            false => self.other_base(ui).await?,
        };
        let patches = if self.note.steps.len() == 1 { "the patch" } else { "all of the series" };
        Ok(format!("{patches} is in {bases} already, so there is nothing to test; {other}"))
    }

    /// Advice on another base, for a series that does not apply to this one.
    pub fn elsewhere(&self) -> String {
        match (&self.posted.series.base_commit, self.of_tree()) {
            (Some(commit), false) => {
                format!("the series names the base-commit {commit}: use --tree PATH with a git tree that has it")
            }
            (None, false) => {
                "use --tree PATH --base REV for a revision of a git tree on which the series was made".to_owned()
            }
            (_, true) => "use --base REV for another revision".to_owned(),
        }
    }

    fn of_tree(&self) -> bool {
        self.posted.own.path.is_some()
    }

    /// Advice for a series that a base has already: another base to which it applies, if one is at hand, else a
    /// revision of a tree.
    async fn other_base(&self, ui: &Arc<Ui>) -> Result<String> {
        let lab = &self.posted.lab;
        let tried = |base: &String| self.posted.bases.contains(base) || !lab.is_at_hand(base);
        let others: Vec<_> = base::newest_first(lab.manifest()).into_iter().filter(|base| !tried(base)).collect();
        if !others.is_empty() {
            let choice = self.posted.choose(&others, ui).await?;
            if let Some(base) = choice.suitable() {
                return Ok(format!("use --base {base}, to which it applies"));
            }
        }
        let first = &self.posted.series.patches[0].subject;
        let before = match &self.posted.series.base_commit {
            Some(commit) => format!("{commit}, the base-commit of the series"),
            None => {
                format!(
                    "COMMIT~1, where `git log --oneline --fixed-strings --grep={}` shows COMMIT",
                    shell_words::quote(first)
                )
            }
        };
        Ok(format!("test it on a revision from before it was merged: --tree PATH --base {before}"))
    }

    /// Advice for a series that a revision of a tree has already: the parent of the commit of its first patch.
    fn before_it_was_merged(&self) -> Result<String> {
        let Some(tree) = self.posted.own.open()? else { return Ok(self.elsewhere()) };
        let first = &self.posted.series.patches[0];
        let rev = self.posted.bases.iter().find_map(|base| match &self.lab.manifest().base(base).ok()?.source {
            Source::Git(revision) => Some(revision.commit.id.clone()),
            _ => None,
        });
        let rev = rev.unwrap_or_else(|| HEAD.to_owned());
        let commit = tree.titled(&first.subject, &rev, &first.diff.paths(), &CancelToken::new())?;
        Ok(match commit {
            Some(commit) => format!("use --base {}~1, the parent of the commit of its first patch", commit.short),
            None => "use --base REV for a revision from before it was merged".to_owned(),
        })
    }
}

/// Prints the series before anything is built: its patches, and whether they apply.
fn introduce(note: &SeriesNote, ui: &Ui) {
    note.bases.iter().for_each(|line| ui.say(line));
    let version = if note.version > Version::FIRST { format!("version {}, ", note.version) } else { String::new() };
    let count = note.steps.len();
    ui.say(&format!("\"{}\": {version}{} on {}", note.subject, counted(count, "patch", "patches"), note.base_about));
    for (number, step) in note.steps.iter().enumerate() {
        ui.say(&format!("  {}/{count} {} ({})", number + 1, step.subject, step.author));
        match &step.applies {
            Applies::Yes => {}
            Applies::Already { base } => ui.say(&format!("      already in {base}")),
            Applies::NotTried => ui.say("      not tried: a patch before it does not apply"),
            Applies::No { why, lines } => {
                ui.say(&format!("      does not apply: {why}"));
                lines.iter().for_each(|line| ui.say(&format!("      {line}")));
            }
        }
    }
    note.notes.iter().for_each(|line| ui.say(&format!("  {line}")));
}
