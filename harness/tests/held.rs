//! Guests whose clock is held, for real. These need QEMU, and a kernel in `IOV_REGRESS_TEST_KERNEL`:
//! `cargo test -p harness --test held -- --ignored --nocapture`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use guest_protocol::{Command, Progress};
use harness::host::plugin::{self, Plugin};
use harness::trigger::Hotplug;
use harness::vm::argv::{Accel, MEMORY_MIB, Machine};
use harness::vm::clock::{Clock, Held};
use harness::vm::gate::Stop;
use harness::vm::topology::Topology;
use harness::vm::{Recorders, Vm, process};
use kernels::CancelToken;
use kernels::cache::Cache;

const SOON: Duration = Duration::from_secs(120);

/// The card's id in QEMU.
const PF: &str = "pf0";

fn machine(clock: Clock) -> Machine {
    let kernel = std::env::var_os("IOV_REGRESS_TEST_KERNEL").expect("IOV_REGRESS_TEST_KERNEL is set");
    let initramfs = guest_images::build(&Cache::of_user().unwrap(), &CancelToken::new(), |_| {}).unwrap();
    Machine {
        qemu: process::program(),
        topology: Topology::igb(),
        hotplug: Hotplug::Native,
        accel: Accel::Tcg,
        clock,
        memory_mib: MEMORY_MIB,
        kernel: PathBuf::from(kernel),
        initrd: initramfs.path,
        append: Vec::new(),
        traced: None,
        monitor: None,
    }
}

fn held() -> Clock {
    let plugin = plugin::for_qemu(Plugin::Gate, &Cache::of_user().unwrap(), &process::program()).unwrap();
    Clock::Held(Held { plugin, places: Vec::new() })
}

async fn boot(clock: Clock) -> Vm {
    let console = tempfile::NamedTempFile::new().unwrap().into_temp_path().keep().unwrap();
    let ignore = Arc::new(|_, _: &str| {});
    let recorders = Recorders { console, qmp: ignore.clone(), agent: ignore };
    Vm::boot(machine(clock), recorders, SOON).await.unwrap()
}

/// CPU time of all threads of the only QEMU that this process has started, in seconds.
fn cpu_of_qemu() -> f64 {
    let own = std::process::id().to_string();
    let stat = |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = |pid: &str| -> Vec<String> {
        stat(pid).rsplit(')').next().unwrap_or("").split_whitespace().map(str::to_owned).collect()
    };
    let pids = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.file_name().into_string().unwrap());
    let qemu = pids.filter(|pid| pid.parse::<u32>().is_ok()).find(|pid| fields(pid).get(1) == Some(&own)).unwrap();
    let tasks = std::fs::read_dir(format!("/proc/{qemu}/task")).unwrap().flatten();
    let ran = tasks.map(|task| std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default());
    ran.map(|text| text.split(' ').next().unwrap_or("0").parse::<f64>().unwrap_or(0.0)).sum::<f64>() / 1e9
}

#[tokio::test]
#[ignore = "boots a guest"]
async fn a_held_guest_stands_at_its_hello() {
    let vm = boot(held()).await;
    let gate = vm.gate().expect("the guest has a gate");
    assert!(matches!(gate.stopped(SOON).await.unwrap(), Stop::Mark { .. }));
    let (stops, cpu) = (gate.stops(), cpu_of_qemu());
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(gate.stops(), stops);
    assert!(cpu_of_qemu() - cpu < 0.1, "it does nothing");
    vm.kill(SOON).await.unwrap();
}

/// What a guest says while its card is removed by the attention button, and an hour passes.
async fn session(clock: Clock) -> Vec<String> {
    let is_held = clock != Clock::Host;
    let vm = boot(clock).await;
    let (began, cpu) = (Instant::now(), cpu_of_qemu());
    let work = async {
        vm.agent().log_complete(SOON).await.unwrap();
        let from = vm.qmp().events().position();
        vm.qmp().execute(qapi::qmp::device_del { id: PF.to_owned() }).await.unwrap();
        vm.qmp().device_deleted(from, PF, SOON).await.unwrap();
        vm.agent().log_complete(SOON).await.unwrap();
        let now = vm.agent().messages().last(|message| Some(message.at())).unwrap();
        let hour = if is_held { 3600 } else { 1 };
        vm.agent().call(Command::Alarm { at: now + hour * 1_000_000_000 }, SOON).await.unwrap();
    };
    vm.drive(work).await.unwrap();
    println!(
        "held: {is_held}; boot: {:.2} s, CPU {cpu:.2} s; the rest: {:.2} s, CPU {:.2} s; stops: {}",
        vm.steps().total(),
        began.elapsed().as_secs_f64(),
        cpu_of_qemu() - cpu,
        vm.gate().map_or(0, |gate| gate.stops()),
    );
    let messages = vm.agent().messages().collect(0, |message| guest_protocol::encode(message).ok());
    vm.kill(SOON).await.unwrap();
    messages
}

#[tokio::test]
#[ignore = "boots guests"]
async fn a_held_guest_says_the_same_again() {
    let one = session(held()).await;
    let other = session(held()).await;
    let differ = one.iter().zip(&other).position(|(one, other)| one != other);
    if let Some(at) = differ {
        panic!("message {at} differs:\n{}{}", one[at], other[at]);
    }
    assert_eq!(one.len(), other.len());
}

#[tokio::test]
#[ignore = "boots a guest, for comparison"]
// The guest measures its TSC itself here, so on a busy host it may not boot.
async fn the_same_on_the_clock_of_the_host() {
    assert!(!session(Clock::Host).await.is_empty());
}

#[tokio::test]
#[ignore = "boots a guest"]
async fn a_held_guest_can_be_stopped_between_the_markers_of_a_save() {
    let vm = boot(held()).await;
    let gate = vm.gate().unwrap();
    let save = async {
        vm.agent().log_complete(SOON).await.unwrap();
        let save = vm.agent().start(Command::Save).await.unwrap();
        let saving = |progress: &Progress| (*progress == Progress::Saving).then_some(());
        save.progress(SOON, "the guest to stand still", saving).await.unwrap();
        save
    };
    let save = vm.drive(save).await.unwrap();
    let stops = gate.stops();
    // QEMU answers when the virtual CPUs have stopped, and they do so after the gate.
    let go = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        gate.go().await.unwrap();
    };
    let (stopped, ()) = tokio::join!(vm.qmp().execute(qapi::qmp::stop {}), go);
    stopped.unwrap();
    assert!(!vm.qmp().execute(qapi::qmp::query_status {}).await.unwrap().running);
    assert_eq!((gate.stops(), gate.stop()), (stops, None), "it has not come to the second marker");
    vm.qmp().execute(qapi::qmp::cont {}).await.unwrap();
    gate.stopped(SOON).await.unwrap();
    assert_eq!(gate.stops(), stops + 1);
    gate.go().await.unwrap();
    vm.drive(save.done(SOON)).await.unwrap().unwrap();
    vm.kill(SOON).await.unwrap();
}
