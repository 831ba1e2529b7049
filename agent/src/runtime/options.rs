//! Options of the runc shim. Their message is not part of containerd's public API crate, so it is declared here; field
//! numbers are those of `containerd.runc.v1.Options`.

use std::path::Path;

use prost::Message;
use prost_types::Any;

/// The shim both OCI runtimes run under.
pub const SHIM: &str = "io.containerd.runc.v2";
const TYPE_URL: &str = "containerd.runc.v1.Options";

#[derive(Clone, PartialEq, Message)]
struct Options {
    #[prost(string, tag = "6")]
    binary_name: String,
    #[prost(bool, tag = "8")]
    systemd_cgroup: bool,
}

/// Options that make the shim run `binary` with cgroupfs paths as we write them.
pub fn encode(binary: &str) -> Any {
    let options = Options { binary_name: binary.to_owned(), systemd_cgroup: false };
    Any { type_url: TYPE_URL.to_owned(), value: options.encode_to_vec() }
}

/// crun starts a container in about two thirds of runc's time, but refuses hosts that mount cgroup v1 controllers.
pub fn choose_binary() -> String {
    let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let found = |name: &str| {
        std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(name).is_file()))
    };
    if unified && found("crun") { "crun" } else { "runc" }.to_owned()
}
