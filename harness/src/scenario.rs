//! What a scenario is: a few lines of metadata and an async function over a [`Guest`].

use std::future::Future;
use std::pin::Pin;

use crate::guest::{Error, Guest};
use crate::script::{Header, PREFIX, Script, Terminal};
use crate::trigger::Trigger;
use crate::verdict::Verdict;
use crate::vm::topology::Topology;

/// What a scenario's function returns. It is not `Send`: all cells of a run share one thread, because they mostly wait.
pub type Running<'a> = Pin<Box<dyn Future<Output = Result<Verdict, Error>> + 'a>>;

/// One scenario.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// `family::name`.
    pub name: &'static str,
    /// One line for people: what the scenario does, and what a kernel must do to pass.
    pub about: &'static str,
    /// Ids of the bugs in `kernels.toml` that it detects. The expected result of a cell follows from these.
    pub detects: &'static [&'static str],
    /// Name of the topology that it uses by default.
    pub topology: &'static str,
    /// Names of further topologies. It runs on these only if they are selected.
    pub also: &'static [&'static str],
    /// The triggers that it runs with; empty if it removes nothing.
    pub triggers: &'static [Trigger],
    /// Words that it adds to the kernel's command line.
    pub append: &'static [&'static str],
    /// What it needs beside a guest with its topology.
    pub needs: Needs,
    /// The function that runs it.
    ///
    /// It returns a verdict on the kernel, [`Verdict::Pass`] or [`Verdict::Fail`], or an error. An error says nothing
    /// about the kernel, unless it is [`Error::Refused`] or the kernel log explains it.
    pub run: for<'a> fn(&'a Guest) -> Running<'a>,
}

/// What a scenario needs beside a guest with its topology.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// The guest's memory in MiB, if it must be more than that of other guests.
    pub memory_mib: Option<u32>,
    /// The kernel's own selftests of vfio. If they cannot be built, the scenario's cells do not run.
    pub selftests: bool,
    /// Where it has a held guest stopped.
    pub places: Places,
    /// So much time that it runs only if it is named, or with `--all`.
    pub to_be_named: bool,
    /// A guest with a shell, in which this script is the scenario.
    pub script: Option<&'static Script>,
    /// A guest with a shell, and this terminal for it.
    pub terminal: Option<&'static Terminal>,
}

/// Places in the kernel at which a scenario acts, instead of hoping for luck. Only a held guest can be stopped there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places {
    /// The functions at whose beginning the guest is stopped ([`crate::guest::Guest::stop_at`]). Empty if holding the
    /// guest's clock is enough.
    pub functions: &'static [&'static str],
    /// The bugs that then show every time in a held guest, whatever their chance is otherwise.
    pub show: &'static [&'static str],
}

impl Places {
    /// No places.
    pub const NONE: Places = Places { functions: &[], show: &[] };
}

impl Needs {
    /// It needs nothing else.
    pub const NOTHING: Needs = Needs {
        memory_mib: None,
        selftests: false,
        places: Places::NONE,
        to_be_named: false,
        script: None,
        terminal: None,
    };

    /// Whether its guests have a shell.
    pub fn has_shell(&self) -> bool {
        self.script.is_some() || self.terminal.is_some()
    }
}

/// All topologies, the usual one first: a script that names none may run on any.
fn any_topology() -> Vec<String> {
    let mut names: Vec<_> = Topology::all().into_iter().map(|topology| topology.name).collect();
    names.sort_by_key(|name| name != "igb");
    names
}

/// A table that compares kernels by some scenarios.
#[derive(Clone, Copy, Debug)]
pub struct Comparison {
    /// Its heading.
    pub title: &'static str,
    /// The columns: names of kernels.
    pub kernels: &'static [&'static str],
    /// The rows: the name of each, and its scenarios.
    pub rows: &'static [(&'static str, &'static [&'static str])],
}

impl Comparison {
    /// Whether the table has a column of this kernel, and a row of this scenario.
    pub fn has(&self, kernel: &str, scenario: &str) -> bool {
        self.kernels.contains(&kernel) && self.rows.iter().any(|(_, scenarios)| scenarios.contains(&scenario))
    }
}

impl Scenario {
    /// A scenario on one igb that detects no bug, removes nothing and needs nothing. What names it and what differs is
    /// added with `..Scenario::of(run)`.
    pub const fn of(run: for<'a> fn(&'a Guest) -> Running<'a>) -> Scenario {
        Scenario {
            name: "",
            about: "",
            detects: &[],
            topology: "igb",
            also: &[],
            triggers: &[],
            append: &[],
            needs: Needs::NOTHING,
            run,
        }
    }

    /// A script as a scenario. The metadata of scenarios is static, so that of scripts is kept until the program ends.
    pub fn of_script(script: Script, header: Header) -> Scenario {
        let text = |text: String| -> &'static str { text.leak() };
        let words =
            |words: Vec<String>| -> &'static [&'static str] { words.into_iter().map(text).collect::<Vec<_>>().leak() };
        let about = if header.about.is_empty() {
            format!("The script {}.sh must exit with 0.", script.name)
        } else {
            header.about
        };
        let topologies = if header.topologies.is_empty() { any_topology() } else { header.topologies };
        let topologies = words(topologies);
        let plain = Scenario::of(|guest| Box::pin(guest.script()));
        Scenario {
            name: text(format!("{PREFIX}{}", script.name)),
            about: text(about),
            detects: words(header.detects),
            topology: topologies.first().copied().unwrap_or(plain.topology),
            also: topologies.get(1..).unwrap_or_default(),
            triggers: header.triggers.leak(),
            append: words(header.kernel_args),
            needs: Needs {
                memory_mib: script.memory_mib(),
                script: Some(Box::leak(Box::new(script))),
                ..Needs::NOTHING
            },
            ..plain
        }
    }

    /// The same with a terminal, which is kept until the program ends, as all metadata is.
    #[must_use]
    pub fn with_terminal(self, terminal: Terminal) -> Scenario {
        Scenario { needs: Needs { terminal: Some(Box::leak(Box::new(terminal))), ..self.needs }, ..self }
    }

    /// All its topologies, the default one first.
    pub fn topologies(&self) -> impl Iterator<Item = &'static str> + '_ {
        std::iter::once(self.topology).chain(self.also.iter().copied())
    }

    /// Its triggers, or one `None` if it removes nothing.
    pub fn each_trigger(&self) -> Vec<Option<Trigger>> {
        match self.triggers {
            [] => vec![None],
            triggers => triggers.iter().copied().map(Some).collect(),
        }
    }
}
