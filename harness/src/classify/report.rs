//! Collects the lines of one splat.

use std::sync::LazyLock;

use regex::Regex;

use super::frame::{self, Frame};
use super::rules::{Body, Rule};
use super::{Splat, SplatKind, line, rules};
use crate::classify::stack;

/// How many foreign lines in sequence may be inside a report. Other CPUs print at the same time.
const FOREIGN: usize = 8;

/// Lines of reports other than frames: registers, `CPU: ... Comm: ...`, lists of locks, task headers, details of RCU
/// and KASAN.
static BODY: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(concat!(
        r"^(?:\s|$|Call Trace:|\[ ?<|CPU: |Hardware name:|Modules linked in:|Tainted: |Workqueue: |Stack:|Code: |RIP: ",
        r"|[RE][A-Z0-9]{2}: ?[0-9a-f]|R\d\d: |[FCDEG]S: |CR\d: |DR\d: |PKRU: |ORIG_RAX|PGD |#PF: |Oops: |task:",
        r"|NMI backtrace|Sending NMI|rcu: |RCU |Showing |\d+ locks? held|no locks held|INFO: lockdep is turned off",
        r"|Preemption disabled|irq event stamp|(?:hard|soft)irqs last|stack backtrace:|other info that|-> #\d|but |and ",
        r"|which |the existing|the dependencies|to a |\.\.\. |Chain exists|Possible unsafe|May be due|lock\(|\*\*\* DEADLOCK",
        r"|\S+/\d+ (?:\[.*\] )?is |ffff[0-9a-f]+ \(|(?:Read|Write|Free) (?:of|at) |(?:Allocated|Freed) by task|Last potentially",
        r"|The buggy address|Memory state|page: |page dumped|flags: 0x|raw: |head: |>?ffff[0-9a-f]+: |in_atomic|preempt_count",
        r"|Kernel Offset|Rebooting in|\x22echo 0 >|Future hung|---\[ end|<[A-Z/]|={20}|-{20})",
    ))
    .expect("a constant expression")
});

static COMM: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^CPU: \d+ (?:UID: \d+ )?PID: (?P<pid>\d+) Comm: (?P<comm>\S+)").expect("a constant expression")
});

/// The task that violates a locking rule, or that made an invalid access.
static ACTOR: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^(?:(?P<comm>\S+)/(?P<pid>\d+) (?:\[.*\] )?is |.* by task (?P<comm2>\S+)/(?P<pid2>\d+)$)")
        .expect("a constant expression")
});

/// A splat that has not ended yet.
pub struct Open {
    rule: &'static Rule,
    splat: Splat,
    /// It follows `cut here`, so it ends with `end trace`.
    cut_here: bool,
    foreign: usize,
    stack: Stack,
    over: bool,
}

/// The state of the stack in a report.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stack {
    /// No stack yet.
    Awaited,
    /// Frames follow.
    Shown,
    /// The stack ended without a frame.
    Over,
    /// The stack ended, and its frames were taken. Stacks that follow belong to other tasks.
    Done,
}

impl Open {
    /// A splat that begins at line `start` and has its headline at line `number`.
    pub fn new(rule: &'static Rule, start: usize, number: usize, text: &str, cut_here: bool) -> Open {
        let (function, task) = rules::named(rule, text);
        let splat = Splat {
            kind: rule.kind,
            title: text.trim().to_owned(),
            function: function.map(|name| stack::base(&name).to_owned()),
            frames: Vec::new(),
            task,
            lines: start..number + 1,
            corrupted: false,
            known: None,
        };
        Open { rule, splat, cut_here, foreign: 0, stack: Stack::Awaited, over: false }
    }

    /// The line after its last line.
    pub fn end(&self) -> usize {
        self.splat.lines.end
    }

    /// Takes a headline if it is part of this splat. False if it begins another splat.
    pub fn absorbs(&mut self, rule: &Rule, number: usize, text: &str) -> bool {
        if self.over {
            return false;
        }
        let part = match (self.splat.kind, rule.kind) {
            // "BUG: unable to handle ..." and "kernel BUG at ..." continue with "Oops: ...".
            (SplatKind::Oops, SplatKind::Oops) => !text.starts_with("BUG: "),
            (SplatKind::Bug, SplatKind::Oops) => text.starts_with("Oops: ") || text.starts_with("invalid opcode"),
            // RCU stalled because a timer did not fire, which is the host's fault.
            (SplatKind::RcuStall, SplatKind::TestBed) if rule.headline.contains("timer wakeup") => {
                self.splat.kind = SplatKind::TestBed;
                self.splat.title = text.trim().to_owned();
                true
            }
            _ => false,
        };
        if part {
            self.extend(number);
        }
        part
    }

    /// Takes a line that is not a headline. False if the splat ended before it.
    pub fn take(&mut self, number: usize, text: &str) -> bool {
        if self.over || self.rule.body == Body::Line {
            return false;
        }
        if text.is_empty() {
            return true;
        }
        if self.stack_line(text) || BODY.is_match(text) {
            self.extend(number);
            self.details(text);
            self.over = self.is_last(text);
            return true;
        }
        self.foreign += 1;
        let was_shown = matches!(self.stack, Stack::Over | Stack::Done);
        !(was_shown && self.is_whole()) && self.foreign <= FOREIGN
    }

    fn extend(&mut self, number: usize) {
        self.foreign = 0;
        self.splat.lines.end = number + 1;
    }

    /// Takes a line of a stack.
    fn stack_line(&mut self, text: &str) -> bool {
        // Lockdep prints the stacks of earlier events first. The stack of this event follows this heading.
        if text.trim() == "stack backtrace:" {
            self.splat.frames.clear();
            self.stack = Stack::Awaited;
            return true;
        }
        let text_is = |word: &str| text.trim() == word;
        if text_is("Call Trace:") || text_is("<TASK>") {
            self.stack = if self.stack == Stack::Done { Stack::Done } else { Stack::Shown };
            return true;
        }
        if text_is("</TASK>") {
            self.stack = if self.splat.frames.is_empty() { Stack::Over } else { Stack::Done };
            return true;
        }
        match frame::frame(text) {
            Some(Frame::Function(name)) => {
                if self.stack != Stack::Done {
                    self.add(name);
                }
                true
            }
            Some(Frame::Guess) => true,
            None => false,
        }
    }

    fn add(&mut self, name: &str) {
        if frame::is_entry(name) {
            if !self.splat.frames.is_empty() {
                self.stack = Stack::Done;
            }
        } else if !frame::is_machinery(name) {
            self.splat.frames.push(name.to_owned());
        }
    }

    /// Takes the task and the function from lines that contain them.
    fn details(&mut self, text: &str) {
        if let Some(name) = frame::instruction_pointer(text)
            && self.stack == Stack::Awaited
            && !frame::is_machinery(name)
        {
            self.splat.frames.push(name.to_owned());
            self.splat.function.get_or_insert_with(|| name.to_owned());
        }
        if self.splat.task.is_some() {
            return;
        }
        for (pattern, comm, pid) in [(&COMM, "comm", "pid"), (&ACTOR, "comm", "pid"), (&ACTOR, "comm2", "pid2")] {
            let captures = pattern.captures(text);
            let group = |name| captures.as_ref().and_then(|captures| captures.name(name)).map(|group| group.as_str());
            if let (Some(comm), Some(pid)) = (group(comm), group(pid)) {
                self.splat.task = Some(format!("{comm}:{pid}"));
                return;
            }
        }
    }

    /// Whether a line is certainly the last one of this splat.
    fn is_last(&self, text: &str) -> bool {
        text.starts_with("---[ end ")
            || (self.splat.kind == SplatKind::Kasan && line::is_ruler(text))
            || (matches!(self.splat.kind, SplatKind::Panic) && text.starts_with("Rebooting in"))
    }

    /// Whether the report is complete.
    fn is_whole(&self) -> bool {
        match (self.rule.body, self.splat.kind) {
            (Body::Line, _) => true,
            _ if self.over => true,
            // These reports end with a marker.
            (_, SplatKind::Kasan | SplatKind::Oops) => false,
            (_, SplatKind::Bug | SplatKind::Warning) if self.cut_here => false,
            (Body::Maybe, _) => self.stack != Stack::Shown,
            (Body::Stack, _) => matches!(self.stack, Stack::Over | Stack::Done) && !self.splat.frames.is_empty(),
        }
    }

    /// Returns the splat. `cut_off`: the log ended or the guest restarted, and no other line had ended the report.
    pub fn close(mut self, cut_off: bool) -> Splat {
        let without_stack = self.rule.body == Body::Stack && self.splat.frames.is_empty();
        self.splat.corrupted = without_stack || (cut_off && !self.is_whole());
        if self.splat.function.is_none() {
            self.splat.function = self.splat.frames.first().cloned();
        }
        self.splat
    }
}
