//! Words of a script, which the host is asked and answers.

use std::os::unix::process::CommandExt;
use std::process::Stdio;

use guest_protocol::{Answer, Command, Function, Message, Reply, SlotName, Word, WordId};

use super::host::Host;

/// Says a word of a script, as a script does.
fn iov(arguments: &[&str]) -> std::process::Child {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_guest-agent"));
    command.arg0("iov").args(arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
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
