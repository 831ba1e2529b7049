//! ImageLocality: nodes that have the pod's larger images already score higher, less so when few nodes have them.

use super::SCORE_MAX;
use crate::cluster::Cluster;
use crate::objects::{Node, Pod};

const MEBIBYTE: i64 = 1024 * 1024;
/// Less than this is not worth waiting for (`minThreshold`).
const BYTES_MIN: i64 = 23 * MEBIBYTE;
/// Per container; more does not count for more (`maxContainerThreshold`).
const BYTES_MAX_PER_CONTAINER: i64 = 1000 * MEBIBYTE;

/// The pod's images with the share of nodes that have each.
pub struct State<'a> {
    images: Vec<(&'a str, f64)>,
    bytes_max: i64,
}

impl<'a> State<'a> {
    /// `nodes`: how many there are.
    pub fn new(pod: &'a Pod, cluster: &Cluster, nodes: usize) -> Self {
        let share = |image: &str| cluster.nodes_with_image(image) as f64 / nodes.max(1) as f64;
        let images = pod.images.iter().map(|image| (image.as_str(), share(image))).filter(|(_, share)| *share > 0.0);
        Self { images: images.collect(), bytes_max: BYTES_MAX_PER_CONTAINER * pod.container_count.max(1) }
    }
}

pub fn score(state: &State<'_>, node: &Node) -> i64 {
    // An image's size is scaled by the share of nodes that have it, so that one node does not draw every pod.
    let bytes =
        |(image, share): &(&str, f64)| node.images.get(*image).map_or(0, |bytes| (*bytes as f64 * share) as i64);
    let sum: i64 = state.images.iter().map(bytes).sum();
    SCORE_MAX * (sum.clamp(BYTES_MIN, state.bytes_max) - BYTES_MIN) / (state.bytes_max - BYTES_MIN)
}
