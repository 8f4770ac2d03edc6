//! What became of mutants: for programs as JSON, for people as a table in Markdown, and compared with an earlier result.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use chrono::{DateTime, SecondsFormat, Utc};
use comfy_table::{Table, presets};
use serde::{Deserialize, Serialize};

use super::{MutantsError, Task};
use crate::evidence::{EvidenceError, write_whole};
use crate::text::counted;

/// The file for programs, in the folder of the results.
pub const JSON: &str = "mutants.json";
/// The file for people.
const MARKDOWN: &str = "mutants.md";

/// Why a mutant survives of which no cell runs.
pub(super) const NOT_REACHED: &str = "no cell executes its function";

/// What became of mutants.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Results {
    /// When it began, in UTC, in the format of RFC 3339.
    pub started: String,
    /// The command line.
    pub command: Vec<String>,
    /// How many mutants are to be judged in all.
    pub planned: usize,
    /// Those that have been judged.
    pub mutants: Vec<Judged>,
    /// The folder of these results, and of the runs.
    pub folder: PathBuf,
}

/// What became of a mutant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// Its name.
    pub name: String,
    /// The source file that it changes.
    pub file: String,
    /// The function that it changes.
    pub function: Option<String>,
    /// What a user of the kernel should see.
    pub shows: Option<String>,
    /// The kernel that it was made from and compared with.
    pub base: Option<String>,
    /// The result.
    pub outcome: Outcome,
    /// The cells that are worse than on the base. Only the first that ended, unless all cells ran.
    pub killed_by: Vec<Kill>,
    /// Why there is no answer, or why no cell ran.
    pub why: Option<String>,
    /// The kernel's error messages in cells that pass, which the base does not say there. They kill no mutant.
    #[serde(default)]
    pub says: Vec<String>,
    /// How many cells of the base execute the function. None without coverage.
    pub reached: Option<usize>,
    /// How many cells ended.
    pub cells: usize,
    /// Out of how many.
    pub of: usize,
    /// How long the build took, in seconds. None if the kernel was there.
    pub build_seconds: Option<f64>,
    /// How long the cells took together, in seconds.
    pub cells_seconds: f64,
    /// The folder of its run.
    pub run: Option<PathBuf>,
}

/// The result of a mutant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// A cell fails that passes on the base, or deadlocks or splats where the base fails otherwise.
    Killed,
    /// No cell is worse than on the base.
    Survived,
    /// It does not apply, build or boot, or some cells ended without a verdict, and none killed it.
    NoAnswer,
}

/// A cell that is worse than on the base.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kill {
    /// `family::name` of the scenario.
    pub scenario: String,
    /// Name of the topology.
    pub topology: String,
    /// Name of the trigger, or `none`.
    pub trigger: String,
    /// How it failed: `deadlock at sriov_numvfs_show`.
    pub how: String,
}

/// Results compared with earlier ones of the same mutants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// The earlier file.
    pub earlier: PathBuf,
    /// The mutants that were killed then and are not now.
    pub lost: Vec<String>,
    /// The mutants that are killed now and were not then.
    pub gained: Vec<String>,
}

impl Outcome {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Outcome::Killed => "killed",
            Outcome::Survived => "survived",
            Outcome::NoAnswer => "no answer",
        }
    }
}

impl Judged {
    /// What killed it, or why there is no answer, in a few words.
    pub fn detail(&self) -> String {
        match (self.killed_by.as_slice(), &self.why) {
            ([], Some(why)) => why.clone(),
            ([], None) if self.reached == Some(0) => NOT_REACHED.to_owned(),
            ([], None) => match self.says.as_slice() {
                [] => String::new(),
                [first, more @ ..] => format!("but says {first}{}", others(more.len())),
            },
            ([first, more @ ..], _) => {
                let others = others(more.len());
                let Kill { scenario, topology, trigger, how } = first;
                format!("{scenario} ({topology}, {trigger}): {how}{others}")
            }
        }
    }

    /// In one line: `NAME: killed by SCENARIO (...); built in 9 s, 3 of 98 cells in 12 s`.
    pub fn line(&self) -> String {
        let detail = match (self.detail(), self.outcome) {
            (detail, _) if detail.is_empty() => String::new(),
            (detail, Outcome::Killed) => format!(" by {detail}"),
            (detail, _) => format!(" ({detail})"),
        };
        let built = self.build_seconds.map(|seconds| format!("built in {seconds:.0} s, ")).unwrap_or_default();
        let cells = format!("{} of {} cells in {:.0} s", self.cells, self.of, self.cells_seconds);
        format!("{}: {}{detail}; {built}{cells}", self.name, self.outcome.words())
    }
}

fn others(count: usize) -> String {
    if count == 0 { String::new() } else { format!(", and {count} more") }
}

impl Results {
    /// Results without mutants so far.
    pub(super) fn begin(task: &Task, folder: &Path) -> Results {
        let now: DateTime<Utc> = SystemTime::now().into();
        Results {
            started: now.to_rfc3339_opts(SecondsFormat::Secs, true),
            command: task.how.command.clone(),
            planned: task.mutants.len(),
            mutants: Vec::new(),
            folder: folder.to_owned(),
        }
    }

    /// Reads results from a file, or from the folder that has it.
    ///
    /// # Errors
    /// The file cannot be read, or is something else.
    pub fn read(path: &Path) -> Result<Results, MutantsError> {
        let file = if path.is_dir() { path.join(JSON) } else { path.to_owned() };
        let wrong = |why: String| MutantsError::Results { path: file.clone(), why };
        let text = std::fs::read(&file).map_err(|error| wrong(error.to_string()))?;
        serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))
    }

    /// Adds a mutant.
    pub(super) fn add(&mut self, judged: Judged) {
        self.mutants.push(judged);
    }

    /// Writes them into their folder, in both forms.
    pub(super) fn write(&self) -> Result<(), EvidenceError> {
        let json = format!("{:#}\n", serde_json::json!(self));
        write_whole(&self.folder.join(JSON), json.as_bytes())?;
        write_whole(&self.folder.join(MARKDOWN), self.text().as_bytes())
    }

    /// How many have this result.
    pub fn count(&self, outcome: Outcome) -> usize {
        self.mutants.iter().filter(|judged| judged.outcome == outcome).count()
    }

    /// The sum in one line: `12 mutants: 7 killed (58%), 4 survived, 1 no answer`.
    pub fn summary(&self) -> String {
        let all = self.mutants.len();
        let killed = self.count(Outcome::Killed);
        let part = (killed * 100).checked_div(all).map(|part| format!(" ({part}%)")).unwrap_or_default();
        let missing = match self.planned - all.min(self.planned) {
            0 => String::new(),
            left => format!("; {left} not judged yet"),
        };
        format!(
            "{}: {killed} killed{part}, {} survived, {} no answer{missing}",
            counted(all, "mutant", "mutants"),
            self.count(Outcome::Survived),
            self.count(Outcome::NoAnswer),
        )
    }

    /// For people: a table in Markdown, and the sum. Those that were not killed come first.
    pub fn text(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN);
        table.set_header(["Mutant", "Function", "Result", "By what, or why", "Cells", "Build", "Run"]);
        let mut mutants: Vec<_> = self.mutants.iter().collect();
        mutants.sort_by_key(|judged| (judged.outcome == Outcome::Killed, &judged.name));
        for judged in mutants {
            let place = judged.function.as_deref().unwrap_or(&judged.file);
            table.add_row([
                judged.name.clone(),
                format!("`{place}`"),
                judged.outcome.words().to_owned(),
                // A bar would end the column.
                judged.detail().replace('|', "\\|"),
                format!("{} of {}", judged.cells, judged.of),
                judged.build_seconds.map(|seconds| format!("{seconds:.0} s")).unwrap_or_default(),
                format!("{:.0} s", judged.cells_seconds),
            ]);
        }
        format!("{table}\n\n{}\n", self.summary())
    }

    /// The scenarios that have killed mutants.
    pub fn killers(&self) -> impl Iterator<Item = String> {
        self.mutants.iter().flat_map(|judged| &judged.killed_by).map(|kill| kill.scenario.clone())
    }

    /// Compares these results with earlier ones.
    pub fn against(&self, earlier: &Results, path: &Path) -> Comparison {
        let before: BTreeMap<_, _> = earlier.mutants.iter().map(|judged| (&judged.name, judged.outcome)).collect();
        let changed = |then: bool, now: bool| {
            let is_it = |judged: &&Judged| {
                let was = before.get(&judged.name).map(|outcome| *outcome == Outcome::Killed);
                was == Some(then) && (judged.outcome == Outcome::Killed) == now
            };
            self.mutants.iter().filter(is_it).map(|judged| judged.name.clone()).collect()
        };
        Comparison { earlier: path.to_owned(), lost: changed(true, false), gained: changed(false, true) }
    }
}

impl Comparison {
    /// For people.
    pub fn text(&self) -> String {
        let names = |names: &[String]| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        format!(
            "compared with {}:\n  killed then, and not now: {}\n  killed now, and not then: {}\n",
            self.earlier.display(),
            names(&self.lost),
            names(&self.gained)
        )
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn judged(name: &str, outcome: Outcome) -> Judged {
        let kill = Kill {
            scenario: "reset::of_pf".to_owned(),
            topology: "igb".to_owned(),
            trigger: "none".to_owned(),
            how: "deadlock at f".to_owned(),
        };
        Judged {
            name: name.to_owned(),
            file: "drivers/pci/iov.c".to_owned(),
            function: Some("sriov_init".to_owned()),
            shows: None,
            base: Some("candidate".to_owned()),
            outcome,
            killed_by: if outcome == Outcome::Killed { vec![kill] } else { Vec::new() },
            why: (outcome == Outcome::NoAnswer).then(|| "does not boot".to_owned()),
            says: Vec::new(),
            reached: Some(0),
            cells: 3,
            of: 98,
            build_seconds: Some(9.4),
            cells_seconds: 12.0,
            run: None,
        }
    }

    fn results(mutants: &[(&str, Outcome)]) -> Results {
        Results {
            started: String::new(),
            command: Vec::new(),
            planned: mutants.len(),
            mutants: mutants.iter().map(|(name, outcome)| judged(name, *outcome)).collect(),
            folder: PathBuf::new(),
        }
    }

    #[test]
    fn the_table_has_those_that_got_away_first_and_the_sum() {
        let results = results(&[("a", Outcome::Killed), ("b", Outcome::Survived), ("c", Outcome::NoAnswer)]);
        insta::assert_snapshot!(results.text(), @r"
        | Mutant | Function     | Result    | By what, or why                         | Cells   | Build | Run  |
        |--------|--------------|-----------|-----------------------------------------|---------|-------|------|
        | b      | `sriov_init` | survived  | no cell executes its function           | 3 of 98 | 9 s   | 12 s |
        | c      | `sriov_init` | no answer | does not boot                           | 3 of 98 | 9 s   | 12 s |
        | a      | `sriov_init` | killed    | reset::of_pf (igb, none): deadlock at f | 3 of 98 | 9 s   | 12 s |

        3 mutants: 1 killed (33%), 1 survived, 1 no answer
        ");
    }

    #[test]
    fn a_line_says_what_killed_it_and_how_long_it_took() {
        let line = |outcome| judged("a", outcome).line();
        assert_eq!(
            line(Outcome::Killed),
            "a: killed by reset::of_pf (igb, none): deadlock at f; built in 9 s, 3 of 98 cells in 12 s"
        );
        assert!(line(Outcome::NoAnswer).starts_with("a: no answer (does not boot); "));
    }

    #[test]
    fn a_survivor_may_say_what_its_base_does_not() {
        let mut survivor = judged("a", Outcome::Survived);
        (survivor.reached, survivor.says) = (None, vec!["\"e\" in x (igb)".to_owned(), "\"f\" in x (igb)".to_owned()]);
        assert_eq!(survivor.detail(), "but says \"e\" in x (igb), and 1 more");
    }

    #[test]
    fn earlier_results_show_what_is_lost_and_gained() {
        use Outcome::{Killed, NoAnswer, Survived};
        let before = results(&[("a", Killed), ("b", Survived), ("c", Killed), ("d", Killed), ("e", NoAnswer)]);
        let now = results(&[("a", Killed), ("b", Killed), ("c", Survived), ("d", NoAnswer), ("new", Survived)]);
        let compared = now.against(&before, Path::new("before.json"));
        assert_eq!((compared.lost, compared.gained), (vec!["c".to_owned(), "d".to_owned()], vec!["b".to_owned()]));
    }

    #[test]
    fn results_are_read_again_from_their_folder() {
        let folder = tempfile::tempdir().unwrap();
        let mut written = results(&[("a", Outcome::Killed)]);
        written.folder = folder.path().to_owned();
        written.write().unwrap();
        assert_eq!(Results::read(folder.path()).unwrap().mutants, written.mutants);
        let other = folder.path().join("other.json");
        std::fs::write(&other, "{}").unwrap();
        assert!(Results::read(&other).unwrap_err().to_string().contains("has no results of"));
    }
}
