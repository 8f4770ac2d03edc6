//! Logs with known contents (`fixtures/`). These were captured from 6.12.117 in QEMU: `clean-boot`, `hung-task-*`,
//! `lockdep-*` except `lockdep-circular`, `oops-in-printk`, `panic-*`, `reboot`, `slub-double-free` and
//! `warning-fair-server`. `hung-task-with-holder` and
//! `lockdep-circular-7.3` are from 7.3.4. The others are written by hand in the kernel's formats.

mod collection;
mod forms;
mod garbled;
mod syzkaller;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::*;

fn fixture(name: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/classify/fixtures/{name}.log"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The splats of a fixture, each with its first and last line, so that people can check them.
fn described(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    let mut text = String::new();
    for splat in classify(log) {
        let severity = splat.severity();
        let Splat { kind, title, function, frames, task, holder, lines: range, corrupted, known, .. } = splat;
        writeln!(text, "{kind} ({severity:?}){}: {title}", if corrupted { " CORRUPTED" } else { "" }).unwrap();
        if let Some(known) = known {
            writeln!(text, "  known    {known}").unwrap();
        }
        writeln!(text, "  function {}", function.as_deref().unwrap_or("-")).unwrap();
        writeln!(text, "  task     {}", task.as_deref().unwrap_or("-").escape_debug()).unwrap();
        if let Some(holder) = holder {
            writeln!(text, "  waits    for {holder}").unwrap();
        }
        writeln!(text, "  frames   {}", frames.join(" < ")).unwrap();
        writeln!(text, "  from     {}: {}", range.start, lines[range.start].trim_end()).unwrap();
        writeln!(text, "  to       {}: {}", range.end - 1, lines[range.end - 1].trim_end()).unwrap();
    }
    text
}

/// The names of the files in a folder beside this file that have an ending, without the ending.
fn files(folder: &str, ending: &str) -> BTreeSet<String> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/classify").join(folder);
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter_map(|name| Some(name.strip_suffix(ending)?.to_owned())).collect()
}

#[test]
fn fixtures() {
    let fixtures = files("fixtures", ".log");
    for name in &fixtures {
        insta::assert_snapshot!(name.as_str(), described(&fixture(name)));
    }
    let snapshots: BTreeSet<_> = fixtures.iter().map(|name| format!("harness__classify__tests__{name}")).collect();
    assert_eq!(files("snapshots", ".snap"), snapshots, "each snapshot has its fixture");
}

/// The debug profile knows the lockdep reports on pciehp at each unplug and each plug, and a warning that is not about
/// PCI. It knows no other reports of lockdep.
#[test]
fn reports_that_the_debug_profile_knows() {
    let manifest = kernels::Manifest::load(std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../kernels")));
    let known = manifest.unwrap().under("debug").unwrap().profile.unwrap().known;
    let is_known = |name: &str| classify_knowing(&fixture(name), &known).first().unwrap().known.is_some();
    assert!(is_known("lockdep-reset-lock") && is_known("lockdep-reset-lock-plug"));
    assert!(is_known("warning-fair-server"));
    // The last one lists all held locks, which include both locks of pciehp.
    let others =
        ["lockdep-recursive", "lockdep-memory-lock", "lockdep-circular", "lockdep-igate", "hung-task-with-locks"];
    assert!(!others.into_iter().any(is_known));
}

#[test]
fn a_clean_boot_has_no_splats() {
    assert_eq!(classify(&fixture("clean-boot")), []);
}

/// A splat is found wherever the log ends, and there are no other splats.
#[test]
fn a_truncated_splat_is_found() {
    for name in ["oops", "kasan", "lockdep-recursive", "hung-task-numvfs", "warning-interleaved"] {
        let log = fixture(name);
        let whole = classify(&log);
        let first = whole.first().unwrap();
        for end in (first.lines.start + 4)..first.lines.end {
            let cut: String = log.lines().take(end).fold(String::new(), |cut, line| cut + line + "\n");
            let splats = classify(&cut);
            assert_eq!(splats.len(), 1, "{name} cut after line {end}: {splats:#?}");
            assert_eq!(splats[0].kind, first.kind, "{name} cut after line {end}");
            assert_eq!(splats[0].lines, first.lines.start..splats[0].lines.end, "{name} cut after line {end}");
        }
        let middle: String = log.lines().take(first.lines.start + 5).collect::<Vec<_>>().join("\n");
        assert!(classify(&middle)[0].corrupted, "{name}");
    }
}

#[test]
fn each_kind_of_log_has_its_severity() {
    let severity = |name: &str| classify(&fixture(name)).first().map(Splat::severity);
    for (name, expected) in [
        ("oops", Some(Severity::Fatal)),
        ("hung-task-numvfs", Some(Severity::Witness)),
        ("rcu-stall", Some(Severity::Fatal)),
        ("rcu-stall-of-the-host", Some(Severity::TestBed)),
        ("rcu-stall-of-a-starved-cpu", Some(Severity::TestBed)),
        ("panic-init-died", Some(Severity::TestBed)),
        ("reboot", Some(Severity::Fatal)),
        ("clean-boot", None),
    ] {
        assert_eq!(severity(name), expected, "{name}");
    }
}

#[test]
fn splats_of_one_line() {
    for (line, kind, task) in [
        ("BUG: MAX_LOCKDEP_CHAINS too low!", SplatKind::TestBed, None),
        ("agent[1]: segfault at 0 ip 0 sp 0 error 4", SplatKind::TestBed, Some("agent")),
        (
            "BUG: workqueue lockup - pool cpus=1 node=0 flags=0x0 nice=0 stuck for 41s!",
            SplatKind::WorkqueueLockup,
            None,
        ),
        ("BUG: Bad page state in process agent  pfn:03f21", SplatKind::Bug, None),
        ("PANIC: double fault, error_code: 0x0", SplatKind::Panic, None),
        (
            "WARNING: drivers/pci/iov.c:655 at sriov_disable+0x3d/0xd0, CPU#1: agent/37",
            SplatKind::Warning,
            Some("agent:37"),
        ),
        (
            "WARNING: [vf < 0] drivers/pci/iov.c:655 at sriov_disable+0x3d/0xd0, CPU#1: my agent/37",
            SplatKind::Warning,
            Some("my agent:37"),
        ),
        ("WARNING: lib/refcount.c:19 at 0x0, CPU#1: agent/37", SplatKind::Warning, Some("agent:37")),
        ("WARNING: kworker/0:1/12 still has locks held!", SplatKind::Lockdep, Some("kworker/0:1:12")),
        ("BUG: KMSAN: uninit-value in sriov_enable+0x1/0x2", SplatKind::Kasan, None),
        ("BUG: scheduling while atomic: my agent/37/0x00000002", SplatKind::Bug, Some("my agent:37")),
        ("int3: 0000 [#1] SMP", SplatKind::Oops, None),
        ("addressing exception: 0005 ilc:2 [#1] SMP", SplatKind::Oops, None),
        ("[ INFO: possible recursive locking detected ]", SplatKind::Lockdep, None),
        ("AMD-Vi: Completion-Wait loop timed out", SplatKind::IommuFault, None),
        (
            "iommu ivhd0: AMD-Vi: Event logged [IOTLB_INV_TIMEOUT device=0000:0b:00.0 address=0x100215ba0]",
            SplatKind::IommuFault,
            None,
        ),
        ("Watchdog CPU:59 Hard LOCKUP", SplatKind::HardLockup, None),
        ("Watchdog CPU:71 detected Hard LOCKUP other CPUS:42", SplatKind::HardLockup, None),
        ("watchdog: CPU 5 self-detected hard LOCKUP @ f+0x1/0x2", SplatKind::HardLockup, None),
        ("BUG kmalloc-64: Poison overwritten", SplatKind::Bug, None),
        ("BUG skbuff_head_cache (Tainted: P    B          ): Redzone overwritten", SplatKind::Bug, None),
        ("WARNING: at fs/sysfs/dir.c:491 sysfs_add_one+0xcc/0xe4()", SplatKind::Warning, None),
        ("NMI watchdog: Watchdog detected hard LOCKUP on cpu 144", SplatKind::HardLockup, None),
        (
            "NMI watchdog: BUG: soft lockup - CPU#1 stuck for 11s! [my agent:37]",
            SplatKind::SoftLockup,
            Some("my agent:37"),
        ),
    ] {
        let splats = classify(&format!("[    1.000000] {line}\n[    1.100000] igb: something else\n"));
        assert_eq!(splats.len(), 1, "{line}");
        assert_eq!(splats[0].kind, kind, "{line}");
        assert_eq!(splats[0].task.as_deref(), task, "{line}");
    }
}

#[test]
fn lines_that_are_similar_to_headlines_are_no_splats() {
    for line in [
        "ACPI BIOS Error (bug): Could not resolve symbol",
        "[Firmware Bug]: TSC_DEADLINE disabled",
        "WARNING: Flushing system-wide workqueues will be prohibited in near future.",
        "clocksource: timekeeping watchdog on CPU1: Marking clocksource 'tsc' as unstable because the skew is too large:",
        "agent: the kernel said BUG: x",
        "Disabling lock debugging due to kernel taint",
        "workqueue: ice_rx_dim_work [ice] hogged CPU for >10000us 4 times, consider switching to WQ_UNBOUND",
        "INFO: task a:1 is blocked on a mutex likely owned by task b:2.",
        "INFO: NMI handler (perf_event_nmi_handler) took too long to run: 1.356 msecs",
        "INFO: lockdep is turned off.",
        "WARNING: /etc/ssh/moduli does not exist, using fixed modulus",
        "DMAR: DRHD: handling fault status reg 2",
        "kmemleak: Kernel memory leak detector initialized (mem pool available: 15679)",
    ] {
        assert_eq!(classify(&format!("[    1.000000] {line}\n")), [], "{line}");
    }
}

/// The kernel goes on after these, and so does the task: it lets its locks go.
#[test]
fn which_reports_kill_the_task() {
    let kills = |name: &str| classify(&fixture(name)).iter().any(Splat::kills);
    for name in ["oops", "bug-list-corruption", "panic-sysrq"] {
        assert!(kills(name), "{name}");
    }
    for name in ["warning-interleaved", "kasan", "slub-double-free", "slub-freepointer", "soft-lockup"] {
        assert!(!kills(name), "{name}");
    }
    assert_eq!(headline_of_death("BUG: kernel NULL pointer dereference, address: 0"), Some(SplatKind::Oops));
    assert_eq!(headline_of_death("WARNING: CPU: 0 PID: 37 at fs/sysfs/dir.c:31 sysfs_warn_dup+0x5f/0x78"), None);
}

#[test]
fn stalls_are_the_hosts_if_the_guest_hardly_ran_and_nothing_else_is() {
    let blamed = |log: &str| {
        let mut found = classify(log);
        blame_host(&mut found);
        found[0].kind
    };
    assert_eq!(blamed(include_str!("fixtures/rcu-stall.log")), SplatKind::TestBed);
    assert_eq!(blamed(include_str!("fixtures/soft-lockup.log")), SplatKind::TestBed);
    assert_eq!(blamed(include_str!("fixtures/oops.log")), SplatKind::Oops);
}

/// A log that outlives the kernel tells of many boots.
#[test]
fn a_stored_log_has_no_unexpected_reboots() {
    let boot = |prefix: &str| format!("{prefix}Linux version 6.12\n{prefix}Command line: quiet\n").repeat(2);
    assert_eq!(classify(&boot("[    0.000000] ")).len(), 1);
    assert_eq!(classify(&boot("Dec 22 19:30:00 host kernel: ")), []);
}

/// What the kernel prints again and again is reported once for each cause.
#[test]
fn repeated_reports_are_one() {
    let log = fixture("iommu-faults");
    let devices: Vec<_> = classify(&log).into_iter().map(|splat| splat.function).collect();
    assert_eq!(devices.iter().filter(|device| device.as_deref() == Some("03:00.0")).count(), 1);
}
