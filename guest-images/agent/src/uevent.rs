//! Receives and parses kernel uevents (`lib/kobject_uevent.c`).

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use guest_protocol::Uevent;
use nix::sys::socket::SockProtocol;

use crate::error::AgentError;
use crate::netlink;

/// Multicast group of the kernel's events. Those of udev are in group 2.
const KERNEL_GROUP: u32 = 1;

/// Opens a socket that receives the kernel's uevents from now on.
pub fn open() -> Result<OwnedFd, AgentError> {
    netlink::open(SockProtocol::NetlinkKObjectUEvent, KERNEL_GROUP)
        .map_err(|errno| AgentError::io("open a uevent socket", errno))
}

/// The action and the path at the beginning of a datagram: `ACTION@DEVPATH`, then NUL. For a reader that must be fast.
pub fn header(datagram: &[u8]) -> Option<(&str, &str)> {
    let header = datagram.split(|byte| *byte == 0).next()?;
    std::str::from_utf8(header).ok()?.split_once('@')
}

/// Parses a whole event: the header, then `KEY=VALUE` strings, each with a NUL at its end.
///
/// The `kobject-uevent` crate is not used, because it refuses unknown actions and text that is not UTF-8. Such an event
/// would be lost.
pub fn parse(datagram: &[u8]) -> Result<Uevent, AgentError> {
    let malformed = |what: &str| {
        let shown: String = String::from_utf8_lossy(datagram).chars().take(200).collect();
        AgentError::Refused(format!("a uevent without {what}: {shown:?}"))
    };
    let mut strings = datagram.split(|byte| *byte == 0);
    strings.next().filter(|header| header.contains(&b'@')).ok_or_else(|| malformed("ACTION@DEVPATH"))?;
    let mut env: BTreeMap<String, String> = strings
        .filter_map(|string| {
            let (key, value) = string.split_at(string.iter().position(|byte| *byte == b'=')?);
            Some((String::from_utf8_lossy(key).into_owned(), String::from_utf8_lossy(&value[1..]).into_owned()))
        })
        .collect();
    Ok(Uevent {
        action: env.remove("ACTION").ok_or_else(|| malformed("ACTION"))?,
        devpath: env.remove("DEVPATH").ok_or_else(|| malformed("DEVPATH"))?,
        seqnum: env.remove("SEQNUM").and_then(|seqnum| seqnum.parse().ok()).ok_or_else(|| malformed("SEQNUM"))?,
        env,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BIND: &[u8] = b"bind@/devices/pci0000:00/0000:00:01.0/0000:01:00.0\0ACTION=bind\0\
        DEVPATH=/devices/pci0000:00/0000:00:01.0/0000:01:00.0\0SUBSYSTEM=pci\0DRIVER=igb\0EMPTY=\0SEQNUM=712\0";

    #[test]
    fn a_bind_event_is_parsed() {
        let event = parse(BIND).unwrap();
        assert_eq!(event.action, "bind");
        assert_eq!(event.devpath, "/devices/pci0000:00/0000:00:01.0/0000:01:00.0");
        assert_eq!(event.seqnum, 712);
        let env: Vec<_> = event.env.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(env, [("DRIVER", "igb"), ("EMPTY", ""), ("SUBSYSTEM", "pci")]);
        assert_eq!(header(BIND), Some(("bind", "/devices/pci0000:00/0000:00:01.0/0000:01:00.0")));
    }

    #[test]
    fn an_event_of_udev_is_refused() {
        let error = parse(b"libudev\0\xfe\xed\xca\xfe").unwrap_err();
        assert!(error.to_string().starts_with("a uevent without ACTION@DEVPATH"), "{error}");
    }

    #[test]
    fn text_that_is_not_utf8_is_replaced() {
        let event = parse(b"add@/d\0ACTION=add\0DEVPATH=/d\0SEQNUM=1\0MODALIAS=\xff\0").unwrap();
        assert_eq!(event.env["MODALIAS"], "\u{fffd}");
    }

    proptest! {
        #[test]
        fn no_datagram_makes_it_panic(datagram in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = (parse(&datagram), header(&datagram));
        }

        #[test]
        fn an_event_of_the_kernel_is_parsed(
            action in "[a-z]{1,10}",
            devpath in "/[a-z0-9:./_-]{0,40}",
            seqnum: u64,
            env in prop::collection::btree_map("E_[A-Z_]{1,10}", "[^\0]{0,20}", 0..8),
        ) {
            let mut datagram = format!("{action}@{devpath}\0ACTION={action}\0DEVPATH={devpath}\0");
            for (key, value) in &env {
                datagram += &format!("{key}={value}\0");
            }
            datagram += &format!("SEQNUM={seqnum}\0");
            prop_assert_eq!(header(datagram.as_bytes()), Some((action.as_str(), devpath.as_str())));
            prop_assert_eq!(parse(datagram.as_bytes()).unwrap(), Uevent { action, devpath, seqnum, env });
        }
    }
}
