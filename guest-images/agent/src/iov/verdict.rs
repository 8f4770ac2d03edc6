//! `iov expect`, `iov fail`, `iov skip`: they end the script with a verdict.

use std::process::ExitCode;

use guest_protocol::Word;

use super::{Ended, Next, Words, missing};
use crate::error::AgentError;
use crate::words;

/// The kinds of failure that a script can name. The others need a proof that only the harness has.
const KINDS: [&str; 4] = ["blocked", "stale-read", "lost-event", WRONG_STATE];

const STALE: &str = "stale-read";

const WRONG_STATE: &str = "wrong-state";

/// `iov expect WHAT GOT WANTED`.
pub fn expect(mut words: Words) -> Ended {
    let (mut given, mut kind) = (Vec::new(), WRONG_STATE);
    while let Some(next) = words.next()? {
        match next {
            Next::Word(word) => given.push(word),
            Next::Option(name) if name == "stale" => kind = STALE,
            other => return Err(other.unknown("expect")),
        }
    }
    let [what, got, wanted] = given.as_slice() else {
        let message =
            format!("`iov expect` takes what it is about, what came and what must come, not {} words", given.len());
        return Err(AgentError::Refused(message));
    };
    let (got, wanted) = (got.trim(), wanted.trim());
    if got == wanted {
        return Ok(ExitCode::SUCCESS);
    }
    let read = if kind == STALE { "still reads" } else { "is" };
    end(Some(kind), what, format!("{what} {read} {}, and must be {wanted}", if got.is_empty() { "empty" } else { got }))
}

/// `iov fail KIND WHERE WORDS...`.
pub fn fail(mut words: Words) -> Ended {
    let (kind, at) = (words.one("the kind of failure")?, words.one("where it fails")?);
    if !KINDS.contains(&kind.as_str()) {
        return Err(AgentError::Refused(format!("there is no kind `{kind}`; known: {}", KINDS.join(", "))));
    }
    let why = words.rest()?.join(" ");
    let why = if why.is_empty() { format!("{kind} at {at}, says the script") } else { why };
    end(Some(&kind), &at, why)
}

/// `iov skip WORDS...`.
pub fn skip(mut words: Words) -> Ended {
    let why = words.rest()?.join(" ");
    if why.is_empty() {
        return Err(missing("the reason"));
    }
    end(None, "", why)
}

/// Tells the harness, which ends the script. Where there is none, in a shell, the verdict is printed.
fn end(kind: Option<&str>, at: &str, summary: String) -> Ended {
    let shown = format!("{}: {summary}", kind.unwrap_or("skip"));
    eprintln!("iov: {shown}");
    words::say(&Word::End { kind: kind.map(str::to_owned), at: at.to_owned(), summary })?;
    Ok(ExitCode::FAILURE)
}
