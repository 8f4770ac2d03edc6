//! One splat as its lines come in.

use std::sync::LazyLock;

use regex::Regex;

use super::frame::{self, Frame};
use super::rules::{Body, Rule};
use super::{Splat, SplatKind, line, rules};
use crate::classify::stack;

/// How many lines that do not belong to a report may stand between its lines: other CPUs print too.
const FOREIGN: usize = 8;

/// The lines that reports are made of, apart from frames: registers, `CPU: ... Comm: ...`, lock lists, task headers,
/// RCU's and KASAN's details.
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

/// The one who breaks a locking rule, and the one who made a bad access.
static ACTOR: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^(?:(?P<comm>\S+)/(?P<pid>\d+) (?:\[.*\] )?is |.* by task (?P<comm2>\S+)/(?P<pid2>\d+)$)")
        .expect("a constant expression")
});

/// A splat that is not over yet.
pub struct Open {
    rule: &'static Rule,
    splat: Splat,
    /// It came after `cut here`, so it ends with `end trace`.
    cut_here: bool,
    foreign: usize,
    stack: Stack,
    over: bool,
}

/// The stack that is shown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stack {
    /// None yet.
    Awaited,
    /// Its frames come.
    Shown,
    /// It is complete.
    Over,
    /// It is complete, its frames were taken, and others that may follow are of other tasks.
    Done,
}

impl Open {
    /// A splat whose headline is at a line; its first line may be an earlier one.
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

    /// The line after the last that belongs to it.
    pub fn end(&self) -> usize {
        self.splat.lines.end
    }

    /// Whether a headline is part of this splat rather than the beginning of another; if so, it is taken.
    pub fn absorbs(&mut self, rule: &Rule, number: usize, text: &str) -> bool {
        if self.over {
            return false;
        }
        let part = match (self.splat.kind, rule.kind) {
            // "BUG: unable to handle ..." and "kernel BUG at ..." go on with "Oops: ...".
            (SplatKind::Oops, SplatKind::Oops) => !text.starts_with("BUG: "),
            (SplatKind::Bug, SplatKind::Oops) => text.starts_with("Oops: ") || text.starts_with("invalid opcode"),
            // A timer that did not fire is why RCU stalled, and the host's fault.
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
        // Lockdep shows the stacks of earlier events first; the one of this event has a heading.
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

    /// Who and where, from the lines that tell.
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

    /// Whether a line is the last one of this splat for certain.
    fn is_last(&self, text: &str) -> bool {
        text.starts_with("---[ end ")
            || (self.splat.kind == SplatKind::Kasan && line::is_ruler(text))
            || (matches!(self.splat.kind, SplatKind::Panic) && text.starts_with("Rebooting in"))
    }

    /// Whether all that the splat has to say was said.
    fn is_whole(&self) -> bool {
        match (self.rule.body, self.splat.kind) {
            (Body::Line, _) => true,
            _ if self.over => true,
            // These end with a marker.
            (_, SplatKind::Kasan | SplatKind::Oops) => false,
            (_, SplatKind::Bug | SplatKind::Warning) if self.cut_here => false,
            (Body::Maybe, _) => self.stack != Stack::Shown,
            (Body::Stack, _) => matches!(self.stack, Stack::Over | Stack::Done) && !self.splat.frames.is_empty(),
        }
    }

    /// The splat. `cut_off`: the log ended, or the guest started again, before anything else did.
    pub fn close(mut self, cut_off: bool) -> Splat {
        let without_stack = self.rule.body == Body::Stack && self.splat.frames.is_empty();
        self.splat.corrupted = without_stack || (cut_off && !self.is_whole());
        if self.splat.function.is_none() {
            self.splat.function = self.splat.frames.first().cloned();
        }
        self.splat
    }
}
