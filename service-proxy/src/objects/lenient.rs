//! How fields are read: what an API server would have refused is left out here rather than losing the whole object, and
//! `null` is as good as absent.

use std::fmt;
use std::marker::PhantomData;
use std::net::IpAddr;

use serde::de::{Deserialize, Deserializer, IgnoredAny, SeqAccess, Visitor};

use api::cidr::Cidr;

/// Text that need not be kept.
pub(super) fn text<'de, D: Deserializer<'de>, T: Default>(deserializer: D, read: fn(&str) -> T) -> Result<T, D::Error> {
    struct Text<T>(fn(&str) -> T);
    impl<T: Default> Visitor<'_> for Text<T> {
        type Value = T;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string")
        }
        fn visit_str<E>(self, text: &str) -> Result<T, E> {
            Ok((self.0)(text))
        }
        fn visit_unit<E>(self) -> Result<T, E> {
            Ok(T::default())
        }
    }
    deserializer.deserialize_any(Text(read))
}

/// One value that is kept as what its text says.
struct Read<T>(T);

trait Readable: Default {
    fn read(text: &str) -> Self;
}

impl<'de, T: Readable> Deserialize<'de> for Read<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer, T::read).map(Self)
    }
}

impl Readable for Option<IpAddr> {
    fn read(text: &str) -> Self {
        text.parse().ok()
    }
}

impl Readable for Option<Cidr> {
    fn read(text: &str) -> Self {
        Cidr::parse(text.trim())
    }
}

/// Those of a list that can be read, at most `LIMIT`.
struct Readables<T, const LIMIT: usize>(PhantomData<T>);

impl<'de, T, const LIMIT: usize> Visitor<'de> for Readables<T, LIMIT>
where
    Option<T>: Readable,
{
    type Value = Vec<T>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of strings")
    }
    fn visit_unit<E>(self) -> Result<Vec<T>, E> {
        Ok(Vec::new())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
        let mut found = Vec::new();
        while found.len() < LIMIT {
            let Some(Read(one)) = list.next_element::<Read<Option<T>>>()? else { return Ok(found) };
            found.extend(one);
        }
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(found)
    }
}

pub fn addresses<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpAddr>, D::Error> {
    deserializer.deserialize_any(Readables::<IpAddr, { usize::MAX }>(PhantomData))
}

pub fn ranges<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Cidr>, D::Error> {
    deserializer.deserialize_any(Readables::<Cidr, { usize::MAX }>(PhantomData))
}

/// The first address of a list, which stands for all: they are the same to a client.
pub fn first_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<IpAddr>, D::Error> {
    deserializer.deserialize_any(Readables::<IpAddr, 1>(PhantomData)).map(|found| found.first().copied())
}

pub fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<IpAddr>, D::Error> {
    text(deserializer, |text| text.parse().ok())
}

/// A time, where there is one.
pub fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<jiff::Timestamp>, D::Error> {
    text(deserializer, |text| text.parse().ok())
}

/// Whether a policy is `Local`.
pub fn is_local<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    text(deserializer, |text| text == "Local")
}

/// Whether affinity is by `ClientIP`.
pub fn is_client_ip<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    text(deserializer, |text| text == "ClientIP")
}

/// Whether the balancer sends to node ports (`Proxy`), so that the address is not the nodes' to serve.
pub fn is_proxy<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    text(deserializer, |text| text == "Proxy")
}

pub fn is_ipv6<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    text(deserializer, |text| match text {
        "IPv4" => Some(false),
        "IPv6" => Some(true),
        _ => None,
    })
}

/// A protocol by its number.
pub fn protocol<'de, D: Deserializer<'de>>(deserializer: D) -> Result<super::Protocol, D::Error> {
    text(deserializer, super::Protocol::of)
}

/// There is a value, whatever it is.
pub fn is_there<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    text(deserializer, |_| true)
}
