//! Which structs and members are read from a kernel, and what for: the one list of them.
//!
//! Whoever reads the memory of a guest finds its way with these. A member that only some versions or configurations of
//! the kernel have is listed as well; in the others it is absent.

/// A struct, and those of its members that are read.
#[derive(Debug)]
pub struct Struct {
    /// Its name, without `struct`.
    pub name: &'static str,
    /// What it is read for.
    pub about: &'static str,
    /// Its members, and what each is read for. A dot leads into a member that is a struct itself.
    pub members: &'static [(&'static str, &'static str)],
}

/// The structs whose layout is read, in the order of their names.
pub const STRUCTS: &[Struct] = &[
    Struct { name: "bus_type", about: "whose device it is", members: &[("name", "the name of the bus")] },
    Struct {
        name: "completion",
        about: "the users of a vfio device, the end of a kernel thread or of a work item",
        members: &[("done", "how many waiters may go on"), ("wait.task_list", "head of the list of waiters")],
    },
    Struct {
        name: "controller",
        about: "pciehp's slot (`drivers/pci/hotplug/pciehp.h`)",
        members: &[
            ("hotplug_slot", "leads to the name of the slot"),
            ("ist_running", "whether the thread of the slot runs"),
            ("pending_events", "what the thread of the slot has yet to do"),
            ("requester", "wait queue of those who asked the thread of the slot for something"),
            ("reset_lock", "the rwsem that gives it away as a controller"),
            ("state_lock", "the mutex that gives it away as a controller"),
        ],
    },
    Struct {
        name: "device",
        about: "whose `device_lock` a mutex is",
        members: &[
            ("bus", "leads to the name of its bus"),
            ("kobj", "leads to its name"),
            ("kobj.kref", "how many use it: 0 if it is freed"),
            ("kobj.ktype", "is `device_ktype`: proves that the memory is a device"),
            ("kobj.sd", "its folder in sysfs, until it is removed"),
            ("mutex", "the device_lock"),
        ],
    },
    Struct {
        name: "fdtable",
        about: "the open files of a process",
        members: &[("fd", "array of pointers to files"), ("max_fds", "length of the array")],
    },
    Struct {
        name: "file",
        about: "whether an open file is a vfio device",
        members: &[
            ("f_op", "is `vfio_device_fops` for a vfio device"),
            ("private_data", "the vfio_device_file, or until 6.5 the vfio_device"),
        ],
    },
    Struct { name: "files_struct", about: "the open files of a process", members: &[("fdt", "leads to the fdtable")] },
    Struct {
        name: "held_lock",
        about: "a lock that a task holds, with lockdep",
        members: &[("instance", "the lockdep_map of the lock")],
    },
    Struct {
        name: "hotplug_slot",
        about: "the name of pciehp's slot",
        members: &[("pci_slot", "leads to the pci_slot")],
    },
    Struct {
        name: "inactive_task_frame",
        about: "what a task that does not run has on top of its stack",
        members: &[("bp", "frame pointer"), ("ret_addr", "where the task goes on")],
    },
    Struct {
        name: "irq_desc",
        about: "who waits for the threaded handlers of an interrupt",
        members: &[
            ("irq_data.irq", "number of the interrupt"),
            ("threads_active", "how many handlers run"),
            ("wait_for_threads", "wait queue of `synchronize_irq`"),
        ],
    },
    Struct {
        name: "irqaction",
        about: "what the thread of an interrupt works for: its `kthread.data`",
        members: &[("dev_id", "for pciehp the controller"), ("irq", "number of the interrupt")],
    },
    Struct {
        name: "kernfs_node",
        about: "a file of sysfs, and who is in it",
        members: &[
            ("__parent", "its folder, since 6.15"),
            ("active", "how many are in it; negative while it is removed"),
            ("name", "its name"),
            ("parent", "its folder, until 6.14"),
        ],
    },
    Struct {
        name: "kernfs_open_file",
        about: "which file of sysfs a task reads or writes",
        members: &[("file", "the open file"), ("kn", "the file"), ("mutex", "one reader or writer at a time")],
    },
    Struct {
        name: "kmem_cache",
        about: "the objects of one size or kind (private to `mm/slub.c`)",
        members: &[
            ("cpu_sheaves", "free objects of each CPU, since 6.18"),
            ("cpu_slab", "leads to the slab of each CPU, until 6.19 and without SLUB_TINY"),
            ("list", "node in `slab_caches`"),
            ("name", "its name"),
            ("offset", "where the pointer to the next free object is in an object"),
            ("random", "with what that pointer is mixed, with SLAB_FREELIST_HARDENED"),
            ("size", "the distance from an object to the next"),
        ],
    },
    Struct {
        name: "kmem_cache_cpu",
        about: "the slab that a CPU allocates from",
        members: &[("freelist", "the first free object in it")],
    },
    Struct { name: "kobject", about: "names of devices and slots", members: &[("name", "the name")] },
    Struct {
        name: "kthread",
        about: "a kernel thread (private to `kernel/kthread.c`)",
        members: &[
            ("data", "the irqaction of an interrupt's thread, the worker of a kworker"),
            ("exited", "the completion that `kthread_stop` waits for"),
        ],
    },
    Struct {
        name: "list_head",
        about: "all lists",
        members: &[("next", "the node after it"), ("prev", "the node before it")],
    },
    Struct { name: "lockdep_map", about: "names of locks, with lockdep", members: &[("name", "the name of the lock")] },
    Struct { name: "mm_struct", about: "whose mmap_lock an rwsem is", members: &[("mmap_lock", "the rwsem")] },
    Struct {
        name: "mod_kallsyms",
        about: "the symbols of a module",
        members: &[("num_symtab", "how many"), ("strtab", "their names"), ("symtab", "their ELF symbols")],
    },
    Struct {
        name: "module",
        about: "the functions of modules, and their stacks",
        members: &[
            ("arch.num_orcs", "how many entries of ORC it has"),
            ("arch.orc_unwind", "its entries of ORC"),
            ("arch.orc_unwind_ip", "the addresses of these entries"),
            ("kallsyms", "leads to the mod_kallsyms"),
            ("list", "node in `modules`"),
            ("name", "its name"),
        ],
    },
    Struct {
        name: "mutex",
        about: "who holds a mutex, and who waits for it",
        members: &[
            ("dep_map", "its name, with lockdep"),
            ("first_waiter", "the first who waits, since 7.1"),
            ("owner", "the task that holds it, with flags in the low 3 bits"),
            ("wait_list", "head of the list of waiters, until 7.0"),
        ],
    },
    Struct {
        name: "mutex_waiter",
        about: "on the stack of a task that waits for a mutex",
        members: &[("list", "node in the list of waiters"), ("task", "the task")],
    },
    Struct {
        name: "page",
        about: "the array of all pages, in which the slabs are",
        members: &[("flags", "gives the struct away: only its size is used")],
    },
    Struct {
        name: "pci_dev",
        about: "which PCI device a stack is about",
        members: &[("dev", "the device in it"), ("enable_cnt", "how many have enabled it")],
    },
    Struct {
        name: "pci_slot",
        about: "the name of pciehp's slot",
        members: &[
            ("hotplug", "leads back to the hotplug_slot: proves that the memory is a pci_slot"),
            ("kobj", "leads to its name"),
        ],
    },
    Struct {
        name: "rt_mutex_base",
        about: "who holds a mutex, with PREEMPT_RT",
        members: &[("owner", "the task that holds it, with a flag in the low bit")],
    },
    Struct {
        name: "rt_mutex_waiter",
        about: "where `task_struct.pi_blocked_on` leads",
        members: &[("lock", "the rt_mutex_base that the task waits for"), ("task", "the task")],
    },
    Struct {
        name: "rw_semaphore",
        about: "who holds an rwsem, and who waits for it",
        members: &[
            ("count", "bit 0: a writer has it; from bit 8 on: how many readers"),
            ("dep_map", "its name, with lockdep"),
            ("first_waiter", "the first who waits, since 7.1"),
            ("owner", "the writer, or the last reader, with flags in the low 3 bits"),
            ("wait_list", "head of the list of waiters, until 7.0"),
        ],
    },
    Struct {
        name: "rwsem_waiter",
        about: "on the stack of a task that waits for an rwsem (private to `kernel/locking/rwsem.c`)",
        members: &[("list", "node in the list of waiters"), ("task", "the task"), ("type", "0: it waits to write")],
    },
    Struct {
        name: "semaphore",
        about: "who waits for a semaphore",
        members: &[
            ("count", "how often it can be taken"),
            ("first_waiter", "the first who waits, since 7.1"),
            ("last_holder", "who took it last, since 6.16 with DETECT_HUNG_TASK_BLOCKER"),
            ("wait_list", "head of the list of waiters, until 7.0"),
        ],
    },
    Struct {
        name: "semaphore_waiter",
        about: "on the stack of a task that waits for a semaphore (private to `kernel/locking/semaphore.c`)",
        members: &[("list", "node in the list of waiters"), ("task", "the task")],
    },
    Struct {
        name: "signal_struct",
        about: "the threads of a process",
        members: &[("thread_head", "head of the list of threads")],
    },
    Struct {
        name: "slab",
        about: "pages with objects of one cache",
        members: &[
            ("counters", "how many objects it has, and how many of them are in use"),
            ("slab_cache", "the kmem_cache"),
        ],
    },
    Struct {
        name: "swait_queue",
        about: "on the stack of a task that waits for a completion",
        members: &[("task", "the task"), ("task_list", "node in the list of waiters")],
    },
    Struct {
        name: "task_struct",
        about: "what each task does, and what it waits for",
        members: &[
            ("__state", "whether it sleeps, since 5.14"),
            ("blocked_lock", "with it, `blocked_on` is the mutex and not a waiter"),
            ("blocked_on", "the mutex that it waits for"),
            ("blocker", "the lock that it waits for, since 6.14 with DETECT_HUNG_TASK_BLOCKER"),
            ("comm", "its name"),
            ("files", "leads to its open files"),
            ("flags", "whether it is a kernel thread or a kworker"),
            ("held_locks", "the locks that it holds, with lockdep"),
            ("lockdep_depth", "how many of these there are"),
            ("mm", "its address space"),
            ("nivcsw", "how often it was preempted"),
            ("nvcsw", "how often it went to sleep"),
            ("on_cpu", "whether it runs"),
            ("pi_blocked_on", "the rt_mutex_waiter with which it waits"),
            ("pid", "its number"),
            ("set_child_tid", "leads to the kthread, until 5.16"),
            ("signal", "leads to its threads"),
            ("stack", "the low end of its stack"),
            ("state", "whether it sleeps, until 5.13"),
            ("tasks", "node in the list of processes, which begins at `init_task`"),
            ("tgid", "number of its process"),
            ("thread.sp", "stack pointer while it does not run"),
            ("thread_node", "node in the list of threads"),
            ("worker_private", "leads to the kthread, since 5.17"),
        ],
    },
    Struct {
        name: "vfio_device",
        about: "who has to close a vfio device that goes away",
        members: &[
            ("comp", "the completion that `vfio_unregister_group_dev` waits for"),
            ("dev", "leads to the PCI device"),
            ("open_count", "how often it is open"),
        ],
    },
    Struct {
        name: "vfio_device_file",
        about: "which vfio device is open, since 6.6",
        members: &[("device", "the vfio_device")],
    },
    Struct {
        name: "wait_queue_entry",
        about: "on the stack of a task that waits in a wait queue",
        members: &[("entry", "node in the queue"), ("private", "the task")],
    },
    Struct { name: "wait_queue_head", about: "wait queues", members: &[("head", "head of the list of waiters")] },
    Struct { name: "work_struct", about: "work items", members: &[("entry", "node in the list of work")] },
    Struct {
        name: "worker",
        about: "what a kworker works on",
        members: &[
            ("current_func", "the function that runs"),
            ("current_work", "the work item"),
            ("scheduled", "head of the list of its work"),
        ],
    },
    Struct {
        name: "wq_barrier",
        about: "on the stack of a task that flushes a work item (private to `kernel/workqueue.c`)",
        members: &[("done", "the completion that it waits for"), ("work", "the work item that ends the flush")],
    },
];

/// Whether the list has a member.
pub(super) fn has(name: &str, member: &str) -> bool {
    struct_of(name).is_some_and(|one| one.members.iter().any(|(known, _)| *known == member))
}

/// The struct of a name in the list.
pub(super) fn struct_of(name: &str) -> Option<&'static Struct> {
    STRUCTS.iter().find(|one| one.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted_and_has_nothing_twice() {
        assert!(STRUCTS.is_sorted_by(|one, next| one.name < next.name));
        for one in STRUCTS {
            assert!(one.members.is_sorted_by(|(name, _), (next, _)| name < next), "{}", one.name);
        }
    }
}
