//! What is left of QEMU when its owner goes: nothing.

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

/// In the environment of a child that plays the harness and is killed: its QEMU.
pub const DOOMED: &str = "BAD_LUCK_DOOMED";

/// A deadline that does not pass.
const LATER: Duration = Duration::from_secs(600);

/// All of them.
pub fn trials() -> Vec<Trial> {
    vec![
        trial("a boot given up before qemu connects leaves nothing", || give_up("never-connects", false)),
        trial("a boot given up before qemu greets leaves nothing", || give_up("never-greets", false)),
        trial("a boot given up before the agent's hello leaves nothing", || give_up("says-nothing", true)),
        trial("a dropped vm leaves nothing", drop_vm),
        trial("a killed harness leaves no qemu", kill_harness),
    ]
}

/// Drops a boot that has come as far as QEMU's habit lets it: to its start, or to QMP's last answer.
async fn give_up(habit: &str, negotiates: bool) -> Result<(), Failed> {
    let bed = Bed::new(habit)?;
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
        booted = &mut boot => return Err(format!("booted: {:?}", booted.err()).into()),
        reached = reached => reached?,
    }
    // It goes on from there to where it waits: nothing tells when it is there.
    if tokio::time::timeout(Duration::from_millis(200), &mut boot).await.is_ok() {
        return Err("booted".into());
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
    command.env(DOOMED, bed.program()).env("TMPDIR", bed.path()).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn()?;
    let mut line = String::new();
    // It says one line or ends.
    BufReader::new(child.stdout.take().ok_or("no stdout")?).read_line(&mut line)?;
    // SIGKILL: the child can do nothing for its QEMU.
    child.kill()?;
    child.wait()?;
    if line != "booted\n" {
        return Err(format!("the child did not boot: {line:?}").into());
    }
    bed.dead().await
}

/// Plays the harness until it is killed.
pub fn be_doomed(qemu: OsString) -> ! {
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
