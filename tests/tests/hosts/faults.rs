//! Faults under constant requests to a Service: none of them fails, and no container is started again.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::hosts::{Hosts, Requests};
use tests::wait;

use crate::LIMIT;
use crate::network::across;
use crate::workload::{asked, ready, service_address, sleeper};

/// How long a part stays down: requests by the hundred, and longer than any of them may take. `KEELSON_DOWN_SECONDS`
/// says otherwise.
const DOWN: Duration = Duration::from_secs(30);
/// The longest a node may be silent here: after 40 s and five minutes more its pods are rightly taken from it.
const SILENT_MAX: Duration = Duration::from_secs(240);
/// Containers that run from the first step to the last: the web servers, and who asks them.
const LASTING: usize = 6;
/// A program that ends when it is asked to.
const OBEDIENT: &[&str] = &["/bin/sh", "-c", "trap 'exit 0' TERM; sleep 1000 & wait"];

fn asked_for() -> Result<Duration> {
    let Ok(text) = std::env::var("KEELSON_DOWN_SECONDS") else { return Ok(DOWN) };
    Ok(Duration::from_secs(text.parse().with_context(|| format!("KEELSON_DOWN_SECONDS={text}"))?))
}

/// Requests from both hosts and both asking pods go on while `fault` happens; afterwards the same containers run, and
/// the cluster works as before. Without `unbroken` requests may fail.
pub fn undisturbed(hosts: &mut Hosts, unbroken: bool, fault: impl FnOnce(&mut Hosts) -> Result<()>) -> Result<()> {
    let address = service_address(hosts)?;
    let before = wait::until("the pods of earlier steps to end", LIMIT, || {
        let tasks = (hosts.a.tasks()?, hosts.b.tasks()?);
        Ok((tasks.0.len() + tasks.1.len() == LASTING).then_some(tasks))
    })?;
    let requests = (Requests::start(&hosts.a, address)?, Requests::start(&hosts.b, address)?);
    let failures = failures(hosts)?;
    let done = fault(hosts);
    let answers = (requests.0.stop()?, requests.1.stop()?);
    done?;
    hosts.wait_nodes_ready()?;
    across(hosts)?;
    let after = (hosts.a.tasks()?, hosts.b.tasks()?);
    ensure!(before == after, "containers before: {before:#?}, after: {after:#?}");
    if unbroken {
        let from_a = answers.0.all_answered().context("requests from a")?;
        let from_b = answers.1.all_answered().context("requests from b")?;
        ensure!(self::failures(hosts)? == failures, "requests of pods failed");
        println!("  answered: {from_a} requests from a, {from_b} from b; failed: none; containers: the same");
    }
    let servers = ready(hosts)?;
    ensure!(servers.len() == 4 && servers.values().all(|server| server.restarts == 0), "{servers:?}");
    Ok(())
}

/// Failed requests that the asking pods have counted.
fn failures(hosts: &Hosts) -> Result<usize> {
    let mut count = 0;
    for member in hosts.members() {
        count += asked(member)?.lines().filter(|line| line.contains("FAILED")).count();
    }
    Ok(count)
}

/// A pod can be started, seen and deleted on each node: the agents work, not only the pods.
fn agents_work(hosts: &Hosts) -> Result<()> {
    for member in hosts.members() {
        let name = format!("probe-{}", member.name());
        hosts.apply(&sleeper(&name, member.name(), OBEDIENT))?;
        wait::until(&format!("a new pod on {}", member.name()), LIMIT, || {
            Ok((hosts.get(&["pod", &name])?["status"]["phase"] == "Running").then_some(()))
        })?;
        hosts.kubectl(&["delete", "pod", &name, "--timeout=30s"])?;
    }
    Ok(())
}

/// The fault itself: nothing to wait for, only time in which others may notice.
fn down(longest: Duration) -> Result<()> {
    std::thread::sleep(asked_for()?.min(longest));
    Ok(())
}

pub fn server_is_killed(hosts: &mut Hosts) -> Result<()> {
    undisturbed(hosts, true, |hosts| {
        hosts.a.keelson.kill()?;
        down(Duration::MAX)?;
        hosts.start_server()
    })?;
    agents_work(hosts)
}

pub fn agent_is_killed(hosts: &mut Hosts) -> Result<()> {
    undisturbed(hosts, true, |hosts| {
        hosts.b.keelson.kill()?;
        down(SILENT_MAX)?;
        hosts.start_agent()?;
        hosts.wait_nodes_ready()
    })?;
    agents_work(hosts)
}

pub fn containerd_is_killed(hosts: &mut Hosts) -> Result<()> {
    undisturbed(hosts, true, |hosts| {
        hosts.a.restart_containerd()?;
        hosts.b.restart_containerd()?;
        hosts.wait_nodes_ready()
    })?;
    agents_work(hosts)
}

/// An upgrade in place, to another build than the one that the cluster was started with.
pub fn binary_is_replaced(hosts: &mut Hosts) -> Result<()> {
    let binary = tests::cluster::binary()?;
    let old = (hosts.a.running_file()?, hosts.b.running_file()?);
    undisturbed(hosts, true, |hosts| {
        hosts.a.install(&binary)?;
        hosts.a.keelson.stop()?;
        hosts.start_server()?;
        hosts.b.install(&binary)?;
        hosts.b.keelson.stop()?;
        hosts.start_agent()
    })?;
    let new = (hosts.a.running_file()?, hosts.b.running_file()?);
    ensure!(old.0 != new.0 && old.1 != new.1, "the old build still runs");
    agents_work(hosts)
}

/// What was decided while the agent was down is done when it is back.
pub fn deletion_while_down(hosts: &mut Hosts) -> Result<()> {
    for pod in ["graceful", "forced"] {
        hosts.apply(&sleeper(pod, "b", &["/bin/sleep", "1000"]))?;
        wait::until("the pods to run", LIMIT, || {
            Ok((hosts.get(&["pod", pod])?["status"]["phase"] == "Running").then_some(()))
        })?;
    }
    let with = hosts.b.tasks()?.len();
    undisturbed_but(hosts, |hosts| {
        hosts.b.keelson.kill()?;
        hosts.kubectl(&["delete", "pod", "graceful", "--wait=false"])?;
        hosts.kubectl(&["delete", "pod", "forced", "--force", "--grace-period=0"])?;
        hosts.start_agent()
    })?;
    wait::until("the deleted pods to end", LIMIT, || {
        let left = hosts.kubectl(&["get", "pods", "-o", "name"])?;
        ensure!(!left.contains("graceful") && !left.contains("forced"), "{left}");
        Ok((hosts.b.tasks()?.len() == with - 2).then_some(()))
    })
}

/// Like [`undisturbed`], where containers other than the web servers may end.
fn undisturbed_but(hosts: &mut Hosts, fault: impl FnOnce(&mut Hosts) -> Result<()>) -> Result<()> {
    let requests = Requests::start(&hosts.a, service_address(hosts)?)?;
    let done = fault(hosts);
    let answers = requests.stop()?;
    done?;
    hosts.wait_nodes_ready()?;
    let answered = answers.all_answered()?;
    println!("  answered: {answered} requests from a; failed: none");
    Ok(())
}

/// Without the API server a node goes on by itself: a container that ends is started again, and the server learns of
/// it later.
pub fn api_is_lost(hosts: &mut Hosts) -> Result<()> {
    hosts.apply(&sleeper("restarted", "b", &["/bin/sleep", "1000"]))?;
    wait::until("the pod to run", LIMIT, || {
        Ok((hosts.get(&["pod", "restarted"])?["status"]["phase"] == "Running").then_some(()))
    })?;
    let id = hosts.get(&["pod", "restarted"])?["status"]["containerStatuses"][0]["containerID"].clone();
    let id = id.as_str().context("a container")?.trim_start_matches("containerd://").to_owned();
    undisturbed_but(hosts, |hosts| {
        hosts.b.host.sh("nft 'add table ip lost; add chain ip lost out { type filter hook output priority 0; }; \
             add rule ip lost out tcp dport 6443 drop'")?;
        let before = hosts.b.tasks()?;
        let pid = before.get(&id).context("the container runs")?;
        hosts.b.host.sh(&format!("kill -9 {pid}"))?;
        wait::until("the container to be started again", LIMIT, || {
            let after = hosts.b.tasks()?;
            Ok((!after.contains_key(&id) && after.len() == before.len()).then_some(()))
        })?;
        down(SILENT_MAX)?;
        hosts.b.host.sh("nft delete table ip lost").map(drop)
    })?;
    wait::until("the server to know of the restart", LIMIT, || {
        let status = hosts.get(&["pod", "restarted"])?["status"]["containerStatuses"][0].clone();
        Ok((status["restartCount"] == 1 && status["ready"] == true).then_some(()))
    })?;
    hosts.kubectl(&["delete", "pod", "restarted"]).map(drop)
}

/// All files that the agent of `b` wrote are gone, while its pods run. They go on, keep their addresses, and can be
/// ended and restarted.
pub fn state_is_deleted(hosts: &mut Hosts) -> Result<()> {
    undisturbed(hosts, true, |hosts| {
        hosts.b.keelson.kill()?;
        let state = hosts.b.data_dir().join("agent");
        // Mount points resist, as they do on a real host.
        hosts.b.host.sh(&format!("find {} -xdev -type f -delete 2>/dev/null || true", state.display()))?;
        hosts.start_agent()?;
        hosts.wait_nodes_ready()
    })?;
    agents_work(hosts)?;
    let address = hosts.get(&["pod", "ask-b"])?["status"]["podIP"].clone();
    let reserved = hosts.b.data_dir().join("agent/addresses").join(address.as_str().unwrap_or_default());
    ensure!(reserved.exists(), "the address of a running pod could be given to another: {reserved:?}");
    Ok(())
}
