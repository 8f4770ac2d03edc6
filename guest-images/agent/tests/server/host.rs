//! The host's side of the port, as tests need it.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use guest_agent::outbox::Outbox;
use guest_agent::server::Server;
use guest_protocol::{Access, Command, Failure, Message, OpId, Outcome, Progress, Reply, Request, decode, encode};

/// How long a test waits. Every operation here ends much sooner, even on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// The host's side.
pub struct Host {
    writer: UnixStream,
    reader: BufReader<UnixStream>,
    next: u64,
    /// Outcomes of operations that ended while the test waited for another one. The order in which two operations end
    /// is not defined.
    ended: HashMap<OpId, Outcome>,
}

impl Host {
    pub fn new() -> Host {
        let (host, guest) = UnixStream::pair().unwrap();
        let outbox = Arc::new(Outbox::new(guest.try_clone().unwrap()));
        let server = Server::new(outbox, env!("CARGO_BIN_EXE_guest-agent"));
        std::thread::spawn(move || server.serve(guest));
        host.set_read_timeout(Some(DEADLINE)).unwrap();
        Host { writer: host.try_clone().unwrap(), reader: BufReader::new(host), next: 0, ended: HashMap::new() }
    }

    pub fn say(&mut self, bytes: &[u8]) {
        self.writer.write_all(bytes).unwrap();
    }

    pub fn ask(&mut self, command: Command) -> OpId {
        self.next += 1;
        let request = Request { id: OpId(self.next), command };
        self.say(encode(&request).unwrap().as_bytes());
        request.id
    }

    /// Sends a file in one piece.
    pub fn put(&mut self, path: &str, bytes: &[u8], executable: bool) -> OpId {
        let (path, size) = (path.to_owned(), bytes.len() as u64);
        let id = self.ask(Command::PutFile { path, offset: 0, size, total: size, executable });
        self.say(bytes);
        id
    }

    /// What a program printed, and how it ended.
    pub fn ran(&mut self, id: OpId) -> (String, Outcome) {
        let mut printed = String::new();
        loop {
            match self.hear() {
                Message::Progress { id: of, progress: Progress::Printed { text }, .. } if of == id => printed += &text,
                Message::Done { id: of, outcome, .. } if of == id => return (printed, outcome),
                _ => {}
            }
        }
    }

    pub fn hear(&mut self) -> Message {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        decode(&line).unwrap()
    }

    pub fn done(&mut self, wanted: OpId) -> Outcome {
        loop {
            if let Some(outcome) = self.ended.remove(&wanted) {
                return outcome;
            }
            if let Message::Done { id, outcome, .. } = self.hear() {
                self.ended.insert(id, outcome);
            }
        }
    }

    pub fn ok(&mut self, command: Command) -> Reply {
        let id = self.ask(command);
        match self.done(id) {
            Outcome::Ok(reply) => reply,
            Outcome::Err(failure) => panic!("{failure:?}"),
        }
    }

    pub fn failure(&mut self, command: Command) -> Failure {
        let id = self.ask(command);
        match self.done(id) {
            Outcome::Err(failure) => failure,
            Outcome::Ok(reply) => panic!("{reply:?}"),
        }
    }

    pub fn access(&mut self, command: Command) -> Access {
        match self.ok(command) {
            Reply::Access(access) => access,
            other => panic!("{other:?}"),
        }
    }

    pub fn progress(&mut self, of: OpId) -> Progress {
        loop {
            match self.hear() {
                Message::Progress { id, progress, .. } if id == of => return progress,
                Message::Done { id, outcome, .. } if id == of => panic!("{outcome:?}"),
                _ => {}
            }
        }
    }
}
