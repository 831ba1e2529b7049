//! The few rtnetlink requests a bridge network needs, each sent and acknowledged in one call. Blocking, for threads
//! that may stand in another network namespace: a socket speaks to the namespace it was opened in.

use std::{
    io,
    net::IpAddr,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
};

use nix::{
    libc,
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket},
};

/// Kernel numbers that libc leaves out or types differently.
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const CREATE: u16 = (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
/// Answers are acknowledgements: a header, an error number and the request's header.
const ANSWER_BYTES: usize = 4096;

pub struct Socket {
    socket: OwnedFd,
    sequence: u32,
}

/// A request under construction.
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: u16) -> Self {
        let mut bytes = vec![0; 16];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        let flags = flags | (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        Self(bytes)
    }

    fn link(kind: u16, flags: u16, index: u32, up: bool) -> Self {
        let mut message = Self::new(kind, flags);
        message.interface(index, up);
        message
    }

    /// `struct ifinfomsg`
    fn interface(&mut self, index: u32, up: bool) {
        self.0.extend([0; 4]);
        self.0.extend(index.to_ne_bytes());
        let flags = if up { libc::IFF_UP as u32 } else { 0 };
        self.0.extend(flags.to_ne_bytes());
        self.0.extend(flags.to_ne_bytes());
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.nested(kind, |message| message.0.extend(value));
    }

    fn text(&mut self, kind: u16, value: &str) {
        self.nested(kind, |message| {
            message.0.extend(value.as_bytes());
            message.0.push(0);
        });
    }

    fn number(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_ne_bytes());
    }

    fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.0.len();
        self.0.extend([0; 4]);
        fill(self);
        let length = (self.0.len() - start) as u16;
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.0[start + 2..start + 4].copy_from_slice(&kind.to_ne_bytes());
        // The next attribute starts at a multiple of four.
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => libc::AF_INET as u8,
        IpAddr::V6(_) => libc::AF_INET6 as u8,
    }
}

/// A pair of interfaces to make, one end in each namespace.
pub struct Pair<'a> {
    /// The end in the socket's namespace, attached to this bridge.
    pub name: &'a str,
    pub bridge: u32,
    pub peer: &'a str,
    pub peer_mac: [u8; 6],
    pub peer_namespace: BorrowedFd<'a>,
}

impl Socket {
    pub fn open() -> io::Result<Self> {
        let protocol = SockProtocol::NetlinkRoute;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        Ok(Self { socket, sequence: 0 })
    }

    fn call(&mut self, mut message: Message) -> io::Result<()> {
        self.sequence += 1;
        let length = message.0.len() as u32;
        message.0[0..4].copy_from_slice(&length.to_ne_bytes());
        message.0[8..12].copy_from_slice(&self.sequence.to_ne_bytes());
        send(self.socket.as_raw_fd(), &message.0, MsgFlags::empty())?;
        let mut answer = [0; ANSWER_BYTES];
        loop {
            let count = recv(self.socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
            let word =
                |at: usize| answer.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_ne_bytes);
            // An answer to an earlier request that was given up on is passed over.
            if count < 20 || word(8) != Some(self.sequence) {
                continue;
            }
            let error = word(16).unwrap_or(0) as i32;
            return if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-error)) };
        }
    }

    /// A bridge that is up. Its address is fixed: a bridge without one takes a port's and changes it with the ports.
    pub fn add_bridge(&mut self, name: &str, mac: [u8; 6]) -> io::Result<()> {
        let mut message = Message::link(libc::RTM_NEWLINK, CREATE, 0, true);
        message.text(libc::IFLA_IFNAME, name);
        message.attribute(libc::IFLA_ADDRESS, &mac);
        message.nested(libc::IFLA_LINKINFO, |message| message.text(IFLA_INFO_KIND, "bridge"));
        self.call(message)
    }

    pub fn add_pair(&mut self, pair: &Pair<'_>) -> io::Result<()> {
        let mut message = Message::link(libc::RTM_NEWLINK, CREATE, 0, true);
        message.text(libc::IFLA_IFNAME, pair.name);
        message.number(libc::IFLA_MASTER, pair.bridge);
        message.nested(libc::IFLA_LINKINFO, |message| {
            message.text(IFLA_INFO_KIND, "veth");
            message.nested(IFLA_INFO_DATA, |message| {
                message.nested(VETH_INFO_PEER, |message| {
                    // Not up yet: the kernel makes the peer first, and it cannot come up without its other end.
                    message.interface(0, false);
                    message.text(libc::IFLA_IFNAME, pair.peer);
                    message.attribute(libc::IFLA_ADDRESS, &pair.peer_mac);
                    message.number(libc::IFLA_NET_NS_FD, pair.peer_namespace.as_raw_fd() as u32);
                });
            });
        });
        self.call(message)
    }

    pub fn set_up(&mut self, index: u32) -> io::Result<()> {
        self.call(Message::link(libc::RTM_NEWLINK, 0, index, true))
    }

    pub fn delete_link(&mut self, index: u32) -> io::Result<()> {
        self.call(Message::link(libc::RTM_DELLINK, 0, index, false))
    }

    pub fn add_address(&mut self, index: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
        let mut message = Message::new(libc::RTM_NEWADDR, CREATE);
        // Nobody else has an address that we hand out: no time is lost on asking.
        let flags = if address.is_ipv6() { libc::IFA_F_NODAD as u8 } else { 0 };
        message.0.extend([family(address), prefix, flags, libc::RT_SCOPE_UNIVERSE]);
        message.0.extend(index.to_ne_bytes());
        message.attribute(libc::IFA_LOCAL, &octets(address));
        message.attribute(libc::IFA_ADDRESS, &octets(address));
        self.call(message)
    }

    pub fn add_default_route(&mut self, index: u32, gateway: IpAddr) -> io::Result<()> {
        let mut message = Message::new(libc::RTM_NEWROUTE, CREATE);
        message.0.extend([family(gateway), 0, 0, 0]);
        message.0.extend([libc::RT_TABLE_MAIN, libc::RTPROT_BOOT, libc::RT_SCOPE_UNIVERSE, libc::RTN_UNICAST]);
        message.0.extend([0; 4]);
        message.attribute(libc::RTA_GATEWAY, &octets(gateway));
        message.number(libc::RTA_OIF, index);
        self.call(message)
    }
}
