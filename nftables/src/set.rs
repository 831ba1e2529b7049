//! Sets and maps: the types of their keys and data, and how the kernel is told about them.

use crate::batch::Table;
use crate::element::REGISTER_BYTES;
use crate::kernel::{
    DATA_TYPE_VERDICT, LIST_ELEM, SET_DATA_LEN, SET_DATA_TYPE, SET_DESC, SET_DESC_CONCAT, SET_DESC_SIZE, SET_F_CONCAT,
    SET_F_EVAL, SET_F_INTERVAL, SET_F_MAP, SET_F_TIMEOUT, SET_FIELD_LEN, SET_FLAGS, SET_GC_INTERVAL, SET_ID,
    SET_KEY_LEN, SET_KEY_TYPE, SET_NAME, SET_TABLE, SET_TIMEOUT, SET_USERDATA,
};
use crate::message::Writer;

/// `IFNAMSIZ`
pub(crate) const INTERFACE_BYTES: usize = 16;
/// `nft` packs the types of a key's fields into one number, this many bits for each.
const TYPE_BITS: u32 = 6;
/// Entries of a set's user data (`enum nftnl_udata_set_types`): `nft` shows numbers in this order of bytes.
const USERDATA_KEY_ORDER: u8 = 0;
const USERDATA_DATA_ORDER: u8 = 1;
const HOST_ORDER: u32 = 1;
const NETWORK_ORDER: u32 = 2;

/// What a field of a key holds. The kernel cares about lengths alone; `nft list` shows values by the type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Ipv4,
    Ipv6,
    /// `inet_proto`
    Protocol,
    /// `inet_service`
    Port,
    /// A number of 32 bits in the machine's own order.
    Mark,
    /// The name of an interface, 16 bytes.
    Interface,
}

impl Type {
    /// `enum datatypes` of `nft`.
    fn number(self) -> u32 {
        match self {
            Self::Ipv4 => 7,
            Self::Ipv6 => 8,
            Self::Protocol => 12,
            Self::Port => 13,
            Self::Mark => 19,
            Self::Interface => 41,
        }
    }

    /// Bytes that count, without those that fill up the register.
    fn bytes(self) -> usize {
        match self {
            Self::Ipv4 | Self::Mark => 4,
            Self::Ipv6 => 16,
            Self::Protocol => 1,
            Self::Port => 2,
            Self::Interface => INTERFACE_BYTES,
        }
    }

    /// Registers of four bytes it takes.
    pub fn registers(self) -> u8 {
        self.bytes().div_ceil(REGISTER_BYTES) as u8
    }
}

/// What a map gives.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Gives {
    Values(Vec<Type>),
    Verdicts,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    pub name: String,
    key: Vec<Type>,
    gives: Option<Gives>,
    intervals: bool,
    /// Rules may add elements ([`crate::Expr::Dynset`]), up to this many; each with a timeout.
    dynamic: Option<u32>,
    timeout_ms: Option<u64>,
    /// Elements it is meant for, in the kernel's eyes also their limit.
    size: Option<u32>,
}

impl Set {
    /// A set of keys of these fields.
    pub fn new(name: impl Into<String>, key: &[Type]) -> Self {
        let (name, key) = (name.into(), key.to_vec());
        Self { name, key, gives: None, intervals: false, dynamic: None, timeout_ms: None, size: None }
    }

    /// A map to values of these fields.
    pub fn map(name: impl Into<String>, key: &[Type], data: &[Type]) -> Self {
        Self { gives: Some(Gives::Values(data.to_vec())), ..Self::new(name, key) }
    }

    /// A map to verdicts.
    pub fn verdicts(name: impl Into<String>, key: &[Type]) -> Self {
        Self { gives: Some(Gives::Verdicts), ..Self::new(name, key) }
    }

    /// Elements are ranges. Of one field: start and end elements ([`crate::Element::interval_end`]); of several:
    /// [`crate::Element::range`]. The kernel keeps several fields in a form that is copied whole on every change.
    pub fn intervals(self) -> Self {
        Self { intervals: true, ..self }
    }

    /// Rules add elements, at most `limit`, which go away by their timeout.
    pub fn dynamic(self, limit: u32) -> Self {
        Self { dynamic: Some(limit), ..self }
    }

    /// Elements go away after this time if they have no time of their own.
    pub fn timeout_ms(self, timeout_ms: u64) -> Self {
        Self { timeout_ms: Some(timeout_ms), ..self }
    }

    /// No more elements than this.
    pub fn size(self, limit: u32) -> Self {
        Self { size: Some(limit), ..self }
    }

    fn flags(&self) -> u32 {
        let on = |yes: bool, flag: u32| if yes { flag } else { 0 };
        on(self.gives.is_some(), SET_F_MAP)
            | on(self.intervals, SET_F_INTERVAL)
            | on(self.describes_fields(), SET_F_CONCAT)
            | on(self.dynamic.is_some(), SET_F_EVAL)
            | on(self.dynamic.is_some() || self.timeout_ms.is_some(), SET_F_TIMEOUT)
    }

    /// Whether the kernel must know where the fields of a key end: for ranges in each of them.
    fn describes_fields(&self) -> bool {
        self.intervals && self.key.len() > 1
    }

    pub(crate) fn write(&self, out: &mut Writer, table: Table<'_>, id: u32) {
        /// How often the kernel looks for elements that timed out.
        const GC_INTERVAL_MS: u32 = 10_000;
        out.text(SET_TABLE, table.name);
        out.text(SET_NAME, &self.name);
        out.number(SET_FLAGS, self.flags());
        out.number(SET_KEY_TYPE, packed_type(&self.key));
        out.number(SET_KEY_LEN, packed_bytes(&self.key));
        match &self.gives {
            Some(Gives::Values(data)) => {
                out.number(SET_DATA_TYPE, packed_type(data));
                out.number(SET_DATA_LEN, packed_bytes(data));
            }
            Some(Gives::Verdicts) => {
                out.number(SET_DATA_TYPE, DATA_TYPE_VERDICT);
                out.number(SET_DATA_LEN, 16);
            }
            None => {}
        }
        out.number(SET_ID, id);
        if let Some(timeout) = self.timeout_ms {
            out.long(SET_TIMEOUT, timeout);
        }
        if self.dynamic.is_some() || self.timeout_ms.is_some() {
            out.number(SET_GC_INTERVAL, GC_INTERVAL_MS);
        }
        let size = self.dynamic.or(self.size);
        if size.is_some() || self.describes_fields() {
            out.nested(SET_DESC, |out| {
                if let Some(size) = size {
                    out.number(SET_DESC_SIZE, size);
                }
                if self.describes_fields() {
                    out.nested(SET_DESC_CONCAT, |out| {
                        for field in &self.key {
                            out.nested(LIST_ELEM, |out| out.number(SET_FIELD_LEN, field.bytes() as u32));
                        }
                    });
                }
            });
        }
        out.bytes(SET_USERDATA, &self.userdata());
    }

    fn userdata(&self) -> Vec<u8> {
        let order = |fields: &[Type]| if fields == [Type::Mark] { HOST_ORDER } else { NETWORK_ORDER };
        let mut bytes = vec![USERDATA_KEY_ORDER, 4];
        bytes.extend(order(&self.key).to_ne_bytes());
        if let Some(Gives::Values(data)) = &self.gives {
            bytes.extend([USERDATA_DATA_ORDER, 4]);
            bytes.extend(order(data).to_ne_bytes());
        }
        bytes
    }
}

fn packed_type(fields: &[Type]) -> u32 {
    fields.iter().fold(0, |packed, field| packed << TYPE_BITS | field.number())
}

fn packed_bytes(fields: &[Type]) -> u32 {
    match fields {
        [one] => one.bytes() as u32,
        several => several.iter().map(|field| u32::from(field.registers()) * REGISTER_BYTES as u32).sum(),
    }
}
