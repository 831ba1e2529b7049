//! What two hosts need in memory: a server with a node on one, an agent on the other, with no pods, with 30 and with
//! 110, spread evenly. Each number is the resident memory of the one `keelson` process of that host.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tests::hosts::{Hosts, Member};
use tests::image::Image;
use tests::{process, wait};

use super::rig::{self, mebibytes, row};

/// Pods on both nodes together.
const PODS: &[usize] = &[0, 30, 110];
/// Between the last pod's start and the look.
const SETTLE: Duration = Duration::from_secs(15);
const LIMIT: Duration = Duration::from_secs(300);
const IMAGE: &str = "keelson.local/tiny:1";
const PER_CREATE: usize = 10;

pub fn memory() -> Result<()> {
    // Short: socket paths have 108 bytes.
    let dir = tempfile::Builder::new().prefix("bench").tempdir_in("/tmp")?;
    let hosts = Hosts::start(dir.path(), &rig::binary()?)?;
    let archive = dir.path().join("tiny.tar");
    Image { reference: IMAGE, files: &[], entrypoint: &["/bin/sleep", "1000000"], env: &[] }.write(&archive)?;
    for member in hosts.members() {
        member.import_image(&archive)?;
    }
    hosts.wait_nodes_ready()?;
    let mut running = 0;
    for count in PODS {
        for start in (running..*count).step_by(PER_CREATE) {
            let pods = (start..(start + PER_CREATE).min(*count)).map(pod).collect::<Vec<_>>();
            hosts.apply(&json!({ "apiVersion": "v1", "kind": "List", "items": pods }))?;
        }
        running = *count;
        wait::until(&format!("{count} pods to run"), LIMIT, || {
            let pods = hosts.kubectl(&["get", "pods", "--field-selector=status.phase=Running", "-o", "name"])?;
            Ok((pods.lines().count() == *count).then_some(()))
        })?;
        std::thread::sleep(SETTLE);
        let resident = |member: &Member| -> Result<u64> {
            process::resident_kib(
                member.keelson.pid().with_context(|| format!("keelson on {} has ended", member.name()))?,
            )
        };
        row(&format!("RSS, {count} pods: server with node"), mebibytes(resident(&hosts.a)?), "< 60 MB idle");
        row(&format!("RSS, {count} pods: agent"), mebibytes(resident(&hosts.b)?), "< 20 MB idle");
    }
    hosts.kubectl(&["delete", "pods", "--all", "--force", "--grace-period=0", "--wait=false"])?;
    hosts.a.keelson.stop()?;
    hosts.b.keelson.stop().map(drop)
}

fn pod(index: usize) -> Value {
    json!({ "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": format!("tiny-{index}"), "namespace": "default" },
        "spec": { "nodeName": if index.is_multiple_of(2) { "a" } else { "b" }, "terminationGracePeriodSeconds": 0,
            "containers": [{ "name": "c", "image": IMAGE, "imagePullPolicy": "Never" }] } })
}
