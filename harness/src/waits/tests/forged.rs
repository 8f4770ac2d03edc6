//! Waits of which no real guest was recorded, in forged guests.

use super::forge::{Forge, Forged};
use super::*;

const RUNNING: u32 = 0;
const INTERRUPTIBLE: u32 = 1;
const UNINTERRUPTIBLE: u32 = 2;
const WAKING: u32 = 0x200;
const KTHREAD: u32 = 0x0020_0000;
const WORKER: u32 = 0x20;

const MUTEX: [&str; 4] = ["__schedule", "schedule_preempt_disabled", "__mutex_lock.constprop.0", "takes_it"];
const COMPLETION: [&str; 4] = ["__schedule", "schedule_timeout", "wait_for_completion", "kthread_stop"];

fn forge() -> Forge {
    Forge::new(layout(LINUX_6_12))
}

/// A global mutex with these waiters, in this order.
fn mutex(forge: &mut Forge, owner: u64, waiters: &[Forged]) -> u64 {
    let lock = forge.variable("some_mutex");
    forge.set(lock, "mutex", "owner", owner);
    let mut nodes = vec![lock + forge.offset("mutex", "wait_list")];
    nodes.extend(waiters.iter().map(|task| forge.waiter(*task, 2, "mutex_waiter", "list", "task")));
    forge.link(&nodes);
    lock
}

/// All waits, in words.
fn said(graph: &Graph) -> Vec<String> {
    graph.waits.iter().map(|wait| words::line(graph, wait)).collect()
}

#[test]
fn a_mutex_is_held_by_its_owner() {
    let mut forge = forge();
    let holder = forge.task(7, "holder", INTERRUPTIBLE, &["__schedule", "schedule", "pipe_read"]);
    let waiter = forge.task(9, "waiter", UNINTERRUPTIBLE, &MUTEX);
    mutex(&mut forge, holder.address | 1, &[waiter]);
    let graph = forge.graph();
    assert_eq!(said(&graph), ["waiter (pid 9) [D] waits in takes_it for some_mutex, held by holder (pid 7)"]);
    assert_eq!(
        words::text(&graph),
        "others that wait:\n  \
           waiter (pid 9) [D] waits in takes_it for some_mutex, held by holder (pid 7)\n\
         they wait for tasks of which no further wait is known:\n  \
           holder (pid 7) [S] sleeps in pipe_read\n"
    );
}

/// A waiter that has been woken is still in the list. It is not taken for the lock.
#[test]
fn the_lock_is_found_past_a_waiter_that_was_woken() {
    let mut forge = forge();
    let woken = forge.task(5, "woken", WAKING, &MUTEX);
    let runs = forge.task(6, "runs", RUNNING, &MUTEX);
    let waiter = forge.task(9, "waiter", UNINTERRUPTIBLE, &MUTEX);
    mutex(&mut forge, runs.address, &[woken, runs, waiter]);
    assert_eq!(said(&forge.graph()), ["waiter (pid 9) [D] waits in takes_it for some_mutex, held by runs (pid 6)"]);
}

/// `MUTEX_FLAG_PICKUP`: the new owner is being woken, and seems to wait for itself.
#[test]
fn a_mutex_that_is_handed_over_has_no_holder() {
    let mut forge = forge();
    let waiter = forge.task(9, "waiter", UNINTERRUPTIBLE, &MUTEX);
    mutex(&mut forge, waiter.address | 4, &[waiter]);
    let graph = forge.graph();
    assert_eq!(said(&graph), ["waiter (pid 9) [D] waits in takes_it for some_mutex, which is free now"]);
    assert!(graph.deadlocks().is_empty());
}

#[test]
fn the_owner_of_a_mutex_may_be_gone() {
    let mut forge = forge();
    let waiter = forge.task(9, "waiter", UNINTERRUPTIBLE, &MUTEX);
    let gone = forge.object();
    mutex(&mut forge, gone, &[waiter]);
    assert_eq!(
        said(&forge.graph()),
        ["waiter (pid 9) [D] waits in takes_it for some_mutex, held by a task that is gone"]
    );
}

#[test]
fn a_task_that_takes_a_mutex_twice_is_a_deadlock() {
    let mut forge = forge();
    let waiter = forge.task(9, "waiter", UNINTERRUPTIBLE, &MUTEX);
    mutex(&mut forge, waiter.address | 1, &[waiter]);
    assert_eq!(forge.graph().deadlocks().len(), 1);
}

/// Since 7.1, a lock only points to its first waiter. If the task does not record the lock, it is on the stack.
#[test]
fn a_lock_without_a_list_is_found_by_the_waiter_s_stack() {
    let mut forge = Forge::new(layout(LINUX_7_3));
    let holder = forge.task(7, "holder", INTERRUPTIBLE, &["__schedule", "schedule", "pipe_read"]);
    let waiter = forge.task(9, "waiter", UNINTERRUPTIBLE, &MUTEX);
    let lock = forge.variable("some_mutex");
    let node = forge.waiter(waiter, 2, "mutex_waiter", "list", "task");
    forge.link(&[node]);
    forge.set(lock, "mutex", "owner", holder.address);
    forge.set(lock, "mutex", "first_waiter", waiter.local(2));
    forge.word(waiter.local(3), lock);
    assert_eq!(said(&forge.graph()), ["waiter (pid 9) [D] waits in takes_it for some_mutex, held by holder (pid 7)"]);
}

#[test]
fn nobody_is_known_to_hold_a_semaphore() {
    let mut forge = forge();
    let waiter =
        forge.task(9, "waiter", UNINTERRUPTIBLE, &["__schedule", "schedule_timeout", "__down", "down", "takes_it"]);
    let lock = forge.variable("some_semaphore");
    let node = forge.waiter(waiter, 2, "semaphore_waiter", "list", "task");
    let head = lock + forge.offset("semaphore", "wait_list");
    forge.link(&[head, node]);
    assert_eq!(said(&forge.graph()), ["waiter (pid 9) [D] waits in takes_it for some_semaphore, held by nobody known"]);
}

/// A global rwsem with these waiters: whether each wants to write.
fn rwsem(forge: &mut Forge, count: u64, owner: u64, waiters: &[(Forged, bool)]) {
    let lock = forge.variable("some_rwsem");
    forge.set(lock, "rw_semaphore", "count", count);
    forge.set(lock, "rw_semaphore", "owner", owner);
    let mut nodes = vec![lock + forge.offset("rw_semaphore", "wait_list")];
    for (task, writes) in waiters {
        nodes.push(forge.waiter(*task, 2, "rwsem_waiter", "list", "task"));
        forge.set_int(task.local(2), "rwsem_waiter", "type", u32::from(!writes));
    }
    forge.link(&nodes);
}

const DOWN_WRITE: [&str; 4] = ["__schedule", "schedule_preempt_disabled", "rwsem_down_write_slowpath", "writes"];
const DOWN_READ: [&str; 4] = ["__schedule", "schedule_preempt_disabled", "rwsem_down_read_slowpath", "reads"];

#[test]
fn an_rwsem_is_held_by_its_writer_and_a_writer_that_waits_comes_before_readers() {
    let mut forge = forge();
    let holder = forge.task(5, "holder", INTERRUPTIBLE, &["__schedule", "schedule", "pipe_read"]);
    let writer = forge.task(7, "writer", UNINTERRUPTIBLE, &DOWN_WRITE);
    let reader = forge.task(9, "reader", UNINTERRUPTIBLE, &DOWN_READ);
    rwsem(&mut forge, 1 | 2, holder.address, &[(writer, true), (reader, false)]);
    assert_eq!(
        said(&forge.graph()),
        [
            "writer (pid 7) [D] waits in writes for some_rwsem for write, held by holder (pid 5)",
            "reader (pid 9) [D] waits in reads for some_rwsem for read, held by holder (pid 5), \
             behind writer (pid 7) in the queue"
        ]
    );
}

/// A reader that is first takes all readers with it.
#[test]
fn a_reader_does_not_wait_for_a_reader_before_it() {
    let mut forge = forge();
    let one = forge.task(7, "one", UNINTERRUPTIBLE, &DOWN_READ);
    let other = forge.task(9, "other", UNINTERRUPTIBLE, &DOWN_READ);
    rwsem(&mut forge, 2, one.address, &[(one, false), (other, false)]);
    let graph = forge.graph();
    assert_eq!(
        said(&graph),
        [
            "one (pid 7) [D] waits in reads for some_rwsem for read, which is free now",
            "other (pid 9) [D] waits in reads for some_rwsem for read, which is free now"
        ]
    );
}

/// The last task that took an rwsem for reading may have released it. It sleeps in a function that takes it, or not.
#[test]
fn a_reader_is_exact_only_if_its_code_takes_the_lock() {
    for (function, said_of_it) in [
        ("takes_for_read", "held by reader (pid 5) (for reading, 1 reader, exact)"),
        ("takes_another", "probably held by reader (pid 5) (for reading, 1 reader, a guess)"),
    ] {
        let mut forge = forge();
        let reader = forge.task(5, "reader", INTERRUPTIBLE, &["__schedule", "schedule", function]);
        let writer = forge.task(7, "writer", UNINTERRUPTIBLE, &DOWN_WRITE);
        rwsem(&mut forge, 0x100 | 2, reader.address | 1, &[(writer, true)]);
        let lock = forge.variable("some_rwsem");
        let (takes, another) = (forge.function("takes_for_read"), forge.function("takes_another"));
        call_down_read(&mut forge, takes, lock);
        call_down_read(&mut forge, another, lock + 0x1000);
        assert_eq!(
            said(&forge.graph()),
            [format!("writer (pid 7) [D] waits in writes for some_rwsem for write, {said_of_it}")]
        );
    }
}

/// `mov $lock, %rdi; call down_read`, in the middle of a function.
fn call_down_read(forge: &mut Forge, function: u64, lock: u64) {
    let at = function + 0x40;
    let target = forge.function("down_read");
    let mut code = vec![0x48, 0xc7, 0xc7];
    code.extend((lock as u32).to_le_bytes());
    code.push(0xe8);
    code.extend((target.wrapping_sub(at + 12) as u32).to_le_bytes());
    forge.write(at, &code);
}

/// A completion with this waiter, at this address.
fn completion(forge: &mut Forge, completion: u64, waiter: Forged) {
    let node = forge.waiter(waiter, 2, "swait_queue", "task_list", "task");
    let head = completion + forge.offset("completion", "wait.task_list");
    forge.link(&[head, node]);
}

/// A kernel thread with a `struct kthread`, which is returned.
fn kernel_thread(forge: &mut Forge, task: Forged, flags: u32) -> u64 {
    let kthread = forge.object();
    forge.set_int(task.address, "task_struct", "flags", KTHREAD | flags);
    forge.set(task.address, "task_struct", "worker_private", kthread);
    kthread
}

#[test]
fn kthread_stop_waits_for_its_thread() {
    let mut forge = forge();
    let thread = forge.task(5, "thread", INTERRUPTIBLE, &["__schedule", "schedule", "works"]);
    let kthread = kernel_thread(&mut forge, thread, 0);
    let waiter = forge.task(9, "waiter", UNINTERRUPTIBLE, &COMPLETION);
    let exited = kthread + forge.offset("kthread", "exited");
    completion(&mut forge, exited, waiter);
    let said_of_it = "waiter (pid 9) [D] waits in kthread_stop for thread thread to end, which is thread (pid 5)";
    assert_eq!(said(&forge.graph()), [said_of_it]);
}

#[test]
fn a_completion_that_is_done_keeps_nobody() {
    let mut forge = forge();
    let waiter = forge.task(9, "waiter", UNINTERRUPTIBLE, &COMPLETION);
    let done = forge.variable("some_completion");
    completion(&mut forge, done, waiter);
    forge.set_int(done, "completion", "done", 1);
    assert!(forge.graph().waits.is_empty());
}

#[test]
fn a_completion_without_a_rule_has_a_name_and_no_edge() {
    let mut forge = forge();
    let waiter = forge.task(9, "waiter", UNINTERRUPTIBLE, &COMPLETION);
    let done = forge.variable("some_completion");
    completion(&mut forge, done, waiter);
    let said_of_it = "waiter (pid 9) [D] waits in kthread_stop for some_completion, which comes from nobody known";
    assert_eq!(said(&forge.graph()), [said_of_it]);
}

#[test]
fn a_flush_waits_for_the_worker_that_has_its_barrier() {
    let mut forge = forge();
    let worker_task = forge.task(5, "kworker/0:1", UNINTERRUPTIBLE, &["__schedule", "schedule", "some_work"]);
    let kthread = kernel_thread(&mut forge, worker_task, WORKER);
    let flush = ["__schedule", "schedule_timeout", "wait_for_completion", "__flush_work", "flush_work", "flushes"];
    let waiter = forge.task(9, "waiter", UNINTERRUPTIBLE, &flush);
    let worker = forge.object();
    forge.set(kthread, "kthread", "data", worker);
    let function = forge.function("some_work");
    forge.set(worker, "worker", "current_func", function);
    // The barrier is on the waiter's stack.
    let barrier = waiter.local(3);
    let entry = barrier + forge.offset("wq_barrier", "work") + forge.offset("work_struct", "entry");
    let scheduled = worker + forge.offset("worker", "scheduled");
    forge.link(&[scheduled, entry]);
    let done = barrier + forge.offset("wq_barrier", "done");
    completion(&mut forge, done, waiter);
    assert_eq!(
        said(&forge.graph()),
        ["waiter (pid 9) [D] waits in __flush_work for work some_work to end, run by kworker/0:1 (pid 5)"]
    );
}

/// Preempted between the change of its state and the switch: an interrupt's registers are between the frames.
#[test]
fn the_stack_of_a_preempted_task_is_read_through_the_interrupt() {
    let mut forge = forge();
    let waiter = forge.task(9, "waiter", UNINTERRUPTIBLE, &["__schedule", "preempt_schedule_irq", "irqentry_exit"]);
    let holder = forge.task(5, "holder", INTERRUPTIBLE, &["__schedule", "schedule", "pipe_read"]);
    let (mutex_lock, takes_it) = (forge.function("__mutex_lock"), forge.function("takes_it"));
    let (regs, outer) = (waiter.local(3), waiter.local(5));
    let entry = forge.function("asm_sysvec_apic_timer_interrupt");
    forge.word(waiter.local(2) + 0x100, regs | 1);
    forge.word(waiter.local(2) + 0x108, entry + 8);
    forge.word(regs + 4 * 8, outer);
    forge.word(regs + 16 * 8, mutex_lock);
    forge.word(regs + 17 * 8, 0x10);
    forge.word(outer, 0);
    forge.word(outer + 8, takes_it + 8);
    mutex(&mut forge, holder.address, &[waiter]);
    assert_eq!(said(&forge.graph()), ["waiter (pid 9) [D] waits in takes_it for some_mutex, held by holder (pid 5)"]);
}

#[test]
fn tasks_in_a_loop_are_an_error() {
    let mut forge = forge();
    let one = forge.task(5, "one", INTERRUPTIBLE, &[]);
    forge.task(6, "other", INTERRUPTIBLE, &[]);
    let next = forge.offset("task_struct", "tasks");
    let (mut memory, kernel) = forge.done();
    let physical = one.address + next - 0xffff_8880_0000_0000;
    let page = memory.pages.get_mut(&(physical / PAGE as u64)).unwrap();
    page[physical as usize % PAGE..][..8].copy_from_slice(&(one.address + next).to_le_bytes());
    let error = look(&memory, &kernel).unwrap_err();
    assert_eq!(error.to_string(), "the list of tasks does not end, or is damaged");
}

/// Memory that is damaged: the parent of a file has no name, and is its own parent.
#[test]
fn the_path_of_a_file_ends() {
    let mut forge = forge();
    let functions = ["__schedule", "schedule", "kernfs_drain", "__kernfs_remove"];
    let task = forge.task(9, "remover", UNINTERRUPTIBLE, &functions);
    let (file, folder, name, queue) = (forge.object(), forge.object(), forge.object(), forge.object());
    forge.write(name, b"power\0");
    forge.set(file, "kernfs_node", "name", name);
    forge.set_int(file, "kernfs_node", "active", (i32::MIN + 2).cast_unsigned());
    forge.set(file, "kernfs_node", "parent", folder);
    forge.set(folder, "kernfs_node", "parent", folder);
    let waiter = forge.waiter(task, 2, "wait_queue_entry", "entry", "private");
    forge.link(&[queue, waiter]);
    forge.word(task.local(1), file);
    let said = said(&forge.graph());
    assert!(said[0].contains("/sys/power"), "{said:?}");
}
