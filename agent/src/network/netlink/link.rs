//! Interfaces: the bridge, a pod's pair, and the VXLAN device.

use std::{
    io,
    net::IpAddr,
    os::fd::{AsRawFd, BorrowedFd},
};

use nix::libc;

use super::{
    CREATE, Socket, gone_is_fine,
    message::{Attributes, Message, family},
};
use crate::network::bandwidth::Bucket;

/// Kernel numbers that libc leaves out or types differently.
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_BRPORT_MODE: u16 = 4;
const VETH_INFO_PEER: u16 = 1;
const IFLA_VXLAN_ID: u16 = 1;
const IFLA_VXLAN_LOCAL: u16 = 4;
const IFLA_VXLAN_LEARNING: u16 = 7;
const IFLA_VXLAN_PORT: u16 = 15;
const IFLA_VXLAN_LOCAL6: u16 = 17;
const TC_ROOT: u32 = u32::MAX;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TBF_PARMS: u16 = 1;
const TBF_RATE64: u16 = 4;
const TBF_BURST: u16 = 6;
/// `TC_LINKLAYER_ETHERNET`: packets cost what they are long, without a table.
const LINK_LAYER_ETHERNET: u8 = 1;
/// Bytes of `struct ifinfomsg` and of `struct ifaddrmsg`.
const LINK_BYTES: usize = 16;
const ADDRESS_BYTES: usize = 8;

/// A pair of interfaces to make, one end in each namespace.
pub struct Pair<'a> {
    /// The end in the socket's namespace, attached to this bridge.
    pub name: &'a str,
    pub bridge: u32,
    pub peer: &'a str,
    pub peer_mac: [u8; 6],
    pub peer_namespace: BorrowedFd<'a>,
    /// Of both ends.
    pub mtu: u32,
}

/// What makes one VXLAN device differ from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vxlan {
    pub id: u32,
    /// UDP port of this and all other ends.
    pub port: u16,
    /// The address packets leave with.
    pub local: IpAddr,
}

/// An interface as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub mtu: u32,
    pub is_up: bool,
    pub mac: Option<[u8; 6]>,
    pub vxlan: Option<Vxlan>,
}

/// An interface among all of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub index: u32,
    /// The bridge that it is a port of.
    pub master: Option<u32>,
    pub is_up: bool,
}

fn request(kind: u16, flags: u16, index: u32, up: bool) -> Message {
    let mut message = Message::new(kind, flags);
    message.interface(index, up);
    message
}

impl Socket {
    /// A bridge that is up. Its address is fixed: a bridge without one takes a port's and changes it with the ports.
    pub fn add_bridge(&mut self, name: &str, mac: [u8; 6], mtu: u32) -> io::Result<()> {
        let mut message = request(libc::RTM_NEWLINK, CREATE, 0, true);
        message.text(libc::IFLA_IFNAME, name);
        message.attribute(libc::IFLA_ADDRESS, &mac);
        message.number(libc::IFLA_MTU, mtu);
        message.nested(libc::IFLA_LINKINFO, |message| message.text(IFLA_INFO_KIND, "bridge"));
        self.call(message)
    }

    pub fn add_pair(&mut self, pair: &Pair<'_>) -> io::Result<()> {
        let mut message = request(libc::RTM_NEWLINK, CREATE, 0, true);
        message.text(libc::IFLA_IFNAME, pair.name);
        message.number(libc::IFLA_MASTER, pair.bridge);
        message.number(libc::IFLA_MTU, pair.mtu);
        message.nested(libc::IFLA_LINKINFO, |message| {
            message.text(IFLA_INFO_KIND, "veth");
            message.nested(IFLA_INFO_DATA, |message| {
                message.nested(VETH_INFO_PEER, |message| {
                    // Not up yet: the kernel makes the peer first, and it cannot come up without its other end.
                    message.interface(0, false);
                    message.text(libc::IFLA_IFNAME, pair.peer);
                    message.attribute(libc::IFLA_ADDRESS, &pair.peer_mac);
                    message.number(libc::IFLA_MTU, pair.mtu);
                    message.number(libc::IFLA_NET_NS_FD, pair.peer_namespace.as_raw_fd() as u32);
                });
            });
        });
        self.call(message)
    }

    /// Lets frames leave a bridge by the port they came in.
    pub fn set_hairpin(&mut self, port: u32) -> io::Result<()> {
        let mut message = request(libc::RTM_NEWLINK, 0, port, true);
        message.nested(libc::IFLA_LINKINFO, |message| {
            message.text(IFLA_INFO_SLAVE_KIND, "bridge");
            message.nested(IFLA_INFO_SLAVE_DATA, |message| message.attribute(IFLA_BRPORT_MODE, &[1]));
        });
        self.call(message)
    }

    /// A VXLAN device that is up and learns nothing: who is behind which address is told by `add_forwarding`.
    pub fn add_vxlan(&mut self, name: &str, vxlan: Vxlan, mac: [u8; 6], mtu: u32) -> io::Result<()> {
        let mut message = request(libc::RTM_NEWLINK, CREATE, 0, true);
        message.text(libc::IFLA_IFNAME, name);
        message.attribute(libc::IFLA_ADDRESS, &mac);
        message.number(libc::IFLA_MTU, mtu);
        message.nested(libc::IFLA_LINKINFO, |message| {
            message.text(IFLA_INFO_KIND, "vxlan");
            message.nested(IFLA_INFO_DATA, |message| {
                message.number(IFLA_VXLAN_ID, vxlan.id);
                message.attribute(IFLA_VXLAN_LEARNING, &[0]);
                message.attribute(IFLA_VXLAN_PORT, &vxlan.port.to_be_bytes());
                let local = if vxlan.local.is_ipv4() { IFLA_VXLAN_LOCAL } else { IFLA_VXLAN_LOCAL6 };
                message.address(local, vxlan.local);
            });
        });
        self.call(message)
    }

    /// Lets no more leave an interface than a token bucket allows; replaces what was at its root.
    pub fn limit(&mut self, index: u32, bucket: Bucket) -> io::Result<()> {
        let mut message = Message::new(libc::RTM_NEWQDISC, super::REPLACE);
        // `struct tcmsg`
        message.bytes(&[0; 4]);
        message.bytes(&index.to_ne_bytes());
        for word in [0, TC_ROOT, 0] {
            message.bytes(&word.to_ne_bytes());
        }
        message.text(TCA_KIND, "tbf");
        message.nested(TCA_OPTIONS, |message| {
            message.nested(TBF_PARMS, |message| {
                // Two of `struct tc_ratespec`: the rate, and no peak rate.
                message.bytes(&[0, LINK_LAYER_ETHERNET, 0, 0, 0, 0, 0, 0]);
                message.bytes(&u32::try_from(bucket.rate).unwrap_or(u32::MAX).to_ne_bytes());
                message.bytes(&[0; 12]);
                // The bucket's size is told in bytes below, the third is for a peak rate.
                for word in [bucket.limit, 0, 0] {
                    message.bytes(&word.to_ne_bytes());
                }
            });
            message.attribute(TBF_RATE64, &bucket.rate.to_ne_bytes());
            message.number(TBF_BURST, bucket.burst);
        });
        self.call(message)
    }

    /// Makes an interface a port of a bridge, and brings it up.
    pub fn set_master(&mut self, index: u32, bridge: u32) -> io::Result<()> {
        let mut message = request(libc::RTM_NEWLINK, 0, index, true);
        message.number(libc::IFLA_MASTER, bridge);
        self.call(message)
    }

    pub fn set_up(&mut self, index: u32) -> io::Result<()> {
        self.call(request(libc::RTM_NEWLINK, 0, index, true))
    }

    pub fn set_mtu(&mut self, index: u32, mtu: u32) -> io::Result<()> {
        let mut message = Message::new(libc::RTM_NEWLINK, 0);
        message.interface(index, false);
        message.number(libc::IFLA_MTU, mtu);
        // The interface's flags are left as they are: the change mask above is zero.
        self.call(message)
    }

    /// Success when there is none.
    pub fn delete_link(&mut self, index: u32) -> io::Result<()> {
        gone_is_fine(self.call(request(libc::RTM_DELLINK, 0, index, false)))
    }

    /// All interfaces.
    pub fn interfaces(&mut self) -> io::Result<Vec<Interface>> {
        let mut message = Message::new(libc::RTM_GETLINK, libc::NLM_F_DUMP as u16);
        message.interface(0, false);
        let read = |answer: Vec<u8>| {
            let at = |offset| super::word(&answer, super::HEADER_BYTES + offset);
            let attributes = Attributes::of(&answer, LINK_BYTES);
            let name = attributes.find(libc::IFLA_IFNAME)?.strip_suffix(&[0])?;
            Some(Interface {
                name: String::from_utf8_lossy(name).into_owned(),
                index: at(4)?,
                master: attributes.number(libc::IFLA_MASTER),
                is_up: at(8)? & libc::IFF_UP as u32 != 0,
            })
        };
        Ok(self.ask(message)?.into_iter().filter_map(read).collect())
    }

    /// The interface of this name or, without one, of this index.
    pub fn link(&mut self, name: Option<&str>, index: u32) -> io::Result<Option<Link>> {
        let mut message = request(libc::RTM_GETLINK, 0, index, false);
        if let Some(name) = name {
            message.text(libc::IFLA_IFNAME, name);
        }
        match self.ask(message) {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
            Ok(answers) => Ok(answers.first().and_then(|answer| read(answer))),
        }
    }

    /// Success when the interface has it already.
    pub fn add_address(&mut self, index: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
        let mut message = Message::new(libc::RTM_NEWADDR, CREATE);
        // Nobody else has an address that we hand out: no time is lost on asking.
        let flags = if address.is_ipv6() { libc::IFA_F_NODAD as u8 } else { 0 };
        message.bytes(&[family(address), prefix, flags, libc::RT_SCOPE_UNIVERSE]);
        message.bytes(&index.to_ne_bytes());
        message.address(libc::IFA_LOCAL, address);
        message.address(libc::IFA_ADDRESS, address);
        match self.call(message) {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
            other => other,
        }
    }

    /// Success when there is none.
    pub fn delete_address(&mut self, index: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
        let mut message = Message::new(libc::RTM_DELADDR, 0);
        message.bytes(&[family(address), prefix, 0, libc::RT_SCOPE_UNIVERSE]);
        message.bytes(&index.to_ne_bytes());
        message.address(libc::IFA_LOCAL, address);
        match self.call(message) {
            Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => Ok(()),
            other => other,
        }
    }

    /// All addresses of one interface.
    pub fn addresses(&mut self, index: u32) -> io::Result<Vec<IpAddr>> {
        let mut message = Message::new(libc::RTM_GETADDR, libc::NLM_F_DUMP as u16);
        message.bytes(&[0; ADDRESS_BYTES]);
        let read = |answer: Vec<u8>| {
            let attributes = Attributes::of(&answer, ADDRESS_BYTES);
            let found = super::word(&answer, super::HEADER_BYTES + 4)? == index;
            // Version 6 addresses have no local part of their own.
            let address = attributes.address(libc::IFA_LOCAL).or_else(|| attributes.address(libc::IFA_ADDRESS))?;
            found.then_some(address)
        };
        Ok(self.ask(message)?.into_iter().filter_map(read).collect())
    }
}

fn read(answer: &[u8]) -> Option<Link> {
    let at = |offset| super::word(answer, super::HEADER_BYTES + offset);
    let attributes = Attributes::of(answer, LINK_BYTES);
    let info = attributes.find(libc::IFLA_LINKINFO).map(Attributes::within);
    let is_vxlan = info.as_ref().and_then(|info| info.find(IFLA_INFO_KIND)) == Some(b"vxlan\0");
    let data = info.filter(|_| is_vxlan).and_then(|info| info.find(IFLA_INFO_DATA)).map(Attributes::within);
    let vxlan = data.and_then(|data| {
        Some(Vxlan {
            id: data.number(IFLA_VXLAN_ID)?,
            port: u16::from_be_bytes(data.find(IFLA_VXLAN_PORT)?.try_into().ok()?),
            local: data.address(IFLA_VXLAN_LOCAL).or_else(|| data.address(IFLA_VXLAN_LOCAL6))?,
        })
    });
    Some(Link {
        index: at(4)?,
        mtu: attributes.number(libc::IFLA_MTU)?,
        is_up: at(8)? & libc::IFF_UP as u32 != 0,
        mac: attributes.mac(libc::IFLA_ADDRESS),
        vxlan,
    })
}
