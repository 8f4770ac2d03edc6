//! Tests the server with real operations in real processes, on the kernel of this host. These need no guest.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::sync::Arc;
use std::time::Duration;

use guest_agent::outbox::Outbox;
use guest_agent::server::Server;
use guest_protocol::{
    Access, Answer, AttributeWrite, Call, Command, Failure, Function, MARKER, Message, OpId, Outcome, Policy,
    ProgramEnd, Progress, Reply, Request, Returned, Sched, SlotName, Source, Step, Sweep, VfioDevice, Word, WordId,
    decode, encode,
};

/// How long a test waits. Every operation here ends much sooner, even on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// The host's side.
struct Host {
    writer: UnixStream,
    reader: BufReader<UnixStream>,
    next: u64,
    /// Outcomes of operations that ended while the test waited for another one. The order in which two operations end
    /// is not defined.
    ended: HashMap<OpId, Outcome>,
}

impl Host {
    fn new() -> Host {
        let (host, guest) = UnixStream::pair().unwrap();
        let outbox = Arc::new(Outbox::new(guest.try_clone().unwrap()));
        let server = Server::new(outbox, env!("CARGO_BIN_EXE_guest-agent"));
        std::thread::spawn(move || server.serve(guest));
        host.set_read_timeout(Some(DEADLINE)).unwrap();
        Host { writer: host.try_clone().unwrap(), reader: BufReader::new(host), next: 0, ended: HashMap::new() }
    }

    fn ask(&mut self, command: Command) -> OpId {
        self.next += 1;
        let request = Request { id: OpId(self.next), command };
        self.writer.write_all(encode(&request).unwrap().as_bytes()).unwrap();
        request.id
    }

    /// Sends a file in one piece.
    fn put(&mut self, path: &str, bytes: &[u8], executable: bool) -> OpId {
        let (path, size) = (path.to_owned(), bytes.len() as u64);
        let id = self.ask(Command::PutFile { path, offset: 0, size, total: size, executable });
        self.writer.write_all(bytes).unwrap();
        id
    }

    /// What a program printed, and how it ended.
    fn ran(&mut self, id: OpId) -> (String, Outcome) {
        let mut printed = String::new();
        loop {
            match self.hear() {
                Message::Progress { id: of, progress: Progress::Printed { text }, .. } if of == id => printed += &text,
                Message::Done { id: of, outcome, .. } if of == id => return (printed, outcome),
                _ => {}
            }
        }
    }

    fn hear(&mut self) -> Message {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        decode(&line).unwrap()
    }

    fn done(&mut self, wanted: OpId) -> Outcome {
        loop {
            if let Some(outcome) = self.ended.remove(&wanted) {
                return outcome;
            }
            if let Message::Done { id, outcome, .. } = self.hear() {
                self.ended.insert(id, outcome);
            }
        }
    }

    fn ok(&mut self, command: Command) -> Reply {
        let id = self.ask(command);
        match self.done(id) {
            Outcome::Ok(reply) => reply,
            Outcome::Err(failure) => panic!("{failure:?}"),
        }
    }

    fn failure(&mut self, command: Command) -> Failure {
        let id = self.ask(command);
        match self.done(id) {
            Outcome::Err(failure) => failure,
            Outcome::Ok(reply) => panic!("{reply:?}"),
        }
    }

    fn access(&mut self, command: Command) -> Access {
        match self.ok(command) {
            Reply::Access(access) => access,
            other => panic!("{other:?}"),
        }
    }

    fn progress(&mut self, of: OpId) -> Progress {
        loop {
            match self.hear() {
                Message::Progress { id, progress, .. } if id == of => return progress,
                Message::Done { id, outcome, .. } if id == of => panic!("{outcome:?}"),
                _ => {}
            }
        }
    }
}

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

/// Says a word of a script, as a script does.
fn iov(arguments: &[&str]) -> std::process::Child {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_guest-agent"));
    command.arg0("iov").args(arguments);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap()
}

/// What a word of a script printed: standard output, and standard error.
fn said(child: std::process::Child) -> (String, String) {
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr))
}

#[test]
fn words_of_a_script_are_passed_on_and_answered() {
    let mut host = Host::new();
    assert_eq!(host.ok(Command::HearWords), Reply::Nothing);
    let mut answer = |child: std::process::Child, answer: Answer| {
        let (id, word) = loop {
            if let Message::Asked { id, word, .. } = host.hear() {
                break (id, word);
            }
        };
        assert_eq!(host.ok(Command::Answer { word: id, answer }), Reply::Nothing);
        (word, said(child))
    };
    let slot = SlotName { id: "rp0".to_owned(), number: 1, port: "0000:00:10.0".to_owned() };
    let function = Function { bdf: "0000:01:00.0".to_owned(), sysfs: "/sys/devices/x".to_owned(), slot };
    let (word, said) = answer(iov(&["pf", "1", "--sysfs"]), Answer::Function(function));
    assert_eq!((word, said.0.as_str()), (Word::Pf { number: 1 }, "/sys/devices/x\n"));
    let refused = Answer::Refused("the slot is empty".to_owned());
    let (word, said) = answer(iov(&["remove", "0000:01:00.0", "--by", "yank"]), refused);
    assert_eq!(word, Word::Remove { bdf: "0000:01:00.0".to_owned(), by: Some("yank".to_owned()) });
    assert_eq!(said, (String::new(), "iov: the slot is empty\n".to_owned()));
    let (word, _) = answer(iov(&["expect", "--stale", "sriov_numvfs", "0\n", "4"]), Answer::Done);
    let summary = "sriov_numvfs still reads 0, and must be 4".to_owned();
    assert_eq!(word, Word::End { kind: Some("stale-read".to_owned()), at: "sriov_numvfs".to_owned(), summary });
    // A value that is right ends nothing, so nobody is asked.
    assert_eq!(said_alone(&["expect", "sriov_numvfs", "4", "4"]), Some(0));
    assert_eq!(
        host.failure(Command::Answer { word: WordId(99), answer: Answer::Done }).message,
        "nobody said the word 99"
    );
}

/// The exit status of a word that needs no host.
fn said_alone(arguments: &[&str]) -> Option<i32> {
    iov(arguments).wait().unwrap().code()
}

#[test]
fn a_word_waits_for_a_process_that_is_not_blocked_only_as_long_as_it_may() {
    let mut sleeper = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let pid = sleeper.id().to_string();
    assert_eq!(said_alone(&["wait-blocked", &pid, "no_such_function", "--within", "0"]), Some(1));
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    let (_, why) = said(iov(&["wait-blocked", &pid, "no_such_function"]));
    assert!(why.contains("has ended"), "{why}");
    assert_eq!(said_alone(&["fail", "hang", "x"]), Some(2), "no such kind");
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
    host.writer.write_all(b"{\"id\": 1, \"command\": \"dance\"}\n\n\xff\xfe\n").unwrap();
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
