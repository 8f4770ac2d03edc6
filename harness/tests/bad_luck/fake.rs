//! The fake QEMU: the test executable, started through a link. The name of the link selects what goes wrong.
//!
//! It writes the files `pid`, `argv` and `starts` beside the link. It connects to the harness's sockets, serves QMP in
//! a thread, and acts as the guest's agent on the other socket.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{abort, exit};

use guest_protocol::{Access, Command, Errno, Message, OpId, Outcome, Reply, Request, VERSION};
use rustix::process::{Resource, Rlimit, setrlimit};
use serde_json::{Value, json};

/// The prefix of the links' names.
pub const PREFIX: &str = "qemu-that-";

/// Its output on stderr before it fails.
pub const ASSERTION: &str = "Assertion `count > 0' failed.";

/// Output on stderr that resembles the harness's own texts about other exit statuses.
pub const MISLEADING: &str = "QEMU ended (signal: 6 (SIGABRT)), exit status: 0";

/// The console output of a kernel that panics.
const OOPS: &str = include_str!("../../src/classify/fixtures/oops.log");

/// Acts as QEMU, with the behaviour in `program`'s name.
pub fn run(program: &Path, argv: &[String]) -> ! {
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let name = program.file_name().unwrap().to_str().unwrap();
    let folder = program.parent().unwrap().to_owned();
    fs::write(folder.join("argv"), argv.join("\n")).unwrap();
    // Renamed into place, so that a reader never sees an incomplete number.
    fs::write(folder.join("pid.new"), std::process::id().to_string()).unwrap();
    fs::rename(folder.join("pid.new"), folder.join("pid")).unwrap();
    let behaviour = name[PREFIX.len()..].to_owned();
    let mut fake = Fake { behaviour, start: count(&folder), console: path_of(argv, "console") };
    if fake.start > 1 && fake.behaviour == "crashes-once" {
        fake.behaviour = "works".to_owned();
    }
    match fake.behaviour.as_str() {
        "exits-at-once" => fake.fail(),
        "never-connects" => {
            eprintln!("{ASSERTION}");
            forever()
        }
        _ => {}
    }
    let (qmp, agent) = (connect(argv, "qmp"), connect(argv, "agent"));
    if fake.behaviour == "never-greets" {
        forever();
    }
    let behaviour = fake.behaviour.clone();
    std::thread::spawn(move || serve_qmp(&behaviour, qmp));
    fake.serve(agent);
    forever()
}

fn count(folder: &Path) -> u32 {
    let file = folder.join("starts");
    let starts = fs::read_to_string(&file).map_or(0, |text| text.parse().unwrap()) + 1;
    fs::write(&file, starts.to_string()).unwrap();
    starts
}

fn forever() -> ! {
    loop {
        std::thread::park();
    }
}

/// The path of the chardev of this id.
pub fn path_of(argv: &[String], id: &str) -> PathBuf {
    let id = format!("id={id}");
    let argument = argv.iter().find(|argument| argument.split(',').any(|word| word == id)).unwrap();
    argument.split_once("path=").unwrap().1.replace(",,", ",").into()
}

fn crash() -> ! {
    eprintln!("{ASSERTION}");
    abort()
}

fn connect(argv: &[String], id: &str) -> UnixStream {
    UnixStream::connect(path_of(argv, id)).unwrap()
}

fn send(stream: &UnixStream, line: impl ToString) {
    send_bytes(stream, format!("{}\n", line.to_string().trim_end()).as_bytes());
}

fn send_bytes(mut stream: &UnixStream, bytes: &[u8]) {
    // The harness may have closed its end.
    let _ = stream.write_all(bytes);
}

fn is_read_of_memory(command: &Value) -> bool {
    command["arguments"]["command-line"].as_str().is_some_and(|line| line.starts_with("xp "))
}

fn serve_qmp(behaviour: &str, stream: UnixStream) {
    let version = json!({"qemu": {"micro": 2, "minor": 0, "major": 10}, "package": ""});
    send(&stream, json!({"QMP": {"version": version, "capabilities": ["oob"]}}));
    for line in BufReader::new(&stream).lines().map_while(Result::ok) {
        let command: Value = serde_json::from_str(&line).unwrap();
        let id = &command["id"];
        match command["execute"].as_str().unwrap() {
            // The second one is about to end by itself.
            "quit" if ["never-quits", "ends-after-its-answer"].contains(&behaviour) => {}
            "quit" if behaviour == "quits-badly" => {
                send(&stream, json!({"return": {}, "id": id}));
                eprintln!("{MISLEADING}");
                exit(1);
            }
            "quit" => {
                send(&stream, json!({"return": {}, "id": id}));
                exit(0);
            }
            // Where the configuration space is, and what is there: no function.
            "qom-get" => send(&stream, json!({"return": 0xb000_0000_u32, "id": id})),
            "human-monitor-command" if is_read_of_memory(&command) => {
                let line = "00000000b0000000: 0xffffffff 0xffffffff 0xffffffff 0xffffffff\r\n";
                send(&stream, json!({"return": line.repeat(256), "id": id}));
            }
            "human-monitor-command" if behaviour == "crashes-on-a-qmp-command" => crash(),
            "human-monitor-command" if behaviour == "never-answers-on-qmp" => {}
            "human-monitor-command" => {
                if behaviour == "sends-an-unknown-event" {
                    let timestamp = json!({"seconds": 1, "microseconds": 2});
                    send(&stream, json!({"event": "UNKNOWN_EVENT", "data": {"value": 4}, "timestamp": timestamp}));
                }
                if behaviour == "refuses" {
                    let error = json!({"class": "GenericError", "desc": "refused by the test"});
                    send(&stream, json!({"error": error, "id": id}));
                } else {
                    send(&stream, json!({"return": "VM status: running\r\n", "id": id}));
                }
            }
            command => {
                send(&stream, json!({"return": {}, "id": id}));
                match command {
                    "migrate" => send(&stream, migration("completed")),
                    "migrate-incoming" => send(&stream, migration("failed")),
                    _ => {}
                }
            }
        }
    }
}

/// The event at the end of a migration, to a file or from one.
fn migration(status: &str) -> Value {
    json!({"event": "MIGRATION", "data": {"status": status}, "timestamp": {"seconds": 1, "microseconds": 2}})
}

struct Fake {
    behaviour: String,
    /// How many times it was started, including this time.
    start: u32,
    console: PathBuf,
}

impl Fake {
    fn fail(&self) -> ! {
        eprintln!("{ASSERTION}");
        exit(1)
    }

    fn serve(&self, stream: UnixStream) {
        let version = match self.behaviour.as_str() {
            "sends-no-hello" => forever(),
            "is-not-a-guest" => return send(&stream, "grub> "),
            "crashes-before-hello" => crash(),
            "speaks-another-version" => VERSION + 1,
            _ => VERSION,
        };
        if self.behaviour == "does-not-restore" {
            fs::write(&self.console, "booted\n").unwrap();
        }
        let hello = Message::Hello { version, kernel: "6.12.0-fake".to_owned(), cpus: 2, at: 1 };
        send(&stream, guest_protocol::encode(&hello).unwrap());
        // One byte at a time, so that the following requests stay in the socket.
        let mut lines = BufReader::with_capacity(1, &stream);
        let mut line = String::new();
        while lines.read_line(&mut line).is_ok_and(|length| length > 0) {
            let request: Request = guest_protocol::decode(&line).unwrap();
            self.answer(&stream, request, &mut lines);
            line.clear();
        }
    }

    fn answer(&self, stream: &UnixStream, request: Request, rest: &mut impl BufRead) {
        let Request { id, command } = request;
        let reply = match command {
            Command::List { .. } if self.behaviour == "crashes-on-the-first-request" => crash(),
            Command::List { .. } => Reply::Names(vec!["0000:01:00.0".to_owned()]),
            Command::Read { path } => return self.read(stream, id, path),
            Command::Write { path, data, .. } if self.behaviour == "does-not-restore" => {
                // Reports the text written to the log, as the harness waits for it before it saves a guest.
                let text = data.trim_start_matches("<6>").trim_end().to_owned();
                send(stream, guest_protocol::encode(&Message::Kmsg { at: 1, seq: 1, level: 6, text }).unwrap());
                Reply::Access(Access { path, value: Ok(String::new()), started: 1, finished: 2 })
            }
            Command::Write { path, .. } => {
                let errno = Errno { code: 17, name: "EEXIST".to_owned() };
                let refused = self.behaviour == "has-a-kernel-that-refuses";
                let value = if refused { Err(errno) } else { Ok(String::new()) };
                Reply::Access(Access { path, value, started: 1, finished: 2 })
            }
            Command::Tasks { .. } => Reply::Tasks(Vec::new()),
            Command::Inventory => Reply::Inventory(Box::default()),
            _ => Reply::Nothing,
        };
        let is_inventory = matches!(reply, Reply::Inventory(_));
        done(stream, id, reply);
        // After a scenario that passed, the host asks once for the functions that are left.
        if is_inventory && self.behaviour == "ends-after-its-answer" {
            exit(0);
        }
        if self.behaviour == "crashes-with-a-request-unread" {
            // Reads only the first byte of the next request, so that the harness gets ECONNRESET instead of an end of
            // file.
            let _ = rest.fill_buf();
            crash();
        }
    }

    /// The read in the middle of the scenario, where most behaviours fail.
    fn read(&self, stream: &UnixStream, id: OpId, path: String) {
        match self.behaviour.as_str() {
            "panics" => {
                fs::write(&self.console, OOPS).unwrap();
                exit(0)
            }
            "ends" => exit(0),
            "crashes" | "crashes-once" => {
                fs::write(&self.console, format!("try {}\n", self.start)).unwrap();
                crash()
            }
            "prints-a-misleading-text" => {
                eprintln!("{MISLEADING}");
                exit(1)
            }
            "stops-answering" => forever(),
            "oopses-and-stops-answering" => {
                fs::write(&self.console, OOPS).unwrap();
                for (seq, line) in (1..).zip(OOPS.lines()) {
                    send(stream, guest_protocol::encode(&kmsg(seq, line)).unwrap());
                }
                forever()
            }
            "sends-garbage" => return send(stream, "rm: cannot remove '/': Device or resource busy"),
            "sends-binary-data" => return send_bytes(stream, b"\xff\xfe\xfd\n"),
            _ => {}
        }
        done(stream, id, Reply::Access(Access { path, value: Ok("Linux".to_owned()), started: 1, finished: 2 }));
    }
}

/// A line of the console as the agent's kernel message.
fn kmsg(seq: u64, line: &str) -> Message {
    let text = line.split_once("] ").map_or(line, |(_, text)| text).to_owned();
    Message::Kmsg { at: seq, seq, level: 1, text }
}

fn done(stream: &UnixStream, id: OpId, reply: Reply) {
    let message = Message::Done { id, at: 3, outcome: Outcome::Ok(reply) };
    send(stream, guest_protocol::encode(&message).unwrap());
}
