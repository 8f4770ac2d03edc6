//! Watches and changes network interfaces through rtnetlink (`net/core/rtnetlink.c`).

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};

use guest_protocol::LinkEvent;
use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage, LinkVfInfo, VfInfo, VfInfoMac};
use nix::sys::socket::{MsgFlags, NetlinkAddr, SockProtocol, sendto};

use crate::error::{AgentError, doing};
use crate::netlink::{self, Wait};

/// Multicast group of link messages: `RTMGRP_LINK` in `include/uapi/linux/rtnetlink.h`.
const LINK_GROUP: u32 = 1;

/// `RTM_NEWLINK`, as in bytes 4 and 5 of a netlink header.
const NEWLINK: [u8; 2] = 16u16.to_ne_bytes();

/// A socket that receives link messages from now on.
pub fn open() -> Result<OwnedFd, AgentError> {
    netlink::open(SockProtocol::NetlinkRoute, LINK_GROUP)
        .map_err(|errno| AgentError::io("open an rtnetlink socket", errno))
}

/// Whether a datagram begins with an `RTM_NEWLINK`. A notification is a single message, so this is enough for a reader
/// that must be fast.
pub fn is_newlink(datagram: &[u8]) -> bool {
    datagram.get(4..6) == Some(NEWLINK.as_slice())
}

/// The link messages of a datagram. Other messages are left out.
pub fn parse(datagram: &[u8]) -> Result<Vec<LinkEvent>, AgentError> {
    let mut events = Vec::new();
    let mut rest = datagram;
    while !rest.is_empty() {
        let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
            .map_err(|error| AgentError::Refused(format!("an rtnetlink message that cannot be parsed: {error}")))?;
        // Messages are aligned to 4 bytes (`NLMSG_ALIGN`). With a length of 0 the loop would never end.
        let length = (message.header.length as usize).next_multiple_of(4).max(4);
        match message.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => events.push(event(link, false)),
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link)) => events.push(event(link, true)),
            _ => {}
        }
        rest = rest.get(length..).unwrap_or_default();
    }
    Ok(events)
}

fn event(link: LinkMessage, gone: bool) -> LinkEvent {
    let mut event = LinkEvent {
        gone,
        ifname: String::new(),
        index: link.header.index,
        flags: link.header.flags.bits(),
        operstate: None,
    };
    for attribute in link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => event.ifname = name,
            LinkAttribute::OperState(state) => event.operstate = Some(state.into()),
            _ => {}
        }
    }
    event
}

/// Sets an interface up or down with an `RTM_NEWLINK` request, and waits for the answer.
pub fn set(ifname: &str, up: bool) -> Result<(), AgentError> {
    let mut link = named(ifname)?;
    link.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
    link.header.change_mask = LinkFlags::Up;
    let action = format!("set {ifname} {}", if up { "up" } else { "down" });
    request(RouteNetlinkMessage::SetLink(link), &action)
}

/// Sets the MAC address of a VF through its PF's interface, with an `RTM_SETLINK` request, and waits for the answer.
pub fn set_vf_mac(ifname: &str, vf: u32, mac: [u8; 6]) -> Result<(), AgentError> {
    let mut link = named(ifname)?;
    let info = LinkVfInfo(vec![VfInfo::Mac(VfInfoMac::new(vf, &mac))]);
    link.attributes.push(LinkAttribute::VfInfoList(vec![info]));
    request(RouteNetlinkMessage::SetLink(link), &format!("set the MAC address of VF {vf} of {ifname}"))
}

/// A message about an interface.
fn named(ifname: &str) -> Result<LinkMessage, AgentError> {
    let path = format!("/sys/class/net/{ifname}/ifindex");
    let index = doing(&format!("find the interface {ifname}: read {path}"), || fs::read_to_string(&path))?;
    let index =
        index.trim_end().parse().map_err(|_| AgentError::Refused(format!("{path} is not a number: {index:?}")))?;
    let mut link = LinkMessage::default();
    link.header.index = index;
    Ok(link)
}

fn request(message: RouteNetlinkMessage, action: &str) -> Result<(), AgentError> {
    let mut message = NetlinkMessage::from(message);
    message.header.flags = NLM_F_REQUEST | NLM_F_ACK;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);

    let failed = |errno| AgentError::io(action, errno);
    let socket = netlink::open(SockProtocol::NetlinkRoute, 0).map_err(failed)?;
    sendto(socket.as_raw_fd(), &bytes, &NetlinkAddr::new(0, 0), MsgFlags::empty()).map_err(failed)?;
    let mut buffer = vec![0; netlink::LARGEST];
    let answer = netlink::receive(&socket, &mut buffer, Wait::Yes).map_err(failed)?;
    let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(answer)
        .map_err(|error| AgentError::Refused(format!("{action}: the kernel's answer cannot be parsed: {error}")))?;
    match answer.payload {
        NetlinkPayload::Error(error) if error.code.is_none() => Ok(()),
        NetlinkPayload::Error(error) => Err(AgentError::io(action, error.to_io())),
        _ => Err(AgentError::Refused(format!("{action}: the kernel answered, but not with an acknowledgement"))),
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::link::State;
    use proptest::prelude::*;

    use super::*;

    fn datagram(message: RouteNetlinkMessage) -> Vec<u8> {
        let mut message = NetlinkMessage::from(message);
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    fn link(name: &str) -> LinkMessage {
        let mut link = LinkMessage::default();
        link.header.index = 7;
        link.header.flags = LinkFlags::Up;
        link.attributes = vec![LinkAttribute::IfName(name.to_owned()), LinkAttribute::OperState(State::Up)];
        link
    }

    #[test]
    fn all_link_messages_of_a_datagram_are_parsed() {
        let mut bytes = datagram(RouteNetlinkMessage::NewLink(link("eth0")));
        assert!(is_newlink(&bytes));
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        let gone = datagram(RouteNetlinkMessage::DelLink(link("eth1")));
        assert!(!is_newlink(&gone));
        bytes.extend(gone);
        let event =
            |gone, ifname: &str| LinkEvent { gone, ifname: ifname.to_owned(), index: 7, flags: 1, operstate: Some(6) };
        assert_eq!(parse(&bytes).unwrap(), [event(false, "eth0"), event(true, "eth1")]);
    }

    #[test]
    fn a_missing_interface_is_named() {
        let failure = set("no-such-if", true).unwrap_err().failure();
        assert_eq!(failure.errno.unwrap().name, "ENOENT");
        assert!(failure.message.starts_with("find the interface no-such-if"), "{}", failure.message);
    }

    proptest! {
        #[test]
        fn no_datagram_makes_it_panic(datagram in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (parse(&datagram), is_newlink(&datagram));
        }

        #[test]
        fn no_damaged_link_message_makes_it_panic(at in 0..64usize, byte: u8) {
            let mut bytes = datagram(RouteNetlinkMessage::NewLink(link("eth0")));
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = parse(&bytes);
        }
    }
}
