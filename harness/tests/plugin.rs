//! The plugins of QEMU (`harness/plugin`), in a program that plays QEMU: the one that stops guests with the host's side of
//! its gate, and the one that notes what guests execute.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use harness::coverage::Blocks;
use harness::vm::gate::{Gate, Stop};
use harness::vm::process::{End, Process};
use harness::vm::time::Time;
use tempfile::TempDir;
use tokio::net::UnixListener;

const SOON: Duration = Duration::from_secs(60);

/// The program with a plugin, for a version of the plugin API. `defines` are options of the compiler.
fn fake_qemu(folder: &Path, plugin: &str, api: u32, defines: &[&str]) -> PathBuf {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("plugin");
    let program = folder.join("fake-qemu");
    let mut gcc = Command::new("gcc");
    gcc.args(["-std=gnu11", "-pthread", "-o"]).arg(&program).arg(format!("-DPLUGIN_API={api}")).args(defines);
    let status = gcc.args([plugin, "fake-qemu.c"].map(|file| sources.join(file))).status().unwrap();
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
    let qemu = fake_qemu(folder.path(), "gate.c", api, &[]);
    let process = Process::start(qemu.as_os_str(), &argv, Time::guest).unwrap();
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
async fn a_cpu_halts_when_the_main_loop_sleeps() {
    for api in [4, 7] {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("gate");
        let _listener = UnixListener::bind(&socket).unwrap();
        let mut qemu = Command::new(fake_qemu(folder.path(), "gate.c", api, &["-DHLT"]));
        let output = qemu.arg(format!("socket={}", socket.display())).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "the main loop sleeps\n", "API {api}");
    }
}

#[tokio::test]
async fn wrong_arguments_are_refused() {
    for (plugin, argument, why) in [
        ("gate.c", "at=x", "gate: cannot parse a place: x"),
        ("gate.c", "at=0x10:", "gate: cannot parse a place: 0x10:"),
        ("gate.c", "color=red", "gate: cannot use an argument: color=red"),
        ("gate.c", "socket=/no/such/socket", "gate: cannot connect to the harness: No such file or directory"),
        ("coverage.c", "color=red", "coverage: cannot use an argument: color=red"),
        ("coverage.c", "out=/no/such/file", "coverage: cannot create the file: No such file or directory"),
        ("coverage.c", "out=/dev/full", "coverage: cannot extend the file: No such device"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let output = Command::new(fake_qemu(folder.path(), plugin, 4, &[])).arg(argument).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr).trim_end(), why);
        assert!(!output.status.success());
    }
}

/// What the plugin has noted when a QEMU that executes one block of 17 bytes is killed.
fn noted(api: u32, block: u64, rounds: usize) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let defines = [format!("-DBLOCK={block:#x}"), format!("-DROUNDS={rounds}")];
    let program = fake_qemu(folder.path(), "coverage.c", api, &defines.each_ref().map(String::as_str));
    let out = folder.path().join("blocks");
    let mut qemu = Command::new(program);
    let mut qemu = qemu.arg(format!("out={}", out.display())).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(qemu.stdout.take().unwrap()).read_line(&mut line).unwrap();
    qemu.kill().unwrap();
    assert_eq!((line.as_str(), qemu.wait().unwrap().signal()), ("executing\n", Some(9)));
    std::fs::read(out).unwrap()
}

#[test]
fn blocks_of_the_kernel_are_noted_even_if_qemu_is_killed() {
    let kernel = 0xffff_ffff_8100_0000;
    for api in [4, 7] {
        let blocks = Blocks::parse(&noted(api, kernel, 1)).unwrap();
        let is_noted = |address| blocks.overlap(&(address..address + 1));
        assert_eq!([kernel - 1, kernel, kernel + 16, kernel + 17].map(is_noted), [false, true, true, false]);
        assert_eq!(Blocks::parse(&noted(api, 0x1000, 1)).unwrap(), Blocks::default(), "of a program");
    }
}

#[test]
fn the_file_of_blocks_grows() {
    let records = |rounds| noted(4, 0xffff_ffff_8100_0000, rounds).chunks(16).filter(|it| **it != [0; 16]).count();
    assert_eq!([1, 65536, 65537, 200_000].map(records), [1, 65536, 65537, 200_000]);
}
