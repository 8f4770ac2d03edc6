//! One report of a kernel about its own fault.

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::holder::Holder;
use super::kind::{Severity, SplatKind};
use super::{reporters, rules};

/// One report of a kernel about its own fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Splat {
    /// Its kind.
    pub kind: SplatKind,
    /// Its headline, without timestamp.
    pub title: String,
    /// The kernel function at fault, without compiler suffixes: the function that the report names, or else that of the
    /// innermost frame. For an IOMMU fault, the device.
    pub function: Option<String>,
    /// The stack, innermost first, without functions that only wait, functions that report, and the system call entry.
    pub frames: Vec<String>,
    /// The instruction pointer and the whole stack as the kernel printed them, each frame with its line of the source:
    /// `pci_create_attr+0x12/0x1b0 at drivers/pci/pci-sysfs.c:1180`. Empty if no line is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trace: Vec<String>,
    /// The task in which it happened, as `comm:pid`.
    pub task: Option<String>,
    /// For a hung task, the task that holds the lock it waits for, if the kernel names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<Holder>,
    /// Its lines in the log, counted from 0 as by [`str::lines`].
    pub lines: Range<usize>,
    /// The report is truncated or garbled: the guest ended in the middle of it, or its stack is missing.
    pub corrupted: bool,
    /// Why it makes no cell fail: the kernel's profile lists it as known, or the log shows what else caused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known: Option<String>,
}

impl Splat {
    /// A report of lines without a stack.
    pub(super) fn of_lines(kind: SplatKind, title: String, lines: Range<usize>, corrupted: bool) -> Splat {
        Splat {
            kind,
            title,
            function: None,
            frames: Vec::new(),
            trace: Vec::new(),
            task: None,
            holder: None,
            lines,
            corrupted,
            known: None,
        }
    }

    /// Takes over the stack of a panic that followed at once, if it is a report of what the task did.
    pub(super) fn take_stack(&mut self, panic: &Splat) {
        if !matches!(self.kind, SplatKind::Warning | SplatKind::Ubsan | SplatKind::Bug | SplatKind::Kasan) {
            return;
        }
        self.frames.clone_from(&panic.frames);
        let culprit = self.frames.iter().find(|name| !reporters::is_innocent(self.kind, name));
        if self.function.is_none() {
            self.function = culprit.or(self.frames.first()).cloned();
        }
        if self.task.is_none() {
            self.task.clone_from(&panic.task);
        }
    }

    /// What it means for a verdict. What is known makes no cell fail.
    pub fn severity(&self) -> Severity {
        match self.kind.severity() {
            Severity::Fatal if self.known.is_some() => Severity::Witness,
            severity => severity,
        }
    }

    /// Whether it makes a cell fail by itself.
    pub fn is_fatal(&self) -> bool {
        self.severity() == Severity::Fatal
    }

    /// For a hung task, who waits for what and who holds it, in words, if the kernel names the holder.
    pub fn wait(&self) -> Option<String> {
        let (task, holder) = (self.task.as_ref()?, self.holder.as_ref()?);
        Some(format!("{task} waits for {holder}"))
    }

    /// Whether the kernel usually kills the task after this report. The task keeps its locks then.
    pub fn kills(&self) -> bool {
        rules::matching(&self.title).is_some_and(|rule| rule.kills)
    }
}

impl fmt::Display for Splat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.title)?;
        if let Some(function) = self.function.as_ref().filter(|function| !self.title.contains(*function)) {
            write!(f, " (in {function})")?;
        }
        if let Some(holder) = &self.holder {
            write!(f, "; it waits for {holder}")?;
        }
        Ok(())
    }
}
