//! Which crate and which room may use which. ARCHITECTURE.md gives the reasons.

use crate::paths::Use;

/// The crates and their folders. A crate may use those before it.
pub const CRATES: &[(&str, &str)] = &[
    ("guest_protocol", "guest-images/protocol"),
    ("guest_agent", "guest-images/agent"),
    ("kernels", "kernels"),
    ("guest_images", "guest-images"),
    ("harness", "harness"),
    ("scenarios", "scenarios"),
    ("xtask", "xtask"),
];

/// The rooms of `harness`, and which others each may use. These come before it, so there are no cycles.
pub const ROOMS: &[(&str, &[&str])] = &[
    ("text", &[]),
    ("tap", &[]),
    ("tries", &[]),
    ("trigger", &[]),
    ("verdict", &[]),
    ("cell", &["trigger", "verdict"]),
    ("notes", &[]),
    ("waits", &[]),
    ("vm", &["text", "trigger", "notes", "waits"]),
    ("classify", &[]),
    ("coverage", &[]),
    ("script", &["trigger", "vm"]),
    ("guest", &["text", "tap", "trigger", "verdict", "notes", "waits", "vm", "classify", "script"]),
    ("scenario", &["trigger", "verdict", "vm", "script", "guest"]),
    ("host", &["text", "trigger", "vm"]),
    ("progress", &["verdict", "host"]),
    ("lab", &["tries", "trigger", "verdict", "waits", "vm", "classify", "scenario", "host", "progress"]),
    ("evidence", &["text", "verdict", "cell", "notes", "waits", "classify", "coverage"]),
    (
        "matrix",
        &[
            "text", "tries", "trigger", "verdict", "cell", "notes", "waits", "vm", "classify", "coverage", "script",
            "guest", "scenario", "host", "progress", "lab", "evidence",
        ],
    ),
    (
        "report",
        &["text", "trigger", "verdict", "cell", "notes", "waits", "classify", "coverage", "scenario", "evidence"],
    ),
    (
        "bisect",
        &["text", "trigger", "verdict", "cell", "notes", "scenario", "progress", "lab", "evidence", "matrix", "report"],
    ),
    (
        "bench",
        &["text", "verdict", "cell", "notes", "vm", "scenario", "progress", "lab", "evidence", "matrix", "report"],
    ),
    ("spread", &["text", "cell", "notes", "progress", "evidence", "matrix", "report"]),
];

/// Each use of a room by a room that must not use it.
pub fn broken_rooms(uses: &[Use]) -> Vec<String> {
    let broken = |used: &Use| {
        let [krate, room, ..] = used.path.as_slice() else { return None };
        let from = used.from.get(1)?;
        let known = |name: &String| ROOMS.iter().find(|(room, _)| room == name);
        let (_, may_use) = known(from)?;
        let wrong = krate == "harness" && room != from && known(room).is_some() && !may_use.contains(&room.as_str());
        wrong.then(|| format!("{used}, and {from} must not know {room}"))
    };
    uses.iter().filter_map(broken).collect()
}
