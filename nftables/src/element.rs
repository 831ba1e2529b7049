//! Elements of sets and maps, and the values they are made of.

use std::net::IpAddr;

use crate::expression::Verdict;
use crate::kernel::{
    DATA_VALUE, ELEM_DATA, ELEM_F_INTERVAL_END, ELEM_FLAGS, ELEM_KEY, ELEM_KEY_END, ELEM_TIMEOUT, LIST_ELEM,
};
use crate::message::{Attributes, Writer};

/// A register takes four bytes; each field of a value starts a new one.
pub(crate) const REGISTER_BYTES: usize = 4;

/// The bytes of a key, or of what a map gives: fields in their order, each filled up to whole registers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value(pub Vec<u8>);

impl Value {
    pub fn new() -> Self {
        Self::default()
    }

    /// Any field, as bytes in the order of the network.
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self.0.resize(self.0.len().next_multiple_of(REGISTER_BYTES), 0);
        self
    }

    pub fn address(self, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => self.bytes(&address.octets()),
            IpAddr::V6(address) => self.bytes(&address.octets()),
        }
    }

    /// A protocol by its number (`IPPROTO_TCP`).
    pub fn protocol(self, number: u8) -> Self {
        self.bytes(&[number])
    }

    pub fn port(self, port: u16) -> Self {
        self.bytes(&port.to_be_bytes())
    }

    /// A number in the machine's own order: marks, and what [`crate::Expr::Numgen`] gives.
    pub fn number(self, number: u32) -> Self {
        self.bytes(&number.to_ne_bytes())
    }

    /// The name of an interface, in a field of its own full length.
    pub fn interface(self, name: &str) -> Self {
        let mut bytes = [0; crate::set::INTERFACE_BYTES];
        let length = name.len().min(bytes.len() - 1);
        bytes[..length].copy_from_slice(&name.as_bytes()[..length]);
        self.bytes(&bytes)
    }
}

/// What a map gives for a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    Value(Value),
    Verdict(Verdict),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    pub key: Value,
    /// For sets of intervals over several fields: the end of the range, included.
    pub key_end: Option<Value>,
    /// For sets of intervals over one field: this is where the range before it ends (its end is not included).
    pub ends_interval: bool,
    pub data: Option<Data>,
    pub timeout_ms: Option<u64>,
}

impl Element {
    pub fn new(key: Value) -> Self {
        Self { key, key_end: None, ends_interval: false, data: None, timeout_ms: None }
    }

    pub fn with_data(key: Value, data: Value) -> Self {
        Self { data: Some(Data::Value(data)), ..Self::new(key) }
    }

    pub fn with_verdict(key: Value, verdict: Verdict) -> Self {
        Self { data: Some(Data::Verdict(verdict)), ..Self::new(key) }
    }

    /// A range of keys of several fields, both ends included; the set must be one of intervals. A field that is no
    /// range has the same value in both.
    pub fn range(first: Value, last: Value) -> Self {
        Self { key_end: Some(last), ..Self::new(first) }
    }

    /// Where the range that started before ends, in a set of intervals over one field.
    pub fn interval_end(key: Value) -> Self {
        Self { ends_interval: true, ..Self::new(key) }
    }

    /// Bytes it takes in a message, at most.
    pub(crate) fn bytes(&self) -> usize {
        /// Headers of all attributes, flags, timeout and verdict code.
        const FIXED: usize = 80;
        let data = match &self.data {
            Some(Data::Value(value)) => value.0.len(),
            Some(Data::Verdict(Verdict::Jump(chain) | Verdict::Goto(chain))) => chain.len() + REGISTER_BYTES,
            _ => 0,
        };
        FIXED + self.key.0.len() + self.key_end.as_ref().map_or(0, |end| end.0.len()) + data
    }

    pub(crate) fn write(&self, out: &mut Writer, with_data: bool) {
        out.nested(LIST_ELEM, |out| {
            out.nested(ELEM_KEY, |out| out.bytes(DATA_VALUE, &self.key.0));
            if let Some(end) = &self.key_end {
                out.nested(ELEM_KEY_END, |out| out.bytes(DATA_VALUE, &end.0));
            }
            if self.ends_interval {
                out.number(ELEM_FLAGS, ELEM_F_INTERVAL_END);
            }
            match &self.data {
                Some(Data::Value(value)) if with_data => {
                    out.nested(ELEM_DATA, |out| out.bytes(DATA_VALUE, &value.0));
                }
                Some(Data::Verdict(verdict)) if with_data => out.nested(ELEM_DATA, |out| verdict.write(out)),
                _ => {}
            }
            if let Some(timeout) = self.timeout_ms {
                out.long(ELEM_TIMEOUT, timeout);
            }
        });
    }

    pub(crate) fn read(attributes: Attributes<'_>) -> Option<Self> {
        let value = |kind| Some(Value(attributes.nested(kind)?.find(DATA_VALUE)?.to_vec()));
        let data = attributes.nested(ELEM_DATA);
        let verdict = data.and_then(Verdict::read).map(Data::Verdict);
        Some(Self {
            key: value(ELEM_KEY)?,
            key_end: value(ELEM_KEY_END),
            ends_interval: attributes.number(ELEM_FLAGS).unwrap_or(0) & ELEM_F_INTERVAL_END != 0,
            data: value(ELEM_DATA).map(Data::Value).or(verdict),
            timeout_ms: attributes.long(ELEM_TIMEOUT),
        })
    }
}
