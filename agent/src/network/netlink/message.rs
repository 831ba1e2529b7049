//! Netlink messages as bytes: written attribute by attribute, and read the same way.

use std::net::IpAddr;

use nix::libc;

use super::HEADER_BYTES;

/// A request under construction.
pub struct Message(Vec<u8>);

impl Message {
    pub fn new(kind: u16, flags: u16) -> Self {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        let flags = flags | (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        Self(bytes)
    }

    pub fn finish(mut self, sequence: u32) -> Vec<u8> {
        let length = self.0.len() as u32;
        self.0[0..4].copy_from_slice(&length.to_ne_bytes());
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.0
    }

    /// `struct ifinfomsg`
    pub fn interface(&mut self, index: u32, up: bool) {
        self.bytes(&[0; 4]);
        self.bytes(&index.to_ne_bytes());
        let flags = if up { libc::IFF_UP as u32 } else { 0 };
        self.bytes(&flags.to_ne_bytes());
        self.bytes(&flags.to_ne_bytes());
    }

    /// The fixed part that follows the header.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
    }

    pub fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.nested(kind, |message| message.bytes(value));
    }

    pub fn text(&mut self, kind: u16, value: &str) {
        self.nested(kind, |message| {
            message.bytes(value.as_bytes());
            message.bytes(&[0]);
        });
    }

    pub fn number(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_ne_bytes());
    }

    pub fn address(&mut self, kind: u16, address: IpAddr) {
        self.attribute(kind, &octets(address));
    }

    pub fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
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

/// Attributes of an answer, in their order.
pub struct Attributes<'a>(&'a [u8]);

impl<'a> Attributes<'a> {
    /// Of a message whose fixed part after the header has `fixed` bytes.
    pub fn of(message: &'a [u8], fixed: usize) -> Self {
        Self(message.get(HEADER_BYTES + fixed..).unwrap_or_default())
    }

    pub fn within(value: &'a [u8]) -> Self {
        Self(value)
    }

    pub fn find(&self, kind: u16) -> Option<&'a [u8]> {
        Self(self.0).find_map(|(found, value)| (found == kind).then_some(value))
    }

    pub fn number(&self, kind: u16) -> Option<u32> {
        self.find(kind)?.try_into().ok().map(u32::from_ne_bytes)
    }

    pub fn address(&self, kind: u16) -> Option<IpAddr> {
        address(self.find(kind)?)
    }

    pub fn mac(&self, kind: u16) -> Option<[u8; 6]> {
        self.find(kind)?.try_into().ok()
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(u16::from_ne_bytes(self.0.get(0..2)?.try_into().ok()?));
        // The two highest bits of a kind are flags: nested, and network byte order.
        let kind = u16::from_ne_bytes(self.0.get(2..4)?.try_into().ok()?) & 0x3fff;
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

pub fn address(octets: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(octets).ok().map(IpAddr::from);
    v4.or_else(|| <[u8; 16]>::try_from(octets).ok().map(IpAddr::from))
}

pub fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => libc::AF_INET as u8,
        IpAddr::V6(_) => libc::AF_INET6 as u8,
    }
}

#[cfg(test)]
mod tests {
    use super::{Attributes, HEADER_BYTES, Message};

    #[test]
    fn attributes_are_read_as_they_were_written() {
        let mut message = Message::new(1, 0);
        message.interface(7, true);
        message.text(3, "eth0");
        message.nested(18, |message| message.number(1, 42));
        message.address(4, "fd00::1".parse().unwrap());
        let bytes = message.finish(9);
        assert_eq!(bytes.len() % 4, 0);
        let read = Attributes::of(&bytes, 16);
        assert_eq!(read.find(3), Some(&b"eth0\0"[..]));
        assert_eq!(Attributes::within(read.find(18).unwrap()).number(1), Some(42));
        assert_eq!(read.address(4), Some("fd00::1".parse().unwrap()));
        assert_eq!(read.find(5), None);
    }

    #[test]
    fn a_broken_answer_ends_the_reading() {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes.extend([200, 0, 1, 0, 5]);
        assert!(Attributes::of(&bytes, 0).next().is_none());
        assert!(Attributes::of(&[0; 3], 16).next().is_none());
        let mut short = vec![0; HEADER_BYTES];
        short.extend([2, 0, 1, 0]);
        assert!(Attributes::of(&short, 0).next().is_none(), "a length without its own header");
    }
}
