//! What errors say of commands and messages, and the facts that host and agent share.

mod examples;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use examples::{calls, messages, requests};
use guest_protocol::{Command, Failure, LinkEvent, Message, OpId, Outcome, Progress, Reply, Sighting, Source, Uevent};
use proptest::prelude::*;

/// The calls of an owner have a table of their own.
fn is_no_further_call(command: &Command) -> bool {
    !matches!(command, Command::Call { call, .. } if *call != calls()[0])
}

#[test]
fn each_call_has_its_words_and_its_name() {
    let mut table = String::new();
    for call in calls() {
        writeln!(table, "{}: {call}", call.name()).unwrap();
    }
    insta::assert_snapshot!(table);
}

#[test]
fn each_command_has_its_words_and_facts() {
    let mut table = String::new();
    for command in requests().into_iter().map(|request| request.command).filter(is_no_further_call) {
        let process = command.process().unwrap_or("at once");
        let control = command.control().map_or("nothing".to_owned(), |control| control.to_string());
        let target = command.target().map_or("none".to_owned(), |target| target.to_string());
        writeln!(table, "{command}\n    {process}, can be told {control}, target: {target}").unwrap();
    }
    insta::assert_snapshot!(table, @r#"
    say hello again
        at once, can be told nothing, target: none
    read /sys/bus/pci/devices/0000:01:00.0/sriov_numvfs
        iov-read, can be told nothing, target: none
    read 2 bytes of /sys/bus/pci/devices/0000:01:00.0/sriov_numvfs at offset 0x168
        iov-readbytes, can be told nothing, target: none
    write "4\n" to /sys/bus/pci/devices/0000:01:00.0/sriov_numvfs
        iov-write, can be told nothing, target: none
    write "\0\0" to /sys/bus/pci/devices/0000:01:00.0/sriov_numvfs at offset 0x168
        iov-write, can be told nothing, target: none
    list /sys/bus/pci/devices/0000:01:00.0/sriov_numvfs
        iov-list, can be told nothing, target: none
    read the link /sys/bus/pci/devices/0000:01:00.0/sriov_numvfs
        iov-readlink, can be told nothing, target: none
    bind 0000:01:00.0 to vfio-pci
        iov-bind, can be told nothing, target: none
    own 0000:01:00.0 and 0000:01:00.0 through vfio
        iov-own, can be told continue, target: none
    write /sys/bus/pci/devices/0000:01:00.0/sriov_numvfs in turn for 20 rounds
        iov-cycle, can be told stop, target: none
    read PHY register 1 of eth0 until told to stop
        iov-phy, can be told stop, target: none
    sweep /sys/bus/pci/slots/16
        iov-sweep, can be told nothing, target: none
    watch change uevents
        iov-watch, can be told stop, target: none
    watch changes of network interfaces
        iov-watch, can be told stop, target: none
    set eth0 up
        iov-setlink, can be told nothing, target: none
    set the MAC address of VF 1 of eth0 to 02:00:00:00:00:1f
        iov-setvfmac, can be told nothing, target: none
    put 4096 bytes into /tmp/test at 65536
        at once, can be told nothing, target: none
    run /tmp/test
        iov-run, can be told stop, target: none
    let operation 4 continue
        at once, can be told nothing, target: operation 4
    stop operation 4
        at once, can be told nothing, target: operation 4
    send signal 9 to operation 4
        at once, can be told nothing, target: operation 4
    find the tasks of operation 4
        iov-where, can be told nothing, target: operation 4
    find the tasks that are in D state or in sriov_numvfs_show
        iov-tasks, can be told nothing, target: none
    take the inventory of all PCI functions
        iov-inventory, can be told nothing, target: none
    press the sysrq key "w"
        iov-sysrq, can be told nothing, target: none
    wait for 12.500000000 s on the guest's clock
        at once, can be told nothing, target: none
    stand still to be saved
        at once, can be told nothing, target: none
    hear the words of a script
        at once, can be told nothing, target: none
    answer a script: refused: there is no PF 2
        at once, can be told nothing, target: none
    let operation 4 open 0000:01:00.0
        at once, can be told nothing, target: operation 4
    "#);
}

#[test]
fn a_process_name_fits_and_belongs_to_one_command() {
    let mut names = BTreeSet::new();
    let mut of_command = |command: &Command| {
        let name = command.process()?;
        assert!(name.len() <= 15, "the kernel cuts {name}");
        assert!(
            name.starts_with(guest_protocol::PROCESS_PREFIX),
            "the harness does not recognise {name} as a process of an operation"
        );
        names.insert(name);
        Some(std::mem::discriminant(command))
    };
    let commands: Vec<_> = requests().into_iter().map(|request| request.command).collect();
    let kinds: std::collections::HashSet<_> = commands.iter().filter_map(&mut of_command).collect();
    assert_eq!(names.len(), kinds.len());
}

#[test]
fn each_message_has_its_words() {
    let lines: Vec<_> = messages().iter().map(Message::to_string).collect();
    insta::assert_snapshot!(lines.join("\n"), @r#"
    hello from Linux 6.12.117 with 2 CPUs (protocol version 12)
    the start of operation 4 as process 61
    progress of operation 4: opened its devices (IOMMU group 4)
    progress of operation 4: asked by the kernel to release 0000:01:00.0
    progress of operation 4: reading /sys/bus/pci/devices/0000:01:00.0/sriov_numvfs
    progress of operation 4: reading /sys/bus/pci/devices/0000:01:00.0/sriov_numvfs gave ENODEV
    progress of operation 4: writing /sys/bus/pci/devices/0000:01:00.0/sriov_numvfs
    progress of operation 4: wrote /sys/bus/pci/devices/0000:01:00.0/sriov_numvfs
    progress of operation 4: holding until told to continue
    progress of operation 4: made the call of operation 5, which returned 0x2 and 2 bytes
    progress of operation 4: made the call of operation 6, which gave EIO
    progress of operation 4: standing still to be saved
    progress of operation 4: closed 0000:01:00.0
    progress of operation 4: closed all its devices
    progress of operation 4: 1 access has not ended: read of /sys/bus/pci/devices/0000:01:00.0/sriov_numvfs
    progress of operation 4: watching for events
    progress of operation 4: printed "TAP version 13\n1..18\n"
    progress of operation 4: saw uevent change of /devices/x
    progress of operation 4: saw RTM_NEWLINK of eth0 (operstate 6)
    the end of operation 4: an empty reply
    the end of operation 4: an access to /sys/bus/pci/devices/0000:01:00.0/sriov_numvfs: "0"
    the end of operation 4: 1 name
    the end of operation 4: the link target ../b
    the end of operation 4: 1 task
    the end of operation 4: a sweep of 1 access
    the end of operation 4: an inventory of 1 PCI function
    the end of operation 4: 20 rounds with 3 refused accesses
    the end of operation 4: the end of a program: exit status 1
    the end of operation 4: the end of a program: killed by SIGKILL, without the last 1 byte of its output
    the end of operation 4: failed: write x: Device or resource busy (os error 16)
    uevent change of /devices/x
    RTM_NEWLINK of eth0 (operstate 6)
    kernel message "pci: removed\nat last"
    the script's word "remove 0000:01:00.0"
    loss of messages in the uevent stream
    "#);
}

#[test]
fn a_source_says_what_it_filters() {
    let source = |action: Option<&str>, devpath: Option<&str>| {
        Source::Uevent { action: action.map(str::to_owned), devpath: devpath.map(str::to_owned) }.to_string()
    };
    assert_eq!(source(None, None), "uevents");
    assert_eq!(source(Some("remove"), None), "remove uevents");
    assert_eq!(source(None, Some("/devices/x")), "uevents of /devices/x");
    assert_eq!(source(Some("remove"), Some("/devices/x")), "remove uevents of /devices/x");
}

#[test]
fn one_of_something_is_not_called_several() {
    assert_eq!(Reply::Names(vec!["a".to_owned()]).to_string(), "1 name");
    assert_eq!(Reply::Names(vec!["a".to_owned(); 12]).to_string(), "12 names");
    assert_eq!(Progress::Opened { groups: vec![4, 5] }.to_string(), "opened its devices (IOMMU groups 4 and 5)");
    assert_eq!(Reply::Cycled { rounds: 1, refused: 1 }.to_string(), "1 round with 1 refused access");
}

#[test]
fn a_long_payload_is_cut() {
    let kmsg = Message::Kmsg { at: 1, seq: 2, level: 3, text: "x".repeat(5000) };
    assert_eq!(kmsg.to_string(), format!("kernel message \"{}...\"", "x".repeat(120)));
    let failure = Failure { message: "y".repeat(5000), errno: None };
    assert_eq!(Outcome::Err(failure).to_string(), format!("failed: {}...", "y".repeat(120)));
}

proptest! {
    #[test]
    fn every_description_is_one_short_line(text: String, path in "(?s).{0,300}", number: u64) {
        let uevent = Uevent { action: text.clone(), devpath: path.clone(), seqnum: 1, env: BTreeMap::new() };
        let link = LinkEvent { gone: true, ifname: text.clone(), index: 1, flags: 0, operstate: None };
        let failure = Failure { message: path.clone(), errno: None };
        let id = OpId(number);
        for message in [
            Message::Kmsg { at: 1, seq: 1, level: 1, text: path.clone() },
            Message::Uevent { at: 1, uevent: uevent.clone() },
            Message::Link { at: 1, link },
            Message::Lost { stream: text.clone(), at: 1 },
            Message::Done { id, at: 1, outcome: Outcome::Err(failure) },
            Message::Done { id, at: 1, outcome: Outcome::Ok(Reply::Target(text.clone())) },
            Message::Progress { id, at: 1, progress: Progress::Reading { path } },
            Message::Progress { id, at: 1, progress: Progress::Saw { event: Sighting::Uevent(uevent), seen: 1, reads: vec![] } },
        ] {
            let words = message.to_string();
            prop_assert!(!words.contains(char::is_control), "{words:?}");
            // Twice 120 characters, of which each may be escaped.
            prop_assert!(words.chars().count() < 60 + 2 * 120 * 10, "{words:?}");
        }
    }
}
