//! A cluster of three nodes on this machine: munged, slurmctld and three slurmd on the loopback, as the user of the test.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tempfile::TempDir;

pub const NODES: [&str; 3] = ["n1", "n2", "n3"];

/// What the cluster is made of, and where distributions keep it.
const PROGRAMS: [&str; 6] = ["munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel"];

pub struct Cluster {
    folder: TempDir,
}

/// The path of a program; daemons are not in the PATH of every user.
fn found(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// The programs that this machine lacks.
pub fn missing() -> Vec<&'static str> {
    PROGRAMS.into_iter().filter(|program| found(program).is_none()).collect()
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn stdout_of(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

impl Cluster {
    /// Starts it, and waits until its nodes are idle.
    pub fn start() -> Cluster {
        let cluster = Cluster { folder: tempfile::tempdir().unwrap() };
        let folder = cluster.folder.path();
        for name in ["state", "spool", "log"] {
            fs::create_dir(folder.join(name)).unwrap();
        }
        let key = folder.join("munge.key");
        let random: Vec<u8> = (0..32).flat_map(|_| fs::read("/proc/sys/kernel/random/uuid").unwrap()).collect();
        fs::write(&key, random).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(cluster.conf(), cluster.text()).unwrap();
        let file = |option: &str, name: &str| format!("--{option}={}", folder.join(name).display());
        cluster.daemon(Command::new(found("munged").unwrap()).arg("--force").args([
            file("key-file", "munge.key"),
            file("socket", "munge.sock"),
            file("pid-file", "munged.pid"),
            file("log-file", "log/munged.log"),
            file("seed-file", "munge.seed"),
        ]));
        cluster.daemon(&mut Command::new(found("slurmctld").unwrap()));
        for node in NODES {
            cluster.daemon(Command::new(found("slurmd").unwrap()).args(["-N", node]));
        }
        let until = Instant::now() + Duration::from_secs(60);
        let idle = || {
            let mut sinfo = Command::new("sinfo");
            let output = sinfo.args(["--noheader", "--Node", "--format=%T"]).env("SLURM_CONF", cluster.conf()).output();
            output.is_ok_and(|output| {
                String::from_utf8_lossy(&output.stdout).lines().filter(|line| *line == "idle").count() == 3
            })
        };
        while !idle() {
            assert!(Instant::now() < until, "the nodes do not come up: {}", cluster.logs());
            std::thread::sleep(Duration::from_millis(100));
        }
        cluster
    }

    /// The configuration, for `SLURM_CONF`.
    pub fn conf(&self) -> PathBuf {
        self.folder.path().join("slurm.conf")
    }

    /// Kills a node as a power cut does: its slurmd, and everything of its jobs.
    pub fn kill_node(&self, node: &str) {
        let conf = format!("SLURM_CONF={}", self.conf().display());
        let name = format!("SLURMD_NODENAME={node}");
        self.kill(&format!("slurmd.{node}"), Signal::KILL);
        let mut killed = Vec::new();
        for process in processes() {
            let environment = fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
            let has = |word: &str| environment.split(|byte| *byte == 0).any(|one| one == word.as_bytes());
            if has(&conf) && has(&name) {
                // The step daemon is the parent of the script, and does not have the name of the node.
                killed.extend(parent(process).filter(|parent| is_step_daemon(*parent)));
                killed.push(process);
            }
        }
        assert!(!killed.is_empty(), "no job runs on {node}");
        killed.sort_unstable();
        killed.dedup();
        for process in killed {
            let _ = kill_process(Pid::from_raw(process).unwrap(), Signal::KILL);
        }
    }

    pub fn logs(&self) -> String {
        let files = fs::read_dir(self.folder.path().join("log")).unwrap().flatten();
        files.map(|file| fs::read_to_string(file.path()).unwrap_or_default()).collect::<Vec<_>>().join("\n")
    }

    fn daemon(&self, command: &mut Command) {
        let log = fs::File::create(self.folder.path().join("log/start.log")).unwrap();
        command.env("SLURM_CONF", self.conf()).stdin(Stdio::null());
        // A daemon must not keep the pipes of the test open.
        let status = command.stdout(log.try_clone().unwrap()).stderr(log).status().unwrap();
        assert!(status.success(), "{command:?}: {}", self.logs());
    }

    fn kill(&self, name: &str, signal: Signal) {
        let file = self.folder.path().join(format!("{name}.pid"));
        let text = fs::read_to_string(file).unwrap_or_default();
        let Some(pid) = text.trim().parse().ok().and_then(Pid::from_raw) else { return };
        let _ = kill_process(pid, signal);
        let until = Instant::now() + Duration::from_secs(10);
        while test_kill_process(pid).is_ok() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = kill_process(pid, Signal::KILL);
    }

    fn text(&self) -> String {
        let host = stdout_of(Command::new("uname").arg("-n"));
        let user = stdout_of(Command::new("id").arg("-un"));
        let folder = self.folder.path().display();
        let node = |node: &str| {
            format!(
                "NodeName={node} NodeAddr=127.0.0.1 NodeHostname={host} Port={} CPUs=1 State=UNKNOWN\n",
                free_port()
            )
        };
        format!(
            "ClusterName=iov\nSlurmctldHost={host}(127.0.0.1)\nSlurmctldPort={port}\nSlurmUser={user}\nSlurmdUser={user}\n\
             AuthType=auth/munge\nAuthInfo=socket={folder}/munge.sock,cred_expire=10\n\
             CommunicationParameters=NoCtldInAddrAny,NoInAddrAny\nStateSaveLocation={folder}/state\n\
             SlurmdSpoolDir={folder}/spool/%n\nSlurmctldPidFile={folder}/slurmctld.pid\nSlurmdPidFile={folder}/slurmd.%n.pid\n\
             SlurmctldLogFile={folder}/log/slurmctld.log\nSlurmdLogFile={folder}/log/slurmd.%n.log\n\
             ProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\nSelectType=select/cons_tres\n\
             AccountingStorageType=accounting_storage/none\nJobAcctGatherType=jobacct_gather/none\nMpiDefault=none\n\
             ReturnToService=2\nSlurmdTimeout=5\nSchedulerParameters=bf_interval=2,sched_interval=2\n{nodes}\
             PartitionName=all Nodes=n1,n2,n3 Default=YES State=UP\n",
            port = free_port(),
            nodes = NODES.map(node).concat(),
        )
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Jobs that still run end with their step daemons, which slurmctld tells.
        let _ = Command::new("scancel")
            .args(["--state=RUNNING", "--name=iov-regress-part"])
            .env("SLURM_CONF", self.conf())
            .output();
        for node in NODES {
            self.kill(&format!("slurmd.{node}"), Signal::TERM);
        }
        for name in ["slurmctld", "munged"] {
            self.kill(name, Signal::TERM);
        }
    }
}

fn processes() -> Vec<i32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn parent(process: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

fn is_step_daemon(process: i32) -> bool {
    let path = PathBuf::from(format!("/proc/{process}/comm"));
    fs::read_to_string(Path::new(&path)).is_ok_and(|name| name.starts_with("slurmstepd"))
}
