//! Netfilter's netlink messages as bytes: written attribute by attribute, and read the same way. Numbers are in network
//! byte order there, unlike most of netlink.

use nix::libc;

/// Bytes of a netlink header, of `struct nfgenmsg` behind it, and of an attribute's header.
pub const HEADER_BYTES: usize = 16;
pub const FAMILY_BYTES: usize = 4;
pub const ATTRIBUTE_BYTES: usize = 4;

/// Messages under construction, one behind the other.
#[derive(Debug, Default)]
pub struct Writer(pub Vec<u8>);

impl Writer {
    /// One message: header, family, and what `fill` writes. The sequence number comes later ([`number_messages`]).
    pub fn message(&mut self, kind: u16, flags: u16, family: u8, resource: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.start(kind, flags, family, resource);
        fill(self);
        self.finish(start);
    }

    /// Opens a message and returns where it starts, for [`Writer::finish`].
    pub fn start(&mut self, kind: u16, flags: u16, family: u8, resource: u16) -> usize {
        let start = self.0.len();
        self.0.extend([0; 4]);
        self.0.extend(kind.to_ne_bytes());
        self.0.extend((flags | libc::NLM_F_REQUEST as u16).to_ne_bytes());
        self.0.extend([0; 8]);
        // The version of nfnetlink is 0.
        self.0.extend([family, 0]);
        self.0.extend(resource.to_be_bytes());
        start
    }

    pub fn finish(&mut self, start: usize) {
        let length = (self.0.len() - start) as u32;
        self.0[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    pub fn bytes(&mut self, kind: u16, value: &[u8]) {
        let start = self.open(kind);
        self.0.extend(value);
        self.close(start);
    }

    pub fn text(&mut self, kind: u16, value: &str) {
        let start = self.open(kind);
        self.0.extend(value.as_bytes());
        self.0.push(0);
        self.close(start);
    }

    pub fn number(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    pub fn long(&mut self, kind: u16, value: u64) {
        self.bytes(kind, &value.to_be_bytes());
    }

    pub fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.open(kind | libc::NLA_F_NESTED as u16);
        fill(self);
        self.close(start);
    }

    pub fn open(&mut self, kind: u16) -> usize {
        let start = self.0.len();
        self.0.extend([0; 2]);
        self.0.extend(kind.to_ne_bytes());
        start
    }

    pub fn close(&mut self, start: usize) {
        let length = self.0.len() - start;
        debug_assert!(length <= usize::from(u16::MAX), "an attribute has at most 64 KiB");
        self.0[start..start + 2].copy_from_slice(&(length as u16).to_ne_bytes());
        // The next attribute starts at a multiple of four.
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }
}

/// Gives messages consecutive sequence numbers from `first`; returns how many there are.
pub fn number_messages(bytes: &mut [u8], first: u32) -> u32 {
    let (mut at, mut sequence) = (0, first);
    while let Some(length) = word(bytes, at) {
        bytes[at + 8..at + 12].copy_from_slice(&sequence.to_ne_bytes());
        sequence = sequence.wrapping_add(1);
        at += (length as usize).max(HEADER_BYTES).next_multiple_of(4);
    }
    sequence.wrapping_sub(first)
}

/// The number in the machine's own order at an offset.
pub fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_ne_bytes)
}

/// Messages one behind the other, each with its header.
pub struct Messages<'a>(pub &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let length = word(self.0, 0)? as usize;
        if length < HEADER_BYTES {
            return None;
        }
        let one = self.0.get(..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Message(one))
    }
}

#[derive(Clone, Copy)]
pub struct Message<'a>(pub &'a [u8]);

impl<'a> Message<'a> {
    pub fn kind(&self) -> u16 {
        u16::from_ne_bytes([self.0[4], self.0[5]])
    }

    pub fn flags(&self) -> u16 {
        u16::from_ne_bytes([self.0[6], self.0[7]])
    }

    pub fn sequence(&self) -> u32 {
        word(self.0, 8).unwrap_or_default()
    }

    pub fn family(&self) -> u8 {
        self.0.get(HEADER_BYTES).copied().unwrap_or_default()
    }

    pub fn attributes(&self) -> Attributes<'a> {
        Attributes(self.0.get(HEADER_BYTES + FAMILY_BYTES..).unwrap_or_default())
    }
}

/// Attributes in their order.
#[derive(Clone, Copy)]
pub struct Attributes<'a>(pub &'a [u8]);

impl<'a> Attributes<'a> {
    pub fn find(self, kind: u16) -> Option<&'a [u8]> {
        let mut all = self;
        all.find_map(|(found, value)| (found == kind).then_some(value))
    }

    pub fn nested(self, kind: u16) -> Option<Attributes<'a>> {
        self.find(kind).map(Attributes)
    }

    pub fn number(self, kind: u16) -> Option<u32> {
        self.find(kind)?.try_into().ok().map(u32::from_be_bytes)
    }

    pub fn long(self, kind: u16) -> Option<u64> {
        self.find(kind)?.try_into().ok().map(u64::from_be_bytes)
    }

    pub fn text(self, kind: u16) -> Option<&'a str> {
        let value = self.find(kind)?;
        std::str::from_utf8(value.strip_suffix(&[0]).unwrap_or(value)).ok()
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(u16::from_ne_bytes(self.0.get(0..2)?.try_into().ok()?));
        // The two highest bits of a kind are flags: nested, and network byte order.
        let kind = u16::from_ne_bytes(self.0.get(2..4)?.try_into().ok()?) & 0x3fff;
        let value = self.0.get(ATTRIBUTE_BYTES..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

/// Comments as `nft` writes and shows them: a type, a length and a text that ends with 0. The type is the one of
/// comments for rules, tables and sets alike.
pub fn comment(kind: u8, text: &str) -> Vec<u8> {
    let text = &text.as_bytes()[..text.len().min(usize::from(u8::MAX) - 1)];
    let mut bytes = vec![kind, text.len() as u8 + 1];
    bytes.extend(text);
    bytes.push(0);
    bytes
}

/// The text of such a comment among other entries of the same form.
pub fn read_comment(mut bytes: &[u8], kind: u8) -> Option<String> {
    while let [found, length, rest @ ..] = bytes {
        let value = rest.get(..usize::from(*length))?;
        if *found == kind {
            return String::from_utf8(value.strip_suffix(&[0]).unwrap_or(value).to_vec()).ok();
        }
        bytes = &rest[usize::from(*length)..];
    }
    None
}
