//! The way to the kernel and back: transactions, and requests that are answered with a list.
//!
//! The kernel does all of a transaction inside the call that sends it, so its answers are there when that call returns.
//! Calls block for as long as the kernel works: microseconds for a few elements, a fraction of a second for 100,000.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::libc;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, getsockname, recv, send, socket,
};

use crate::batch::Batch;
use crate::error::Error;
use crate::kernel::*;
use crate::message::{Attributes, HEADER_BYTES, Message, Messages, Writer, number_messages, word};

/// The kernel sends no more than this at once to a reader that offers as much.
const ANSWER_BYTES: usize = 64 << 10;
/// Room for the errors of a transaction and for the answers of a dump.
const RECEIVE_BYTES: usize = 1 << 20;
/// A dump that was overtaken by a change is made again, this often.
const DUMP_TRIES: u32 = 10;
/// Bytes of the error number at the head of an answer to a request.
const CODE_BYTES: usize = 4;

/// Speaks to the network namespace it was opened in.
#[derive(Debug)]
pub struct Socket {
    socket: OwnedFd,
    sequence: u32,
    send_bytes: usize,
}

impl Socket {
    pub fn open() -> Result<Self, Error> {
        let socket = netlink(SockFlag::empty())?;
        set_option(&socket, libc::SOL_NETLINK, libc::NETLINK_EXT_ACK, 1);
        set_option(&socket, libc::SOL_NETLINK, libc::NETLINK_CAP_ACK, 1);
        set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, RECEIVE_BYTES as libc::c_int);
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0)).map_err(io::Error::from)?;
        Ok(Self { socket, sequence: 0, send_bytes: 0 })
    }

    /// The number by which [`crate::Monitor`] knows what this socket changed.
    pub fn port(&self) -> Result<u32, Error> {
        let address: NetlinkAddr = getsockname(self.socket.as_raw_fd()).map_err(io::Error::from)?;
        Ok(address.pid())
    }

    /// Applies all changes or none. A batch without changes costs nothing; one that was refused may be tried again.
    pub fn commit(&mut self, batch: &mut Batch) -> Result<(), Error> {
        if batch.is_empty() {
            return Ok(());
        }
        let length = batch.out.0.len();
        batch.out.message(BATCH_END, 0, libc::AF_UNSPEC as u8, SUBSYSTEM_NFTABLES, |_| {});
        acknowledge_last(&mut batch.out.0);
        let first = self.next_sequence();
        let messages = number_messages(&mut batch.out.0, first);
        self.sequence = first.wrapping_add(messages);
        let result = self.transact(&batch.out.0, first, messages);
        batch.out.0.truncate(length);
        result
    }

    fn transact(&mut self, bytes: &[u8], first: u32, messages: u32) -> Result<(), Error> {
        self.make_room(bytes.len());
        send(self.socket.as_raw_fd(), bytes, MsgFlags::empty()).map_err(io::Error::from)?;
        let mut acknowledged = false;
        let mut refused = None;
        let mut buffer = vec![0; ANSWER_BYTES];
        loop {
            let count = match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(count) => count,
                Err(nix::Error::EINTR) => continue,
                Err(nix::Error::EAGAIN) => break,
                // More errors than fit: the first ones are there.
                Err(nix::Error::ENOBUFS) => continue,
                Err(errno) => return Err(io::Error::from(errno).into()),
            };
            for answer in Messages(&buffer[..count]) {
                let place = answer.sequence().wrapping_sub(first);
                if i32::from(answer.kind()) != libc::NLMSG_ERROR || place >= messages {
                    continue;
                }
                match code(answer) {
                    0 => acknowledged = true,
                    code if refused.is_none() => refused = Some(refusal(bytes, messages, place, code, answer)),
                    _ => {}
                }
            }
        }
        match refused {
            Some(error) => Err(error),
            None if acknowledged => Ok(()),
            None => Err(Error::NoAnswer { messages }),
        }
    }

    /// A transaction is one packet to the kernel, and must fit into the socket's buffer.
    fn make_room(&mut self, bytes: usize) {
        let wanted = bytes + bytes / 4 + ANSWER_BYTES;
        if wanted > self.send_bytes {
            set_option(&self.socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, wanted as libc::c_int);
            self.send_bytes = wanted;
        }
    }

    fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    /// Sends a request for a list and hands each answer to `each`. The list is made again, after `restart`, when
    /// something changed meanwhile. A request about what does not exist gives an empty list.
    pub(crate) fn list(
        &mut self,
        what: &'static str,
        request: &dyn Fn(&mut Writer),
        each: &mut dyn FnMut(Option<Message<'_>>),
    ) -> Result<(), Error> {
        for _ in 0..DUMP_TRIES {
            each(None);
            if self.list_once(request, each)? {
                return Ok(());
            }
        }
        Err(Error::Changing { what, tries: DUMP_TRIES })
    }

    /// Whether the list is of one moment.
    fn list_once(
        &mut self,
        request: &dyn Fn(&mut Writer),
        each: &mut dyn FnMut(Option<Message<'_>>),
    ) -> Result<bool, Error> {
        let mut out = Writer::default();
        request(&mut out);
        let sequence = self.next_sequence();
        number_messages(&mut out.0, sequence);
        send(self.socket.as_raw_fd(), &out.0, MsgFlags::empty()).map_err(io::Error::from)?;
        let mut buffer = vec![0; ANSWER_BYTES];
        let mut consistent = true;
        loop {
            let count = match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Err(nix::Error::EINTR) => continue,
                other => other.map_err(io::Error::from)?,
            };
            for answer in Messages(&buffer[..count]) {
                if answer.sequence() != sequence {
                    continue;
                }
                consistent &= answer.flags() & NLM_F_DUMP_INTR == 0;
                match i32::from(answer.kind()) {
                    libc::NLMSG_DONE => return Ok(consistent),
                    libc::NLMSG_ERROR => {
                        return match code(answer) {
                            0 | libc::ENOENT => Ok(true),
                            libc::EINTR => Ok(false),
                            code => Err(io::Error::from_raw_os_error(code).into()),
                        };
                    }
                    _ => each(Some(answer)),
                }
            }
        }
    }

    /// Sends one request that is answered with success or an error number.
    pub(crate) fn request(&mut self, fill: &dyn Fn(&mut Writer)) -> Result<(), Error> {
        let mut out = Writer::default();
        fill(&mut out);
        acknowledge(&mut out.0, 0);
        self.list("a request", &|writer| writer.0.clone_from(&out.0), &mut |_| {})
    }

    /// The number of the ruleset, which every transaction in this network namespace raises.
    pub fn generation(&mut self) -> Result<u32, Error> {
        let mut found = None;
        let request = |out: &mut Writer| {
            out.message(SUBSYSTEM_NFTABLES << 8 | MSG_GETGEN, 0, libc::AF_UNSPEC as u8, 0, |_| {});
            acknowledge(&mut out.0, 0);
        };
        self.list("the ruleset's number", &request, &mut |answer| {
            found = answer.and_then(|answer| answer.attributes().number(GEN_ID)).or(found);
        })?;
        found.ok_or_else(|| io::Error::from_raw_os_error(libc::ENODATA).into())
    }
}

pub(crate) fn netlink(flags: SockFlag) -> io::Result<OwnedFd> {
    let flags = flags | SockFlag::SOCK_CLOEXEC;
    Ok(socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkNetFilter)?)
}

/// Options that an old kernel may not know; what they bring is then missing.
pub(crate) fn set_option(socket: &OwnedFd, level: libc::c_int, option: libc::c_int, value: libc::c_int) {
    // SAFETY: the descriptor is open and the value outlives the call.
    unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            std::ptr::from_ref(&value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        );
    }
}

/// The error number of an answer, 0 for success.
fn code(answer: Message<'_>) -> i32 {
    word(answer.0, HEADER_BYTES).map_or(libc::EBADMSG, |code| (code as i32).saturating_neg())
}

fn acknowledge(bytes: &mut [u8], at: usize) {
    let flags = u16::from_ne_bytes([bytes[at + 6], bytes[at + 7]]) | libc::NLM_F_ACK as u16;
    bytes[at + 6..at + 8].copy_from_slice(&flags.to_ne_bytes());
}

/// Asks for an answer to the last change, which stands before the end of the batch. One answer is enough: errors are
/// told unasked, and everything is done when it comes.
fn acknowledge_last(bytes: &mut [u8]) {
    let (mut at, mut last) = (0, 0);
    while let Some(length) = word(bytes, at) {
        let next = at + (length as usize).max(HEADER_BYTES).next_multiple_of(4);
        if next < bytes.len() {
            last = at;
        }
        at = next;
    }
    acknowledge(bytes, last);
}

fn refusal(bytes: &[u8], messages: u32, place: u32, code: i32, answer: Message<'_>) -> Error {
    let change = Messages(bytes).nth(place as usize);
    let mut what = change.map_or_else(|| "its end".to_owned(), describe);
    let mut detail = String::new();
    if answer.flags() & NLM_F_ACK_TLVS != 0 {
        let echoed = word(answer.0, HEADER_BYTES + CODE_BYTES).unwrap_or(0) as usize;
        let length = if answer.flags() & NLM_F_CAPPED != 0 { HEADER_BYTES } else { echoed };
        let attributes = Attributes(answer.0.get(HEADER_BYTES + CODE_BYTES + length..).unwrap_or_default());
        if let Some(text) = attributes.text(NLMSGERR_ATTR_MSG) {
            detail = format!(" ({text})");
        }
        if let Some((change, offset)) = change.zip(offset(attributes)) {
            what += &blamed_element(change, offset);
        }
    }
    Error::Refused { what, messages, detail, source: io::Error::from_raw_os_error(code) }
}

/// Where in the message the kernel found fault, in the machine's own order.
fn offset(attributes: Attributes<'_>) -> Option<usize> {
    attributes.find(NLMSGERR_ATTR_OFFS)?.try_into().ok().map(|bytes| u32::from_ne_bytes(bytes) as usize)
}

/// The key of the element that the offset points into.
fn blamed_element(change: Message<'_>, offset: usize) -> String {
    if !matches!(change.kind() & 0xff, MSG_NEWSETELEM | MSG_DELSETELEM) {
        return String::new();
    }
    let base = change.0.as_ptr() as usize;
    let elements = change.attributes().nested(ELEM_LIST_ELEMENTS);
    let found = elements.into_iter().flatten().find(|(_, element)| {
        let start = element.as_ptr() as usize - base - crate::message::ATTRIBUTE_BYTES;
        (start..start + element.len()).contains(&offset)
    });
    let key = found.and_then(|(_, element)| Attributes(element).nested(ELEM_KEY)?.find(DATA_VALUE));
    key.map(|key| format!(", element {key:02x?}")).unwrap_or_default()
}

/// A change in words: its kind, and the name of what it is about.
fn describe(change: Message<'_>) -> String {
    let attributes = change.attributes();
    let text = |kind| attributes.text(kind).unwrap_or("?").to_owned();
    let (what, name) = match change.kind() & 0xff {
        BATCH_BEGIN => return "its beginning".to_owned(),
        MSG_NEWTABLE => ("new table", String::new()),
        MSG_DELTABLE => ("deletion of table", String::new()),
        MSG_NEWCHAIN => ("new chain", text(CHAIN_NAME)),
        MSG_DELCHAIN => ("deletion of chain", text(CHAIN_NAME)),
        MSG_NEWRULE => ("new rule in chain", text(RULE_CHAIN)),
        MSG_DELRULE => ("deletion of rules in chain", text(RULE_CHAIN)),
        MSG_NEWSET => ("new set", text(SET_NAME)),
        MSG_DELSET => ("deletion of set", text(SET_NAME)),
        MSG_NEWSETELEM => ("new elements of set", text(ELEM_LIST_SET)),
        MSG_DELSETELEM => ("deletion of elements of set", text(ELEM_LIST_SET)),
        _ => ("its end", String::new()),
    };
    // The table's name is the first attribute of all of them.
    format!("{what} {name} in table {}", text(TABLE_NAME))
}
