//! The few rtnetlink requests the pod network needs, each sent and answered in one call. Blocking, for threads that may
//! stand in another network namespace: a socket speaks to the namespace it was opened in.

mod link;
mod message;
mod monitor;
mod neighbor;
mod route;

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use nix::{
    libc,
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket},
};

pub use link::{Interface, Link, Pair, Vxlan};
pub use monitor::Monitor;
pub use neighbor::{Forwarding, Neighbor};
pub use route::{Reach, Route};

use message::Message;

/// Create, or fail when it exists.
const CREATE: u16 = (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
/// Create, or replace what exists.
const REPLACE: u16 = (libc::NLM_F_CREATE | libc::NLM_F_REPLACE) as u16;
/// The kernel sends no more than this at once to a reader that offers as much.
const ANSWER_BYTES: usize = 32 << 10;
/// Length of a netlink header, and of the message header with the error number of an acknowledgement.
const HEADER_BYTES: usize = 16;
const ERROR_BYTES: usize = HEADER_BYTES + 4;

pub struct Socket {
    socket: OwnedFd,
    sequence: u32,
}

impl Socket {
    pub fn open() -> io::Result<Self> {
        let protocol = SockProtocol::NetlinkRoute;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Sends a request that changes something.
    fn call(&mut self, message: Message) -> io::Result<()> {
        self.ask(message).map(drop)
    }

    /// Sends a request; returns what was answered before its end was acknowledged, each with its header.
    fn ask(&mut self, message: Message) -> io::Result<Vec<Vec<u8>>> {
        self.sequence += 1;
        send(self.socket.as_raw_fd(), &message.finish(self.sequence), MsgFlags::empty())?;
        let mut answers = Vec::new();
        let mut buffer = vec![0; ANSWER_BYTES];
        loop {
            let count = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            let mut rest = &buffer[..count];
            while let Some(length) = word(rest, 0).map(|length| length as usize) {
                if length < HEADER_BYTES || length > rest.len() {
                    break;
                }
                let one = &rest[..length];
                rest = &rest[length.next_multiple_of(4).min(rest.len())..];
                // An answer to an earlier request that was given up on is passed over.
                if word(one, 8) != Some(self.sequence) {
                    continue;
                }
                match i32::from(u16::from_ne_bytes([one[4], one[5]])) {
                    libc::NLMSG_ERROR if length >= ERROR_BYTES => {
                        let error = word(one, HEADER_BYTES).unwrap_or(0) as i32;
                        return if error == 0 { Ok(answers) } else { Err(io::Error::from_raw_os_error(-error)) };
                    }
                    libc::NLMSG_DONE => return Ok(answers),
                    _ => answers.push(one.to_vec()),
                }
            }
        }
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_ne_bytes)
}

/// "It is gone already" is success for everything that removes.
fn gone_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error)
            if error.raw_os_error().is_some_and(|code| {
                matches!(code, libc::ENODEV | libc::ENOENT | libc::ESRCH | libc::EADDRNOTAVAIL)
            }) =>
        {
            Ok(())
        }
        other => other,
    }
}
