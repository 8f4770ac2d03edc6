//! No QEMU process and no folder remains when the owner of a QEMU ends.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use harness::vm::Vm;
use libtest_mimic::{Failed, Trial};
use tokio::sync::Notify;

use crate::bed::{self, Bed, START};
use crate::trial;

/// Environment variable of a child process that acts as the harness and is then killed: the path of its QEMU.
pub const CHILD_QEMU: &str = "BAD_LUCK_CHILD_QEMU";

/// A deadline that does not pass in a test.
const LATER: Duration = Duration::from_secs(600);

/// All trials of this file.
pub fn trials() -> Vec<Trial> {
    vec![
        trial("a boot cancelled before qemu connects leaves nothing", || cancel("never-connects", false)),
        trial("a boot cancelled before the qmp greeting leaves nothing", || cancel("never-greets", false)),
        trial("a boot cancelled before the agent's hello leaves nothing", || cancel("sends-no-hello", true)),
        trial("a dropped vm leaves nothing", drop_vm),
        trial("a killed harness leaves no qemu", kill_harness),
    ]
}

/// Drops a boot at the point where QEMU's behaviour stops it: after its start, or after the last QMP answer.
async fn cancel(behaviour: &str, negotiates: bool) -> Result<(), Failed> {
    let bed = Bed::new(behaviour)?;
    let answered = Arc::new(Notify::new());
    let tell = answered.clone();
    let qmp = Arc::new(move |_, line: &str| {
        if line.contains("return") {
            tell.notify_one();
        }
    });
    let mut boot = Box::pin(Vm::boot(bed.machine(), bed::recorders(bed.path(), qmp), LATER));
    let reached = async {
        bed.started().await?;
        if negotiates {
            answered.notified().await;
        }
        Ok::<_, Failed>(())
    };
    tokio::select! {
        booted = &mut boot => return Err(format!("the boot ended: {:?}", booted.err()).into()),
        reached = reached => reached?,
    }
    // The boot continues to the point where it waits. No event reports that it is there.
    if tokio::time::timeout(Duration::from_millis(200), &mut boot).await.is_ok() {
        return Err("the boot ended".into());
    }
    drop(boot);
    bed.gone().await
}

async fn drop_vm() -> Result<(), Failed> {
    let bed = Bed::new("works")?;
    let vm = Vm::boot(bed.machine(), bed.recorders(), START).await?;
    drop(vm);
    bed.gone().await
}

async fn kill_harness() -> Result<(), Failed> {
    let bed = Bed::new("works")?;
    let mut command = Command::new(std::env::current_exe()?);
    command.env(CHILD_QEMU, bed.program()).env("TMPDIR", bed.path()).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn()?;
    let mut line = String::new();
    // The child prints one line or ends.
    BufReader::new(child.stdout.take().ok_or("no stdout")?).read_line(&mut line)?;
    // SIGKILL: the child cannot end its QEMU.
    child.kill()?;
    child.wait()?;
    if line != "booted\n" {
        return Err(format!("the child printed \"{}\", not \"booted\"", line.trim_end()).into());
    }
    bed.dead().await
}

/// Acts as the harness until it is killed.
pub fn run_child(qemu: OsString) -> ! {
    let folder = std::path::PathBuf::from(&qemu).parent().unwrap().to_owned();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let recorders = bed::recorders(&folder, Arc::new(|_, _| {}));
        let _vm = match Vm::boot(bed::machine(qemu), recorders, START).await {
            Ok(vm) => vm,
            Err(error) => panic!("{error}"),
        };
        println!("booted");
        std::io::stdout().flush().unwrap();
        std::future::pending().await
    })
}
