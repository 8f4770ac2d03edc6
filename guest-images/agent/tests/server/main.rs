//! Tests the server with real operations in real processes, on the kernel of this host. These need no guest.

mod host;
mod programs;
mod words;

use guest_protocol::{
    AttributeWrite, Call, Command, MARKER, Message, OpId, Outcome, Policy, Progress, Reply, Returned, Sched, Source,
    Step, Sweep, VfioDevice,
};
use host::{DEADLINE, Host};

fn text(path: &std::path::Path) -> String {
    path.to_str().unwrap().to_owned()
}

#[test]
fn attributes_are_written_in_turn() {
    let folder = tempfile::tempdir().unwrap();
    let path = text(&folder.path().join("attribute"));
    std::fs::write(&path, "xx").unwrap();
    let write = |path: &str, data: &str| AttributeWrite { path: path.to_owned(), data: data.to_owned() };
    let writes = vec![write(&path, "7"), write("/nonexistent/attribute", "1"), write(&path, "0")];
    let mut host = Host::new();
    let counted = host.ok(Command::Cycle { writes: writes.clone(), rounds: Some(3) });
    assert_eq!(counted, Reply::Cycled { rounds: 3, refused: 3 });
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "0x");
    // Without a number of rounds, it goes on until it is told to stop.
    let endless = host.ask(Command::Cycle { writes, rounds: None });
    host.ok(Command::Stop { target: endless });
    assert!(matches!(host.done(endless), Outcome::Ok(Reply::Cycled { .. })));
}

/// Starts an operation that does not end: it opens a FIFO that nobody writes to.
fn stuck(host: &mut Host, folder: &std::path::Path) -> OpId {
    let fifo = folder.join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let id = host.ask(Command::Read { path: text(&fifo) });
    loop {
        if let Message::Started { id: started, .. } = host.hear() {
            assert_eq!(started, id);
            return id;
        }
    }
}

#[test]
fn hello_has_version_kernel_and_cpus() {
    let mut host = Host::new();
    let id = host.ask(Command::Hello);
    let Message::Hello { version, kernel, cpus, at } = host.hear() else { panic!("no hello") };
    assert_eq!(version, guest_protocol::VERSION);
    assert!(!kernel.is_empty() && cpus > 0 && at > 0);
    assert_eq!(host.done(id), Outcome::Ok(Reply::Nothing));
}

#[test]
fn alarms_go_off_in_the_order_of_their_times() {
    let mut host = Host::new();
    let hello = host.ask(Command::Hello);
    let Message::Hello { at: now, .. } = host.hear() else { panic!("no hello") };
    assert_eq!(host.done(hello), Outcome::Ok(Reply::Nothing));
    let after = |milliseconds: u64| Command::Alarm { at: now + milliseconds * 1_000_000 };
    assert_eq!(host.ok(Command::Alarm { at: 0 }), Reply::Nothing, "a time that is past");
    let [late, soon] = [after(600), after(300)].map(|alarm| host.ask(alarm));
    let mut gone_off = Vec::new();
    while gone_off.len() < 2 {
        if let Message::Done { id, at, outcome: Outcome::Ok(Reply::Nothing) } = host.hear() {
            gone_off.push((id, at));
        }
    }
    let [(first, sooner), (second, later)] = [gone_off[0], gone_off[1]];
    assert_eq!([first, second], [soon, late]);
    assert!(sooner >= now + 300_000_000 && later >= now + 600_000_000, "{sooner} and {later}, from {now}");
    // The timer was stopped, and is set again.
    assert_eq!(host.ok(after(601)), Reply::Nothing);
}

#[test]
fn a_guest_stands_to_be_saved_and_goes_on() {
    let mut host = Host::new();
    let id = host.ask(Command::Save);
    assert_eq!(host.progress(id), Progress::Saving);
    assert_eq!(host.done(id), Outcome::Ok(Reply::Nothing));
}

#[test]
fn the_program_has_the_marker() {
    let program = std::fs::read(env!("CARGO_BIN_EXE_guest-agent")).unwrap();
    assert!(program.windows(MARKER.len()).any(|bytes| bytes == MARKER));
}

#[test]
fn attributes_are_read_and_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = text(&folder.path().join("attribute"));
    std::fs::write(&path, "before\n").unwrap();
    let mut host = Host::new();
    let read = host.access(Command::Read { path: path.clone() });
    assert_eq!(read.value.as_deref(), Ok("before"));
    assert!(read.started > 0 && read.finished >= read.started);
    let write =
        |data: &str, at| Command::Write { path: path.clone(), data: data.to_owned(), at, sched: Sched::default() };
    assert_eq!(host.access(write("AFTER", 0)).value.as_deref(), Ok(""));
    // The file is not truncated, and no newline is added: sysfs would get exactly these bytes.
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "AFTERe\n");
    assert_eq!(host.access(write("\0s", 4)).value.as_deref(), Ok(""));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "AFTE\0s\n");
}

#[test]
fn an_errno_of_an_attribute_is_no_failure() {
    let mut host = Host::new();
    let errno = host.access(Command::Read { path: "/no/such/attribute".to_owned() }).value.unwrap_err();
    assert_eq!((errno.code, errno.name.as_str()), (2, "ENOENT"));
    let errno = host.access(Command::Read { path: "/proc".to_owned() }).value.unwrap_err();
    assert_eq!(errno.name, "EISDIR");
}

#[test]
fn folders_are_listed_and_links_are_read() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["b", "a", "c"] {
        std::fs::write(folder.path().join(name), "").unwrap();
    }
    std::os::unix::fs::symlink("../elsewhere", folder.path().join("d")).unwrap();
    let mut host = Host::new();
    let names = ["a", "b", "c", "d"].map(str::to_owned).to_vec();
    assert_eq!(host.ok(Command::List { path: text(folder.path()) }), Reply::Names(names));
    let link = text(&folder.path().join("d"));
    assert_eq!(host.ok(Command::ReadLink { path: link }), Reply::Target("../elsewhere".to_owned()));
    let failure = host.failure(Command::List { path: "/no/such/folder".to_owned() });
    assert_eq!(failure.errno.unwrap().name, "ENOENT");
    assert!(failure.message.starts_with("list /no/such/folder: "), "{}", failure.message);
}

#[test]
fn a_stuck_operation_delays_no_other_and_its_tasks_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let mut host = Host::new();
    let stuck = stuck(&mut host, folder.path());
    let read = host.access(Command::Read { path: "/proc/self/comm".to_owned() });
    assert_eq!(read.value.as_deref(), Ok("iov-read"));
    // The process may not have set its name or may not wait yet, so try again.
    let deadline = std::time::Instant::now() + DEADLINE;
    loop {
        let Reply::Tasks(tasks) = host.ok(Command::Where { target: stuck }) else { panic!("no tasks") };
        match tasks.as_slice() {
            [task] if task.comm == "iov-read" && task.state == 'S' => break,
            other => assert!(std::time::Instant::now() < deadline, "{other:?}"),
        }
    }
    assert_eq!(host.ok(Command::Kill { target: stuck, signal: 9 }), Reply::Nothing);
    let Outcome::Err(failure) = host.done(stuck) else { panic!("the killed operation succeeded") };
    assert!(failure.message.ends_with("ended without an answer: signal: 9 (SIGKILL)"), "{}", failure.message);
    assert_eq!(host.ok(Command::Where { target: stuck }), Reply::Tasks(vec![]));
}

#[test]
fn only_operations_that_listen_can_be_told_to_continue_or_stop() {
    let folder = tempfile::tempdir().unwrap();
    let mut host = Host::new();
    let stuck = stuck(&mut host, folder.path());
    let failure = host.failure(Command::Continue { target: stuck });
    assert_eq!(
        failure.message,
        format!("operation 1 (read {}) does not listen for `continue`", text(&folder.path().join("fifo")))
    );
    let failure = host.failure(Command::Stop { target: OpId(99) });
    assert_eq!(failure.message, "operation 99 is not running");
    let failure = host.failure(Command::Kill { target: stuck, signal: 0 });
    assert_eq!(failure.message, "0 is not a signal number");
    host.ok(Command::Kill { target: stuck, signal: 15 });
}

#[test]
fn an_owner_that_holds_makes_calls_until_it_is_told_to_continue() {
    let folder = tempfile::tempdir().unwrap();
    let path = text(&folder.path().join("file"));
    std::fs::write(&path, "12345").unwrap();
    let mut host = Host::new();
    let owner = host.ask(Command::Own { devices: vec![], steps: vec![Step::Hold] });
    assert_eq!(host.progress(owner), Progress::Opened { groups: vec![] });
    assert_eq!(host.progress(owner), Progress::Holding);
    let mut call = |path: String| {
        let id = host.ask(Command::Call { target: owner, call: Call::ReadFile { path, size: 4 } });
        // The server's answer may come before or after the owner's.
        let Progress::Called { id: of, result } = host.progress(owner) else { panic!("the owner made no call") };
        assert_eq!(of, id);
        result.map_err(|errno| errno.name)
    };
    assert_eq!(call(path.clone()), Ok(Returned { value: 4, bytes: b"1234".to_vec() }));
    assert_eq!(call(format!("{path}/x")), Err("ENOTDIR".to_owned()));
    host.ok(Command::Continue { target: owner });
    assert_eq!(host.done(owner), Outcome::Ok(Reply::Nothing));
}

#[test]
fn a_watch_ends_when_it_is_told_to_stop() {
    let mut host = Host::new();
    let watch =
        host.ask(Command::Watch { source: Source::Rtnetlink, read: vec!["/x".to_owned()], sched: Sched::default() });
    assert_eq!(host.progress(watch), Progress::Watching);
    host.ok(Command::Stop { target: watch });
    assert_eq!(host.done(watch), Outcome::Ok(Reply::Nothing));
}

#[test]
fn a_line_that_is_no_request_is_ignored() {
    let mut host = Host::new();
    host.say(b"{\"id\": 1, \"command\": \"dance\"}\n\n\xff\xfe\n");
    assert_eq!(host.ok(Command::Hello), Reply::Nothing);
}

#[test]
fn failures_name_the_cause() {
    let mut host = Host::new();
    let bind = Command::Bind { bdf: "ffff:ff:1f.7".to_owned(), driver: "vfio-pci".to_owned() };
    let failure = host.failure(bind);
    assert!(failure.message.starts_with("no device ffff:ff:1f.7 in /sys/bus/pci/devices"), "{}", failure.message);
    let device = VfioDevice { bdf: "ffff:ff:1f.7".to_owned(), vf_token: None };
    let failure = host.failure(Command::Own { devices: vec![device], steps: vec![] });
    assert!(failure.message.contains("/sys/bus/pci/devices/ffff:ff:1f.7/iommu_group"), "{}", failure.message);
    let sched = Sched { cpu: Some(100_000), policy: Policy::Other };
    let failure = host.failure(Command::Write { path: "/dev/null".to_owned(), data: String::new(), at: 0, sched });
    assert!(failure.message.starts_with("pin to CPU 100000: "), "{}", failure.message);
}

#[test]
fn a_sweep_reports_values_and_waiting_accesses() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::create_dir(path("below")).unwrap();
    std::os::unix::fs::symlink("..", path("below/up")).unwrap();
    for (name, value) in [("a", "1\n"), ("below/b", "2\n"), ("remove", "3\n"), ("none", "(null)\n")] {
        std::fs::write(path(name), value).unwrap();
    }
    // Opening it for reading waits until a writer opens it.
    let pipe = path("c");
    nix::unistd::mkfifo(pipe.as_str(), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut host = Host::new();
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    let sweep = Sweep {
        folders: vec![folder.path().to_str().unwrap().to_owned()],
        leave_out: names(&["remove"]),
        write_back: names(&["a", "none"]),
        quiet_ms: 100,
    };
    let id = host.ask(Command::Sweep(sweep));
    let Progress::Waiting(waiting) = host.progress(id) else { panic!("nothing waits") };
    let waiting: Vec<_> =
        waiting.iter().map(|waiting| (waiting.path.as_str(), waiting.write, waiting.task.state)).collect();
    assert_eq!(waiting, [(pipe.as_str(), false, 'S')]);
    std::fs::write(&pipe, "4").unwrap();
    let Outcome::Ok(Reply::Swept(swept)) = host.done(id) else { panic!("no sweep") };
    let mut told: Vec<_> =
        swept.iter().map(|swept| (swept.access.path.clone(), swept.write, swept.access.shown().to_owned())).collect();
    told.sort_unstable();
    let expected =
        [("a", false, "1"), ("a", true, ""), ("below/b", false, "2"), ("c", false, "4"), ("none", false, "(null)")];
    assert_eq!(told, expected.map(|(name, write, value)| (path(name), write, value.to_owned())));
}
