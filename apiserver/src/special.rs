//! Resources and subresources that are not objects in the store: reviews, tokens, bindings, evictions, and what is
//! proxied to a node (log, exec, attach, portforward, proxy). One row each; everything else takes the generic verbs.

use crate::endpoint::Handler;
use crate::request::RequestInfo;
use crate::verbs::{binding, eviction};
use crate::{component_status, nodeproxy, resource_metrics, review, token_request};

pub struct Special {
    pub group: &'static str,
    pub resource: &'static str,
    /// Empty for the resource itself.
    pub subresource: &'static str,
    pub handler: Handler,
}

/// All rows; the handler sees every verb of its (sub)resource and answers 405 for those it lacks.
pub static SPECIAL: &[&[Special]] = &[
    review::SPECIAL,
    token_request::SPECIAL,
    binding::SPECIAL,
    component_status::SPECIAL,
    eviction::SPECIAL,
    nodeproxy::SPECIAL,
    resource_metrics::SPECIAL,
];

/// The row for a request, if it is not a generic one.
pub fn find(info: &RequestInfo) -> Option<&'static Special> {
    SPECIAL
        .iter()
        .copied()
        .flatten()
        .find(|row| row.group == info.group && row.resource == info.resource && row.subresource == info.subresource)
}
