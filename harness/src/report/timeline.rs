//! What happened in a cell, on the guest's clock: lanes with bars and points, from the transcripts and the last look.

use std::collections::BTreeMap;

use guest_protocol::{Command, Message, OpId, Outcome, Reply, Request};
use serde_json::Value;

use crate::evidence::{CellRecord, Details, Said, Spoken};
use crate::trigger::{Act, Trigger};
use crate::verdict::Verdict;
use crate::waits::{Graph, words};

/// The most lanes for operations. The others share one.
const LANES: usize = 10;

/// What happened in a cell. All times are in seconds of the guest, since its scenario began.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Timeline {
    /// When the last thing happened.
    pub end: f64,
    /// Host and QEMU first, then the tasks, then what the kernel said.
    pub lanes: Vec<Lane>,
    /// The trigger, its proof and the verdict.
    pub marks: Vec<Mark>,
}

/// A row of the picture.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lane {
    pub name: String,
    pub bars: Vec<Bar>,
    pub points: Vec<Point>,
}

/// Something that lasted.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    pub from: f64,
    pub to: f64,
    /// It had not ended.
    pub open: bool,
    /// The task waits, and is one of those that the last look found waiting for each other or for somebody.
    pub stuck: bool,
    pub words: String,
}

/// Something that happened at once.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    pub at: f64,
    /// An error of the kernel, or something refused.
    pub bad: bool,
    pub words: String,
}

/// A moment that matters to the verdict.
#[derive(Clone, Debug, PartialEq)]
pub struct Mark {
    pub at: f64,
    /// `trigger`, `proof` or `verdict`.
    pub name: &'static str,
    pub words: String,
}

/// An operation of the agent.
#[derive(Debug)]
struct Operation {
    command: Command,
    started: f64,
    pid: i32,
    done: Option<(f64, String, bool)>,
    progress: Vec<(f64, String)>,
}

/// Reads one try of a cell: the last. None if no guest said anything.
pub fn of(record: &CellRecord, details: &Details) -> Option<Timeline> {
    let said = &details.transcript.agent;
    let is_hello = |said: &Said<Spoken>| match &said.what {
        Spoken::Message(message) => matches!(**message, Message::Hello { .. }),
        Spoken::Request(_) => false,
    };
    let first = said.iter().rposition(is_hello)?;
    let Spoken::Message(hello) = &said[first].what else { return None };
    let mut reader = Reader::new(record, hello.at());
    for line in &said[first + 1..] {
        match &line.what {
            Spoken::Request(request) => reader.request(request),
            Spoken::Message(message) => reader.message(message, line.t),
        }
    }
    for line in details.transcript.qmp.iter().filter(|line| line.t >= said[first].t) {
        reader.qmp(line);
    }
    Some(reader.timeline(record, details.graph.as_ref()))
}

struct Reader<'a> {
    origin: u64,
    /// The guest's time that the host had heard of at each of its own times.
    clock: Vec<(f64, f64)>,
    now: f64,
    requests: BTreeMap<OpId, Command>,
    operations: BTreeMap<OpId, Operation>,
    /// What samples saw of tasks that are no operations: by name and tid, each with time and function.
    seen: BTreeMap<(String, i32), Vec<(f64, String)>>,
    host: Lane,
    qmp: Lane,
    events: [Lane; 3],
    marks: Vec<Mark>,
    trigger: Option<Trigger>,
    proof: Vec<&'a str>,
}

const UEVENTS: usize = 0;
const NETLINK: usize = 1;
const KMSG: usize = 2;

impl<'a> Reader<'a> {
    fn new(record: &'a CellRecord, origin: u64) -> Reader<'a> {
        let lane = |name: &str| Lane { name: name.to_owned(), ..Lane::default() };
        Reader {
            origin,
            clock: Vec::new(),
            now: 0.0,
            requests: BTreeMap::new(),
            operations: BTreeMap::new(),
            seen: BTreeMap::new(),
            host: lane("host"),
            qmp: lane("QMP"),
            events: [lane("uevents"), lane("netlink"), lane("kernel log")],
            marks: Vec::new(),
            trigger: record.cell.trigger,
            proof: record.trigger_proof.iter().flat_map(|proof| proof.lines()).collect(),
        }
    }

    /// The guest's time in seconds since the scenario began. What is older counts as its begin.
    fn at(&self, nanoseconds: u64) -> f64 {
        nanoseconds.saturating_sub(self.origin) as f64 / 1e9
    }

    fn request(&mut self, request: &Request) {
        self.requests.insert(request.id, request.command.clone());
        let words = request.command.to_string();
        let is_hidden = matches!(request.command, Command::Alarm { .. } | Command::Hello | Command::Save);
        if !is_hidden && !has_lane(&request.command) {
            self.host.points.push(Point { at: self.now, bad: false, words });
        }
    }

    fn message(&mut self, message: &Message, t: f64) {
        let at = self.at(message.at());
        if !matches!(message, Message::Kmsg { .. }) {
            self.now = self.now.max(at);
            self.clock.push((t, self.now));
        }
        match message {
            Message::Started { id, pid, .. } => self.started(*id, *pid, at),
            Message::Progress { id, progress, .. } => {
                if let Some(operation) = self.operations.get_mut(id) {
                    operation.progress.push((at, progress.to_string()));
                }
            }
            Message::Done { id, outcome, .. } => self.done(*id, outcome, at),
            Message::Uevent { uevent, .. } => self.event(UEVENTS, at, false, uevent.to_string()),
            Message::Link { link, .. } => self.event(NETLINK, at, false, link.to_string()),
            Message::Kmsg { level, text, .. } => {
                self.event(KMSG, at, *level <= 3, text.clone());
                let is_proof = self.proof.iter().any(|line| !line.is_empty() && text.contains(line));
                if is_proof {
                    self.mark("proof", at, text.clone());
                }
            }
            Message::Asked { word, .. } => {
                self.host.points.push(Point { at, bad: false, words: format!("the script asks: {word}") });
            }
            Message::Lost { stream, .. } => self.event(KMSG, at, true, format!("messages of {stream} were lost")),
            Message::Hello { .. } => {}
        }
    }

    fn started(&mut self, id: OpId, pid: i32, at: f64) {
        let Some(command) = self.requests.get(&id).filter(|command| has_lane(command)) else { return };
        if let (Command::Write { path, .. }, Some(Act::Write { attribute, .. })) =
            (command, self.trigger.map(Trigger::act))
            && path.rsplit('/').next() == Some(attribute)
        {
            let words = command.to_string();
            self.mark("trigger", at, words);
        }
        let Some(command) = self.requests.get(&id) else { return };
        let operation = Operation { command: command.clone(), started: at, pid, done: None, progress: Vec::new() };
        self.operations.insert(id, operation);
    }

    fn done(&mut self, id: OpId, outcome: &Outcome, at: f64) {
        if let Some(operation) = self.operations.get_mut(&id) {
            let (words, refused) = ended(outcome);
            operation.done = Some((at, words, refused));
        }
        let Outcome::Ok(Reply::Tasks(tasks)) = outcome else { return };
        let own: Vec<i32> = self.operations.values().map(|operation| operation.pid).collect();
        for task in tasks.iter().filter(|task| task.state == 'D' && !own.contains(&task.pid)) {
            let place = if task.wchan.is_empty() { "no function that waits".to_owned() } else { task.wchan.clone() };
            self.seen.entry((task.comm.clone(), task.tid)).or_default().push((at, place));
        }
    }

    fn event(&mut self, lane: usize, at: f64, bad: bool, words: String) {
        self.events[lane].points.push(Point { at, bad, words });
    }

    /// Notes a moment, the first time.
    fn mark(&mut self, name: &'static str, at: f64, words: String) {
        if !self.marks.iter().any(|mark| mark.name == name) {
            self.marks.push(Mark { at, name, words });
        }
    }

    fn qmp(&mut self, said: &Said<Value>) {
        let words = match (said.what["execute"].as_str(), said.what["event"].as_str()) {
            (Some("human-monitor-command"), _) => {
                let line = said.what["arguments"]["command-line"].as_str().unwrap_or_default();
                if !line.starts_with("o/") {
                    return;
                }
                format!("write a register: {line}")
            }
            (Some(name), _) if is_shown(name) => {
                let id = said.what["arguments"]["id"].as_str().unwrap_or_default();
                format!("{name} {id}").trim_end().to_owned()
            }
            (_, Some(name)) if !name.starts_with("MIGRATION") => {
                let device = said.what["data"]["device"].as_str().unwrap_or_default();
                format!("event {name} {device}").trim_end().to_owned()
            }
            _ => return,
        };
        let heard = self.clock.partition_point(|(t, _)| *t <= said.t);
        let at = if heard == 0 { 0.0 } else { self.clock[heard - 1].1 };
        let is_trigger = match self.trigger.map(Trigger::act) {
            Some(Act::DeviceDel) => words.starts_with("device_del"),
            Some(Act::CutPower) => words.starts_with("write a register"),
            Some(Act::Write { .. }) | None => false,
        };
        if is_trigger {
            self.mark("trigger", at, words.clone());
        }
        self.qmp.points.push(Point { at, bad: false, words });
    }

    fn timeline(mut self, record: &CellRecord, graph: Option<&Graph>) -> Timeline {
        let points = self.events.iter().chain([&self.host, &self.qmp]).flat_map(|lane| &lane.points);
        let end = points.map(|point| point.at).fold(self.now, f64::max);
        if !matches!(record.verdict, Verdict::Pass | Verdict::Skip(_)) {
            self.mark("verdict", end, super::words::ended(&record.verdict));
        }
        let mut lanes = vec![self.host, self.qmp];
        lanes.extend(lanes_of(&self.operations, end, graph));
        lanes.extend(kernel_lanes(self.seen, end, graph, &self.operations));
        lanes.extend(self.events);
        lanes.retain(|lane| !lane.bars.is_empty() || !lane.points.is_empty());
        Timeline { end, lanes, marks: self.marks }
    }
}

/// Whether an operation is something that the scenario does, and not a question of the harness.
fn has_lane(command: &Command) -> bool {
    let is_question = matches!(
        command,
        Command::Tasks { .. }
            | Command::Where { .. }
            | Command::Inventory
            | Command::Sysrq { .. }
            | Command::List { .. }
            | Command::ReadLink { .. }
    );
    command.process().is_some() && !is_question
}

/// Commands of QMP that change the machine.
fn is_shown(name: &str) -> bool {
    const OTHERS: &[&str] = &["qom-list", "qom-get", "qmp_capabilities", "cont", "stop", "quit", "dump-guest-memory"];
    !OTHERS.contains(&name) && !name.starts_with("query-") && !name.starts_with("migrate")
}

/// How an operation ended, and whether the kernel refused it.
fn ended(outcome: &Outcome) -> (String, bool) {
    match outcome {
        Outcome::Ok(Reply::Nothing) => ("done".to_owned(), false),
        Outcome::Ok(Reply::Access(access)) => match &access.value {
            Ok(value) if value.is_empty() => ("done".to_owned(), false),
            Ok(value) => (format!("\"{}\"", value.chars().take(60).collect::<String>()), false),
            Err(errno) => (errno.to_string(), true),
        },
        Outcome::Ok(reply) => (reply.to_string(), false),
        Outcome::Err(failure) => (failure.to_string(), true),
    }
}

/// What a task waits for, if the last look found it waiting for somebody.
fn wait(graph: Option<&Graph>, pid: i32) -> Option<String> {
    let graph = graph?;
    let wait = graph.wait(pid).filter(|wait| !wait.edges.is_empty())?;
    Some(format!("waits in {} for {}", wait.at.function, words::object(&wait.object)))
}

/// A lane for each operation. Operations of one kind that do not overlap share a lane.
fn lanes_of(operations: &BTreeMap<OpId, Operation>, end: f64, graph: Option<&Graph>) -> Vec<Lane> {
    let mut lanes: Vec<(f64, Lane)> = Vec::new();
    let mut sorted: Vec<_> = operations.values().collect();
    sorted.sort_by(|one, other| one.started.total_cmp(&other.started));
    for operation in sorted {
        let name = operation.command.process().unwrap_or("operation");
        let until = operation.done.as_ref().map_or(f64::INFINITY, |(at, ..)| *at);
        let free = lanes.iter().position(|(over, lane)| lane.name == name && *over <= operation.started);
        let place = free.unwrap_or_else(|| {
            if lanes.len() < LANES {
                lanes.push((0.0, Lane { name: name.to_owned(), ..Lane::default() }));
            } else {
                lanes[LANES - 1].1.name = "more operations".to_owned();
            }
            lanes.len() - 1
        });
        let place = &mut lanes[place];
        place.0 = place.0.max(until);
        draw(operation, end, graph, &mut place.1);
    }
    lanes.into_iter().map(|(_, lane)| lane).collect()
}

fn draw(operation: &Operation, end: f64, graph: Option<&Graph>, lane: &mut Lane) {
    let points = operation.progress.iter();
    lane.points.extend(points.map(|(at, words)| Point { at: *at, bad: false, words: words.clone() }));
    let what = format!("{} (pid {})", operation.command, operation.pid);
    let bar = |from, to, open, stuck, words| Bar { from, to, open, stuck, words };
    let Some((to, how, refused)) = &operation.done else {
        let last = operation.progress.last().map_or(operation.started, |(at, _)| *at);
        let waits = wait(graph, operation.pid);
        if last > operation.started {
            lane.bars.push(bar(operation.started, last, false, false, what.clone()));
        }
        let words = match &waits {
            Some(waits) => format!("{waits}: {what}"),
            None => format!("{what}: has not ended"),
        };
        return lane.bars.push(bar(last, end, true, waits.is_some(), words));
    };
    lane.bars.push(bar(operation.started, *to, false, false, format!("{what}: {how}")));
    if *refused {
        lane.points.push(Point { at: *to, bad: true, words: how.clone() });
    }
}

/// A lane for each task of the kernel that samples or the last look saw waiting.
fn kernel_lanes(
    seen: BTreeMap<(String, i32), Vec<(f64, String)>>,
    end: f64,
    graph: Option<&Graph>,
    operations: &BTreeMap<OpId, Operation>,
) -> Vec<Lane> {
    let mut seen = seen;
    let stuck = graph.map(Graph::stuck).unwrap_or_default();
    for party in graph.into_iter().flat_map(|graph| &graph.tasks) {
        let is_own = operations.values().any(|operation| operation.pid == party.tgid);
        if stuck.contains(&party.pid) && !is_own {
            seen.entry((party.comm.clone(), party.pid)).or_default();
        }
    }
    let lane = |((name, tid), samples): ((String, i32), Vec<(f64, String)>)| {
        let mut lane = Lane { name, ..Lane::default() };
        for (at, place) in samples {
            let words = format!("seen in D state in {place} (pid {tid})");
            match lane.bars.last_mut() {
                Some(bar) if bar.words == words => bar.to = at,
                _ => lane.bars.push(Bar { from: at, to: at, open: false, stuck: false, words }),
            }
        }
        if let Some(waits) = stuck.contains(&tid).then(|| wait(graph, tid)).flatten() {
            // Samples may have seen it there before.
            let place = graph.and_then(|graph| graph.wait(tid)).map(|wait| format!(" in {} (", wait.at.function));
            let seen = lane.bars.pop_if(|bar| place.as_ref().is_some_and(|place| bar.words.contains(place)));
            let from = seen.map(|bar| bar.from).or(lane.bars.last().map(|bar| bar.to)).unwrap_or(end);
            lane.bars.push(Bar { from, to: end, open: true, stuck: true, words: format!("{waits} (pid {tid})") });
        }
        lane
    };
    // Tasks of one name that only samples saw share a lane: a program may start many.
    let mut lanes: Vec<Lane> = Vec::new();
    for lane in seen.into_iter().map(lane) {
        let is_stuck = |lane: &Lane| lane.bars.iter().any(|bar| bar.stuck);
        match lanes.iter_mut().find(|other| other.name == lane.name && !is_stuck(other) && !is_stuck(&lane)) {
            Some(other) => other.bars.extend(lane.bars),
            None => lanes.push(lane),
        }
    }
    lanes
}

#[cfg(test)]
mod tests;
