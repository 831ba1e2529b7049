//! NodePorts: no two pods of a node want the same port of the host.

use super::{Plugin, refuse};
use crate::node::NodeInfo;
use crate::objects::Pod;
use crate::verdict::Verdict;

pub fn filter(pod: &Pod, info: &NodeInfo) -> Verdict {
    let taken = |wanted| info.host_ports.iter().any(|used| used.conflicts_with(wanted));
    if pod.host_ports.iter().any(taken) {
        return refuse(Plugin::NodePorts, "node(s) didn't have free ports for the requested pod ports");
    }
    Ok(())
}
