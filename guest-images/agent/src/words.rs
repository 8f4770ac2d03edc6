//! Hears the words that scripts say with `iov`, and passes them on to the host. Each connection is one word: a line with
//! the word comes, and a line with the host's answer goes back.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;

use guest_protocol::{Answer, Message, WORDS_SOCKET, Word, WordId, decode, encode};

use crate::clock;
use crate::error::{self, AgentError, doing};
use crate::outbox::Outbox;

/// The words that a server hears. Clones share them.
#[derive(Clone)]
pub struct Words {
    outbox: Arc<Outbox>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    next: AtomicU64,
    /// The socket is there.
    hears: OnceLock<()>,
    /// Who waits for an answer.
    waiting: Mutex<HashMap<WordId, UnixStream>>,
}

impl Words {
    /// Words that go to the host through an outbox.
    pub fn new(outbox: Arc<Outbox>) -> Words {
        Words { outbox, shared: Arc::default() }
    }

    /// Makes the socket, if it is not there yet. Only the server's one thread calls this.
    pub fn hear(&self) -> Result<(), AgentError> {
        if self.shared.hears.get().is_some() {
            return Ok(());
        }
        let listener = doing("make the socket for the words of scripts", || UnixListener::bind_addr(&address()?))?;
        let _ = self.shared.hears.set(());
        let words = self.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let words = words.clone();
                thread::spawn(move || {
                    if let Err(error) = words.take(stream) {
                        eprintln!("iov-agent: a word was not heard: {}", error::chain(&error));
                    }
                });
            }
        });
        Ok(())
    }

    /// Takes a word from a connection, and passes it on.
    fn take(&self, stream: UnixStream) -> Result<(), AgentError> {
        let mut line = String::new();
        doing("read a word", || BufReader::new(&stream).read_line(&mut line))?;
        let word: Word = decode(&line).map_err(|error| AgentError::Refused(error.to_string()))?;
        let id = WordId(self.shared.next.fetch_add(1, Ordering::Relaxed));
        self.waiting().insert(id, stream);
        self.outbox.send(&Message::Asked { id, at: clock::now(), word });
        Ok(())
    }

    /// Tells who said a word the answer to it. If it was killed meanwhile, nobody hears it.
    pub fn answer(&self, id: WordId, answer: &Answer) -> Result<(), AgentError> {
        let stream = self.waiting().remove(&id);
        let mut stream = stream.ok_or_else(|| AgentError::Refused(format!("nobody said the word {}", id.0)))?;
        let line = doing("write an answer", || encode(answer))?;
        let _ = stream.write_all(line.as_bytes());
        Ok(())
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<WordId, UnixStream>> {
        self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The address of the socket.
fn address() -> std::io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(WORDS_SOCKET)
}

/// Says a word to the agent's server, and waits for the host's answer.
///
/// # Errors
/// Nobody hears words in this guest, or the host refused.
pub fn say(word: &Word) -> Result<Answer, AgentError> {
    let connect = || UnixStream::connect_addr(&address()?);
    let mut stream = doing("reach the harness, which carries this out", connect)?;
    let line = doing("write a word", || encode(word))?;
    doing("say a word to the harness", || stream.write_all(line.as_bytes()))?;
    let mut answer = String::new();
    doing("hear the harness's answer", || BufReader::new(stream).read_line(&mut answer))?;
    match decode(&answer) {
        Ok(Answer::Refused(why)) => Err(AgentError::Refused(why)),
        Ok(answer) => Ok(answer),
        Err(error) => Err(AgentError::Refused(error.to_string())),
    }
}
