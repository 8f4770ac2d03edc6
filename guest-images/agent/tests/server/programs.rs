//! Files that are put into the guest, and programs that run there.

use std::collections::BTreeMap;

use guest_protocol::{Command, Outcome, ProgramEnd, Progress, Reply};

use super::host::{DEADLINE, Host};
use super::text;

/// Runs a line of the shell.
fn sh(line: &str) -> Command {
    let args = vec!["-c".to_owned(), line.to_owned()];
    Command::Run {
        program: "/bin/sh".to_owned(),
        args,
        env: BTreeMap::from([("X".to_owned(), "y".to_owned())]),
        socket: true,
    }
}

fn ended(end: ProgramEnd) -> Outcome {
    Outcome::Ok(Reply::Ran { end, unreported: 0 })
}

#[test]
fn a_file_is_put_and_run() {
    let folder = tempfile::tempdir().unwrap();
    let path = text(&folder.path().join("program"));
    let mut host = Host::new();
    // Bytes that look like requests, and a program that is replaced while it may run.
    for said in ["{\"id\": 9, \"command\": \"hello\"}", "two"] {
        let put = host.put(&path, format!("#!/bin/sh\necho '{said}'\n").as_bytes(), true);
        assert_eq!(host.done(put), Outcome::Ok(Reply::Nothing));
        let run = host.ask(Command::Run { program: path.clone(), args: vec![], env: BTreeMap::new(), socket: false });
        assert_eq!(host.ran(run), (format!("{said}\n"), ended(ProgramEnd::Exited(0))));
    }
    let put = host.put(&text(&folder.path().join("no/such")), b"abc\n", false);
    assert!(matches!(host.done(put), Outcome::Err(failure) if failure.errno.as_ref().unwrap().name == "ENOENT"));
    assert_eq!(host.ok(Command::Hello), Reply::Nothing);
}

#[test]
fn a_large_file_arrives_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = text(&folder.path().join("file"));
    let bytes: Vec<u8> = (0..5 << 20).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut host = Host::new();
    let put = host.put(&path, &bytes, false);
    assert_eq!(host.done(put), Outcome::Ok(Reply::Nothing));
    assert!(std::fs::read(&path).unwrap() == bytes);
}

#[test]
fn what_a_program_prints_keeps_its_order() {
    let mut host = Host::new();
    let run = host.ask(sh("echo one; echo two >&2; echo three $X $HOME; cat; printf four; exit 3"));
    assert_eq!(host.ran(run), ("one\ntwo\nthree y /\nfour".to_owned(), ended(ProgramEnd::Exited(3))));
    let run = host.ask(sh("kill -SEGV $$"));
    assert_eq!(host.ran(run).1, ended(ProgramEnd::Killed("SIGSEGV".to_owned())));
    let failure = host.failure(Command::Run {
        program: "/no/such".to_owned(),
        args: vec![],
        env: BTreeMap::new(),
        socket: false,
    });
    assert_eq!(failure.message, "start /no/such: No such file or directory (os error 2)");
}

#[test]
fn a_program_that_is_stopped_ends_with_all_that_it_has_started() {
    let mut host = Host::new();
    let run = host.ask(sh("(sleep 1000 & sleep 1000) & echo begun; exec >/dev/null 2>&1; wait"));
    assert_eq!(host.progress(run), Progress::Printed { text: "begun\n".to_owned() });
    // The shell has not forked all its children yet, perhaps.
    let deadline = std::time::Instant::now() + DEADLINE;
    let tasks = loop {
        let Reply::Tasks(tasks) = host.ok(Command::Where { target: run }) else { panic!("no tasks") };
        if tasks.iter().filter(|task| task.comm == "sleep").count() == 2 {
            break tasks;
        }
        assert!(std::time::Instant::now() < deadline, "{tasks:?}");
    };
    assert!(tasks.iter().any(|task| task.comm == "iov-run"), "{tasks:?}");
    host.ok(Command::Stop { target: run });
    assert_eq!(host.done(run), ended(ProgramEnd::Killed("SIGKILL".to_owned())));
    let left = |task: &guest_protocol::TaskState| {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", task.pid)).unwrap_or_default();
        task.comm == "sleep" && stat.contains("(sleep)") && !stat.contains(") Z ")
    };
    while tasks.iter().any(left) {
        assert!(std::time::Instant::now() < deadline, "a process is left");
    }
}

#[test]
fn processes_that_a_program_leaves_behind_are_ended() {
    let mut host = Host::new();
    let run = host.ask(sh("sleep 1000 & echo over"));
    assert_eq!(host.ran(run), ("over\n".to_owned(), ended(ProgramEnd::Exited(0))));
}
