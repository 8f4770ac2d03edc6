//! The kinds of splats, and what each means for a verdict.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The kind of a splat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SplatKind {
    /// A fault in kernel mode.
    Oops,
    /// `BUG()`, and the reports that begin with `BUG` and have no kind of their own, such as those of SLUB.
    Bug,
    /// `WARN()`, and reports that are printed like one.
    Warning,
    /// Undefined behaviour of C, found by UBSAN.
    Ubsan,
    /// A task in D state for too long.
    HungTask,
    /// A CPU that does not schedule.
    SoftLockup,
    /// A CPU that does not even take interrupts.
    HardLockup,
    /// A pool of workers that makes no progress.
    WorkqueueLockup,
    /// RCU waits for a CPU or a task.
    RcuStall,
    /// A violation of a locking rule.
    Lockdep,
    /// An invalid memory access, found by KASAN, KMSAN or KFENCE.
    Kasan,
    /// Memory that nothing refers to, found by kmemleak.
    MemoryLeak,
    /// An interrupt that no handler wants. The kernel disables its line.
    IrqNobodyCared,
    /// An IOMMU refused what a device did.
    IommuFault,
    /// A network interface cannot go, because something still refers to it.
    NetdevWait,
    /// The kernel panicked.
    Panic,
    /// The kernel restarted without a report: a triple fault, or a reset.
    Reboot,
    /// The test bed is at fault: host starvation, a broken initramfs, a crash of the agent, or a table of lockdep that
    /// is too small.
    TestBed,
}

/// What a splat means for a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// The kernel is at fault: the cell fails.
    Fatal,
    /// Evidence, such as that a task is stuck. The scenario decides whether that is a failure.
    Witness,
    /// It says nothing about the kernel.
    TestBed,
}

impl Severity {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Severity::Fatal => "fatal",
            Severity::Witness => "witness",
            Severity::TestBed => "test-bed",
        }
    }
}

impl SplatKind {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            SplatKind::Oops => "oops",
            SplatKind::Bug => "bug",
            SplatKind::Warning => "warning",
            SplatKind::Ubsan => "ubsan",
            SplatKind::HungTask => "hung-task",
            SplatKind::SoftLockup => "soft-lockup",
            SplatKind::HardLockup => "hard-lockup",
            SplatKind::WorkqueueLockup => "workqueue-lockup",
            SplatKind::RcuStall => "rcu-stall",
            SplatKind::Lockdep => "lockdep",
            SplatKind::Kasan => "kasan",
            SplatKind::MemoryLeak => "memory-leak",
            SplatKind::IrqNobodyCared => "irq-nobody-cared",
            SplatKind::IommuFault => "iommu-fault",
            SplatKind::NetdevWait => "netdev-wait",
            SplatKind::Panic => "panic",
            SplatKind::Reboot => "reboot",
            SplatKind::TestBed => "test-bed",
        }
    }

    /// What it means for a verdict. [docs/classify.md](../../../docs/classify.md) says why.
    pub fn severity(self) -> Severity {
        match self {
            SplatKind::HungTask => Severity::Witness,
            SplatKind::TestBed => Severity::TestBed,
            _ => Severity::Fatal,
        }
    }

    /// Whether a CPU or a pool of workers makes no progress. A host that lost a timer interrupt causes the same.
    pub(super) fn is_stall(self) -> bool {
        matches!(self, SplatKind::RcuStall | SplatKind::SoftLockup | SplatKind::HardLockup | SplatKind::WorkqueueLockup)
    }
}

impl fmt::Display for SplatKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
