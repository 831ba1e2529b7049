//! Loading a kubeconfig.
