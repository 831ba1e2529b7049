//! News of changes to a table that others made.
//!
//! The kernel makes a message of every element that anybody changes while somebody listens, also of one's own. A filter
//! in the kernel throws one's own away before they reach this process, but they cost time and memory there: for a
//! transaction of many elements, [`Monitor::pause`] first.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::libc;
use nix::sys::socket::{MsgFlags, NetlinkAddr, SockFlag, bind, recv};
use tokio::io::{Interest, unix::AsyncFd};

use crate::batch::Table;
use crate::error::Error;
use crate::kernel::{GROUP_NFTABLES, MSG_NEWGEN, SUBSYSTEM_NFTABLES, TABLE_NAME};
use crate::message::Messages;
use crate::socket::{netlink, set_option};

/// Room for news that were not read yet. More of them are lost, which counts as a change.
const RECEIVE_BYTES: libc::c_int = 256 << 10;
const BUFFER_BYTES: usize = 32 << 10;
/// Where in a message the number of the socket stands that caused it.
const PORT_OFFSET: u32 = 12;

/// Listens in the network namespace it was opened in.
#[derive(Debug)]
pub struct Monitor {
    socket: AsyncFd<OwnedFd>,
}

impl Monitor {
    /// `own`: the sockets ([`crate::Socket::port`]) whose changes are no news. Must be called inside a tokio runtime.
    pub fn open(own: &[u32]) -> Result<Self, Error> {
        let socket = netlink(SockFlag::SOCK_NONBLOCK)?;
        set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, RECEIVE_BYTES);
        ignore(&socket, own)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0)).map_err(io::Error::from)?;
        // SAFETY: the descriptor is owned by the value, and neither replaced nor closed before it.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
        let socket = socket.map_err(io::Error::from)?;
        let monitor = Self { socket };
        monitor.resume();
        Ok(monitor)
    }

    /// Listens no more, until [`Monitor::resume`]. Whoever pauses compares [`crate::Socket::generation`] afterwards.
    pub fn pause(&self) {
        set_option(self.socket.get_ref(), libc::SOL_NETLINK, libc::NETLINK_DROP_MEMBERSHIP, GROUP_NFTABLES);
    }

    pub fn resume(&self) {
        set_option(self.socket.get_ref(), libc::SOL_NETLINK, libc::NETLINK_ADD_MEMBERSHIP, GROUP_NFTABLES);
    }

    /// Returns when somebody else has changed one of these tables since the last call, or when news were lost. Safe to
    /// cancel: news that were not read stay.
    pub async fn changed(&self, tables: &[Table<'_>]) -> Result<(), Error> {
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let mut ready = self.socket.readable().await?;
            loop {
                match recv(ready.get_inner().as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                    Ok(count) if concerns(&buffer[..count], tables) => return Ok(()),
                    Ok(_) | Err(nix::Error::EINTR) => {}
                    Err(nix::Error::EAGAIN) => {
                        ready.clear_ready();
                        break;
                    }
                    Err(nix::Error::ENOBUFS) => return Ok(()),
                    Err(errno) => return Err(io::Error::from(errno).into()),
                }
            }
        }
    }
}

fn concerns(bytes: &[u8], tables: &[Table<'_>]) -> bool {
    Messages(bytes).any(|message| {
        // Of all messages about nftables the table's name is the first attribute, except of the ruleset's number.
        let is_change = message.kind() >> 8 == SUBSYSTEM_NFTABLES && message.kind() & 0xff != MSG_NEWGEN;
        let name = message.attributes().text(TABLE_NAME);
        is_change && tables.iter().any(|t| t.family as u8 == message.family() && Some(t.name) == name)
    })
}

/// A filter of the kernel's (classic BPF): nothing of a message that one of `own` caused, all of others.
fn ignore(socket: &OwnedFd, own: &[u32]) -> io::Result<()> {
    let step = |code: u32, jt: usize, k: u32| libc::sock_filter { code: code as u16, jt: jt as u8, jf: 0, k };
    let mut program = vec![step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, PORT_OFFSET)];
    for (at, port) in own.iter().enumerate() {
        // The filter reads numbers in network byte order. A match jumps behind the remaining comparisons and the
        // acceptance.
        program.push(step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, own.len() - at, port.to_be()));
    }
    program.push(step(libc::BPF_RET | libc::BPF_K, 0, u32::MAX));
    program.push(step(libc::BPF_RET | libc::BPF_K, 0, 0));
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the descriptor is open; the filter and the steps it points at outlive the call, which copies them.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            std::ptr::from_ref(&filter).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
