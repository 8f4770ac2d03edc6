//! The plugin that stops guests (`harness/plugin/gate.c`), in a program that plays QEMU, with the host's side of its gate.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use harness::vm::gate::{Gate, Stop};
use harness::vm::process::{End, Process};
use harness::vm::time::Time;
use tempfile::TempDir;
use tokio::net::UnixListener;

const SOON: Duration = Duration::from_secs(60);

/// The program, for a version of the plugin API.
fn fake_qemu(folder: &Path, api: u32) -> PathBuf {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("plugin");
    let program = folder.join("fake-qemu");
    let mut gcc = Command::new("gcc");
    gcc.args(["-std=gnu11", "-pthread", "-o"]).arg(&program).arg(format!("-DGATE_API={api}"));
    let status = gcc.args(["gate.c", "fake-qemu.c"].map(|file| sources.join(file))).status().unwrap();
    assert!(status.success());
    program
}

struct Guest {
    gate: Gate,
    end: End,
    _process: Process,
    _folder: TempDir,
}

/// A guest with these places.
async fn guest(api: u32, places: &[&str]) -> Guest {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("gate");
    let listener = UnixListener::bind(&socket).unwrap();
    let mut argv = vec![format!("socket={}", socket.display())];
    argv.extend(places.iter().map(|place| format!("at={place}")));
    let process = Process::start(fake_qemu(folder.path(), api).as_os_str(), &argv, Time::guest).unwrap();
    let (stream, _) = tokio::time::timeout(SOON, listener.accept()).await.unwrap().unwrap();
    Guest { gate: Gate::open(stream, process.end()), end: process.end(), _process: process, _folder: folder }
}

impl Guest {
    async fn next(&self) -> Stop {
        let stop = self.gate.stopped(SOON).await.unwrap();
        self.gate.go().await.unwrap();
        stop
    }
}

#[tokio::test]
async fn the_guest_stops_at_markers_and_places_only() {
    for api in [4, 7] {
        let guest = guest(api, &["0x1000", "0x1009"]).await;
        let place = |place, vcpu, hit| Stop::Place { place, vcpu, hit };
        assert_eq!(guest.next().await, Stop::Mark { vcpu: 0 }, "API {api}");
        assert_eq!(guest.gate.stopped(SOON).await.unwrap(), Stop::Mark { vcpu: 1 }, "API {api}");
        // The program comes to places and marker in turn: 0, marker, 1.
        guest.gate.stop_at(0, 2).await.unwrap();
        guest.gate.stop_at(1, 1).await.unwrap();
        for stop in [
            Stop::Mark { vcpu: 1 },
            place(1, 1, 2),
            Stop::Mark { vcpu: 0 },
            place(0, 1, 4),
            Stop::Mark { vcpu: 1 },
            Stop::Mark { vcpu: 0 },
        ] {
            assert_eq!(guest.next().await, stop, "API {api}");
        }
    }
}

#[tokio::test]
async fn the_guest_stands_as_long_as_the_host_wants() {
    let guest = guest(4, &[]).await;
    guest.gate.stopped(SOON).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(guest.gate.stops(), 1);
    guest.gate.free().await.unwrap();
    assert!(guest.gate.stopped(Duration::from_millis(50)).await.is_err());
    guest.gate.hold().await.unwrap();
    // Once stopped, it stands again.
    guest.gate.stopped(SOON).await.unwrap();
    let stops = guest.gate.stops();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!((stops, guest.gate.stops()), (2, 2));
}

#[tokio::test]
async fn qemu_ends_when_its_gate_is_closed() {
    // While the guest stands, and while it runs.
    for runs in [false, true] {
        let guest = guest(4, &[]).await;
        guest.gate.stopped(SOON).await.unwrap();
        if runs {
            guest.gate.free().await.unwrap();
        }
        guest.gate.close().await;
        let ended = tokio::time::timeout(SOON, guest.end.wait()).await.unwrap();
        assert!(ended.is_success(), "{ended}");
    }
}

#[tokio::test]
async fn wrong_arguments_are_refused() {
    for (argument, why) in [
        ("at=x", "gate: cannot parse a place: x"),
        ("at=0x10:", "gate: cannot parse a place: 0x10:"),
        ("color=red", "gate: cannot use an argument: color=red"),
        ("socket=/no/such/socket", "gate: cannot connect to the harness: No such file or directory"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let output = Command::new(fake_qemu(folder.path(), 4)).arg(argument).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr).trim_end(), why);
        assert!(!output.status.success());
    }
}
