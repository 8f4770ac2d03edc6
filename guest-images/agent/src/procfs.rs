//! The state of tasks, from `/proc/PID/task/TID/{stat,wchan,stack}`.
//!
//! Reading these three files takes no lock that a task holds while it is stuck in a driver or in sysfs. Reading
//! `cmdline`, `environ` or `maps` takes `mmap_lock`, so they are never read.

use std::fs;
use std::io;
use std::path::Path;

use guest_protocol::TaskState;

use crate::error::AgentError;

/// All tasks of a process. Empty if the process has ended.
pub fn tasks_of(pid: i32) -> Result<Vec<TaskState>, AgentError> {
    tasks(pid, |_| true)
}

/// All tasks of a process, and those of the other processes in its session if it leads one.
pub fn tasks_with_session_of(pid: i32) -> Result<Vec<TaskState>, AgentError> {
    let mut found = tasks_of(pid)?;
    for other in session(pid).map_err(|source| AgentError::io("list the processes of a session", source))? {
        if other != pid {
            found.extend(tasks_of(other)?);
        }
    }
    Ok(found)
}

/// The processes of a session that have not ended.
pub fn session(id: i32) -> io::Result<Vec<i32>> {
    let pids = fs::read_dir("/proc")?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_in = |pid: &i32| {
        let stat = fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
        parse_stat(&stat).is_some_and(|(_, state)| !"ZX".contains(state)) && parse_session(&stat) == Some(id)
    };
    Ok(pids.filter(is_in).collect())
}

/// All tasks in D state, and all tasks with one of these functions on their kernel stack.
pub fn tasks_in(functions: &[String]) -> Result<Vec<TaskState>, AgentError> {
    let wanted = |task: &TaskState| task.state == 'D' || task.stack.iter().any(|frame| functions.contains(frame));
    let mut found = Vec::new();
    for pid in numbers(Path::new("/proc"))? {
        found.extend(tasks(pid, wanted)?);
    }
    Ok(found)
}

fn tasks(pid: i32, wanted: impl Fn(&TaskState) -> bool) -> Result<Vec<TaskState>, AgentError> {
    let folder = Path::new("/proc").join(pid.to_string()).join("task");
    // A task that has ended meanwhile is left out.
    let states = numbers(&folder)?.into_iter().filter_map(|tid| task(pid, tid, &folder.join(tid.to_string())));
    Ok(states.filter(wanted).collect())
}

/// The numeric names in a folder, sorted. Empty if the folder is gone.
fn numbers(folder: &Path) -> Result<Vec<i32>, AgentError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(AgentError::io(format!("list {}", folder.display()), error)),
    };
    let mut numbers: Vec<i32> =
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

fn task(pid: i32, tid: i32, folder: &Path) -> Option<TaskState> {
    let (comm, state) = parse_stat(&fs::read(folder.join("stat")).ok()?)?;
    // The kernel writes 0 for a task that does not wait.
    let wchan = fs::read_to_string(folder.join("wchan")).unwrap_or_default();
    let wchan = if wchan == "0" { String::new() } else { wchan };
    let stack = fs::read_to_string(folder.join("stack")).unwrap_or_default();
    Some(TaskState { pid, tid, comm, state, wchan, stack: stack.lines().filter_map(parse_frame).collect() })
}

/// The name and state in `TID (COMM) STATE ...`. The name may contain spaces and parentheses, so it ends at the last
/// closing parenthesis.
fn parse_stat(stat: &[u8]) -> Option<(String, char)> {
    let stat = String::from_utf8_lossy(stat);
    let (_, rest) = stat.split_once('(')?;
    let (comm, rest) = rest.rsplit_once(')')?;
    Some((comm.to_owned(), rest.trim_start().chars().next()?))
}

/// The session in `TID (COMM) STATE PPID PGRP SESSION ...` (proc_pid_stat(5)).
fn parse_session(stat: &[u8]) -> Option<i32> {
    let stat = String::from_utf8_lossy(stat);
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(3)?.parse().ok()
}

/// The function in a line `[<0>] FUNCTION+0xOFFSET/0xSIZE [MODULE]`.
fn parse_frame(line: &str) -> Option<String> {
    let (_, frame) = line.split_once("] ")?;
    let function = frame.split(['+', ' ']).next()?;
    (!function.is_empty()).then(|| function.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_function_of_a_stack_line_is_found() {
        let stack = "[<0>] sriov_numvfs_show+0x24/0x60\n[<0>] dev_attr_show+0x1a/0x50 [core]\n[<0>] 0xffffffff81\n\n";
        let frames: Vec<_> = stack.lines().filter_map(parse_frame).collect();
        assert_eq!(frames, ["sriov_numvfs_show", "dev_attr_show", "0xffffffff81"]);
    }

    #[test]
    fn names_with_spaces_and_parentheses_are_parsed() {
        for comm in ["iov-own", "a) R (b", ")", "((", "kworker/0:1H-events", ""] {
            let stat = format!("17 ({comm}) D 2 0 0 0 -1 2129984");
            assert_eq!(parse_stat(stat.as_bytes()), Some((comm.to_owned(), 'D')));
        }
        assert_eq!(parse_stat(b"17 nonsense"), None);
    }

    #[test]
    fn the_session_is_the_fourth_field_after_the_name() {
        assert_eq!(parse_session(b"17 (a) 1 2 3 4) S 2 5 7 0 -1 4194560"), Some(7));
        assert_eq!(parse_session(b"17 (a) S 2"), None);
    }

    #[test]
    fn the_task_of_this_test_is_found() {
        let tasks = tasks_of(std::process::id() as i32).unwrap();
        let me = nix::unistd::gettid().as_raw();
        assert!(tasks.iter().any(|task| task.tid == me && task.state == 'R'), "{tasks:?}");
    }

    #[test]
    fn a_process_that_has_ended_has_no_tasks() {
        assert_eq!(tasks_of(i32::MAX).unwrap(), []);
    }

    proptest! {
        #[test]
        fn any_name_is_parsed(comm in "[^\0]{0,15}") {
            let stat = format!("17 ({comm}) S 2 0 0");
            prop_assert_eq!(parse_stat(stat.as_bytes()), Some((comm, 'S')));
        }

        #[test]
        fn no_text_makes_it_panic(text in any::<String>()) {
            let _ = (parse_stat(text.as_bytes()), parse_session(text.as_bytes()), parse_frame(&text));
        }
    }
}
