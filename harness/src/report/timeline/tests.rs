use serde_json::json;

use super::*;
use crate::evidence::Transcript;
use crate::evidence::tests::{id, record, start};
use crate::verdict::Expected;
use kernels::FailureKind;

/// Lines of a transcript: time of the host, sender, message.
fn agent(lines: &[(f64, Value)]) -> Vec<Said<Spoken>> {
    let line = |(t, value): &(f64, Value)| {
        let by_host = value.get("command").is_some();
        let what = match by_host {
            true => Spoken::Request(serde_json::from_value(value.clone()).unwrap()),
            false => Spoken::Message(serde_json::from_value(value.clone()).unwrap()),
        };
        Said { t: *t, by_host, what }
    };
    lines.iter().map(line).collect()
}

/// A removal that an owner blocks: its read of an attribute never ends.
fn stuck() -> (CellRecord, Details) {
    let begun = start(id("a::b", Some(Trigger::DeviceDel), "stock", 1), Expected::Pass);
    let mut record = record(&begun, Verdict::fail(FailureKind::Deadlock, "f", "why".to_owned()), 1.0);
    record.trigger_proof = Some("Slot(1): Button press".to_owned());
    let own = json!({"own": {"devices": [{"bdf": "0000:01:00.0", "vf-token": null}], "steps": ["await-request"]}});
    let remover = json!({"pid": 39, "tid": 39, "comm": "irq/25-pciehp", "state": "D", "wchan": "remove", "stack": []});
    let graph = json!({
        "tasks": [
            {"pid": 39, "tgid": 39, "comm": "irq/25-pciehp", "state": "S", "on_cpu": false, "kernel_thread": true,
             "switches": 1, "stack": []},
            {"pid": 57, "tgid": 57, "comm": "iov-own", "state": "D", "on_cpu": false, "kernel_thread": false,
             "switches": 1, "stack": []},
        ],
        "waits": [
            {"pid": 39, "at": {"function": "remove", "returns_to": 1},
             "for": {"kind": "vfio-device", "device": "0000:01:00.0", "open": 1},
             "edges": [{"to": [57], "certainty": "exact", "relation": "has"}]},
            {"pid": 57, "at": {"function": "show", "returns_to": 1},
             "for": {"kind": "mutex", "name": "device_lock of 0000:01:00.0", "owner_is_gone": false},
             "edges": [{"to": [39], "certainty": "exact", "relation": "has"}]},
        ],
    });
    let transcript = Transcript {
        agent: agent(&[
            (0.1, json!({"type": "kmsg", "at": 0, "seq": 1, "level": 6, "text": "before the scenario"})),
            (0.1, json!({"type": "hello", "version": 11, "kernel": "6.12", "cpus": 2, "at": 1_000_000_000})),
            (0.2, json!({"id": 7, "command": own})),
            (0.3, json!({"type": "started", "id": 7, "pid": 57, "at": 2_000_000_000})),
            (
                0.6,
                json!({"type": "kmsg", "at": 3_000_000_000_u64, "seq": 2, "level": 6, "text": "pcieport: Slot(1): Button press"}),
            ),
            (
                0.7,
                json!({"type": "progress", "id": 7, "at": 4_000_000_000_u64, "progress": {"reading": {"path": "/sys/a"}}}),
            ),
            (0.75, json!({"id": 9, "command": {"tasks": {"in-functions": []}}})),
            (0.76, json!({"type": "done", "id": 9, "at": 4_500_000_000_u64, "outcome": {"ok": {"tasks": [remover]}}})),
            (0.8, json!({"id": 8, "command": {"tasks": {"in-functions": []}}})),
            (0.9, json!({"type": "done", "id": 8, "at": 5_000_000_000_u64, "outcome": {"ok": {"tasks": []}}})),
        ]),
        qmp: vec![
            Said { t: 0.4, by_host: true, what: json!({"execute": "qom-list"}) },
            Said { t: 0.5, by_host: true, what: json!({"execute": "device_del", "arguments": {"id": "pf0"}}) },
        ],
    };
    let graph = serde_json::from_value(graph).unwrap();
    (record, Details { transcript, graph: Some(graph), ..Details::default() })
}

#[test]
fn a_deadlock_is_seen() {
    let (record, details) = stuck();
    let timeline = of(&record, &details).unwrap();
    let names: Vec<_> = timeline.lanes.iter().map(|lane| lane.name.as_str()).collect();
    assert_eq!(names, ["host", "QMP", "iov-own", "irq/25-pciehp", "kernel log"]);
    let own = &timeline.lanes[2];
    assert_eq!((own.bars[0].from, own.bars[0].to, own.bars[0].stuck), (1.0, 3.0, false));
    assert_eq!((own.bars[1].from, own.bars[1].to, own.bars[1].open, own.bars[1].stuck), (3.0, 4.0, true, true));
    assert!(own.bars[1].words.starts_with("waits in show for device_lock of 0000:01:00.0"), "{own:?}");
    let remover = &timeline.lanes[3].bars;
    assert!(remover[0].words.contains("waits in remove for user space to close vfio device"), "{remover:?}");
    assert_eq!((remover.len(), remover[0].from, remover[0].to), (1, 3.5, 4.0), "a sample saw it there before");
    let marks: Vec<_> = timeline.marks.iter().map(|mark| (mark.name, mark.at)).collect();
    assert_eq!(marks, [("proof", 2.0), ("trigger", 1.0), ("verdict", 4.0)]);
    assert_eq!(timeline.lanes[1].points.len(), 1, "only what changes the machine");
    assert_eq!(timeline.lanes[4].points.len(), 1, "only what was said since the scenario began");
}

#[test]
fn operations_that_overlap_have_lanes_of_their_own() {
    let begun = start(id("a::b", None, "stock", 1), Expected::Pass);
    let record = record(&begun, Verdict::Pass, 1.0);
    let mut lines = vec![(0.0, json!({"type": "hello", "version": 11, "kernel": "6.12", "cpus": 2, "at": 0}))];
    for number in 0..40_u64 {
        lines.push((0.0, json!({"id": number, "command": {"read": {"path": "/sys/a"}}})));
        lines.push((0.0, json!({"type": "started", "id": number, "pid": 50 + number, "at": number})));
    }
    let transcript = Transcript { agent: agent(&lines), qmp: Vec::new() };
    let timeline = of(&record, &Details { transcript, ..Details::default() }).unwrap();
    assert_eq!(timeline.lanes.len(), LANES);
    assert_eq!(timeline.lanes.iter().map(|lane| lane.bars.len()).sum::<usize>(), 40, "none is lost");
    assert_eq!(timeline.lanes[LANES - 1].name, "more operations");
}

#[test]
fn a_guest_that_said_nothing_has_no_timeline() {
    let (record, _) = stuck();
    assert_eq!(of(&record, &Details::default()), None);
}
