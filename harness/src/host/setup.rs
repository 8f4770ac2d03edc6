//! Mending a machine: looks, plans, does, and looks again, until nothing is missing or nothing more can be done.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::apt::{Apt, AptError};
use super::command::{self, CommandError};
use super::os::{Installer, OsRelease};
use super::plan::{Facts, PlanError, Step, plan};
use super::{Check, Wanted, checks};

/// Fetching lists takes seconds; slow mirrors, and locks that others hold, may make it minutes.
const UPDATE_DEADLINE: Duration = Duration::from_secs(15 * 60);

/// Some 100 packages of together 200 MB on a bare machine.
const INSTALL_DEADLINE: Duration = Duration::from_secs(45 * 60);

/// For finding and typing a password. sudo itself gives up after five minutes.
const PASSWORD_DEADLINE: Duration = Duration::from_secs(6 * 60);

/// No machine needs more: update; add backports and update; install; and one for bad luck.
const ROUNDS: usize = 5;

/// Lines of apt's output that an error carries.
const TAIL: usize = 25;

/// Where apt's own output goes.
#[derive(Clone, Debug)]
pub enum AptOutput {
    /// To a file, which is written anew. Its end becomes part of the error if apt fails.
    Log(PathBuf),
    /// To the terminal.
    Terminal,
}

/// How a set-up ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing was missing, and nothing was done.
    NothingToDo,
    /// Something was missing, and nothing is any more.
    Done,
    /// What could be done is done, and this is still missing. The checks say what to do about it.
    Incomplete(Vec<Check>),
}

/// Why a set-up ended early.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// apt cannot bring what is missing.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// apt could not be asked.
    #[error(transparent)]
    Apt(#[from] AptError),
    /// Only root may install.
    #[error(
        "installing needs root, and {why}: run `cargo xtask setup` as root, or, as root:\n{how}\nand then this again"
    )]
    NotRoot {
        /// Why we cannot be root.
        why: &'static str,
        /// What to do by hand.
        how: String,
    },
    /// A file of our own could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A step's command could not be run, or did not end.
    #[error("could not {step}")]
    Command {
        /// What it was to do.
        step: String,
        /// What happened.
        source: CommandError,
    },
    /// A step's command failed.
    #[error("could not {step}: the command failed{output}")]
    Failed {
        /// What it was to do.
        step: String,
        /// The end of what it said, and where the rest is.
        output: String,
    },
    /// Everything went well and did not help.
    #[error("{} were installed, and `cargo xtask doctor` still asks for them", packages.join(", "))]
    NoProgress {
        /// The packages.
        packages: Vec<String>,
    },
}

/// Installs what [`checks`] find missing, through apt, as root or with sudo. `say` is given a line for each thing that is
/// about to happen. Changes nothing, and runs nothing that could, when nothing is missing.
///
/// # Errors
/// If apt cannot bring what is missing, or fails.
pub fn setup(wanted: &Wanted<'_>, output: &AptOutput, say: &mut dyn FnMut(&str)) -> Result<Outcome, SetupError> {
    let missing = || -> Vec<Check> { checks(wanted).into_iter().filter(Check::is_missing).collect() };
    if missing().is_empty() {
        return Ok(Outcome::NothingToDo);
    }
    let os = OsRelease::of_this_machine();
    let facts = |updated| {
        let missing = missing();
        let packages: Vec<String> = missing.iter().flat_map(|check| check.packages.clone()).collect();
        let to_know = wanted.kernel_sources.to_vec();
        let apt = match os.installer() {
            Installer::Apt => Some(Apt::look(&[packages.clone(), to_know.clone()].concat())?),
            _ => None,
        };
        Ok(Facts { os: os.clone(), packages, to_know, apt, updated })
    };
    let steps = plan(&facts(false)?)?;
    if !steps.is_empty() {
        let as_root = as_root().map_err(|why| SetupError::NotRoot { why, how: by_hand(&steps) })?;
        let tools = Tools::new(output, as_root)?;
        drive(facts, |step| tools.perform(step), say)?;
    }
    let left = missing();
    Ok(if left.is_empty() { Outcome::Done } else { Outcome::Incomplete(left) })
}

/// Plans and performs until the plan is empty.
fn drive(
    mut facts: impl FnMut(bool) -> Result<Facts, SetupError>,
    mut perform: impl FnMut(&Step) -> Result<(), SetupError>,
    say: &mut dyn FnMut(&str),
) -> Result<(), SetupError> {
    let mut updated = false;
    let mut done: Vec<Step> = Vec::new();
    let mut still_missing = Vec::new();
    for _ in 0..ROUNDS {
        let facts = facts(updated)?;
        let steps = plan(&facts)?;
        if steps.is_empty() {
            return Ok(());
        }
        still_missing = facts.packages;
        if steps.iter().any(|step| matches!(step, Step::Install { .. }) && done.contains(step)) {
            break;
        }
        for step in steps {
            say(&format!("{step} ..."));
            match (perform(&step), &step) {
                // One archive of several that is out of reach need not be one that we need: the next plan will tell.
                (Err(error @ SetupError::Failed { .. }), Step::Update) => say(&format!("warning: {error}")),
                // The lists may be older than the archive. With new ones it may work.
                (Err(error @ SetupError::Failed { .. }), Step::Install { .. }) if !updated => {
                    say(&format!("warning: {error}"));
                    say(&format!("{} ...", Step::Update));
                    if let Err(error) = perform(&Step::Update) {
                        say(&format!("warning: {error}"));
                    }
                    updated = true;
                    break;
                }
                (result, _) => result?,
            }
            updated |= step == Step::Update;
            done.push(step);
        }
    }
    Err(SetupError::NoProgress { packages: still_missing })
}

/// What steps are performed with.
struct Tools {
    output: AptOutput,
    /// Holds the content of new sources until root puts them in place.
    staging: tempfile::TempDir,
    /// What turns a command into root's.
    as_root: Vec<&'static str>,
}

impl Tools {
    fn new(output: &AptOutput, as_root: Vec<&'static str>) -> Result<Tools, SetupError> {
        let staging = tempfile::tempdir().map_err(|source| SetupError::Write { path: std::env::temp_dir(), source })?;
        if let AptOutput::Log(path) = output {
            let made = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| File::create(path));
            made.map_err(|source| SetupError::Write { path: path.clone(), source })?;
        }
        Ok(Tools { output: output.clone(), staging, as_root })
    }

    fn perform(&self, step: &Step) -> Result<(), SetupError> {
        let staged = self.staging.path().join("source");
        if let Step::AddSource { source, .. } = step {
            fs::write(&staged, &source.content)
                .map_err(|error| SetupError::Write { path: staged.clone(), source: error })?;
        }
        let argv = step.argv(&staged);
        let mut words = self.as_root.iter().map(Into::into).chain(argv);
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words).stdin(Stdio::null());
        let start = self.redirect(&mut command)?;
        let deadline = if matches!(step, Step::Install { .. }) { INSTALL_DEADLINE } else { UPDATE_DEADLINE };
        let status = command::run(&mut command, deadline)
            .map_err(|source| SetupError::Command { step: step.to_string(), source })?;
        if status.success() {
            return Ok(());
        }
        Err(SetupError::Failed { step: step.to_string(), output: self.said_since(start) })
    }

    /// Lets the command print to where it should. Returns where its part of the log begins.
    fn redirect(&self, command: &mut Command) -> Result<u64, SetupError> {
        let AptOutput::Log(path) = &self.output else { return Ok(0) };
        let mut open = || -> io::Result<u64> {
            let log = File::options().append(true).open(path)?;
            let start = log.metadata()?.len();
            command.stdout(log.try_clone()?).stderr(log);
            Ok(start)
        };
        open().map_err(|source| SetupError::Write { path: path.clone(), source })
    }

    /// The end of what a command has said.
    fn said_since(&self, start: u64) -> String {
        let AptOutput::Log(path) = &self.output else { return String::new() };
        let bytes = fs::read(path).unwrap_or_default();
        let said = bytes.get(usize::try_from(start).unwrap_or(usize::MAX)..).unwrap_or_default();
        format!(" (all of it is in {}):\n{}", path.display(), telling_lines(&String::from_utf8_lossy(said)))
    }
}

/// apt's errors and warnings if it gave any, else the last lines.
fn telling_lines(said: &str) -> String {
    let complaints: Vec<_> = said.lines().filter(|line| line.starts_with("E: ") || line.starts_with("W: ")).collect();
    let all: Vec<_> = if complaints.is_empty() { said.lines().collect() } else { complaints };
    all[all.len().saturating_sub(TAIL)..].iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

/// How to become root: nothing to do if we are; else sudo, which may ask for a password where there is a terminal.
fn as_root() -> Result<Vec<&'static str>, &'static str> {
    if rustix::process::geteuid().is_root() {
        return Ok(Vec::new());
    }
    if !command::on_path("sudo") {
        return Err("there is no sudo here");
    }
    // sudo asks on the terminal itself, whatever our standard streams are.
    let sudo = if File::open("/dev/tty").is_ok() { vec!["sudo"] } else { vec!["sudo", "-n"] };
    let mut try_it = Command::new(sudo[0]);
    try_it.args(&sudo[1..]).arg("true").stdin(Stdio::null());
    match command::run(&mut try_it, PASSWORD_DEADLINE) {
        Ok(status) if status.success() => Ok(sudo),
        _ => Err("sudo does not let us (without a terminal it cannot ask for a password)"),
    }
}

/// Steps for people to do.
fn by_hand(steps: &[Step]) -> String {
    let by_hand = |step: &Step| match step {
        Step::AddSource { source, .. } => {
            let content: Vec<_> = source.content.lines().map(|line| format!("      {line}")).collect();
            format!("  write this to {}:\n{}", source.path.display(), content.join("\n"))
        }
        _ => {
            let argv = step.argv(Path::new(""));
            let words: Vec<_> = argv.iter().map(|word| word.to_string_lossy()).collect();
            format!("  {}", words.join(" "))
        }
    };
    steps.iter().map(by_hand).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::super::apt;
    use super::*;

    /// A Debian 13 that knows gcc from its second update on.
    struct Bed {
        missing: Vec<String>,
        steps: Vec<String>,
        said: Vec<String>,
    }

    impl Bed {
        /// Drives against a machine where `perform` fails for the steps that `fails` picks, by number.
        fn drive(installs: bool, fails: fn(usize, &Step) -> bool) -> (Bed, Result<(), SetupError>) {
            let bed = std::cell::RefCell::new(Bed { missing: vec!["gcc".to_owned()], steps: vec![], said: vec![] });
            let facts = |updated| {
                let policy = "gcc:\n  Installed: (none)\n  Candidate: 4:14.2\n  Version table:\n     4:14.2 500\n";
                let apt = Apt {
                    offers: apt::parse_policy(policy),
                    lists_age: Some(Duration::from_secs(60)),
                    ..Apt::default()
                };
                let os =
                    OsRelease { id: "debian".to_owned(), codename: Some("trixie".to_owned()), ..OsRelease::default() };
                let packages = bed.borrow().missing.clone();
                Ok(Facts { os, packages, to_know: vec![], apt: Some(apt), updated })
            };
            let perform = |step: &Step| {
                let mut bed = bed.borrow_mut();
                bed.steps.push(step.to_string());
                if fails(bed.steps.len(), step) {
                    return Err(SetupError::Failed { step: step.to_string(), output: String::new() });
                }
                if installs && matches!(step, Step::Install { .. }) {
                    bed.missing.clear();
                }
                Ok(())
            };
            let mut said = Vec::new();
            let result = drive(facts, perform, &mut |line| said.push(line.to_owned()));
            bed.borrow_mut().said = said;
            (bed.into_inner(), result)
        }
    }

    #[test]
    fn what_is_missing_is_installed_and_looked_at_again() {
        let (bed, result) = Bed::drive(true, |_, _| false);
        result.unwrap();
        assert_eq!(bed.steps, ["install gcc"]);
        assert_eq!(bed.said, ["install gcc ..."]);
    }

    #[test]
    fn an_install_that_fails_is_tried_once_more_with_new_lists() {
        let (bed, result) = Bed::drive(true, |number, _| number == 1);
        result.unwrap();
        assert_eq!(bed.steps, ["install gcc", "update apt's lists", "install gcc"]);
        let (bed, result) = Bed::drive(true, |_, step| matches!(step, Step::Install { .. }));
        assert!(matches!(result, Err(SetupError::Failed { .. })), "{result:?}");
        assert_eq!(bed.steps, ["install gcc", "update apt's lists", "install gcc"]);
    }

    #[test]
    fn an_update_that_fails_is_not_the_end() {
        let (bed, result) = Bed::drive(true, |number, step| number == 1 || *step == Step::Update);
        result.unwrap();
        assert_eq!(bed.steps, ["install gcc", "update apt's lists", "install gcc"]);
        assert!(
            bed.said.iter().any(|line| line.starts_with("warning: could not update apt's lists")),
            "{:?}",
            bed.said
        );
    }

    #[test]
    fn what_does_not_help_is_not_done_twice() {
        let (bed, result) = Bed::drive(false, |_, _| false);
        assert!(matches!(&result, Err(SetupError::NoProgress { packages }) if packages == &["gcc"]), "{result:?}");
        assert_eq!(bed.steps, ["install gcc"]);
    }

    #[test]
    fn apts_complaints_are_what_is_shown_of_a_log() {
        let said = "Reading package lists...\nW: a warning\nE: Unable to locate package x\nbye\n";
        assert_eq!(telling_lines(said), "  W: a warning\n  E: Unable to locate package x");
        assert_eq!(telling_lines("one\ntwo\n"), "  one\n  two");
        assert_eq!(telling_lines(&"line\n".repeat(100)).lines().count(), TAIL);
    }

    #[test]
    fn a_failing_command_is_shown_with_what_it_said() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("logs/apt.log");
        let tools = |as_root| Tools::new(&AptOutput::Log(log.clone()), as_root).unwrap();
        // In place of sudo: says what it was given, and fails.
        let refusing = tools(vec!["sh", "-c", "echo \"E: will not $*\"; exit 1", "sh"]);
        let error = refusing.perform(&Step::Update).unwrap_err().to_string();
        assert!(error.starts_with("could not update apt's lists"), "{error}");
        assert!(error.contains("E: will not env") && error.contains("apt.log"), "{error}");
        tools(vec!["true"]).perform(&Step::Update).unwrap();
    }

    #[test]
    fn a_new_source_is_put_in_place_as_it_was_planned() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new.sources");
        let source = apt::NewSource { path: path.clone(), content: "Types: deb\n".to_owned() };
        let tools = Tools::new(&AptOutput::Log(folder.path().join("apt.log")), vec!["env"]).unwrap();
        tools.perform(&Step::AddSource { source, why: String::new() }).unwrap();
        assert_eq!(fs::read_to_string(path).unwrap(), "Types: deb\n");
    }

    #[test]
    fn who_cannot_be_root_is_told_what_to_do_by_hand() {
        let source = apt::NewSource { path: "/etc/x.sources".into(), content: "Types: deb\nSuites: s\n".to_owned() };
        let install = Step::Install { packages: vec!["gcc".to_owned()], from: None };
        let text = by_hand(&[Step::AddSource { source, why: String::new() }, install]);
        assert!(
            text.starts_with("  write this to /etc/x.sources:\n      Types: deb\n      Suites: s\n  env "),
            "{text}"
        );
        assert!(text.ends_with(" gcc"), "{text}");
    }
}
