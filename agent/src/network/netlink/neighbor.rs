//! What a VXLAN device knows of the other ends: the hardware address behind a pod network's gateway (neighbours), and
//! the host behind a hardware address (its forwarding table).

use std::{io, net::IpAddr};

use nix::libc;

use super::{
    REPLACE, Socket, gone_is_fine,
    message::{Attributes, Message, family},
};

/// Kernel numbers that libc leaves out or types differently.
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
/// Of the device itself, not of a bridge above it.
const NTF_SELF: u8 = 0x02;
const NUD_PERMANENT: u16 = 0x80;
/// Bytes of `struct ndmsg`.
const NEIGHBOR_BYTES: usize = 12;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Neighbor {
    pub address: IpAddr,
    pub mac: [u8; 6],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Forwarding {
    pub mac: [u8; 6],
    pub host: IpAddr,
}

fn request(kind: u16, flags: u16, family: u8, interface: u32, entry_flags: u8) -> Message {
    let mut message = Message::new(kind, flags);
    message.bytes(&[family, 0, 0, 0]);
    message.bytes(&interface.to_ne_bytes());
    message.bytes(&NUD_PERMANENT.to_ne_bytes());
    message.bytes(&[entry_flags, 0]);
    message
}

impl Neighbor {
    fn request(&self, kind: u16, flags: u16, interface: u32) -> Message {
        let mut message = request(kind, flags, family(self.address), interface, 0);
        message.address(NDA_DST, self.address);
        message.attribute(NDA_LLADDR, &self.mac);
        message
    }
}

impl Forwarding {
    fn request(&self, kind: u16, flags: u16, interface: u32) -> Message {
        let mut message = request(kind, flags, libc::AF_BRIDGE as u8, interface, NTF_SELF);
        message.address(NDA_DST, self.host);
        message.attribute(NDA_LLADDR, &self.mac);
        message
    }
}

impl Socket {
    /// Replaces a neighbour of the same address.
    pub fn set_neighbor(&mut self, interface: u32, neighbor: &Neighbor) -> io::Result<()> {
        self.call(neighbor.request(libc::RTM_NEWNEIGH, REPLACE, interface))
    }

    /// Success when there is none.
    pub fn delete_neighbor(&mut self, interface: u32, neighbor: &Neighbor) -> io::Result<()> {
        gone_is_fine(self.call(neighbor.request(libc::RTM_DELNEIGH, 0, interface)))
    }

    /// Permanent neighbours behind an interface, of the family of `like`.
    pub fn neighbors(&mut self, interface: u32, like: IpAddr) -> io::Result<Vec<Neighbor>> {
        let read = |attributes: &Attributes<'_>| {
            Some(Neighbor { address: attributes.address(NDA_DST)?, mac: attributes.mac(NDA_LLADDR)? })
        };
        self.entries(family(like), interface, read)
    }

    /// Replaces an entry of the same hardware address.
    pub fn set_forwarding(&mut self, interface: u32, entry: &Forwarding) -> io::Result<()> {
        self.call(entry.request(libc::RTM_NEWNEIGH, REPLACE, interface))
    }

    /// Success when there is none.
    pub fn delete_forwarding(&mut self, interface: u32, entry: &Forwarding) -> io::Result<()> {
        gone_is_fine(self.call(entry.request(libc::RTM_DELNEIGH, 0, interface)))
    }

    /// Permanent entries of a VXLAN device's forwarding table.
    pub fn forwardings(&mut self, interface: u32) -> io::Result<Vec<Forwarding>> {
        let read = |attributes: &Attributes<'_>| {
            Some(Forwarding { mac: attributes.mac(NDA_LLADDR)?, host: attributes.address(NDA_DST)? })
        };
        self.entries(libc::AF_BRIDGE as u8, interface, read)
    }

    fn entries<T>(
        &mut self,
        family: u8,
        interface: u32,
        read: impl Fn(&Attributes<'_>) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        let mut message = Message::new(libc::RTM_GETNEIGH, libc::NLM_F_DUMP as u16);
        message.bytes(&[family, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let of_interface = |answer: &Vec<u8>| {
            let at = |offset| super::word(answer, super::HEADER_BYTES + offset);
            let is_permanent = at(8).is_some_and(|word| word.to_ne_bytes()[..2] == NUD_PERMANENT.to_ne_bytes());
            at(4) == Some(interface) && is_permanent
        };
        let answers = self.ask(message)?;
        let answers = answers.iter().filter(|answer| of_interface(answer));
        Ok(answers.filter_map(|answer| read(&Attributes::of(answer, NEIGHBOR_BYTES))).collect())
    }
}
