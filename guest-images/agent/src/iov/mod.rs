//! `iov`: the words of a script in the guest, for what a shell alone cannot do.
//!
//! What needs the host, such as a removal, is asked of it through the agent's server. The rest is done here.

mod device;
mod help;
mod hold;
mod look;
mod own;
mod verdict;
mod watch;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use guest_protocol::{Answer, Word};
use lexopt::{Arg, Parser, ValueExt};

use crate::error::{self, AgentError};
use crate::op::bind;
use crate::words;

/// The name of this program in the guest.
const NAME: &str = "iov";

/// The exit status after a word that is wrong, or that cannot be carried out.
const WRONG: u8 = 2;

/// What a word ends with: an exit status.
type Ended = Result<ExitCode, AgentError>;

/// Whether the program was started under the name `iov`.
pub fn is_called() -> bool {
    let name = std::env::args_os().next();
    name.is_some_and(|name| Path::new(&name).file_name().is_some_and(|name| name == NAME))
}

/// The main function of `iov`.
pub fn main() -> ExitCode {
    run(std::env::args_os().skip(1)).unwrap_or_else(|error| {
        eprintln!("{NAME}: {}", error::chain(&error));
        ExitCode::from(WRONG)
    })
}

fn run(arguments: impl Iterator<Item = OsString>) -> Ended {
    let mut words = Words(Parser::from_args(arguments));
    let Some(word) = words.optional("a word")? else {
        print!("{}", help::TEXT);
        return Ok(ExitCode::from(WRONG));
    };
    match word.as_str() {
        "pf" => device::pf(words),
        "vf" => device::vf(words),
        "slot" => device::slot(words),
        "bind" => {
            let (bdf, driver) = (words.one("the address of a device")?, words.one("a driver")?);
            words.end()?;
            bind::bind(&bdf, &driver).map(|()| ExitCode::SUCCESS)
        }
        "own" => own::own(words),
        own::OWNER => own::owner(words),
        "hold" => hold::hold(words),
        hold::HOLDER => hold::holder(words),
        "remove" => {
            let (mut bdf, mut by) = (None, None);
            while let Some(next) = words.next()? {
                match next {
                    Next::Word(word) if bdf.is_none() => bdf = Some(word),
                    Next::Option(name) if name == "by" => by = Some(words.value(&name)?),
                    other => return Err(other.unknown("remove")),
                }
            }
            let bdf = bdf.ok_or_else(|| missing("the address of a PF"))?;
            ask(&Word::Remove { bdf, by })
        }
        "plug" => {
            let slot = words.optional("a slot")?;
            words.end()?;
            ask(&Word::Plug { slot })
        }
        "inject" => {
            let (slot, error) = (words.one("a slot")?, words.one("an error")?);
            words.end()?;
            ask(&Word::Inject { slot, error })
        }
        "watch" => watch::watch(words),
        "wait-blocked" => look::wait_blocked(words),
        "expect" => verdict::expect(words),
        "fail" => verdict::fail(words),
        "skip" => verdict::skip(words),
        "help" => {
            print!("{}", help::TEXT);
            Ok(ExitCode::SUCCESS)
        }
        other => Err(AgentError::Refused(format!("there is no word `{other}`; `{NAME} --help` lists them"))),
    }
}

/// Asks the host, and prints what it answers.
fn ask(word: &Word) -> Ended {
    match words::say(word)? {
        Answer::Function(function) => println!("{}", function.bdf),
        Answer::Slot(slot) => println!("{}", slot.id),
        Answer::Done | Answer::Refused(_) => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// The arguments that are left.
struct Words(Parser);

/// The next argument.
enum Next {
    /// A word.
    Word(String),
    /// An option, without its dashes.
    Option(String),
}

impl Next {
    /// The error if the word of this name does not take it.
    fn unknown(&self, of: &str) -> AgentError {
        let (Next::Word(what) | Next::Option(what)) = self;
        let dashes = if matches!(self, Next::Option(_)) { "--" } else { "" };
        AgentError::Refused(format!("`{NAME} {of}` takes no `{dashes}{what}`; `{NAME} --help` says what it takes"))
    }
}

impl Words {
    fn next(&mut self) -> Result<Option<Next>, AgentError> {
        let next = match self.0.next().map_err(wrong)? {
            None => return Ok(None),
            Some(Arg::Value(value)) => Next::Word(value.string().map_err(wrong)?),
            Some(Arg::Long("help") | Arg::Short('h')) => Next::Word("help".to_owned()),
            Some(Arg::Long(name)) => Next::Option(name.to_owned()),
            Some(Arg::Short(name)) => Next::Option(name.to_string()),
        };
        Ok(Some(next))
    }

    /// The next word, if there is one.
    fn optional(&mut self, what: &str) -> Result<Option<String>, AgentError> {
        match self.next()? {
            None => Ok(None),
            Some(Next::Word(word)) => Ok(Some(word)),
            Some(Next::Option(name)) => Err(AgentError::Refused(format!("{what} must come before --{name}"))),
        }
    }

    fn one(&mut self, what: &str) -> Result<String, AgentError> {
        self.optional(what)?.ok_or_else(|| missing(what))
    }

    /// The value of an option.
    fn value(&mut self, of: &str) -> Result<String, AgentError> {
        let value = self.0.value().map_err(|_| AgentError::Refused(format!("--{of} needs a value")))?;
        value.string().map_err(wrong)
    }

    /// All words that are left, also those that look like options.
    fn rest(&mut self) -> Result<Vec<String>, AgentError> {
        self.0.raw_args().map_err(wrong)?.map(|word| word.string().map_err(wrong)).collect()
    }

    /// Checks that nothing is left.
    fn end(mut self) -> Result<(), AgentError> {
        match self.next()? {
            None => Ok(()),
            Some(next) => Err(next.unknown("...")),
        }
    }
}

fn wrong(error: lexopt::Error) -> AgentError {
    AgentError::Refused(error.to_string())
}

fn missing(what: &str) -> AgentError {
    AgentError::Refused(format!("{what} is missing; `{NAME} --help` says what each word takes"))
}

/// A number that is a word.
fn number<T: std::str::FromStr>(word: &str, what: &str) -> Result<T, AgentError> {
    word.parse().map_err(|_| AgentError::Refused(format!("{what} is a number, not `{word}`")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(line: &str) -> String {
        match run(line.split_whitespace().map(OsString::from)) {
            Ok(code) => format!("{code:?}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_wrong_word_is_named() {
        assert_eq!(why("dance"), "there is no word `dance`; `iov --help` lists them");
        assert_eq!(why("remove"), "the address of a PF is missing; `iov --help` says what each word takes");
        assert_eq!(why("remove x --with y"), "`iov remove` takes no `--with`; `iov --help` says what it takes");
        assert_eq!(why("remove x --by"), "--by needs a value");
        assert_eq!(why("vf x"), "the number of a VF is a number, not `x`");
        assert_eq!(why("wait-blocked 1 f --within x"), "--within is a number, not `x`");
        assert_eq!(why("wait-blocked x f"), "the pid is a number or `any`, not `x`");
        assert_eq!(why("hold"), "a lock (rescan-lock, vf-disable) is missing; `iov --help` says what each word takes");
        assert_eq!(why("hold rtnl x"), "there is no lock `rtnl` to hold; these are: rescan-lock, vf-disable");
        assert_eq!(
            why("hold vf-disable"),
            "the address of a device is missing; `iov --help` says what each word takes"
        );
        assert_eq!(why("hold rescan-lock x y"), "`iov hold` takes no `y`; `iov --help` says what it takes");
    }

    #[test]
    fn without_a_harness_a_word_for_it_fails() {
        assert_eq!(why("plug"), "reach the harness, which carries this out");
    }
}
