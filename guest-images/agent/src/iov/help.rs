//! What `iov --help` teaches.

/// The text.
pub const TEXT: &str = "\
iov: what a shell alone cannot do, for reproducers of bugs in PCI, SR-IOV, hotplug and vfio.

Devices. Each prints an address; with an option, something else of the device.
  iov pf [N] [--sysfs | --interface | --slot | --port | --json]    the PF number N, from 0
  iov vf [N] [--of PF] [--sysfs | --interface | --json]            the VF number N of a PF, once it is enabled
  iov slot [N] [--port | --number | --json]                        the slot number N; prints its id
  iov bind DEV DRIVER                                              bind a device to a driver, and check that it is

A user of vfio. It binds the device to vfio-pci, opens it, and goes on in the background with one thread.
  iov own DEV... [--on-request COMMAND]... [--release]
      When the kernel asks for a device back, it runs each COMMAND with sh, one after the other, with BDF and SYSFS set.
      With --release it then closes its devices. Without, it keeps them until it is killed. iov own prints its pid.

Locks. A user of vfio keeps its device while the kernel waits for it. `iov hold` returns when the kernel waits, and prints the
pid of the user. `kill` of that pid lets go, and the device is removed.
  iov hold rescan-lock PF           pci_rescan_remove_lock and the lock of PF, which is removed through sysfs
  iov hold vf-disable VF            the locks of a write of 0 to sriov_numvfs of the PF of VF

Hardware. The harness does it, and the word ends when it is done.
  iov remove PF [--by TRIGGER]      until the kernel has removed it; by the trigger of the cell if none is named.
                                    Triggers: `cargo xtask list triggers`. Use & to go on meanwhile
  iov plug [SLOT]                   plug a card into an empty slot; prints the address of its PF
  iov inject SLOT BAD_TLP | COMP_TIME | DLP
                                    have the port of a slot report an error: correctable, non-fatal, fatal

Waiting for the kernel.
  iov watch uevent | link | kmsg [--of TEXT]... [--until TEXT] [--read FILE]... [--do COMMAND] [--within S] [-- COMMAND...]
      Prints each event with all TEXTs of --of. Ends with 0 after one with the TEXT of --until, or with 1 after S seconds
      (30). Runs the last COMMAND once it listens, so no event is missed. At each event it first reads FILE and prints what it
      has, at real-time priority on the CPU of COMMAND; then runs the COMMAND of --do, with EVENT set.
      A uevent is printed as ACTION DEVPATH, a link as INTERFACE and up, down or gone.
  iov wait-blocked PID | any FUNCTION [--within S]
      Waits until a task of a process, or any task, sleeps uninterruptibly in a function of the kernel. Ends with 1 after S
      seconds (30).

The verdict. A script that exits with 0 passes, with 4 it is skipped, with anything else it fails. These end it at once:
  iov expect [--stale] WHAT GOT WANTED     wrong state (with --stale: a stale read), unless GOT is WANTED
  iov fail KIND WHERE WORDS...             KIND: blocked, stale-read, lost-event or wrong-state
  iov skip WORDS...                        this kernel or machine cannot show it

Exit status of iov: 0 done, 1 it did not come in time, 2 it cannot be done.
";
