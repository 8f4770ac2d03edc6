//! Scripts of the user in place of scenarios: the options for them, which several subcommands share.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use harness::scenario::Scenario;
use harness::script::{self, GuestFile, Header, Script};
use harness::trigger::Trigger;
use kernels::Manifest;

/// The heading of these options in help texts.
const HEADING: &str = "Your own reproducer";

/// Scripts of the user, and what they need.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Scripts {
    /// A shell script of yours that runs in the guest in place of a scenario, or a folder of them. Exit status 0 passes, 4
    /// is a skip, any other fails. docs/reproducer.md has the words for it. May be given several times
    #[arg(help_heading = HEADING, long, value_name = "FILE|DIR")]
    pub script: Vec<PathBuf>,
    /// Put a file, a static program or a folder into the guest, in /tmp or at GUESTPATH. May be given several times
    #[arg(help_heading = HEADING, long, value_name = "PATH[:GUESTPATH]")]
    pub file: Vec<String>,
    /// A folder with a root file system of yours (debootstrap, mmdebstrap, an exported container) in place of the usual tools,
    /// for programs with libraries. It needs /bin/sh
    #[arg(help_heading = HEADING, long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// How long a script may take, in seconds of the guest's time [default: what its head says, else 60]
    #[arg(help_heading = HEADING, long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    pub within: Option<u32>,
}

impl Scripts {
    /// The scenarios of a command: the scripts and the command that are given, or all scenarios of the project if none is.
    /// `triggers` are those that the user names: a script that names none runs with them.
    ///
    /// # Errors
    /// A script cannot be read or run, or names a bug that the manifest does not have.
    pub fn scenarios(&self, command: &[String], manifest: &Manifest, triggers: &[String]) -> Result<Vec<Scenario>> {
        let mut scripts: Vec<(Script, Header)> = Vec::new();
        for path in &self.script {
            for path in script::paths(path)? {
                scripts.push(Script::read(&path)?);
            }
        }
        if !command.is_empty() {
            scripts.push((Script::of_command(command), Header::default()));
        }
        if scripts.is_empty() {
            if !self.file.is_empty() || self.within.is_some() || self.root.is_some() {
                bail!("--file, --within and --root are for a script: name one with --script");
            }
            return Ok(scenarios::all());
        }
        let files = self.file.iter().map(|spec| GuestFile::of(spec)).collect::<Result<Vec<_>, _>>()?.concat();
        let root = self.root.as_ref().map(|root| {
            if !root.is_dir() {
                bail!("there is no folder {}: --root takes the folder of a root file system", root.display());
            }
            Ok(std::path::absolute(root)?)
        });
        let root = root.transpose()?;
        let of_root = root.iter().flat_map(|root| ["--root".to_owned(), root.display().to_string()]);
        let options = self.file.iter().flat_map(|spec| ["--file".to_owned(), spec.clone()]);
        let options: Vec<_> = options
            .chain(of_root)
            .chain(self.within.iter().flat_map(|s| ["--within".to_owned(), s.to_string()]))
            .collect();
        let mut names = BTreeSet::new();
        let mut all = Vec::new();
        for (script, mut header) in scripts {
            if !names.insert(script.name.clone()) {
                bail!("two scripts have the name {}: rename one of them", script.name);
            }
            for bug in &header.detects {
                manifest.bug(bug)?;
            }
            if header.triggers.is_empty() {
                let is_named = |trigger: &&Trigger| triggers.iter().any(|name| name == trigger.name());
                header.triggers = Trigger::ALL.iter().filter(is_named).copied().collect();
            }
            let mut script = script.with_files(files.clone())?;
            script.again.splice(0..0, options.iter().cloned());
            if let Some(seconds) = self.within {
                script.within = Duration::from_secs(seconds.into());
            }
            script.root.clone_from(&root);
            all.push(Scenario::of_script(script, header));
        }
        Ok(all)
    }
}
