//! What the host asks for.

use serde::{Deserialize, Serialize};

/// Identifies one operation for as long as the guest runs. Chosen by the host, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OpId(pub u64);

/// One request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The id under which all messages about this operation come back.
    pub id: OpId,
    /// What to do.
    pub command: Command,
}

/// What the guest can do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// Send [`crate::Message::Hello`] again, then be done with [`crate::Reply::Nothing`].
    Hello,
    /// Read an attribute once, from a process of its own. Done with [`crate::Reply::Access`].
    Read {
        /// Absolute path in the guest.
        path: String,
    },
    /// Write an attribute with a single `write(2)`, from a process of its own. Done with [`crate::Reply::Access`].
    Write {
        /// Absolute path in the guest.
        path: String,
        /// The bytes to write; no newline is added.
        data: String,
        /// Offset in the file, for those that have one, such as a function's `config`.
        #[serde(default, skip_serializing_if = "is_start")]
        at: u64,
        /// How the writing process is scheduled.
        #[serde(default)]
        sched: Sched,
    },
    /// List a directory. Done with [`crate::Reply::Names`], sorted.
    List {
        /// Absolute path in the guest.
        path: String,
    },
    /// Resolve a symbolic link. Done with [`crate::Reply::Target`].
    ReadLink {
        /// Absolute path in the guest.
        path: String,
    },
    /// Give a PCI device to a driver (`driver_override`, unbind, `drivers_probe`), and check that it got it.
    /// Done with [`crate::Reply::Nothing`].
    Bind {
        /// Address of the device, as `0000:01:00.0`.
        bdf: String,
        /// Name of the driver, as in `/sys/bus/pci/drivers`.
        driver: String,
    },
    /// Open devices that are bound to vfio-pci, arm their request eventfds, report [`crate::Progress::Opened`], and act as
    /// a single-threaded owner: nothing but the steps happens then. Done, with [`crate::Reply::Nothing`], when the steps
    /// are over; what no step released is released then.
    Own {
        /// The devices, opened in this order.
        devices: Vec<VfioDevice>,
        /// What the owner does.
        steps: Vec<Step>,
    },
    /// Write attributes by turns, again and again, as fast as they can be written. What the kernel refuses is counted and
    /// not an error. Done with [`crate::Reply::Cycled`], after so many rounds or after [`Command::Stop`].
    Cycle {
        /// What to write, by turns.
        writes: Vec<AttributeWrite>,
        /// How often to write them all; none for ever.
        rounds: Option<u32>,
    },
    /// Read a register of the PHY of a network interface again and again, as fast as the driver answers (`SIOCGMIIREG` of
    /// `include/uapi/linux/sockios.h`, as `mii-tool` does). What the kernel refuses is counted. Done with
    /// [`crate::Reply::Cycled`] after [`Command::Stop`].
    ReadPhy {
        /// Interface name.
        ifname: String,
        /// Register (`include/uapi/linux/mii.h`).
        register: u16,
    },
    /// Read every attribute in and below some folders, each from a thread of its own, and write some back. Reports
    /// [`crate::Progress::Waiting`] once when all that still go on seem to wait for something; done with
    /// [`crate::Reply::Swept`] when all are over.
    Sweep(Sweep),
    /// Wait for events and read attributes the moment each arrives. Reports [`crate::Progress::Watching`] when armed, and
    /// [`crate::Progress::Saw`] per event; done with [`crate::Reply::Nothing`] after [`Command::Stop`].
    Watch {
        /// Which events.
        source: Source,
        /// Absolute paths of the attributes to read at each event, in this order.
        read: Vec<String>,
        /// How the reader is scheduled.
        #[serde(default)]
        sched: Sched,
    },
    /// Set a network interface up or down through rtnetlink. Done with [`crate::Reply::Nothing`].
    SetLink {
        /// Interface name.
        ifname: String,
        /// Up, or down.
        up: bool,
    },
    /// Let an owner that reached [`Step::Hold`] go on. Done when the owner has been told.
    Continue {
        /// The owner's operation.
        target: OpId,
    },
    /// End a [`Command::Watch`], a [`Command::Cycle`] or a [`Command::ReadPhy`].
    Stop {
        /// Its operation.
        target: OpId,
    },
    /// Send a signal to the process of an operation.
    Kill {
        /// The operation.
        target: OpId,
        /// Signal number.
        signal: i32,
    },
    /// Where an operation is: its process's tasks. Done with [`crate::Reply::Tasks`], empty if it has ended.
    Where {
        /// The operation.
        target: OpId,
    },
    /// Every task in D state, and every task whose kernel stack holds one of the named functions whatever its state.
    /// Done with [`crate::Reply::Tasks`].
    Tasks {
        /// Names of kernel functions, without offsets.
        in_functions: Vec<String>,
    },
    /// Look at all PCI functions in all the places where sysfs shows them. Done with [`crate::Reply::Inventory`].
    Inventory,
    /// Write a key to `/proc/sysrq-trigger`. What it prints comes back as kmsg.
    Sysrq {
        /// The key, as in `Documentation/admin-guide/sysrq.rst`.
        key: char,
    },
}

fn is_start(at: &u64) -> bool {
    *at == 0
}

/// Which attributes to try, and for how long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Sweep {
    /// Absolute paths of folders: every file that can be read, in them and below. Symbolic links are not followed.
    pub folders: Vec<String>,
    /// Names of files and folders to leave alone.
    pub leave_out: Vec<String>,
    /// Names of files to which the value that was read is written back.
    pub write_back: Vec<String>,
    /// What still goes on when nothing has ended for so many milliseconds is waiting for something.
    pub quiet_ms: u64,
}

/// A device for an owner to open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct VfioDevice {
    /// Its address, as `0000:01:00.0`.
    pub bdf: String,
    /// The token, a UUID, that an SR-IOV device under vfio may want (`drivers/vfio/pci/vfio_pci_core.c`,
    /// `vfio_pci_validate_vf_token()`).
    #[serde(default)]
    pub vf_token: Option<String>,
}

/// One value for one attribute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct AttributeWrite {
    /// Absolute path.
    pub path: String,
    /// The bytes to write; no newline is added.
    pub data: String,
}

/// One thing that an owner does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum Step {
    /// Wait until the kernel asks for any of the devices that are open; reported as [`crate::Progress::Requested`].
    AwaitRequest,
    /// Read an attribute; reported as [`crate::Progress::Reading`], then [`crate::Progress::Read`].
    Read {
        /// Absolute path.
        path: String,
    },
    /// Write an attribute; reported as [`crate::Progress::Writing`], then [`crate::Progress::Written`].
    Write(AttributeWrite),
    /// Report [`crate::Progress::Holding`] and wait for [`Command::Continue`].
    Hold,
    /// Have a device's first MSI-X vector signal an eventfd, as a driver in user space does before it uses the device
    /// (`VFIO_DEVICE_SET_IRQS`). Nothing is reported: what comes next has this behind it.
    EnableMsix {
        /// Its address.
        bdf: String,
    },
    /// Reset a device together with its bus or slot (`VFIO_DEVICE_PCI_HOT_RESET`); its IOMMU group must hold all that is
    /// reset. Nothing is reported: what comes next has this behind it.
    HotReset {
        /// Its address.
        bdf: String,
    },
    /// Close one device, and its group and container if it is the last of them; reported as [`crate::Progress::Closed`].
    Close {
        /// Its address.
        bdf: String,
    },
    /// Close what is open, in the order of opening: each device, its group and its container; reported as
    /// [`crate::Progress::Released`].
    Release,
}

/// Where events come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum Source {
    /// Kernel uevents (`NETLINK_KOBJECT_UEVENT`, multicast group 1) that match both.
    Uevent {
        /// `ACTION=`; none means any.
        action: Option<String>,
        /// `DEVPATH=`, exactly; none means any.
        devpath: Option<String>,
    },
    /// `RTM_NEWLINK` messages (`RTMGRP_LINK`), of any interface.
    Rtnetlink,
}

/// How a process is scheduled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Sched {
    /// Pin to this CPU.
    #[serde(default)]
    pub cpu: Option<u32>,
    /// Scheduling policy.
    #[serde(default)]
    pub policy: Policy,
}

/// Scheduling policy; see `sched(7)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// `SCHED_OTHER`.
    #[default]
    Other,
    /// `SCHED_FIFO` at this priority, 1 to 99.
    Fifo(u8),
}
