//! The node API (the kubelet's port 10250): logs, exec, attach and port-forward for the API server's node proxy.
