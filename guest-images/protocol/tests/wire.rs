//! The wire format: each example is encoded, compared with a snapshot, and decoded.

mod examples;

use std::collections::BTreeSet;
use std::fmt::Debug;

use examples::{messages, requests};
use guest_protocol::{
    Access, Ask, Call, Command, Errno, Message, OpId, Outcome, Policy, Progress, Reply, Request, Sched, Source, Step,
    Uevent, VERSION, decode, encode,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The lines of all examples. Checks that each is one line and is decoded to the same value.
fn lines<T: Serialize + DeserializeOwned + PartialEq + Debug>(examples: Vec<T>) -> String {
    let mut lines = String::new();
    for example in examples {
        let line = encode(&example).unwrap();
        assert_eq!(line.matches('\n').count(), 1, "one message, one line");
        assert_eq!(decode::<T>(&line).unwrap(), example);
        lines += &line;
    }
    lines
}

/// The names of an enum's variants, as serde lists them when it meets an unknown one.
fn variants<T: DeserializeOwned + Debug>(unknown: &str) -> BTreeSet<String> {
    let error = serde_json::from_str::<T>(unknown).unwrap_err().to_string();
    let (_, expected) = error.split_once("expected").expect("serde lists the variants");
    expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The variant that a value is serialized as: its text, or its only key.
fn variant<T: Serialize>(value: &T) -> String {
    match serde_json::to_value(value).unwrap() {
        serde_json::Value::String(name) => name,
        serde_json::Value::Object(fields) => fields.keys().next().unwrap().clone(),
        other => panic!("{other} has no variant"),
    }
}

#[test]
fn every_command_and_step_has_an_example() {
    let commands: Vec<_> = requests().into_iter().map(|request| request.command).collect();
    assert_eq!(commands.iter().map(variant).collect::<BTreeSet<_>>(), variants::<Command>(r#""none""#));
    let steps = commands.iter().find_map(|command| match command {
        Command::Own { steps, .. } => Some(steps),
        _ => None,
    });
    assert_eq!(steps.unwrap().iter().map(variant).collect::<BTreeSet<_>>(), variants::<Step>(r#""none""#));
}

#[test]
fn every_call_has_an_example() {
    let calls = examples::calls();
    assert_eq!(calls.iter().map(variant).collect::<BTreeSet<_>>(), variants::<Call>(r#""none""#));
    let asks = calls.iter().filter_map(|call| match call {
        Call::On { ask, .. } => Some(variant(ask)),
        _ => None,
    });
    assert_eq!(asks.collect::<BTreeSet<_>>(), variants::<Ask>(r#""none""#));
}

#[test]
fn every_message_progress_and_reply_has_an_example() {
    let messages = messages();
    let kind = |message: &Message| serde_json::to_value(message).unwrap()["type"].as_str().unwrap().to_owned();
    assert_eq!(messages.iter().map(kind).collect::<BTreeSet<_>>(), variants::<Message>(r#"{"type": "none"}"#));
    let progress = messages.iter().filter_map(|message| match message {
        Message::Progress { progress, .. } => Some(variant(progress)),
        _ => None,
    });
    assert_eq!(progress.collect::<BTreeSet<_>>(), variants::<Progress>(r#""none""#));
    let replies = messages.iter().filter_map(|message| match message {
        Message::Done { outcome: Outcome::Ok(reply), .. } => Some(variant(reply)),
        _ => None,
    });
    assert_eq!(replies.collect::<BTreeSet<_>>(), variants::<Reply>(r#""none""#));
}

#[test]
fn requests_have_this_form() {
    insta::assert_snapshot!(lines(requests()));
}

#[test]
fn messages_have_this_form() {
    insta::assert_snapshot!(lines(messages()));
}

#[test]
fn missing_fields_have_their_defaults() {
    let line = r#"{"id": 1, "command": {"write": {"path": "/p", "data": "0"}}}"#;
    let command = Command::Write { path: "/p".to_owned(), data: "0".to_owned(), at: 0, sched: Sched::default() };
    assert_eq!(decode::<Request>(line).unwrap(), Request { id: OpId(1), command });
}

#[test]
fn unknown_commands_and_fields_are_refused() {
    for line in [
        r#"{"id": 1, "command": "dance"}"#,
        r#"{"id": 1, "command": "hello", "urgent": true}"#,
        r#"{"id": 1, "command": {"read": {"path": "/p", "twice": true}}}"#,
        r#"{"command": "hello"}"#,
        "",
        "hello",
    ] {
        let error = decode::<Request>(line).unwrap_err().to_string();
        assert!(error.starts_with(&format!("not a message of protocol version {VERSION}: ")), "{error}");
    }
}

mod any {
    use proptest::prelude::*;

    use super::*;

    fn sched() -> impl Strategy<Value = Sched> {
        let policy = prop_oneof![Just(Policy::Other), any::<u8>().prop_map(Policy::Fifo)];
        (any::<Option<u32>>(), policy).prop_map(|(cpu, policy)| Sched { cpu, policy })
    }

    fn command() -> impl Strategy<Value = Command> {
        prop_oneof![
            (any::<String>(), any::<String>(), any::<u64>(), sched())
                .prop_map(|(path, data, at, sched)| Command::Write { path, data, at, sched }),
            (any::<u64>(), any::<i32>()).prop_map(|(target, signal)| Command::Kill { target: OpId(target), signal }),
            prop::collection::vec(any::<String>(), 0..4).prop_map(|in_functions| Command::Tasks { in_functions }),
            any::<char>().prop_map(|key| Command::Sysrq { key }),
            (any::<Option<String>>(), any::<Option<String>>(), sched()).prop_map(|(action, devpath, sched)| {
                Command::Watch { source: Source::Uevent { action, devpath }, read: vec![], sched }
            }),
        ]
    }

    fn message() -> impl Strategy<Value = Message> {
        let env = prop::collection::btree_map(any::<String>(), any::<String>(), 0..4);
        let value = prop_oneof![
            any::<String>().prop_map(Ok),
            (any::<i32>(), any::<String>()).prop_map(|(code, name)| Err(Errno { code, name })),
        ];
        prop_oneof![
            (any::<u64>(), any::<u64>(), any::<u8>(), any::<String>())
                .prop_map(|(at, seq, level, text)| Message::Kmsg { at, seq, level, text }),
            (any::<u64>(), any::<String>(), any::<String>(), any::<u64>(), env).prop_map(
                |(at, action, devpath, seqnum, env)| {
                    Message::Uevent { at, uevent: Uevent { action, devpath, seqnum, env } }
                }
            ),
            (any::<u64>(), any::<String>(), value, any::<u64>(), any::<u64>()).prop_map(
                |(id, path, value, started, finished)| {
                    let access = Access { path, value, started, finished };
                    Message::Done { id: OpId(id), at: finished, outcome: Outcome::Ok(Reply::Access(access)) }
                }
            ),
        ]
    }

    proptest! {
        #[test]
        fn a_request_is_decoded_as_it_was_encoded(id: u64, command in command()) {
            let request = Request { id: OpId(id), command };
            let line = encode(&request).unwrap();
            prop_assert_eq!(line.matches('\n').count(), 1);
            prop_assert_eq!(decode::<Request>(&line).unwrap(), request);
        }

        #[test]
        fn a_message_is_decoded_as_it_was_encoded(message in message()) {
            let line = encode(&message).unwrap();
            prop_assert_eq!(line.matches('\n').count(), 1);
            prop_assert_eq!(decode::<Message>(&line).unwrap(), message);
        }

        #[test]
        fn no_text_makes_it_panic(text: String) {
            let _ = (decode::<Request>(&text), decode::<Message>(&text));
        }

        #[test]
        fn a_cut_request_is_refused(command in command(), cut in 1usize..100) {
            let line = encode(&Request { id: OpId(1), command }).unwrap();
            let half: String = line.chars().take((line.chars().count() - 1).saturating_sub(cut)).collect();
            prop_assert!(decode::<Request>(&half).is_err());
        }
    }
}
