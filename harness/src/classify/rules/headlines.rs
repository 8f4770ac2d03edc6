//! All headlines.

use super::super::reporters::ALLOCATORS;
use super::Body::{Line, Maybe, Stack};
use super::{Culprit, Rule, SplatKind, rule};

/// A function and the beginning of its offset.
macro_rules! function {
    () => {
        r"(?P<function>[A-Za-z_][\w.]*)\+0x"
    };
}

/// The functions of sysfs, kobjects and devices that add a file or a directory for a caller.
const ADDERS: &[&str] =
    &["sysfs_*", "internal_create_group*", "kobject_*", "device_add", "device_create*", "device_register"];

/// All headlines. The first rule that matches applies.
pub static RULES: &[Rule] = &[
    // Faults of the test bed. They precede the more general rules, which would attribute them to the kernel.
    rule(SplatKind::TestBed, r"(?:rcu: )?\s*\w+ kthread timer wakeup didn't happen for \d+ jiffies", Maybe),
    rule(SplatKind::TestBed, r"Kernel panic - not syncing: Attempted to kill init!", Maybe),
    rule(SplatKind::TestBed, r"Kernel panic - not syncing: (?:VFS: Unable to mount root|No working init)", Maybe),
    rule(SplatKind::TestBed, r"Kernel panic - not syncing: Requested init \S+ failed", Maybe),
    // arch/x86/kernel/apic/io_apic.c, check_timer(): too few timer interrupts came in time, because the host is busy.
    rule(
        SplatKind::TestBed,
        r"Kernel panic - not syncing: (?:timer doesn't work through|IO-APIC \+ timer doesn't work)",
        Maybe,
    ),
    rule(SplatKind::TestBed, r"Initramfs unpacking failed", Line),
    rule(SplatKind::TestBed, r"BUG: MAX_(?:LOCKDEP|STACK_TRACE|LOCK_DEPTH)\w* too low", Maybe),
    rule(SplatKind::TestBed, r"(?P<task>\S+)\[\d+\]: segfault at ", Line),
    rule(SplatKind::TestBed, r"traps: (?P<task>\S+)\[\d+\] (?:trap|general protection)", Line),
    // kernel/panic.c, and the double fault of arch/x86/kernel/traps.c.
    rule(
        SplatKind::Panic,
        concat!(r"Kernel panic - not syncing: stack-protector: Kernel stack is corrupted in: ", function!()),
        Maybe,
    ),
    rule(SplatKind::Panic, r"Kernel panic - not syncing: ", Maybe),
    rule(SplatKind::Panic, r"(?:traps: )?PANIC: ", Maybe),
    // mm/kasan/report.c, mm/kmsan/report.c, and mm/kfence/report.c: KFENCE reports the same faults for sampled allocations.
    rule(SplatKind::Kasan, r"BUG: K(?:ASAN|MSAN|FENCE): .* in (?P<function>[\w.]+)", Stack),
    rule(SplatKind::Kasan, r"BUG: K(?:ASAN|MSAN|FENCE): ", Stack),
    // kernel/kcsan/report.c.
    rule(SplatKind::Bug, r"BUG: KCSAN: .* in (?P<function>[\w.]+)", Stack).sparing(),
    // kernel/watchdog.c.
    rule(
        SplatKind::SoftLockup,
        r"(?:NMI )?(?:watchdog: )?BUG: soft lockup - CPU#\d+ stuck for \d+s! \[(?P<task>.+:-?\d+)\]",
        Stack,
    ),
    rule(SplatKind::SoftLockup, r"(?:NMI )?(?:watchdog: )?BUG: soft lockup - CPU#\d+ stuck for ", Stack),
    // kernel/watchdog.c, kernel/watchdog_perf.c, arch/powerpc/kernel/watchdog.c.
    rule(SplatKind::HardLockup, r"(?:NMI )?(?:watchdog: )?(?:CPU\d+: )?Watchdog detected hard LOCKUP on cpu", Stack),
    rule(
        SplatKind::HardLockup,
        r"[wW]atchdog:? CPU[ :]\d+ (?:self-detected hard LOCKUP @ (?P<function>[A-Za-z_][\w.]*)\+0x|.*[hH]ard LOCKUP)",
        Maybe,
    ),
    // kernel/workqueue.c.
    rule(SplatKind::WorkqueueLockup, r"BUG: workqueue lockup - pool", Maybe).by(Culprit::Work),
    // kernel/hung_task.c.
    rule(SplatKind::HungTask, r"INFO: task (?P<task>.+:\d+) blocked (?:in I/O wait )?for more than \d+ seconds", Stack),
    rule(SplatKind::HungTask, r"INFO: task (?P<task>.+:\d+) can't die for more than \d+ seconds", Stack),
    // kernel/rcu/tree_stall.h, tree_exp.h.
    rule(SplatKind::RcuStall, r"(?:rcu: )?INFO: \w+ (?:self-)?detected (?:expedited )?stalls?\b", Maybe),
    // kernel/locking/lockdep.c, include/linux/rcupdate.h. Before Linux 4.11 they begin with INFO or BUG, in brackets.
    rule(
        SplatKind::Lockdep,
        r"(?:WARNING|\[ INFO): possible (?:circular locking|recursive locking|irq lock inversion)",
        Stack,
    ),
    rule(SplatKind::Lockdep, r"(?:WARNING|\[ INFO): \S+-safe -> \S+-unsafe lock order detected", Stack),
    rule(
        SplatKind::Lockdep,
        r"(?:WARNING|\[ INFO|\[ BUG): (?:inconsistent lock state|bad unlock balance detected)",
        Stack,
    ),
    rule(
        SplatKind::Lockdep,
        r"(?:WARNING|\[ INFO|\[ BUG): (?:suspicious RCU usage|Nested lock was not taken|held lock freed)",
        Stack,
    ),
    rule(SplatKind::Lockdep, r"(?:WARNING|\[ BUG): lock held (?:when returning to user space|at task exit)", Maybe)
        .by(Culprit::Holder),
    rule(SplatKind::Lockdep, r"(?:WARNING|\[ BUG): (?P<task>\S.*/\d+) still has locks held", Stack).by(Culprit::Holder),
    rule(SplatKind::Lockdep, r"\[ BUG: Invalid wait context \]", Stack),
    rule(SplatKind::Lockdep, r"INFO: trying to register non-static key", Stack),
    // kernel/panic.c, __warn(): that of 6.18 and later is the second form. If the architecture has only the address
    // of the report, the form of 6.19 and later names no function. With CONFIG_DEBUG_BUGVERBOSE_DETAILED the condition
    // precedes the file.
    rule(SplatKind::Warning, concat!(r"WARNING: CPU: \d+ PID: -?\d+ at (?:\[.*\] )?(?:\S+:\d+ )?", function!()), Stack),
    rule(
        SplatKind::Warning,
        concat!(r"WARNING: (?:\[.*\] )?\S+:\d+ at ", function!(), r"\S+, CPU#\d+: (?P<task>.+/-?\d+)"),
        Stack,
    ),
    rule(SplatKind::Warning, r"WARNING: (?:\[.*\] )?(?:\S+:\d+ )?at \S+, CPU#\d+: (?P<task>.+/-?\d+)", Stack),
    rule(SplatKind::Warning, r"WARNING: CPU: \d+ PID: -?\d+ at ", Stack),
    // Until Linux 3.10.
    rule(SplatKind::Warning, concat!(r"WARNING: at \S+:\d+ ", function!()), Stack),
    // arch/x86/kernel/unwind_frame.c.
    rule(SplatKind::Warning, r"WARNING: kernel stack (?:regs|frame pointer) (?:at )?.* has bad ", Maybe),
    // fs/sysfs/dir.c, sysfs_warn_dup(): until 4.14 it is the message of a WARN(), and since then no WARN().
    rule(SplatKind::Warning, r"sysfs: cannot create duplicate filename", Stack)
        .by(Culprit::Beyond(ADDERS))
        .or_message(),
    // lib/ubsan.c. Before 4.5 it is written out.
    rule(SplatKind::Ubsan, r"UBSAN: (?:\S+|Undefined behaviour) in ", Stack),
    rule(SplatKind::Ubsan, r"Internal error: UBSAN: ", Stack),
    // mm/kmemleak.c: what the console says, and what /sys/kernel/debug/kmemleak says.
    rule(SplatKind::MemoryLeak, r"kmemleak: \d+ new suspected memory leaks", Line),
    rule(SplatKind::MemoryLeak, r"(?:kmemleak: )?unreferenced object 0x[0-9a-f]+", Stack),
    rule(SplatKind::MemoryLeak, r"BUG: memory leak", Stack),
    // kernel/irq/spurious.c.
    rule(SplatKind::IrqNobodyCared, r"irq (?:event )?\d+: nobody cared", Stack).by(Culprit::Handlers),
    // drivers/iommu/intel/dmar.c: faults, and invalidations that a device does not answer.
    rule(SplatKind::IommuFault, r"(?:dmar: )?DMAR: ?\[[^\]]+\] ?Request device \[(?P<device>[0-9a-fx:.]+)\]", Line)
        .repeating(),
    rule(SplatKind::IommuFault, r"DMAR: VT-d detected (?:Invalidation|ITE|IQE|ICE)", Line).repeating(),
    // drivers/iommu/amd/iommu.c.
    rule(
        SplatKind::IommuFault,
        r"(?P<device>\S+ [0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]): AMD-Vi: Event logged \[",
        Line,
    )
    .repeating(),
    rule(SplatKind::IommuFault, r"(?:\S+ \S+: )?AMD-Vi: Event logged \[\w+(?: device=(?P<device>[0-9a-f:.]+))?", Line)
        .repeating(),
    rule(SplatKind::IommuFault, r"AMD-Vi: Completion-Wait loop timed out", Line).repeating(),
    // drivers/iommu/arm: arm-smmu-v3, arm-smmu. drivers/iommu/virtio-iommu.c.
    rule(SplatKind::IommuFault, r"(?P<device>arm-smmu\S* \S+): (?:\t)?event(?: 0x10 received|: F_)", Line).repeating(),
    rule(SplatKind::IommuFault, r"(?P<device>arm-smmu \S+): Unhandled context fault", Line).repeating(),
    rule(SplatKind::IommuFault, r"virtio_iommu \S+: \w+ fault from (?P<device>EP \d+)", Line).repeating(),
    // net/core/dev.c, netdev_wait_allrefs().
    rule(SplatKind::NetdevWait, r"unregister_netdevice: waiting for (?P<device>\S+) to become free", Maybe).repeating(),
    // arch/x86/mm/fault.c, arch/powerpc/mm/fault.c, arch/x86/kernel/{dumpstack,traps}.c.
    rule(
        SplatKind::Oops,
        r"BUG: (?:[kK]ernel NULL pointer dereference|[uU]nable to handle|.*stack guard page was hit)",
        Stack,
    ),
    rule(
        SplatKind::Oops,
        r"(?:Oops|general protection fault|divide error|double fault|stack segment)\b.*\[#\d+\]",
        Stack,
    ),
    // arch/x86/mm/kasan_init_64.c, until Linux 5.1: without a line feed before the headline.
    rule(SplatKind::Oops, r"kasan: GPF could be caused by .*general protection fault: .*\[#\d+\]", Stack),
    // The other exceptions, and those of s390: "int3: 0000 [#1]", "addressing exception: 0005 ilc:2 [#1]".
    rule(SplatKind::Oops, r"[a-z][a-z0-9 _-]+: [0-9a-f]{4} (?:ilc:\d )?\[#\d+\]", Stack),
    // arm64, riscv, s390; arm; mips, loongarch.
    rule(SplatKind::Oops, r"(?:CPU \d+ )?Unable to handle kernel ", Stack),
    rule(SplatKind::Oops, r"Unhandled fault: ", Stack),
    rule(SplatKind::Oops, r"Internal error: ", Stack),
    rule(SplatKind::Oops, r"Insufficient stack space to handle exception!", Stack),
    // mm/slub.c: it has no colon.
    rule(
        SplatKind::Bug,
        r"BUG \S+(?: \(.*\)|: (?:Poison|Redzone|Padding|Object|Invalid|Wrong|Freepointer|Freelist|Left|Right))",
        Maybe,
    )
    .by(Culprit::Object)
    .sparing(),
    // lib/bug.c, arch/mips and riscv, rust/kernel.
    rule(SplatKind::Bug, r"[kK]ernel (?:BUG at |BUG \[#|bug detected\[#)", Stack),
    rule(SplatKind::Bug, r"rust_kernel: panicked at ", Stack),
    // kernel/sched/core.c, lib/smp_processor_id.c, kernel/workqueue.c.
    rule(SplatKind::Bug, r"BUG: scheduling while atomic: (?P<task>.+/-?\d+)/0x", Stack).by(Culprit::Beyond(ALLOCATORS)),
    rule(SplatKind::Bug, r"BUG: (?:scheduling while atomic|sleeping function called)", Stack)
        .by(Culprit::Beyond(ALLOCATORS)),
    rule(SplatKind::Bug, r"BUG: using \w+\(\) in preemptible .* code: (?P<task>.+/\d+)", Stack),
    // fs/super.c, fs/open.c.
    rule(SplatKind::Bug, r"VFS: (?:Busy inodes after unmount|Close: file count is (?:0|zero))", Maybe).sparing(),
    // mm/, lib/, and all others that print BUG. "hogged CPU" is only advice about a long work item. A line with "possible
    // reason" belongs to the report before it.
    rule(SplatKind::Bug, r"BUG: ", Maybe).without(&["possible reason:", "hogged CPU"]),
];
