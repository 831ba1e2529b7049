//! The kernel's table of connections: reading it, and ending entries. A UDP flow keeps its translated address for as
//! long as packets come, so an entry that leads to an endpoint that is gone must be deleted.

use std::net::IpAddr;

use nix::libc;

use crate::error::Error;
use crate::kernel::SUBSYSTEM_CONNTRACK;
use crate::message::{Attributes, Writer};
use crate::socket::Socket;

/// `enum cntl_msg_types`
const GET: u16 = 1;
const DELETE: u16 = 2;
/// `enum ctattr_type` and those it nests.
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ID: u16 = 12;
const ZONE: u16 = 18;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const IP_V4_SOURCE: u16 = 1;
const IP_V4_DESTINATION: u16 = 2;
const IP_V6_SOURCE: u16 = 3;
const IP_V6_DESTINATION: u16 = 4;
const PROTO_NUMBER: u16 = 1;
const PROTO_SOURCE: u16 = 2;
const PROTO_DESTINATION: u16 = 3;

/// One direction of a connection, as its packets look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub protocol: u8,
    pub source_port: u16,
    pub destination_port: u16,
}

/// A connection: what its first packet looked like, and what an answer looks like. Where the destination was
/// translated, the answer's source is the real one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    pub original: Tuple,
    pub reply: Tuple,
    /// Tells a connection from a later one that looks the same.
    id: u32,
    zone: u16,
}

impl Tuple {
    fn read(attributes: Attributes<'_>) -> Option<Self> {
        let ip = attributes.nested(TUPLE_IP)?;
        let proto = attributes.nested(TUPLE_PROTO)?;
        let address = |v4, v6| {
            let octets = |kind| ip.find(kind);
            let of_v4 = octets(v4).and_then(|o| <[u8; 4]>::try_from(o).ok()).map(IpAddr::from);
            of_v4.or_else(|| octets(v6).and_then(|o| <[u8; 16]>::try_from(o).ok()).map(IpAddr::from))
        };
        let port = |kind| proto.find(kind).and_then(|p| p.try_into().ok()).map(u16::from_be_bytes);
        Some(Self {
            source: address(IP_V4_SOURCE, IP_V6_SOURCE)?,
            destination: address(IP_V4_DESTINATION, IP_V6_DESTINATION)?,
            protocol: proto.find(PROTO_NUMBER)?.first().copied()?,
            source_port: port(PROTO_SOURCE)?,
            destination_port: port(PROTO_DESTINATION)?,
        })
    }

    fn write(&self, out: &mut Writer) {
        out.nested(TUPLE_IP, |out| {
            for (address, v4, v6) in
                [(self.source, IP_V4_SOURCE, IP_V6_SOURCE), (self.destination, IP_V4_DESTINATION, IP_V6_DESTINATION)]
            {
                match address {
                    IpAddr::V4(address) => out.bytes(v4, &address.octets()),
                    IpAddr::V6(address) => out.bytes(v6, &address.octets()),
                }
            }
        });
        out.nested(TUPLE_PROTO, |out| {
            out.bytes(PROTO_NUMBER, &[self.protocol]);
            out.bytes(PROTO_SOURCE, &self.source_port.to_be_bytes());
            out.bytes(PROTO_DESTINATION, &self.destination_port.to_be_bytes());
        });
    }
}

fn family(ipv6: bool) -> u8 {
    (if ipv6 { libc::AF_INET6 } else { libc::AF_INET }) as u8
}

impl Socket {
    /// The connections of a family with ports that `wanted` wants.
    pub fn flows(&mut self, ipv6: bool, mut wanted: impl FnMut(&Flow) -> bool) -> Result<Vec<Flow>, Error> {
        let mut found = Vec::new();
        let request = |out: &mut Writer| {
            let flags = libc::NLM_F_DUMP as u16;
            out.message(SUBSYSTEM_CONNTRACK << 8 | GET, flags, family(ipv6), 0, |_| {});
        };
        self.list("the list of connections", &request, &mut |answer| {
            let Some(answer) = answer else { return found.clear() };
            let attributes = answer.attributes();
            let tuple = |kind| attributes.nested(kind).and_then(Tuple::read);
            let Some((original, reply)) = tuple(TUPLE_ORIGINAL).zip(tuple(TUPLE_REPLY)) else { return };
            let zone = attributes.find(ZONE).and_then(|z| z.try_into().ok()).map_or(0, u16::from_be_bytes);
            let flow = Flow { original, reply, id: attributes.number(ID).unwrap_or(0), zone };
            if wanted(&flow) {
                found.push(flow);
            }
        })?;
        Ok(found)
    }

    /// Success when it has gone already.
    pub fn delete_flow(&mut self, flow: &Flow) -> Result<(), Error> {
        self.request(&|out| {
            out.message(SUBSYSTEM_CONNTRACK << 8 | DELETE, 0, family(flow.original.source.is_ipv6()), 0, |out| {
                out.nested(TUPLE_ORIGINAL, |out| flow.original.write(out));
                out.number(ID, flow.id);
                if flow.zone != 0 {
                    out.bytes(ZONE, &flow.zone.to_be_bytes());
                }
            });
        })
    }
}
