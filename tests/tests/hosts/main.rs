//! Two hosts, end to end: pods and Services reach across, and nothing that happens to servers, agents or containerd
//! disturbs a running pod. Every fault is real: processes are killed, cables pulled, hosts switched off. One cluster
//! goes through all of it, in the order of the list below.
//!
//! `KEELSON_DOWN_SECONDS` says how long parts stay down (30 by default; a server may be away for any time, a node for
//! four minutes at most). `KEELSON_OLD_BINARY` is the build that the cluster starts with and is upgraded from; by
//! default it is the same code under another version.

mod faults;
mod network;
mod policies;
mod reboot;
mod upgrade;
mod workload;

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tests::cluster;
use tests::hosts::Hosts;

pub const LIMIT: Duration = Duration::from_secs(60);

/// Other than the defaults: the agent learns them from the server.
const SERVER_FLAGS: &[&str] =
    &["--pod-cidr", "10.201.0.0/16", "--service-cidr", "10.202.0.0/16", "--cluster-domain", "hosts.test"];

type Step = (&'static str, fn(&mut Hosts) -> Result<()>);

const STEPS: &[Step] = &[
    ("pods run on both hosts", workload::start),
    ("pods reach pods of the other host", network::pods_reach_pods),
    ("Services work from every host and pod", network::services_work_everywhere),
    ("names are found in every pod", network::names_are_found),
    ("pods leave the cluster with their host's address", network::pods_masquerade_outside),
    ("large answers cross", network::large_answers_cross),
    ("policies hold", policies::policies_hold),
    ("the network heals", network::damage_is_repaired),
    ("the server is killed", faults::server_is_killed),
    ("the agent is killed", faults::agent_is_killed),
    ("containerd is killed on both hosts", faults::containerd_is_killed),
    ("the binary is replaced", faults::binary_is_replaced),
    ("a pod is deleted while its agent is down", faults::deletion_while_down),
    ("the API server is out of reach", faults::api_is_lost),
    ("files of the agent are deleted", faults::state_is_deleted),
    ("a host moves behind a router", network::host_moves),
    ("a host reboots", reboot::host_reboots),
    ("a host leaves", reboot::host_leaves),
    ("hosts are cleaned up", reboot::cleanup_leaves_nothing),
];

#[test]
fn two_hosts() -> Result<()> {
    // Short: socket paths have 108 bytes.
    let dir = tempfile::Builder::new().prefix("hosts").tempdir_in("/tmp")?;
    let old = upgrade::old_build(&cluster::binary()?, dir.path())?;
    let mut hosts = Hosts::start_with(dir.path(), &old, SERVER_FLAGS)?;
    for (what, step) in STEPS {
        let start = Instant::now();
        let done = step(&mut hosts);
        done.with_context(|| format!("{what}\n{}", hosts.diagnosis()))?;
        println!("{what}: {:.1} s", start.elapsed().as_secs_f64());
    }
    Ok(())
}
