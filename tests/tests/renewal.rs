//! Certificates that live for seconds, on two hosts: all of them are replaced several times while commands go through
//! the API server and from it to the nodes. None fails, nothing restarts, and what was open before stays open.
//!
//! `KEELSON_LIFETIME_SECONDS` (20 by default) and `KEELSON_RENEWALS` (3) make a longer run.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::hosts::{Hosts, Member};
use tests::image::Image;
use tests::process::Background;
use tests::wait;

const LIMIT: Duration = Duration::from_secs(60);
const IMAGE: &str = "keelson.local/ticking:1";
/// Says something once a second, and never ends.
const TICK: &str = "#!/bin/sh\ni=0; while :; do i=$((i+1)); echo tick $i; sleep 1; done\n";
/// Of each member, by its name below the data directory's `pki`.
const OF_SERVER: &[&str] = &["apiserver", "apiserver-kubelet-client", "admin", "node-a-serving"];
const OF_AGENT: &[&str] = &["node-client", "node-serving"];

fn number(variable: &str, default: u64) -> Result<u64> {
    let Ok(text) = std::env::var(variable) else { return Ok(default) };
    text.parse().with_context(|| format!("{variable}={text}"))
}

/// Every certificate that was seen, by its file.
#[derive(Default)]
struct Seen(BTreeMap<PathBuf, BTreeSet<Vec<u8>>>);

impl Seen {
    fn look(&mut self, hosts: &Hosts) -> Result<()> {
        for (member, names) in [(&hosts.a, OF_SERVER), (&hosts.b, OF_AGENT)] {
            for name in names {
                let path = member.data_dir().join(format!("pki/{name}.crt"));
                let certificate = std::fs::read(&path).with_context(|| format!("read {path:?}"))?;
                self.0.entry(path).or_default().insert(certificate);
            }
        }
        Ok(())
    }

    /// How often the one was replaced that was replaced least.
    fn renewals(&self) -> usize {
        self.0.values().map(|certificates| certificates.len() - 1).min().unwrap_or_default()
    }

    fn told(&self) -> String {
        let of = |(path, seen): (&PathBuf, &BTreeSet<_>)| {
            format!("{} {}", path.file_stem().unwrap_or_default().to_string_lossy(), seen.len() - 1)
        };
        self.0.iter().map(of).collect::<Vec<_>>().join(", ")
    }
}

#[test]
fn certificates_are_replaced_under_work() -> Result<()> {
    let binary = tests::cluster::binary()?;
    let lifetime = number("KEELSON_LIFETIME_SECONDS", 20)?;
    let renewals = number("KEELSON_RENEWALS", 3)?;
    // Short: socket paths have 108 bytes.
    let dir = tempfile::Builder::new().prefix("renew").tempdir_in("/tmp")?;
    let hosts = Hosts::start_with(dir.path(), &binary, &["--certificate-lifetime", &format!("{lifetime}s")])?;
    let worked = work(&hosts, dir.path(), Duration::from_secs(lifetime), renewals);
    worked.with_context(|| hosts.diagnosis())?;
    for member in hosts.members() {
        member.keelson.stop()?;
        member.cleanup()?;
    }
    Ok(())
}

fn work(hosts: &Hosts, dir: &Path, lifetime: Duration, renewals: u64) -> Result<()> {
    let archive = dir.join("ticking.tar");
    let files: &[(&str, &str, u32)] = &[("tick.sh", TICK, 0o755)];
    Image { reference: IMAGE, files, entrypoint: &["/tick.sh"], env: &["PATH=/bin"] }.write(&archive)?;
    for member in hosts.members() {
        member.import_image(&archive)?;
    }
    hosts.wait_nodes_ready()?;
    let pids = hosts.members().map(|member| member.keelson.pid());
    for member in hosts.members() {
        hosts.apply(&pod(&format!("tick-{}", member.name()), member.name()))?;
        running(hosts, &format!("tick-{}", member.name()))?;
    }
    // The serving certificate of a joined node is asked for when it has its addresses.
    let mut seen = Seen::default();
    wait::until("every certificate", LIMIT, || seen.look(hosts).map(Some))?;
    let followed = hosts.members().map(|member| follow(hosts, member, dir));
    let (start, mut rounds) = (Instant::now(), 0);
    // Twice the time it takes: one that is late shows as such, and not as a test that never ends.
    let limit = lifetime * u32::try_from(renewals)? * 2;
    while seen.renewals() < usize::try_from(renewals)? {
        ensure!(start.elapsed() < limit, "renewed after {:?}: {}", start.elapsed(), seen.told());
        round(hosts, rounds).with_context(|| format!("round {rounds}, after {:?}", start.elapsed()))?;
        rounds += 1;
        seen.look(hosts)?;
    }
    for (member, followed) in hosts.members().into_iter().zip(followed) {
        let (log, follower) = followed?;
        let last = ticks(&std::fs::read_to_string(&log)?);
        ensure!(follower.pid().is_some(), "the log of {} is no longer followed", member.name());
        ensure!(last + 5 >= start.elapsed().as_secs(), "the followed log of {} ended at {last}", member.name());
        follower.stop()?;
    }
    ensure!(pids == hosts.members().map(|member| member.keelson.pid()), "a keelson was restarted");
    println!("renewals in {:?}: {}; {rounds} rounds of commands, none failed", start.elapsed(), seen.told());
    Ok(())
}

/// `kubectl logs -f`, which stays open through all of it.
fn follow(hosts: &Hosts, member: &Member, dir: &Path) -> Result<(PathBuf, Background)> {
    let file = |end: &str| dir.join(format!("follow-{}.{end}", member.name()));
    let command = hosts.kubectl_command(&["logs", "-f", &format!("tick-{}", member.name())])?;
    let follower = hosts.a.host.spawn(command, &file("pid"), &file("log"))?;
    Ok((file("log"), follower))
}

/// The number of the last tick in a log.
fn ticks(log: &str) -> u64 {
    log.lines().filter_map(|line| line.strip_prefix("tick ")?.parse().ok()).next_back().unwrap_or_default()
}

/// Every way that a certificate has a part in, on both nodes.
fn round(hosts: &Hosts, number: u64) -> Result<()> {
    for member in hosts.members() {
        let pod = format!("tick-{}", member.name());
        let said = hosts.kubectl(&["exec", &pod, "--", "/bin/echo", "here"])?;
        ensure!(said.trim() == "here", "exec said {said:?}");
        ensure!(ticks(&hosts.kubectl(&["logs", "--tail=2", &pod])?) > 0, "the log of {pod} is empty");
        // The agent sees a new pod, starts it and says so.
        let name = format!("round-{number}-{}", member.name());
        hosts.apply(&self::pod(&name, member.name()))?;
        running(hosts, &name)?;
        hosts.kubectl(&["delete", "pod", &name, "--wait=false"])?;
    }
    let nodes = hosts.get(&["nodes"])?;
    let nodes = nodes["items"].as_array().context("nodes")?;
    let ready = nodes.iter().filter(|node| tests::hosts::condition(node, "Ready"));
    ensure!(ready.count() == 2, "not all nodes are ready");
    Ok(())
}

fn running(hosts: &Hosts, pod: &str) -> Result<()> {
    wait::until(&format!("pod {pod} to run"), LIMIT, || {
        Ok((hosts.get(&["pod", pod])?["status"]["phase"] == "Running").then_some(()))
    })
}

fn pod(name: &str, node: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": "default" },
        "spec": { "nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [{
            "name": "main", "image": IMAGE, "imagePullPolicy": "Never" }] } })
}
