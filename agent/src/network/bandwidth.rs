//! Limits of a pod's traffic, as its annotations ask for: a token bucket at each end of its pair of interfaces, where
//! packets leave towards the pod and where they leave the pod. They go with the interfaces.
//!
//! The bucket of what the pod sends is in the pod's own namespace: a container with NET_ADMIN could take it away.

use std::collections::BTreeMap;

use api::quantity::Quantity;
use serde::{Deserialize, Serialize};

const INGRESS: &str = "kubernetes.io/ingress-bandwidth";
const EGRESS: &str = "kubernetes.io/egress-bandwidth";
/// Upstream's limits (`bandwidth.validateBandwidthIsReasonable`): 1k to 1P bits per second.
const BITS_MIN: i64 = 1_000;
const BITS_MAX: i64 = 1_000_000_000_000_000;

/// In bits per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bandwidth {
    pub ingress: Option<u64>,
    pub egress: Option<u64>,
}

#[derive(Debug, thiserror::Error)]
#[error("annotation {annotation}: {value:?} is no bandwidth from 1k to 1P bits per second")]
pub struct Error {
    annotation: &'static str,
    value: String,
}

impl Bandwidth {
    pub fn of(annotations: &BTreeMap<String, String>) -> Result<Self, Error> {
        Ok(Self { ingress: read(annotations, INGRESS)?, egress: read(annotations, EGRESS)? })
    }

    pub fn is_unlimited(&self) -> bool {
        self.ingress.is_none() && self.egress.is_none()
    }
}

fn read(annotations: &BTreeMap<String, String>, annotation: &'static str) -> Result<Option<u64>, Error> {
    let Some(value) = annotations.get(annotation) else { return Ok(None) };
    let bits = Quantity::parse(value).ok().map(|quantity| quantity.value());
    match bits.filter(|bits| (BITS_MIN..=BITS_MAX).contains(bits)) {
        Some(bits) => Ok(Some(bits.unsigned_abs())),
        None => Err(Error { annotation, value: value.clone() }),
    }
}

/// A token bucket in the kernel's terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Bytes per second.
    pub rate: u64,
    /// Bytes that may leave at once.
    pub burst: u32,
    /// Bytes that may wait.
    pub limit: u32,
}

impl Bucket {
    pub fn of(bits: u64) -> Self {
        /// What a fast sender hands over at once: a packet that the hardware will cut up.
        const BURST_MIN_BYTES: u64 = 128 << 10;
        /// A twentieth of a second's bytes, and a fortieth of one waiting.
        const BURST_PART: u64 = 20;
        const WAIT_PART: u64 = 40;
        let rate = bits / 8;
        let burst = (rate / BURST_PART).max(BURST_MIN_BYTES).min(u64::from(u32::MAX) / 4);
        let limit = (rate / WAIT_PART).min(u64::from(u32::MAX) / 4) + burst;
        Self { rate, burst: burst as u32, limit: limit as u32 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(ingress: &str) -> Result<Option<u64>, String> {
        let annotations = [(INGRESS.to_owned(), ingress.to_owned())].into();
        Bandwidth::of(&annotations).map(|found| found.ingress).map_err(|error| error.to_string())
    }

    #[test]
    fn annotations_are_quantities_of_bits() {
        assert_eq!(read("10M"), Ok(Some(10_000_000)));
        assert_eq!(read("1Mi"), Ok(Some(1 << 20)));
        let refused =
            "annotation kubernetes.io/ingress-bandwidth: \"999\" is no bandwidth from 1k to 1P bits per second";
        assert_eq!(read("999"), Err(refused.to_owned()));
        assert!(read("2P").is_err() && read("fast").is_err());
        assert!(Bandwidth::of(&BTreeMap::new()).unwrap().is_unlimited());
    }

    #[test]
    fn a_bucket_takes_a_large_packet_at_any_rate() {
        assert_eq!(Bucket::of(8_000), Bucket { rate: 1_000, burst: 131_072, limit: 131_097 });
        assert_eq!(Bucket::of(8_000_000_000).burst, 50_000_000);
        assert!(Bucket::of(1_000_000_000_000_000).limit > 1 << 30);
    }
}
