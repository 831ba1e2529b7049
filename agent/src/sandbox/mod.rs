//! Pod sandboxes: pinned namespaces and the pod network.
