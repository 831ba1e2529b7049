//! Addresses of the host alone, on its loopback interface: reachable from its pods whatever networks it is in.

use std::net::IpAddr;

use super::act::{Error, failed};
use super::netlink::Socket;

const LOOPBACK: &str = "lo";

/// Gives this host the address; success when it has it already.
pub fn add(address: IpAddr) -> Result<(), Error> {
    change(address, Socket::add_address)
}

/// Takes the address from this host; success when it does not have it.
pub fn remove(address: IpAddr) -> Result<(), Error> {
    change(address, Socket::delete_address)
}

type Call = fn(&mut Socket, u32, IpAddr, u8) -> std::io::Result<()>;

fn change(address: IpAddr, call: Call) -> Result<(), Error> {
    let mut socket = Socket::open().map_err(failed("open a netlink socket"))?;
    let loopback = socket.link(Some(LOOPBACK), 0).map_err(failed("find the loopback interface"))?;
    let Some(loopback) = loopback else {
        return Err(failed("find the loopback interface")(std::io::ErrorKind::NotFound.into()));
    };
    let prefix = if address.is_ipv4() { 32 } else { 128 };
    call(&mut socket, loopback.index, address, prefix).map_err(failed(format!("change {address} on {LOOPBACK}")))
}
