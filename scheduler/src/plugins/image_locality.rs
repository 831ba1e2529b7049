//! ImageLocality: nodes that have the pod's larger images already score higher, less so when few nodes have them.

use super::SCORE_MAX;
use crate::cluster::Cluster;
use crate::objects::{Node, Pod};

const MEBIBYTE: i64 = 1024 * 1024;
/// Less than this is not worth waiting for (`minThreshold`).
const BYTES_MIN: i64 = 23 * MEBIBYTE;
/// Per container; more does not count for more (`maxContainerThreshold`).
const BYTES_MAX_PER_CONTAINER: i64 = 1000 * MEBIBYTE;

/// The pod's images with how many nodes have each.
pub struct State<'a> {
    images: Vec<(&'a str, i64)>,
    nodes: i64,
}

impl<'a> State<'a> {
    pub fn new(pod: &'a Pod, cluster: &Cluster) -> Self {
        let having = |image: &String| cluster.nodes().filter(|(n, _)| n.images.contains_key(image)).count() as i64;
        let images = pod.images.iter().map(|image| (image.as_str(), having(image))).collect();
        Self { images, nodes: cluster.nodes().count() as i64 }
    }
}

pub fn score(state: &State<'_>, node: &Node) -> i64 {
    // An image's size is scaled by the share of nodes that have it, so that one node does not draw every pod.
    let bytes = |(image, having): &(&str, i64)| {
        node.images.get(*image).map_or(0, |bytes| bytes.saturating_mul(*having) / state.nodes.max(1))
    };
    let sum: i64 = state.images.iter().map(bytes).sum();
    let max = BYTES_MAX_PER_CONTAINER * (state.images.len().max(1) as i64);
    SCORE_MAX * (sum.clamp(BYTES_MIN, max) - BYTES_MIN) / (max - BYTES_MIN)
}
