//! Routes: those of ours, and how the kernel would reach an address.

use std::{io, net::IpAddr};

use nix::libc;

use super::{
    REPLACE, Socket, gone_is_fine,
    message::{Attributes, Message, family},
};
use crate::network::Range;

/// Marks routes as made by this agent (`rtm_protocol`; `ip route show proto 107`). Not a routing daemon's number.
const PROTOCOL: u8 = 107;
/// The next hop is reachable though no route says so. libc has it for newer kernels' flags only.
const ONLINK: u32 = 4;
/// Bytes of `struct rtmsg`.
const ROUTE_BYTES: usize = 12;
/// Only what the request's header and attributes name is dumped (`NETLINK_GET_STRICT_CHK`): a host may have a million
/// routes of others. Kernels before 4.20 dump all, which is filtered here.
const STRICT_CHECK: libc::c_int = 12;

/// A route to another node's pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    pub range: Range,
    pub gateway: IpAddr,
    pub interface: u32,
    /// The address this host itself sends with.
    pub source: IpAddr,
}

/// How this host reaches an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// It is this host's own.
    Here,
    /// A neighbour on the link behind this interface.
    Link { interface: u32 },
    /// Through a router.
    Routed,
    /// Not at all, for now.
    Not,
}

impl Route {
    fn request(&self, kind: u16, flags: u16) -> Message {
        let mut message = Message::new(kind, flags);
        message.bytes(&[family(self.range.base()), self.range.prefix(), 0, 0]);
        message.bytes(&[libc::RT_TABLE_MAIN, PROTOCOL, libc::RT_SCOPE_UNIVERSE, libc::RTN_UNICAST]);
        message.bytes(&ONLINK.to_ne_bytes());
        message.address(libc::RTA_DST, self.range.base());
        message.address(libc::RTA_GATEWAY, self.gateway);
        message.number(libc::RTA_OIF, self.interface);
        message
    }
}

impl Socket {
    /// Replaces a route to the same range.
    pub fn set_route(&mut self, route: &Route) -> io::Result<()> {
        let mut message = route.request(libc::RTM_NEWROUTE, REPLACE);
        message.address(libc::RTA_PREFSRC, route.source);
        self.call(message)
    }

    /// Success when there is none.
    pub fn delete_route(&mut self, route: &Route) -> io::Result<()> {
        gone_is_fine(self.call(route.request(libc::RTM_DELROUTE, 0)))
    }

    pub fn add_default_route(&mut self, index: u32, gateway: IpAddr) -> io::Result<()> {
        let mut message = Message::new(libc::RTM_NEWROUTE, super::CREATE);
        message.bytes(&[family(gateway), 0, 0, 0]);
        message.bytes(&[libc::RT_TABLE_MAIN, libc::RTPROT_BOOT, libc::RT_SCOPE_UNIVERSE, libc::RTN_UNICAST]);
        message.bytes(&[0; 4]);
        message.address(libc::RTA_GATEWAY, gateway);
        message.number(libc::RTA_OIF, index);
        self.call(message)
    }

    /// Routes this agent, or another one on this host, has made.
    pub fn routes(&mut self, like: IpAddr) -> io::Result<Vec<Route>> {
        self.check_strictly();
        let mut message = Message::new(libc::RTM_GETROUTE, libc::NLM_F_DUMP as u16);
        message.bytes(&[family(like), 0, 0, 0, libc::RT_TABLE_MAIN, PROTOCOL, 0, 0, 0, 0, 0, 0]);
        Ok(self.ask(message)?.iter().filter_map(|answer| read(answer)).collect())
    }

    fn check_strictly(&self) {
        use std::os::fd::AsRawFd;
        let on: libc::c_int = 1;
        let size = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: the descriptor is open and the value outlives the call. An older kernel refuses; see above.
        unsafe {
            libc::setsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_NETLINK,
                STRICT_CHECK,
                std::ptr::from_ref(&on).cast(),
                size,
            );
        }
    }

    pub fn reach(&mut self, address: IpAddr) -> io::Result<Reach> {
        let mut message = Message::new(libc::RTM_GETROUTE, 0);
        let bits = if address.is_ipv4() { 32 } else { 128 };
        message.bytes(&[family(address), bits, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        message.address(libc::RTA_DST, address);
        let answers = match self.ask(message) {
            Ok(answers) => answers,
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EINVAL | libc::EACCES)
                ) =>
            {
                return Ok(Reach::Not);
            }
            Err(error) => return Err(error),
        };
        Ok(answers.first().map_or(Reach::Not, |answer| reach(answer)))
    }
}

fn reach(answer: &[u8]) -> Reach {
    let attributes = Attributes::of(answer, ROUTE_BYTES);
    let gateway = attributes.find(libc::RTA_GATEWAY).or_else(|| attributes.find(libc::RTA_VIA));
    match (answer.get(super::HEADER_BYTES + 7).copied(), gateway, attributes.number(libc::RTA_OIF)) {
        (Some(libc::RTN_LOCAL), ..) => Reach::Here,
        (Some(libc::RTN_UNICAST), Some(_), _) => Reach::Routed,
        (Some(libc::RTN_UNICAST), None, Some(interface)) => Reach::Link { interface },
        _ => Reach::Not,
    }
}

fn read(answer: &[u8]) -> Option<Route> {
    let fixed = answer.get(super::HEADER_BYTES..)?;
    if *fixed.get(5)? != PROTOCOL || *fixed.get(4)? != libc::RT_TABLE_MAIN {
        return None;
    }
    let attributes = Attributes::of(answer, ROUTE_BYTES);
    let range = format!("{}/{}", attributes.address(libc::RTA_DST)?, fixed.get(1)?);
    Some(Route {
        range: Range::parse(&range).ok()?,
        gateway: attributes.address(libc::RTA_GATEWAY)?,
        interface: attributes.number(libc::RTA_OIF)?,
        source: attributes.address(libc::RTA_PREFSRC)?,
    })
}
