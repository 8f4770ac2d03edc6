//! The headlines of splats, as data.

mod headlines;

use std::sync::LazyLock;

use regex::{Regex, RegexSet};

use super::SplatKind;
use super::reporters;
pub use headlines::RULES;

/// One headline.
#[derive(Debug)]
pub struct Rule {
    /// The kind of splat.
    pub kind: SplatKind,
    /// A regular expression that matches the headline from its first character. The optional groups `function` and
    /// `device` match what is at fault, and `task` the task.
    pub headline: &'static str,
    /// Strings that the headline must not contain.
    pub ignore: &'static [&'static str],
    /// What follows the headline.
    pub body: Body,
    /// What the report names as the cause, if not the innermost function of a stack.
    pub culprit: Culprit,
    /// The kernel repeats the report for as long as the cause lasts. All reports with the same `device` are one.
    pub repeats: bool,
    /// `WARN()` may print this as its message. It is no headline then.
    pub may_be_message: bool,
    /// The kernel usually kills the task after the report.
    pub kills: bool,
}

/// What follows a headline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// Nothing. The report has one line.
    Line,
    /// A stack or no stack.
    Maybe,
    /// A stack. A report without a stack is incomplete.
    Stack,
}

/// What a report names as the cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Culprit {
    /// The innermost function on the stack that is not there to report.
    Innermost,
    /// The same, but for the functions of these names, which work for whoever calls them.
    Beyond(&'static [&'static str]),
    /// The handlers of the interrupt.
    Handlers,
    /// The work item that keeps its pool busy, or else waits in it.
    Work,
    /// Whoever allocated or freed the object that is corrupted, unless the report names who freed it again.
    Object,
    /// Whoever took the first lock of the list.
    Holder,
    /// The innermost function, or else whoever takes the first lock that the report names.
    Locker,
}

const fn rule(kind: SplatKind, headline: &'static str, body: Body) -> Rule {
    let kills = matches!(kind, SplatKind::Oops | SplatKind::Bug | SplatKind::Panic);
    let culprit = if matches!(kind, SplatKind::Lockdep) { Culprit::Locker } else { Culprit::Innermost };
    let ignore = &[];
    Rule { kind, headline, ignore, body, culprit, repeats: false, may_be_message: false, kills }
}

impl Rule {
    const fn without(self, ignore: &'static [&'static str]) -> Rule {
        Rule { ignore, ..self }
    }

    const fn by(self, culprit: Culprit) -> Rule {
        Rule { culprit, ..self }
    }

    const fn repeating(self) -> Rule {
        Rule { repeats: true, ..self }
    }

    const fn or_message(self) -> Rule {
        Rule { may_be_message: true, ..self }
    }

    /// Whether it prints so little that it may stand in the middle of another report.
    pub(super) fn is_short(&self) -> bool {
        self.body == Body::Line || self.kind == SplatKind::NetdevWait
    }

    const fn sparing(self) -> Rule {
        Rule { kills: false, ..self }
    }
}

static SET: LazyLock<RegexSet> = LazyLock::new(|| {
    RegexSet::new(RULES.iter().map(|rule| format!("^(?s:{})", rule.headline))).expect("constant expressions")
});

static EACH: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    let each = RULES.iter().map(|rule| Regex::new(&format!("^(?s:{})", rule.headline)).expect("a constant expression"));
    each.collect()
});

/// The rule that a message matches.
pub(super) fn matching(text: &str) -> Option<&'static Rule> {
    let matches = SET.matches(text);
    matches.into_iter().map(|index| &RULES[index]).find(|rule| !rule.ignore.iter().any(|word| text.contains(word)))
}

/// What a headline names.
#[derive(Debug, Default)]
pub(super) struct Named {
    /// The function at fault. One that only reports faults is left out.
    pub function: Option<String>,
    /// The device at fault.
    pub device: Option<String>,
    /// The task.
    pub task: Option<String>,
}

/// What a headline names.
pub(super) fn named(rule: &'static Rule, text: &str) -> Named {
    let index = RULES.iter().position(|other| std::ptr::eq(other, rule));
    let Some(captures) = index.and_then(|index| EACH[index].captures(text)) else { return Named::default() };
    let group = |name| captures.name(name).map(|group| group.as_str());
    let function = group("function").filter(|name| !reporters::is_reporter(name));
    Named {
        function: function.map(str::to_owned),
        // Some kernels write "0x00:0x02.0".
        device: group("device").map(|device| device.replace("0x", "")),
        task: group("task").map(with_colon),
    }
}

/// Converts `comm/pid` and `comm:pid` to `comm:pid`. The name may contain either separator.
fn with_colon(task: &str) -> String {
    match task.rsplit_once(['/', ':']) {
        Some((comm, pid)) if pid.bytes().all(|byte| byte.is_ascii_digit()) => format!("{comm}:{pid}"),
        _ => task.to_owned(),
    }
}
