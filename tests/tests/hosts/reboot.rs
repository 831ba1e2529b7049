//! The end of a boot, and of a node.

use anyhow::{Result, ensure};
use tests::containerd::Containerd;
use tests::hosts::Hosts;
use tests::process::command;
use tests::wait;

use crate::LIMIT;
use crate::network::across;
use crate::workload::ready;

/// Power off, power on: nothing but the disk is left. The same pods run again, each container once more, as restarts.
pub fn host_reboots(hosts: &mut Hosts) -> Result<()> {
    let before = ready(hosts)?;
    hosts.b.host.reboot()?;
    hosts.lan.route(&hosts.b.host, "198.51.100.1", "198.51.100.2")?;
    hosts.b.containerd = Containerd::start_on(&hosts.b.host, &hosts.b.host.dir.join("containerd"))?;
    hosts.start_agent()?;
    hosts.wait_nodes_ready()?;
    wait::until("the pods of the rebooted host to run again", LIMIT, || {
        let after = ready(hosts)?;
        ensure!(after.keys().eq(before.keys()), "before: {before:?}, after: {after:?}");
        for (name, server) in &after {
            let expected = before[name].restarts + u64::from(server.node == "b");
            ensure!(server.restarts == expected, "{name}: {server:?}, expected {expected} restarts");
        }
        Ok(Some(()))
    })?;
    across(hosts)
}

/// The agent is uninstalled and its Node deleted: the cluster gives the node's pods to others.
pub fn host_leaves(hosts: &mut Hosts) -> Result<()> {
    let b = &hosts.b;
    let root = b.host.dir.join("root");
    let server = format!("https://{}:6443", hosts.a.address);
    let mut install = command(b.binary(), ["install", "agent", "--server", &server, "--root"]);
    install.arg(&root).arg("--data-dir").arg(b.data_dir());
    b.host.run(install.arg("--containerd-address").arg(b.containerd.socket()))?;
    b.keelson.stop()?;
    let told = b.host.run(command(b.binary(), ["uninstall", "--root"]).arg(&root))?;
    // A node may not delete itself: an administrator does.
    ensure!(told.contains("kubectl delete node"), "{told}");
    hosts.kubectl(&["delete", "node", "b"])?;
    ensure!(!b.data_dir().exists(), "the data directory is still there");
    wait::until("pods of the host that left to be gone", LIMIT, || {
        let pods = hosts.get(&["pods"])?;
        let left = pods["items"].as_array().into_iter().flatten().filter(|pod| pod["spec"]["nodeName"] == "b");
        Ok((left.count() == 0).then_some(()))
    })
}

/// `keelson cleanup` on a stopped node: no process, mount, interface, rule or cgroup is left.
pub fn cleanup_leaves_nothing(hosts: &mut Hosts) -> Result<()> {
    hosts.a.keelson.stop()?;
    hosts.a.cleanup()?;
    for member in hosts.members() {
        let left = member
            .host
            .sh("ls /sys/class/net; nft list tables; ip route show proto 107; ip neigh show nud permanent")?;
        let left = left.split_whitespace().filter(|word| !["eth0", "lo"].contains(word)).collect::<Vec<_>>();
        ensure!(left.is_empty(), "left on {}: {left:?}", member.name());
        let mounts = member.host.sh("cat /proc/self/mounts; ps -e -o args")?;
        let traces = ["/keelson/agent", "containerd-shim", "httpd", "keelson pause"];
        let left = mounts.lines().filter(|line| traces.iter().any(|trace| line.contains(trace))).collect::<Vec<_>>();
        ensure!(left.is_empty(), "left on {}: {left:#?}", member.name());
        ensure!(member.tasks()?.is_empty(), "containers left on {}", member.name());
    }
    Ok(())
}
