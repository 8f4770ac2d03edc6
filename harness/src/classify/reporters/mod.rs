//! Which functions on a stack are not at fault.
//!
//! A name that ends with `*` stands for all names that begin so.

mod tables;

pub use tables::ALLOCATORS;
use tables::{CHECKERS, ENTRIES, INTERRUPTS, LIBRARY, REPORTERS, SYSTEM_CALLS};

use super::SplatKind;
use super::stack;

/// Whether a function only waits, or only reports a fault.
pub fn is_reporter(name: &str) -> bool {
    stack::is_primitive(name) || is_of(REPORTERS, name) || is_of(INTERRUPTS, name)
}

/// Whether a function may be named for a splat of this kind only if there is no other.
pub fn is_innocent(kind: SplatKind, name: &str) -> bool {
    let asked = matches!(kind, SplatKind::Warning | SplatKind::Lockdep | SplatKind::MemoryLeak)
        && (is_of(ALLOCATORS, name) || is_of(CHECKERS, name));
    asked || is_of(LIBRARY, name)
}

/// Whether a function interrupts what a CPU does.
pub fn is_interrupt(name: &str) -> bool {
    is_of(INTERRUPTS, name)
}

/// Whether a function is an entry of the kernel.
pub fn is_entry(name: &str) -> bool {
    is_of(ENTRIES, name) || is_system_call(name)
}

/// Whether a function is a system call.
pub fn is_system_call(name: &str) -> bool {
    is_of(SYSTEM_CALLS, name)
}

/// Whether a table has a name.
pub(super) fn is_of(table: &[&str], name: &str) -> bool {
    table.iter().any(|row| match row.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => name == *row,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_reports_is_not_who_is_at_fault() {
        for name in
            ["__ubsan_handle_shift_out_of_bounds", "refcount_warn_saturate", "rt_spin_lock", "nmi_panic", "mutex_lock"]
        {
            assert!(is_reporter(name), "{name}");
        }
        for name in ["string_to_handle", "pointer_of", "panic_event", "pci_epf_unbind", "nmi_handler_of_a_driver"] {
            assert!(!is_reporter(name), "{name}");
        }
    }

    #[test]
    fn an_allocator_that_warns_complains_of_its_caller() {
        assert!(is_innocent(SplatKind::Warning, "__alloc_pages_noprof"));
        assert!(!is_innocent(SplatKind::Oops, "__kmalloc_noprof"));
        assert!(is_innocent(SplatKind::Oops, "__list_add_valid_or_report"));
        assert!(!is_innocent(SplatKind::Oops, "kernfs_remove_by_name_ns"));
    }

    #[test]
    fn the_functions_of_known_bugs_can_be_at_fault() {
        // A report never names the others, so a bug with such a function would never be recognized.
        let bugs = kernels::Manifest::of_project().unwrap().bugs;
        let failures = bugs.iter().flat_map(|bug| bug.fails.iter().chain(bug.under.values().flatten()));
        let splats = failures.filter(|failure| failure.kind == kernels::FailureKind::KernelSplat);
        let names: Vec<_> = splats.map(|failure| failure.function.as_str()).collect();
        assert!(names.contains(&"klist_put"), "{names:?}");
        for name in names {
            assert!(!is_reporter(name) && !is_innocent(SplatKind::Oops, name), "{name}");
        }
    }

    #[test]
    fn no_name_is_in_a_table_twice() {
        for table in [REPORTERS, INTERRUPTS, LIBRARY, ALLOCATORS, CHECKERS, ENTRIES, SYSTEM_CALLS] {
            for (at, name) in table.iter().enumerate() {
                let other = table.iter().enumerate().any(|(other, row)| other != at && is_of(&[row], name));
                assert!(!other, "{name}");
            }
        }
    }
}
