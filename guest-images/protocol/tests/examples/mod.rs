//! One example of every command, step, message, progress and reply.

use std::collections::BTreeMap;

use guest_protocol::{
    Access, Answer, Ask, AttributeWrite, Call, Command, Errno, Failure, Inventory, LinkEvent, Message, OpId, Outcome,
    PciFunction, Policy, ProgramEnd, Progress, Reply, Request, Returned, Sched, Sighting, Source, Step, Sweep, Swept,
    TaskState, Uevent, VERSION, VfioDevice, Waiting, Word, WordId,
};

const PATH: &str = "/sys/bus/pci/devices/0000:01:00.0/sriov_numvfs";

/// What the host sends.
pub fn requests() -> Vec<Request> {
    let path = || PATH.to_owned();
    let sched = Sched { cpu: Some(1), policy: Policy::Fifo(50) };
    let bdf = || "0000:01:00.0".to_owned();
    let write = AttributeWrite { path: path(), data: "0".to_owned() };
    let steps = vec![
        Step::AwaitRequest,
        Step::Read { path: path() },
        Step::Write(write.clone()),
        Step::Hold,
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
        Command::ReadBytes { path: path(), at: 0x168, length: 2 },
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
        Command::SetVfMac { ifname: "eth0".to_owned(), vf: 1, mac: [2, 0, 0, 0, 0, 0x1f] },
        Command::PutFile {
            path: "/tmp/test".to_owned(),
            offset: 65536,
            size: 4096,
            total: 1_024_704,
            executable: true,
        },
        Command::Run {
            program: "/tmp/test".to_owned(),
            args: vec!["-v".to_owned(), "iommufd".to_owned(), bdf()],
            env: BTreeMap::from([("KSFT_TAP_LEVEL".to_owned(), "1".to_owned())]),
            socket: false,
        },
        Command::Continue { target },
        Command::Stop { target },
        Command::Kill { target, signal: 9 },
        Command::Where { target },
        Command::Tasks { in_functions: vec!["sriov_numvfs_show".to_owned()] },
        Command::Inventory,
        Command::Sysrq { key: 'w' },
        Command::Alarm { at: 12_500_000_000 },
        Command::Save,
        Command::HearWords,
        Command::Answer { word: WordId(3), answer: Answer::Refused("there is no PF 2".to_owned()) },
    ];
    let commands = commands.into_iter().chain(calls().into_iter().map(|call| Command::Call { target, call }));
    (1..).map(OpId).zip(commands).map(|(id, command)| Request { id, command }).collect()
}

/// The calls of an owner.
pub fn calls() -> Vec<Call> {
    let bdf = || "0000:01:00.0".to_owned();
    let token = "14d63f20-8445-11ea-8900-1f9ce7d5650d";
    let asks = vec![
        Ask::Region { region: 7 },
        Ask::Read { region: 7, at: 4, size: 2 },
        Ask::Write { region: 7, at: 4, bytes: vec![6, 0] },
        Ask::MapRegion { region: 0, size: 4096 },
        Ask::Load { region: 0, at: 8 },
        Ask::Irqs { index: 2 },
        Ask::Arm { index: 2, count: 10 },
        Ask::Disarm { index: 2 },
        Ask::Reset,
        Ask::HotResetInfo,
        Ask::HotReset { groups: vec![bdf(), bdf()] },
        Ask::MapDma { iova: 0x10_0000, size: 8192 },
        Ask::UnmapDma { iova: 0x10_0000, size: 8192 },
        Ask::DmaAvail,
        Ask::OpenAgain { name: "nobody".to_owned() },
        Ask::CloseAgain,
        Ask::UnsetContainer,
        Ask::Close,
    ];
    let calls = vec![
        Call::Open(VfioDevice { bdf: bdf(), vf_token: None }),
        Call::Open(VfioDevice { bdf: bdf(), vf_token: Some(token.to_owned()) }),
        Call::OpenGroup { bdf: bdf() },
        Call::Signals { bdf: bdf(), index: 2, vector: 9, within_ms: 500 },
        Call::ReadFile { path: PATH.to_owned(), size: 256 },
        Call::ReadFolder { path: "/sys/bus/pci/devices".to_owned() },
    ];
    let asks = asks.into_iter().map(|ask| Call::On { bdf: bdf(), ask });
    calls.into_iter().chain(asks).collect()
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

/// What the guest sends.
pub fn messages() -> Vec<Message> {
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
        Message::Hello { version: VERSION, kernel: "6.12.117".to_owned(), cpus: 2, at: 5 },
        Message::Started { id: OpId(4), pid: 61, at: 5 },
        progress(Progress::Opened { groups: vec![4] }),
        progress(Progress::Requested { bdf: "0000:01:00.0".to_owned() }),
        progress(Progress::Reading { path: PATH.to_owned() }),
        progress(Progress::Read(access(Err((19, "ENODEV"))))),
        progress(Progress::Writing { path: PATH.to_owned() }),
        progress(Progress::Written(access(Ok("")))),
        progress(Progress::Holding),
        progress(Progress::Called { id: OpId(5), result: Ok(Returned { value: 2, bytes: vec![6, 0] }) }),
        progress(Progress::Called { id: OpId(6), result: Err(Errno { code: 5, name: "EIO".to_owned() }) }),
        progress(Progress::Saving),
        progress(Progress::Closed { bdf: "0000:01:00.0".to_owned() }),
        progress(Progress::Released),
        progress(Progress::Waiting(vec![Waiting {
            path: PATH.to_owned(),
            write: false,
            since: 3,
            task: task.clone(),
        }])),
        progress(Progress::Watching),
        progress(Progress::Printed { text: "TAP version 13\n1..18\n".to_owned() }),
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
        done(Outcome::Ok(Reply::Ran { end: ProgramEnd::Exited(1), unreported: 0 })),
        done(Outcome::Ok(Reply::Ran { end: ProgramEnd::Killed("SIGKILL".to_owned()), unreported: 1 })),
        done(Outcome::Err(failure)),
        Message::Uevent { at: 8, uevent: uevent() },
        Message::Link { at: 8, link: link() },
        Message::Kmsg { at: 9000, seq: 3, level: 6, text: "pci: removed\nat last".to_owned() },
        Message::Asked { id: WordId(3), at: 9, word: Word::Remove { bdf: "0000:01:00.0".to_owned(), by: None } },
        Message::Lost { stream: "uevent".to_owned(), at: 9 },
    ]
}
