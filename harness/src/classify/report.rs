//! Collects the lines of one splat.

use super::culprit::{self, Search};
use super::frame::{self, Frame};
use super::holder::Holder;
use super::rules::{Body, Culprit, Rule};
use super::starved::Ticks;
use super::{Splat, SplatKind, body, line, reporters, rules};
use crate::classify::stack;

/// How many foreign lines in sequence may be inside a report. Other CPUs print at the same time.
const FOREIGN: usize = 8;

/// The same, as long as the report has no stack and must have one.
const FOREIGN_BEFORE_STACK: usize = 64;

/// No report has more lines than this. Stacks of all CPUs have the most.
const LONGEST: usize = 16_384;

/// A splat that has not ended yet.
#[derive(Debug)]
pub struct Open {
    rule: &'static Rule,
    splat: Splat,
    /// The device that the headline names.
    device: Option<String>,
    /// The headline names the function.
    is_named: bool,
    search: Search,
    ticks: Ticks,
    /// It follows `cut here`, so it ends with `end trace`.
    cut_here: bool,
    foreign: usize,
    stack: Stack,
    /// The stack of what an interrupt interrupted has begun.
    interrupted: Interrupted,
    /// The next line is where preemption was disabled.
    at_preemption: bool,
    over: bool,
    /// It waits for other CPUs to print their stacks.
    asks_cpus: bool,
}

/// The state of the stack in a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stack {
    /// No stack yet.
    Awaited,
    /// Frames follow.
    Shown,
    /// The stack ended without a frame.
    Over,
    /// The stack ended, and its frames were taken. Stacks that follow belong to other tasks.
    Done,
    /// The stack of a task that is not at fault follows.
    Foreign,
}

/// Where on a stack the interrupt is in which the kernel reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Interrupted {
    /// Further out, if there is one.
    Unknown,
    /// The last frame is its entry.
    Next,
    /// The frames are those of what it interrupted. What that had interrupted does not matter.
    Shown,
}

impl Open {
    /// A splat that begins at line `start` and has its headline at line `number`.
    pub fn new(rule: &'static Rule, start: usize, number: usize, text: &str, cut_here: bool) -> Open {
        let named = rules::named(rule, text);
        let function = named.function.map(|name| stack::base(&name).to_owned());
        let mut splat = Splat::of_lines(rule.kind, title(text), start..number + 1, false);
        splat.function = named.device.clone().filter(|_| rule.kind == SplatKind::IommuFault);
        splat.task = named.task;
        let mut open = Open {
            rule,
            splat,
            device: named.device,
            is_named: false,
            search: Search::new(rule.culprit, text),
            ticks: Ticks::default(),
            cut_here,
            foreign: 0,
            stack: Stack::Awaited,
            interrupted: Interrupted::Unknown,
            at_preemption: false,
            over: false,
            asks_cpus: false,
        };
        open.is_named = function.is_some_and(|name| open.name(&name));
        open
    }

    /// The kind and the device of a report that the kernel repeats.
    pub fn repeats(&self) -> Option<(SplatKind, Option<String>)> {
        self.rule.repeats.then(|| (self.splat.kind, self.device.clone()))
    }

    /// Whether it waits for other CPUs to print their stacks.
    pub fn asks_cpus(&self) -> bool {
        self.asks_cpus && !self.over
    }

    /// Whether a `WARN()` may be part of it. SLUB describes the object, and then warns of whoever found it.
    pub fn may_warn(&self) -> bool {
        self.rule.culprit == Culprit::Object && !self.over
    }

    /// Takes a headline if it is part of this splat. False if it begins another splat.
    pub fn absorbs(&mut self, rule: &Rule, number: usize, text: &str) -> bool {
        if self.over {
            return false;
        }
        let part = match (self.splat.kind, rule.kind) {
            // "BUG: unable to handle ..." and "kernel BUG at ..." continue with "Oops: ...".
            (SplatKind::Oops, SplatKind::Oops) => !text.starts_with("BUG: "),
            (SplatKind::Bug, SplatKind::Oops) => !text.starts_with("BUG: ") && !text.starts_with("Unable to handle"),
            // RCU stalled because a timer did not fire, which is the host's fault.
            (SplatKind::RcuStall, SplatKind::TestBed) if rule.headline.contains("timer wakeup") => {
                self.splat.kind = SplatKind::TestBed;
                self.splat.title = title(text);
                true
            }
            // A line for each pool.
            (SplatKind::WorkqueueLockup, SplatKind::WorkqueueLockup) => {
                self.search.add_pool(text);
                self.stack == Stack::Awaited
            }
            (SplatKind::MemoryLeak, SplatKind::MemoryLeak) => self.splat.title.starts_with("BUG: "),
            (SplatKind::Bug, SplatKind::Warning) if self.may_warn() => {
                let is_slub = text.contains(" mm/slub.c:");
                if is_slub {
                    self.splat.kind = SplatKind::Warning;
                    self.cut_here = true;
                    self.restart_stack();
                }
                is_slub
            }
            (SplatKind::Warning, _) => rule.may_be_message && self.splat.frames.is_empty(),
            _ => false,
        };
        if part {
            self.extend(number);
        }
        part
    }

    /// Takes a line that is not a headline. False if the splat ended before it.
    pub fn take(&mut self, number: usize, text: &str) -> bool {
        if self.over || self.rule.body == Body::Line || number - self.splat.lines.start >= LONGEST {
            return false;
        }
        if text.is_empty() {
            return true;
        }
        let text = text.strip_prefix("kmemleak: ").filter(|_| self.splat.kind == SplatKind::MemoryLeak).unwrap_or(text);
        if self.stack_line(text) || body::is_part(text) {
            self.extend(number);
            self.details(text);
            self.over = self.is_last(text);
            return true;
        }
        self.foreign += 1;
        let was_shown = matches!(self.stack, Stack::Over | Stack::Done);
        let must_come = self.rule.body == Body::Stack && (self.splat.frames.is_empty() || self.stack == Stack::Awaited);
        let most = if must_come { FOREIGN_BEFORE_STACK } else { FOREIGN };
        !(was_shown && self.is_whole()) && self.foreign <= most
    }

    /// The splat lasts at least up to a line.
    pub fn extend(&mut self, number: usize) {
        self.foreign = 0;
        self.splat.lines.end = self.splat.lines.end.max(number + 1);
    }

    /// Takes a line of a stack, or one that says whose stack follows.
    fn stack_line(&mut self, text: &str) -> bool {
        let trimmed = text.trim();
        // Lockdep prints the stacks of earlier events first. The stack of this event follows this heading.
        if trimmed == "stack backtrace:" {
            self.restart_stack();
            return true;
        }
        if self.splat.kind == SplatKind::RcuStall && trimmed.ends_with("kthread stack dump:") {
            self.stack = Stack::Foreign;
            return true;
        }
        // SLUB prints first the stacks of whoever allocated and freed the object.
        if self.rule.culprit == Culprit::Object && self.splat.frames.is_empty() && culprit::is_track(text) {
            self.stack = Stack::Foreign;
            return true;
        }
        let of_cpu = ["CPU: ", "NMI backtrace", "Task dump for CPU"].iter().any(|heading| text.starts_with(heading));
        if self.stack == Stack::Foreign && of_cpu {
            self.stack = if self.splat.frames.is_empty() { Stack::Awaited } else { Stack::Done };
        }
        if matches!(trimmed, "Call Trace:" | "Call trace:" | "Backtrace:" | "<TASK>") {
            if !matches!(self.stack, Stack::Done | Stack::Foreign) {
                self.stack = Stack::Shown;
            }
            return true;
        }
        if trimmed == "</TASK>" && self.stack != Stack::Foreign {
            self.stack = if self.splat.frames.is_empty() { Stack::Over } else { Stack::Done };
            return true;
        }
        // The stacks of whoever allocated and freed the memory follow.
        if is_history(text) && !self.splat.frames.is_empty() {
            self.stack = Stack::Done;
            return true;
        }
        let at_preemption = std::mem::replace(&mut self.at_preemption, text.starts_with("Preemption disabled at:"));
        match frame::frame(text) {
            Some(Frame::Function(_)) if at_preemption => {}
            Some(Frame::Function(name)) => self.add(name),
            Some(Frame::Guess) => {}
            None => return false,
        }
        true
    }

    fn restart_stack(&mut self) {
        self.splat.frames.clear();
        self.stack = Stack::Awaited;
        self.interrupted = Interrupted::Unknown;
        if !self.is_named {
            self.splat.function = None;
        }
    }

    fn add(&mut self, name: &str) {
        if matches!(self.stack, Stack::Done | Stack::Foreign) {
            return;
        }
        if reporters::is_interrupt(name) && self.is_of_interrupted() && self.interrupted != Interrupted::Shown {
            self.restart_stack();
            self.stack = Stack::Shown;
            self.interrupted = Interrupted::Next;
        } else if reporters::is_entry(name) {
            if self.splat.frames.is_empty() && reporters::is_system_call(name) {
                self.splat.frames.push(name.to_owned());
            }
            if !self.splat.frames.is_empty() {
                self.stack = Stack::Done;
            }
        } else if !reporters::is_reporter(name) && !self.is_pointer(name) {
            self.push(name);
        }
    }

    /// Whether the registers have named a function already. On most architectures the stack begins with it.
    fn is_pointer(&self, name: &str) -> bool {
        self.interrupted == Interrupted::Shown && self.splat.frames == [name]
    }

    fn push(&mut self, name: &str) {
        self.splat.frames.push(name.to_owned());
        self.name(name);
        if self.interrupted == Interrupted::Next {
            self.interrupted = Interrupted::Shown;
        }
    }

    /// Whether the kernel reports in an interrupt what the CPU did before the interrupt.
    fn is_of_interrupted(&self) -> bool {
        let panic = || ["lockup", "LOCKUP", "RCU Stall"].iter().any(|word| self.splat.title.contains(word));
        self.splat.kind.is_stall() || (self.splat.kind == SplatKind::Panic && panic())
    }

    /// Names a function as the one at fault, unless there is one already. False if it is not at fault.
    fn name(&mut self, name: &str) -> bool {
        let is_innocent = reporters::is_innocent(self.splat.kind, name)
            || matches!(self.rule.culprit, Culprit::Beyond(names) if reporters::is_of(names, name));
        if !is_innocent && self.splat.function.is_none() {
            self.splat.function = Some(name.to_owned());
        }
        !is_innocent
    }

    /// Takes the task and the function from lines that contain them.
    fn details(&mut self, text: &str) {
        self.asks_cpus |= text.starts_with("Sending NMI from CPU");
        self.search.take(text);
        if self.splat.kind == SplatKind::RcuStall {
            self.ticks.take(text);
        }
        if let Some(name) = frame::instruction_pointer(text).filter(|_| self.stack != Stack::Foreign) {
            // Registers that precede the stack are those of what was interrupted.
            if self.stack == Stack::Awaited {
                self.interrupted = Interrupted::Shown;
            }
            if self.splat.frames.is_empty() && !reporters::is_reporter(name) {
                self.push(name);
            }
        }
        let cause = body::cause(text).filter(|name| self.splat.kind == SplatKind::Bug && !reporters::is_reporter(name));
        if let Some(name) = cause {
            self.splat.function.get_or_insert_with(|| name.to_owned());
        }
        if self.splat.kind == SplatKind::HungTask && self.splat.holder.is_none() {
            self.splat.holder = Holder::of(text);
        }
        if self.splat.task.is_none() {
            self.splat.task = body::task(text);
        }
    }

    /// Whether a line is certainly the last one of this splat.
    fn is_last(&self, text: &str) -> bool {
        match self.splat.kind {
            SplatKind::Kasan if line::is_ruler(text) => true,
            SplatKind::Panic if text.starts_with("Rebooting in") => true,
            SplatKind::IrqNobodyCared if text.starts_with("Disabling IRQ #") => true,
            _ => text.starts_with("---[ end "),
        }
    }

    /// Whether the report is complete.
    pub fn is_whole(&self) -> bool {
        match (self.rule.body, self.splat.kind) {
            (Body::Line, _) => true,
            _ if self.over => true,
            // These reports end with a marker.
            (_, SplatKind::Kasan | SplatKind::Oops) => false,
            (_, SplatKind::Bug | SplatKind::Warning) if self.cut_here => false,
            // These end with their stack.
            (_, SplatKind::MemoryLeak | SplatKind::NetdevWait) if !self.splat.frames.is_empty() => true,
            (Body::Maybe, _) => self.stack != Stack::Shown,
            (Body::Stack, _) => matches!(self.stack, Stack::Over | Stack::Done) && !self.splat.frames.is_empty(),
        }
    }

    /// Returns the splat. `cut_off`: the log ended or the guest restarted, and no other line had ended the report.
    pub fn close(mut self, cut_off: bool) -> Splat {
        let without_stack = self.rule.body == Body::Stack && self.splat.frames.is_empty();
        self.splat.corrupted = without_stack || (cut_off && !self.is_whole());
        if self.splat.title.contains("self-detected stall") && self.ticks.are_rare() {
            self.splat.kind = SplatKind::TestBed;
        }
        let innermost = self.splat.function.take().or_else(|| self.splat.frames.first().cloned());
        let found = self.search.found();
        self.splat.function = match self.rule.culprit {
            // Its stack is that of whoever was interrupted.
            Culprit::Handlers => found,
            // Whoever freed it twice is on the stack.
            Culprit::Object if self.splat.title.contains("already free") => innermost.or(found),
            Culprit::Locker => innermost.or(found),
            _ => found.or(innermost),
        };
        self.splat
    }
}

/// Whether the stack of an earlier event follows.
fn is_history(text: &str) -> bool {
    ["Allocated by task", "Freed by task", "Allocated:", "Freed:", "Last potentially", "page last "]
        .iter()
        .any(|heading| text.starts_with(heading))
}

/// A headline in one line.
fn title(text: &str) -> String {
    text.trim().replace('\n', " ")
}
