//! What goes over the wire: one example of everything, as text, and back.

use std::collections::BTreeMap;
use std::fmt::Debug;

use guest_protocol::{
    Access, AttributeWrite, Command, Errno, Failure, Inventory, LinkEvent, Message, OpId, Outcome, PciFunction, Policy,
    Progress, Reply, Request, Sched, Sighting, Source, Step, Sweep, Swept, TaskState, Uevent, VERSION, VfioDevice,
    Waiting, decode, encode,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

const PATH: &str = "/sys/bus/pci/devices/0000:01:00.0/sriov_numvfs";

/// The lines of all examples, each of which has been read back.
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

fn requests() -> Vec<Request> {
    let path = || PATH.to_owned();
    let sched = Sched { cpu: Some(1), policy: Policy::Fifo(50) };
    let bdf = || "0000:01:00.0".to_owned();
    let write = AttributeWrite { path: path(), data: "0".to_owned() };
    let steps = vec![
        Step::AwaitRequest,
        Step::Read { path: path() },
        Step::Write(write.clone()),
        Step::Hold,
        Step::EnableMsix { bdf: bdf() },
        Step::HotReset { bdf: bdf() },
        Step::Close { bdf: bdf() },
        Step::Release,
    ];
    let vf_token = Some("14d63f20-8445-11ea-8900-1f9ce7d5650d".to_owned());
    let devices = vec![VfioDevice { bdf: bdf(), vf_token: None }, VfioDevice { bdf: bdf(), vf_token }];
    let uevent = Source::Uevent { action: Some("change".to_owned()), devpath: None };
    let target = OpId(4);
    let commands = vec![
        Command::Hello,
        Command::Read { path: path() },
        Command::Write { path: path(), data: "4\n".to_owned(), at: 0, sched },
        Command::Write { path: path(), data: "\0\0".to_owned(), at: 0x168, sched: Sched::default() },
        Command::List { path: path() },
        Command::ReadLink { path: path() },
        Command::Bind { bdf: bdf(), driver: "vfio-pci".to_owned() },
        Command::Own { devices, steps },
        Command::Cycle { writes: vec![write], rounds: Some(20) },
        Command::ReadPhy { ifname: "eth0".to_owned(), register: 1 },
        Command::Sweep(Sweep {
            folders: vec!["/sys/bus/pci/slots/16".to_owned()],
            leave_out: vec!["remove".to_owned()],
            write_back: vec!["attention".to_owned()],
            quiet_ms: 500,
        }),
        Command::Watch { source: uevent, read: vec![path()], sched: Sched::default() },
        Command::Watch { source: Source::Rtnetlink, read: vec![], sched },
        Command::SetLink { ifname: "eth0".to_owned(), up: true },
        Command::Continue { target },
        Command::Stop { target },
        Command::Kill { target, signal: 9 },
        Command::Where { target },
        Command::Tasks { in_functions: vec!["sriov_numvfs_show".to_owned()] },
        Command::Inventory,
        Command::Sysrq { key: 'w' },
    ];
    (1..).map(OpId).zip(commands).map(|(id, command)| Request { id, command }).collect()
}

fn access(value: Result<&str, (i32, &str)>) -> Access {
    let value = value.map(str::to_owned).map_err(|(code, name)| Errno { code, name: name.to_owned() });
    Access { path: PATH.to_owned(), value, started: 100, finished: 250 }
}

fn inventory() -> Inventory {
    let bdf = || "0000:01:00.0".to_owned();
    let function = PciFunction {
        devpath: "/devices/x".to_owned(),
        numvfs: Some("1".to_owned()),
        virtfns: BTreeMap::from([("0".to_owned(), "0000:01:10.0".to_owned())]),
        physfn: None,
        driver: Some("igb".to_owned()),
        group: Some("14".to_owned()),
        interfaces: vec!["eth0".to_owned()],
    };
    Inventory {
        functions: BTreeMap::from([(bdf(), function)]),
        folders: vec!["/devices/x".to_owned()],
        groups: BTreeMap::from([("14".to_owned(), vec![bdf()])]),
        drivers: BTreeMap::from([("igb".to_owned(), vec![bdf()])]),
        interfaces: BTreeMap::from([("eth0".to_owned(), bdf())]),
        debug_locks: Some(true),
    }
}

fn uevent() -> Uevent {
    let env = BTreeMap::from([("DRIVER".to_owned(), "igb".to_owned())]);
    Uevent { action: "change".to_owned(), devpath: "/devices/x".to_owned(), seqnum: 712, env }
}

fn link() -> LinkEvent {
    LinkEvent { gone: false, ifname: "eth0".to_owned(), index: 2, flags: 69699, operstate: Some(6) }
}

fn messages() -> Vec<Message> {
    let progress = |progress| Message::Progress { id: OpId(4), at: 6, progress };
    let done = |outcome| Message::Done { id: OpId(4), at: 7, outcome };
    let failure = Failure {
        message: "write x: Device or resource busy (os error 16)".to_owned(),
        errno: Some(Errno { code: 16, name: "EBUSY".to_owned() }),
    };
    let task = TaskState {
        pid: 61,
        tid: 61,
        comm: "iov-own".to_owned(),
        state: 'D',
        wchan: "sriov_numvfs_show".to_owned(),
        stack: vec!["sriov_numvfs_show".to_owned(), "dev_attr_show".to_owned()],
    };
    let saw = |event| Progress::Saw { event, seen: 5, reads: vec![access(Ok("4"))] };
    vec![
        Message::Hello { version: 2, kernel: "6.12.117".to_owned(), cpus: 2, at: 5 },
        Message::Started { id: OpId(4), pid: 61, at: 5 },
        progress(Progress::Opened { groups: vec![4] }),
        progress(Progress::Requested { bdf: "0000:01:00.0".to_owned() }),
        progress(Progress::Reading { path: PATH.to_owned() }),
        progress(Progress::Read(access(Err((19, "ENODEV"))))),
        progress(Progress::Writing { path: PATH.to_owned() }),
        progress(Progress::Written(access(Ok("")))),
        progress(Progress::Holding),
        progress(Progress::Closed { bdf: "0000:01:00.0".to_owned() }),
        progress(Progress::Released),
        progress(Progress::Waiting(vec![Waiting {
            path: PATH.to_owned(),
            write: false,
            since: 3,
            task: task.clone(),
        }])),
        progress(Progress::Watching),
        progress(saw(Sighting::Uevent(uevent()))),
        progress(saw(Sighting::Link(link()))),
        done(Outcome::Ok(Reply::Nothing)),
        done(Outcome::Ok(Reply::Access(access(Ok("0"))))),
        done(Outcome::Ok(Reply::Names(vec!["a".to_owned()]))),
        done(Outcome::Ok(Reply::Target("../b".to_owned()))),
        done(Outcome::Ok(Reply::Tasks(vec![task]))),
        done(Outcome::Ok(Reply::Swept(vec![Swept { write: true, access: access(Ok("")) }]))),
        done(Outcome::Ok(Reply::Inventory(Box::new(inventory())))),
        done(Outcome::Ok(Reply::Cycled { rounds: 20, refused: 3 })),
        done(Outcome::Err(failure)),
        Message::Uevent { at: 8, uevent: uevent() },
        Message::Link { at: 8, link: link() },
        Message::Kmsg { at: 9000, seq: 3, level: 6, text: "pci: removed\nat last".to_owned() },
        Message::Lost { stream: "uevent".to_owned(), at: 9 },
    ]
}

#[test]
fn what_the_host_says() {
    insta::assert_snapshot!(lines(requests()));
}

#[test]
fn what_the_guest_says() {
    insta::assert_snapshot!(lines(messages()));
}

#[test]
fn what_is_left_out_has_its_default() {
    let line = r#"{"id": 1, "command": {"write": {"path": "/p", "data": "0"}}}"#;
    let command = Command::Write { path: "/p".to_owned(), data: "0".to_owned(), at: 0, sched: Sched::default() };
    assert_eq!(decode::<Request>(line).unwrap(), Request { id: OpId(1), command });
}

#[test]
fn what_is_unknown_is_refused() {
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
        fn a_request_comes_back(id: u64, command in command()) {
            let request = Request { id: OpId(id), command };
            let line = encode(&request).unwrap();
            prop_assert_eq!(line.matches('\n').count(), 1);
            prop_assert_eq!(decode::<Request>(&line).unwrap(), request);
        }

        #[test]
        fn a_message_comes_back(message in message()) {
            let line = encode(&message).unwrap();
            prop_assert_eq!(line.matches('\n').count(), 1);
            prop_assert_eq!(decode::<Message>(&line).unwrap(), message);
        }

        #[test]
        fn no_text_panics(text: String) {
            let _ = (decode::<Request>(&text), decode::<Message>(&text));
        }

        #[test]
        fn half_a_request_is_none(command in command(), cut in 1usize..100) {
            let line = encode(&Request { id: OpId(1), command }).unwrap();
            let half: String = line.chars().take((line.chars().count() - 1).saturating_sub(cut)).collect();
            prop_assert!(decode::<Request>(&half).is_err());
        }
    }
}
