//! The members that the code of this room names must be in `kernels::layout::STRUCTS`: no kernel has the others.

use kernels::layout::STRUCTS;
use regex::Regex;

/// The code of this room, without its tests.
fn code() -> String {
    let folder = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/waits")).unwrap();
    let files =
        folder.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|end| end == "rs"));
    files.map(|path| std::fs::read_to_string(path).unwrap().replace("super::", "")).collect()
}

/// The members that are named in calls, as `task_struct.pid`.
fn named(code: &str) -> Vec<String> {
    let mut named = Vec::new();
    let pairs =
        Regex::new(r#"(?:offset|offset_if_any|member|within|queue_in)\([^()";]*"(\w+)",\s*"([\w.]+)""#).unwrap();
    named.extend(pairs.captures_iter(code).map(|call| format!("{}.{}", &call[1], &call[2])));
    let of_tasks = Regex::new(r#"\b(?:at|member)\("(\w+(?:\.\w+)?)"\)"#).unwrap();
    named.extend(of_tasks.captures_iter(code).map(|call| format!("task_struct.{}", &call[1])));
    let waiters = Regex::new(r#"Waiter::\w+ => \("(\w+)", "(\w+)", "(\w+)"\)"#).unwrap();
    let both = |waiter: regex::Captures<'_>| [2, 3].map(|member| format!("{}.{}", &waiter[1], &waiter[member]));
    named.extend(waiters.captures_iter(code).flat_map(both));
    let locks = ["mutex", "rw_semaphore", "semaphore"].iter();
    named.extend(locks.flat_map(|lock| ["wait_list", "first_waiter"].map(|member| format!("{lock}.{member}"))));
    named
}

#[test]
fn every_member_that_is_named_here_is_read_from_kernels() {
    let named = named(&code());
    for some in ["task_struct.thread.sp", "controller.requester", "swait_queue.task_list", "kernfs_node.active"] {
        assert!(named.iter().any(|name| name == some), "{some} is not found in the code any more");
    }
    let known: Vec<String> =
        STRUCTS.iter().flat_map(|one| one.members.iter().map(|(member, _)| format!("{}.{member}", one.name))).collect();
    let unknown: Vec<&String> = named.iter().filter(|name| !known.contains(name)).collect();
    assert!(unknown.is_empty(), "kernels::layout::STRUCTS lacks {unknown:?}");
}
