//! What this host is and has, read from the kernel.

use std::{
    net::{IpAddr, UdpSocket},
    path::Path,
};

/// What does not change while the agent runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    pub cpus: usize,
    pub memory_bytes: u64,
    pub disk_bytes: u64,
    pub machine_id: String,
    pub system_uuid: String,
    pub boot_id: String,
    pub kernel: String,
    pub os_image: String,
    pub architecture: String,
    pub oci_runtime: String,
}

fn line(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

impl Facts {
    pub fn read(oci_runtime: &str) -> Self {
        let machine_id = line("/etc/machine-id");
        let uuid = line("/sys/class/dmi/id/product_uuid");
        let os = line("/etc/os-release");
        let pretty = os.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
        Self {
            cpus: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory_bytes: meminfo("MemTotal:"),
            disk_bytes: disk(Path::new("/")).map_or(0, |(total, _)| total),
            system_uuid: if uuid.is_empty() { machine_id.clone() } else { uuid },
            machine_id,
            boot_id: line("/proc/sys/kernel/random/boot_id"),
            kernel: line("/proc/sys/kernel/osrelease"),
            os_image: pretty.unwrap_or("Linux").trim_matches('"').to_owned(),
            architecture: crate::image::platform::architecture().to_owned(),
            oci_runtime: oci_runtime.to_owned(),
        }
    }
}

fn meminfo(field: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let rest = text.lines().find_map(|line| line.strip_prefix(field));
    let kib = rest.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

pub fn memory_available_bytes() -> u64 {
    meminfo("MemAvailable:")
}

/// Total and available bytes of the file system that holds a path, or its nearest existing parent.
pub fn disk(path: &Path) -> Option<(u64, u64)> {
    let path = path.ancestors().find(|path| path.exists())?;
    let stat = nix::sys::statvfs::statvfs(path).ok()?;
    let unit = stat.fragment_size() as u64;
    Some((stat.blocks() as u64 * unit, stat.blocks_available() as u64 * unit))
}

/// Processes there are and may be.
pub fn pids() -> (u64, u64) {
    let max = line("/proc/sys/kernel/pid_max").parse().unwrap_or(u64::MAX);
    // The fourth field is RUNNING/ALL.
    let all = line("/proc/loadavg").split_whitespace().nth(3).and_then(|field| field.split('/').nth(1)?.parse().ok());
    (all.unwrap_or(0), max)
}

/// The address this host uses to reach others, or any of its own.
pub fn outward_address() -> Option<IpAddr> {
    routed_address().or_else(first_interface_address)
}

/// The address this host sends with to others, if it has a route to them. Nothing is sent: connecting a datagram socket
/// only picks the route.
pub fn routed_address() -> Option<IpAddr> {
    // Documentation addresses: never answered, and routed like any other.
    let address = |local: &str, remote: &str| {
        let socket = UdpSocket::bind((local, 0)).ok()?;
        socket.connect((remote, 9)).ok()?;
        Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_unspecified() && !ip.is_loopback())
    };
    address("0.0.0.0", "203.0.113.1").or_else(|| address("::", "2001:db8::1"))
}

/// The address of one entry of the host's list of interfaces.
pub fn ip(interface: &nix::ifaddrs::InterfaceAddress) -> Option<IpAddr> {
    let address = interface.address.as_ref()?;
    let v4 = address.as_sockaddr_in().map(|socket| IpAddr::V4(socket.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|socket| IpAddr::V6(socket.ip())))
}

/// A host without a default route still has an address on some interface; else it is alone, and loopback is its address.
fn first_interface_address() -> Option<IpAddr> {
    let mut loopback = None;
    for interface in nix::ifaddrs::getifaddrs().ok()? {
        let Some(address) = interface.address.as_ref().and_then(|address| address.as_sockaddr_in()) else { continue };
        let ip = IpAddr::V4(address.ip());
        // Link-local addresses, such as that of the node's DNS server, mean something to this host alone.
        if !ip.is_loopback() && !address.ip().is_link_local() {
            return Some(ip);
        }
        loopback.get_or_insert(ip);
    }
    loopback
}
