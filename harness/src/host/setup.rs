//! Setting up a machine: checks, plans, installs and checks again, until nothing is missing or nothing more can be
//! done.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use kernels::ArchiveError;

use super::apt::Apt;
use super::command::{self, CommandError};
use super::os::{Installer, OsRelease};
use super::plan::{Facts, PlanError, Step, plan};
use super::{Check, Wanted, checks};

/// Fetching the lists takes seconds. With a slow mirror, or a lock that another process holds, it may take minutes.
const UPDATE_DEADLINE: Duration = Duration::from_secs(15 * 60);

/// A bare machine needs about 100 packages, 200 MB in total.
const INSTALL_DEADLINE: Duration = Duration::from_secs(45 * 60);

/// The user may have to find and type a password. sudo itself gives up after five minutes.
const PASSWORD_DEADLINE: Duration = Duration::from_secs(6 * 60);

/// How often to plan. Four rounds are enough for every known case: update, add backports and update, install, and the
/// empty plan at the end. One more is for a failure that is repeated.
const ROUNDS: usize = 5;

/// How many lines of apt's output an error contains.
const TAIL: usize = 25;

/// Where apt's own output goes.
#[derive(Clone, Debug)]
pub enum AptOutput {
    /// To a file, which is overwritten. If apt fails, the error contains the end of it.
    Log(PathBuf),
    /// To the terminal.
    Terminal,
}

/// How a set-up ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing was missing, and nothing was changed.
    NothingToDo,
    /// Everything that was missing is installed.
    Done,
    /// These are still missing, and apt cannot install them. The checks say what to do.
    Incomplete(Vec<Check>),
}

/// Why a set-up ended early.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// apt cannot install what is missing.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A query of apt failed.
    #[error("cannot query apt")]
    Apt(#[from] ArchiveError),
    /// Only root may install.
    #[error(
        "installing needs root, and {why}: run `cargo xtask setup` as root; or do this as root, then run the command \
         again:\n{how}"
    )]
    NotRoot {
        /// Why the process cannot become root.
        why: &'static str,
        /// What to do by hand.
        how: String,
    },
    /// A file of the set-up could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A step's command could not be run, or did not end.
    #[error("could not {step}")]
    Command {
        /// The step in words.
        step: String,
        /// The cause.
        source: CommandError,
    },
    /// A step's command failed.
    #[error("could not {step}: the command failed{output}")]
    Failed {
        /// The step in words.
        step: String,
        /// The end of its output, and the file with all of it.
        output: String,
    },
    /// All steps succeeded, and the checks still find the packages missing.
    #[error("installed {}, but `cargo xtask doctor` still finds them missing", packages.join(", "))]
    NoProgress {
        /// The packages.
        packages: Vec<String>,
    },
}

/// Installs what [`checks`] find missing, through apt, as root or with sudo. Passes a line to `say` before each step.
/// If nothing is missing, it runs no command that could change the machine.
///
/// # Errors
/// If apt cannot install what is missing, or fails.
pub fn setup(wanted: &Wanted<'_>, output: &AptOutput, say: &mut dyn FnMut(&str)) -> Result<Outcome, SetupError> {
    let os = OsRelease::of_this_machine();
    // Without apt nothing can be installed, and what only some cells need must not end the run.
    let apt = os.installer() == Installer::Apt;
    let is_wanted = |check: &Check| if apt { check.wants_setup() } else { check.is_missing() };
    let missing = || -> Vec<Check> { checks(wanted).into_iter().filter(is_wanted).collect() };
    if missing().is_empty() {
        return Ok(Outcome::NothingToDo);
    }
    let facts = |updated| {
        let missing = missing();
        let packages: Vec<String> = missing.iter().flat_map(|check| check.packages.clone()).collect();
        // The other packages come from suites that this machine's apt does not use.
        let own = wanted.kernel_sources.iter().filter(|package| package.suite.is_none());
        let to_know: Vec<_> = own.map(|package| package.name.clone()).collect();
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
                // The archive that cannot be reached may not be needed. The next plan shows it.
                (Err(error @ SetupError::Failed { .. }), Step::Update) => say(&format!("warning: {error}")),
                // The lists may be older than the archive. The installation may succeed with new lists.
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

/// What is needed to perform steps.
struct Tools {
    output: AptOutput,
    /// Holds the content of a new source until root installs it.
    staging: tempfile::TempDir,
    /// The words before a command that make it run as root.
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
        Err(SetupError::Failed { step: step.to_string(), output: self.output_since(start) })
    }

    /// Redirects the command's output. Returns the offset in the log at which its output begins.
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

    /// The end of a command's output, which begins at this offset of the log.
    fn output_since(&self, start: u64) -> String {
        let AptOutput::Log(path) = &self.output else { return String::new() };
        let bytes = fs::read(path).unwrap_or_default();
        let said = bytes.get(usize::try_from(start).unwrap_or(usize::MAX)..).unwrap_or_default();
        format!(" (the whole output is in {}):\n{}", path.display(), relevant_lines(&String::from_utf8_lossy(said)))
    }
}

/// apt's errors and warnings if it gave any, else the last lines.
fn relevant_lines(said: &str) -> String {
    let complaints: Vec<_> = said.lines().filter(|line| line.starts_with("E: ") || line.starts_with("W: ")).collect();
    let all: Vec<_> = if complaints.is_empty() { said.lines().collect() } else { complaints };
    all[all.len().saturating_sub(TAIL)..].iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

/// How to become root. Empty if the process is root already. Else sudo, which may ask for a password on a terminal.
fn as_root() -> Result<Vec<&'static str>, &'static str> {
    if rustix::process::geteuid().is_root() {
        return Ok(Vec::new());
    }
    if !command::on_path("sudo") {
        return Err("sudo is not installed");
    }
    // sudo asks on the terminal, even if our standard streams are redirected.
    let sudo = if File::open("/dev/tty").is_ok() { vec!["sudo"] } else { vec!["sudo", "-n"] };
    let mut try_it = Command::new(sudo[0]);
    try_it.args(&sudo[1..]).arg("true").stdin(Stdio::null());
    match command::run(&mut try_it, PASSWORD_DEADLINE) {
        Ok(status) if status.success() => Ok(sudo),
        _ => Err("sudo refuses (without a terminal it cannot ask for a password)"),
    }
}

/// The steps in words, for people who do them by hand.
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
    use super::super::apt::NewSource;
    use super::*;

    /// A Debian 13 on which gcc is missing.
    struct Bed {
        missing: Vec<String>,
        steps: Vec<String>,
        said: Vec<String>,
    }

    impl Bed {
        /// Runs [`drive`] on a machine on which the steps fail that `fails` selects. It gets the number of the step,
        /// from 1.
        fn drive(installs: bool, fails: fn(usize, &Step) -> bool) -> (Bed, Result<(), SetupError>) {
            let bed = std::cell::RefCell::new(Bed { missing: vec!["gcc".to_owned()], steps: vec![], said: vec![] });
            let facts = |updated| {
                let policy = "gcc:\n  Installed: (none)\n  Candidate: 4:14.2\n  Version table:\n     4:14.2 500\n";
                let apt = Apt {
                    offers: kernels::archive::policy::parse(policy),
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
    fn what_is_missing_is_installed_and_checked_again() {
        let (bed, result) = Bed::drive(true, |_, _| false);
        result.unwrap();
        assert_eq!(bed.steps, ["install gcc"]);
        assert_eq!(bed.said, ["install gcc ..."]);
    }

    #[test]
    fn an_install_that_fails_is_repeated_once_with_new_lists() {
        let (bed, result) = Bed::drive(true, |number, _| number == 1);
        result.unwrap();
        assert_eq!(bed.steps, ["install gcc", "update apt's lists", "install gcc"]);
        let (bed, result) = Bed::drive(true, |_, step| matches!(step, Step::Install { .. }));
        assert!(matches!(result, Err(SetupError::Failed { .. })), "{result:?}");
        assert_eq!(bed.steps, ["install gcc", "update apt's lists", "install gcc"]);
    }

    #[test]
    fn an_update_that_fails_does_not_end_the_setup() {
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
    fn an_install_that_does_not_help_is_not_repeated() {
        let (bed, result) = Bed::drive(false, |_, _| false);
        assert!(matches!(&result, Err(SetupError::NoProgress { packages }) if packages == &["gcc"]), "{result:?}");
        assert_eq!(bed.steps, ["install gcc"]);
    }

    #[test]
    fn an_error_shows_apts_errors_and_warnings() {
        let said = "Reading package lists...\nW: a warning\nE: Unable to locate package x\nbye\n";
        assert_eq!(relevant_lines(said), "  W: a warning\n  E: Unable to locate package x");
        assert_eq!(relevant_lines("one\ntwo\n"), "  one\n  two");
        assert_eq!(relevant_lines(&"line\n".repeat(100)).lines().count(), TAIL);
    }

    #[test]
    fn an_error_shows_the_output_of_the_command() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("logs/apt.log");
        let tools = |as_root| Tools::new(&AptOutput::Log(log.clone()), as_root).unwrap();
        // In place of sudo: prints its arguments and fails.
        let refusing = tools(vec!["sh", "-c", "echo \"E: will not $*\"; exit 1", "sh"]);
        let error = refusing.perform(&Step::Update).unwrap_err().to_string();
        assert!(error.starts_with("could not update apt's lists"), "{error}");
        assert!(error.contains("E: will not env") && error.contains("apt.log"), "{error}");
        tools(vec!["true"]).perform(&Step::Update).unwrap();
    }

    #[test]
    fn a_new_source_is_installed_with_its_content() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new.sources");
        let source = NewSource { path: path.clone(), content: "Types: deb\n".to_owned() };
        let tools = Tools::new(&AptOutput::Log(folder.path().join("apt.log")), vec!["env"]).unwrap();
        tools.perform(&Step::AddSource { source, why: String::new() }).unwrap();
        assert_eq!(fs::read_to_string(path).unwrap(), "Types: deb\n");
    }

    #[test]
    fn without_root_the_steps_are_shown_as_commands() {
        let source = NewSource { path: "/etc/x.sources".into(), content: "Types: deb\nSuites: s\n".to_owned() };
        let install = Step::Install { packages: vec!["gcc".to_owned()], from: None };
        let text = by_hand(&[Step::AddSource { source, why: String::new() }, install]);
        assert!(
            text.starts_with("  write this to /etc/x.sources:\n      Types: deb\n      Suites: s\n  env "),
            "{text}"
        );
        assert!(text.ends_with(" gcc"), "{text}");
    }
}
