//! The recorded guests, one for each kind of edge.

use std::collections::BTreeSet;

use super::*;

/// What is said of a fixture without lines of source.
fn text(release: &str, name: &str) -> String {
    words::text(&graph(release, name))
}

/// `numvfs_read::owner_rescans_on_removal` with `yank`.
#[test]
fn a_removal_waits_for_a_user_of_vfio_that_waits_for_the_device_lock() {
    insta::assert_snapshot!(text(LINUX_6_12, "vfio-user"), @r"
    deadlock:
      irq/25-pciehp (pid 39) [S] waits in vfio_unregister_group_dev for user space to close vfio device 0000:01:00.0, open in iov-own (pid 57)
      iov-own (pid 57) [D] waits in sriov_numvfs_show for device_lock of 0000:01:00.0, held by irq/25-pciehp (pid 39)
    ");
}

#[test]
fn stacks_have_lines_and_say_who_runs() {
    let mut graph = graph(LINUX_6_12, "vfio-user");
    let of_all = |addresses: &BTreeSet<u64>| addresses.iter().map(|&address| (address, "f.c:1".to_owned())).collect();
    graph.add_lines(|addresses| Ok::<_, ()>(of_all(addresses))).unwrap();
    let stacks = words::stacks(&graph);
    assert!(stacks.contains("\niov-own (pid 57) [D]\n    "), "{stacks}");
    assert!(stacks.contains("\n    sriov_numvfs_show (f.c:1)\n"), "{stacks}");
    assert!(stacks.lines().any(|line| line.ends_with(", on a CPU")), "{stacks}");
}

#[test]
fn a_graph_survives_json() {
    let graph = graph(LINUX_6_12, "vfio-user");
    let json = serde_json::to_string(&graph).unwrap();
    assert_eq!(serde_json::from_str::<Graph>(&json).unwrap(), graph);
}

/// The tasks on the cycle, and what a source line looks like.
#[test]
fn a_line_names_the_place_in_the_source() {
    let mut graph = graph(LINUX_6_12, "vfio-user");
    let reader = graph.wait(57).unwrap().at.returns_to - 1;
    let line = (reader, "drivers/pci/iov.c:401".to_owned());
    graph.add_lines(|addresses| if addresses.contains(&reader) { Ok([line].into()) } else { Err(()) }).unwrap();
    let cycle = &graph.deadlocks()[0];
    assert_eq!(
        words::line(&graph, cycle[1]),
        "iov-own (pid 57) [D] waits in sriov_numvfs_show (drivers/pci/iov.c:401) for device_lock of 0000:01:00.0, \
         held by irq/25-pciehp (pid 39)"
    );
}

/// `reset::owner_closes_while_two_slots_unplug`: three tasks, and an rwsem that is held for reading.
#[test]
fn a_reset_waits_for_the_reader_of_a_slot_s_reset_lock() {
    insta::assert_snapshot!(text(LINUX_6_12, "rwsem-reader"), @r"
    deadlock:
      irq/25-pciehp (pid 39) [D] waits in pci_lock_rescan_remove for pci_rescan_remove_lock, held by irq/26-pciehp (pid 41)
      irq/26-pciehp (pid 41) [S] waits in vfio_unregister_group_dev for user space to close vfio device 0000:02:00.0, open in iov-own (pid 65)
      iov-own (pid 65) [D] waits in pciehp_reset_slot for reset_lock of slot 1 for write, held by irq/25-pciehp (pid 39) (for reading, 1 reader, exact)
    ");
}

/// `nested_hotplug::button_below_removed_port`.
#[test]
fn a_removal_waits_for_the_thread_of_an_interrupt() {
    insta::assert_snapshot!(text(LINUX_6_12, "irq-thread"), @r"
    deadlock:
      irq/27-pciehp (pid 43) [D] waits in pci_lock_rescan_remove for pci_rescan_remove_lock, held by iov-write (pid 70)
      iov-write (pid 70) [D] waits in free_irq for 1 threaded handler of irq 27 to end, which is irq/27-pciehp (pid 43)
    ");
}

/// `aer::error_while_vfs_are_added`.
#[test]
fn an_added_device_waits_for_the_reader_of_a_global_rwsem() {
    insta::assert_snapshot!(text(LINUX_6_12, "global-rwsem"), @r"
    deadlock:
      irq/25-aerdrv (pid 38) [D] waits in report_error_detected for device_lock of 0000:01:00.0, held by iov-write (pid 55)
      iov-write (pid 55) [D] waits in pci_device_add for pci_bus_sem for write, held by irq/25-aerdrv (pid 38) (for reading, 1 reader, exact)
    ");
}

/// `nested_hotplug::power_off_below_removed_port`.
#[test]
fn a_removal_waits_for_a_write_to_a_file_of_sysfs_that_waits_for_a_slot() {
    insta::assert_snapshot!(text(LINUX_6_12, "kernfs"), @r"
    deadlock:
      irq/27-pciehp (pid 43) [D] waits in pci_lock_rescan_remove for pci_rescan_remove_lock, held by iov-write (pid 70)
      iov-write (pid 70) [D] waits in kernfs_drain for 1 user of /sys/bus/pci/slots/10/power to leave it, in it: iov-write (pid 74)
      iov-write (pid 74) [D] waits in pciehp_sysfs_disable_slot for the thread of slot 10 to do it, which is irq/27-pciehp (pid 43)
    ");
}

/// `reset::function_reset_while_vfs_are_enabled` on `cfg-lock-outside`. The kernel does not record who blocks accesses.
#[test]
fn who_blocks_config_accesses_is_a_guess() {
    insta::assert_snapshot!(text(LINUX_6_12, "config-access"), @r"
    perhaps a deadlock:
      iov-cycle (pid 58) [D] waits in pci_reset_function for device_lock of 0000:01:00.0, held by iov-write (pid 60)
      iov-write (pid 60) [D] waits in pci_wait_cfg for config accesses of 0000:01:00.0 to be unblocked, probably blocked by iov-cycle (pid 58)
    ");
}

/// `reset::owner_closes_while_two_slots_unplug` on 7.3: locks have no list heads, and tasks say what they wait for.
#[test]
fn locks_of_7_3_are_found_by_what_tasks_say() {
    insta::assert_snapshot!(text(LINUX_7_3, "rwsem-reader-7.3"), @r"
    deadlock:
      irq/25-pciehp (pid 42) [D] waits in pci_lock_rescan_remove for pci_rescan_remove_lock, held by irq/26-pciehp (pid 44)
      irq/26-pciehp (pid 44) [S] waits in vfio_unregister_group_dev for user space to close vfio device 0000:02:00.0, open in iov-own (pid 66)
      iov-own (pid 66) [D] waits in pciehp_reset_slot for reset_lock of slot 1 for write, held by irq/25-pciehp (pid 42) (for reading, 1 reader, exact)
    ");
}

/// `numvfs_read::owner_rescans_on_removal` with `yank` on 6.1, where the private data of vfio's files is the device.
#[test]
fn users_of_vfio_are_found_on_6_1() {
    insta::assert_snapshot!(text(LINUX_6_1, "vfio-user-6.1"), @r"
    deadlock:
      irq/25-pciehp (pid 31) [S] waits in vfio_unregister_group_dev for user space to close vfio device 0000:01:00.0, open in iov-own (pid 47)
      iov-own (pid 47) [D] waits in sriov_numvfs_show for device_lock of 0000:01:00.0, held by irq/25-pciehp (pid 31)
    ");
}

/// The same on Debian's kernel, whose vfio is in modules, and whose stacks are unwound by objtool's tables.
#[test]
fn a_kernel_with_modules_and_without_frame_pointers_is_read() {
    let graph = graph(DEBIAN_6_12, "vfio-user-debian");
    insta::assert_snapshot!(words::text(&graph), @r"
    deadlock:
      irq/25-pciehp (pid 64) [S] waits in vfio_unregister_group_dev for user space to close vfio device 0000:01:00.0, open in iov-own (pid 151)
      iov-own (pid 151) [D] waits in sriov_numvfs_show for device_lock of 0000:01:00.0, held by irq/25-pciehp (pid 64)
    ");
    let remover = graph.task(64).unwrap();
    let stack: Vec<_> = remover.stack.iter().map(|call| call.function.as_str()).collect();
    insta::assert_snapshot!(stack.join(" "), @"__schedule schedule schedule_timeout __wait_for_common vfio_unregister_group_dev vfio_pci_core_unregister_device vfio_pci_remove pci_device_remove device_release_driver_internal pci_stop_bus_device pci_stop_and_remove_bus_device pciehp_unconfigure_device pciehp_disable_slot pciehp_handle_presence_or_link_change pciehp_ist irq_thread_fn irq_thread kthread ret_from_fork ret_from_fork_asm");
}

/// `numvfs_events::pf_uevent`, which passes.
#[test]
fn nobody_waits_in_a_guest_that_goes_on() {
    let graph = graph(LINUX_6_12, "nothing-waits");
    assert_eq!(words::text(&graph), "");
    assert!(graph.tasks.len() > 40, "the tasks were found");
    let reader = graph.waits.iter().find(|wait| wait.at.function == "devkmsg_read").unwrap();
    assert_eq!(reader.object, Object::Queue { name: "log_wait".to_owned() });
}
