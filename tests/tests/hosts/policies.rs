//! NetworkPolicies on pods of both hosts: closed from a pod's first moment, opened by a change of labels, and gone
//! without a trace.

use anyhow::{Result, ensure};
use serde_json::json;
use tests::hosts::{Hosts, Member};
use tests::process::command;
use tests::wait;

use crate::LIMIT;
use crate::workload::{output, ready, sleeper};

/// Pods per host that are under the policy.
const PODS: usize = 5;
const LABEL: &str = "net";

fn closed(member: &Member, number: usize) -> String {
    format!("closed-{}-{number}", member.name())
}

/// Tables of policies on a host.
fn tables(member: &Member) -> Result<usize> {
    let tables = member.host.run(&mut command("nft", ["list", "tables"]))?;
    Ok(tables.lines().filter(|line| line.ends_with("-policies")).count())
}

pub fn policies_hold(hosts: &mut Hosts) -> Result<()> {
    let servers = ready(hosts)?.into_values().map(|server| server.address.to_string()).collect::<Vec<_>>();
    hosts.apply(&json!({ "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": { "name": "closed", "namespace": "default" },
        "spec": { "podSelector": { "matchLabels": { LABEL: "closed" } }, "policyTypes": ["Ingress", "Egress"] } }))?;
    // The first thing a pod does is to ask servers on both hosts.
    let asks = servers.iter().map(|server| format!("timeout 1 wget -q -O - http://{server}:8080/")).collect::<Vec<_>>();
    let script = format!("while :; do ({}) > /dev/null && echo OPEN || echo CLOSED; sleep 1; done", asks.join(" || "));
    for member in hosts.members() {
        for number in 0..PODS {
            let mut pod = sleeper(&closed(member, number), member.name(), &["/bin/sh", "-c", &script]);
            pod["metadata"]["labels"] = json!({ LABEL: "closed" });
            hosts.apply(&pod)?;
        }
    }
    for member in hosts.members() {
        for number in 0..PODS {
            let pod = closed(member, number);
            let seen = wait::until(&format!("{pod} to ask"), LIMIT, || {
                let output = output(member, &pod)?;
                Ok((!output.is_empty()).then_some(output))
            })?;
            ensure!(!seen.contains("OPEN"), "{pod} was open: {seen:?}");
        }
        ensure!(tables(member)? > 0, "nothing is enforced on {}", member.name());
    }
    for member in hosts.members() {
        let pod = closed(member, 0);
        hosts.kubectl(&["label", "pod", &pod, &format!("{LABEL}-")])?;
        wait::until(&format!("{pod} to be let out"), LIMIT, || {
            Ok(output(member, &pod)?.trim_end().ends_with("OPEN").then_some(()))
        })?;
        let other = output(member, &closed(member, 1))?;
        ensure!(!other.contains("OPEN"), "{other:?}");
    }
    hosts.kubectl(&["delete", "networkpolicy", "closed"])?;
    for member in hosts.members() {
        wait::until(&format!("the policies to be gone from {}", member.name()), LIMIT, || {
            Ok((tables(member)? == 0).then_some(()))
        })?;
        for number in 0..PODS {
            hosts.kubectl(&["delete", "pod", &closed(member, number), "--wait=false"])?;
        }
    }
    Ok(())
}
