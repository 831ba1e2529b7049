//! A server process through the worst: killed under load, out of disk, replaced by a backup. On the real binary, as an
//! operator has it; no pods run, so neither containerd nor much time is needed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use api_client::{Api, Cache, Client, ListParams, Received, kubeconfig, transport};
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};
use tests::cluster::{self, Cluster, Options, tail};
use tests::kubectl::Kubectl;
use tests::process::{command, run};
use tests::wait;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const LIMIT: Duration = Duration::from_secs(60);
const WRITERS: usize = 64;
const KILLS: usize = 3;
/// Acknowledged writes between two kills, at least.
const WRITES_BETWEEN: u64 = 300;

fn options(dir: &Path) -> Result<Options> {
    let flags = vec!["--components=apiserver,controllers".to_owned()];
    let (binary, port) = (cluster::binary()?, quiet_port()?);
    Ok(Options { binary, dir: dir.to_owned(), port, flags, agent: false, host_containerd: false })
}

/// A free port that the kernel gives to nobody who connects: a client that tries again and again while the server is
/// down would in the end get the server's port for its own, and keep the server from it.
fn quiet_port() -> Result<u16> {
    const FIRST: u16 = 20_000;
    let start = std::process::id() as u16 % 5_000;
    // Tests of one process run at the same time, and a port is free again until its server starts.
    static TAKEN: std::sync::atomic::AtomicU16 = std::sync::atomic::AtomicU16::new(0);
    let mut ports = std::iter::repeat_with(|| TAKEN.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
        .take(1_000)
        .map(|step| FIRST + start + step * 7);
    ports.find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok()).context("no port is free")
}

/// A server that is stopped with the value; its log is shown when the test fails.
struct Server(Cluster);

impl Server {
    fn start(options: Options) -> Result<Self> {
        Ok(Self(Cluster::start(options)?))
    }

    fn client(&self) -> Result<Client> {
        Ok(Client::new(transport::Remote::new(&kubeconfig::load(&self.0.kubeconfig())?)?, "recovery-test"))
    }

    /// `keelson COMMAND` on this server's data directory.
    fn keelson(&self, arguments: &[&str]) -> Command {
        let mut command = command(&self.0.options.binary, arguments);
        command.arg("--data-dir").arg(self.0.data_dir());
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.0.stop() {
            eprintln!("stopping the server failed: {error:#}");
        }
        if std::thread::panicking() {
            eprintln!("the end of the server's log:\n{}", tail(&self.0.log(), 40));
        }
    }
}

fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(work)
}

fn config_map(name: &str, data: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name, "namespace": "default" },
        "data": { "k": data } })
}

fn data(map: &ConfigMap) -> String {
    map.data.iter().flatten().map(|(_, value)| value.clone()).collect()
}

/// 64 writers, a watcher, and kill -9 in between: what was acknowledged is there, and the watcher's picture is right.
#[test]
fn acknowledged_writes_survive_kill_and_watchers_go_on() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut server = Server::start(options(dir.path())?)?;
    let acknowledged: Arc<Mutex<BTreeMap<String, u64>>> = Arc::default();
    let total = Arc::new(AtomicU64::new(0));
    let stop = CancellationToken::new();
    block_on(async {
        let client = server.client()?;
        let tasks = TaskTracker::new();
        let cache = Cache::<ConfigMap>::start(&client, ListParams::namespace("default"), &tasks, stop.clone());
        let mut changes = cache.subscribe();
        let seen = tokio::spawn(async move {
            // Every key's values as they were seen: they only ever grow.
            let mut last: BTreeMap<String, u64> = BTreeMap::new();
            let mut rescans = 0;
            while let Some(received) = changes.recv().await {
                let Received::Change(change) = received else {
                    rescans += 1;
                    continue;
                };
                let Some(new) = change.new else { continue };
                let (name, count) = (new.metadata.name.clone().unwrap_or_default(), data(&new).parse().unwrap_or(0));
                let before = last.insert(name.clone(), count);
                ensure!(before.is_none_or(|before| before <= count), "{name} went back from {before:?} to {count}");
            }
            Ok(rescans)
        });
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            let client = server.client()?;
            writers.spawn(count_up(
                client,
                format!("w-{writer:02}"),
                acknowledged.clone(),
                total.clone(),
                stop.clone(),
            ));
        }
        for _ in 0..KILLS {
            let from = total.load(Ordering::Relaxed);
            wait::until("the writers to get on", LIMIT, || {
                Ok((total.load(Ordering::Relaxed) >= from + WRITES_BETWEEN).then_some(()))
            })?;
            server.0.server.kill()?;
            server.0.start_server()?;
        }
        let api: Api<ConfigMap> = server.client()?.api();
        let known = acknowledged.lock().expect("no writer panics").clone();
        let list = api.list(&ListParams::namespace("default")).await?;
        let found: BTreeMap<String, u64> = list
            .items
            .iter()
            .map(|map| (map.metadata.name.clone().unwrap_or_default(), data(map).parse().unwrap_or(0)))
            .collect();
        for (name, count) in &known {
            let now = found.get(name).with_context(|| format!("{name} is lost, acknowledged at {count}"))?;
            ensure!(now >= count, "{name} is at {now}, acknowledged was {count}");
        }
        ensure!(known.len() == WRITERS, "every writer got something done: {known:?}");
        // The last kill is over: the watcher gets to the same state by itself.
        wait::until("the watcher to have seen the last acknowledged writes", LIMIT, || {
            let snapshot = cache.snapshot();
            let behind = known.iter().find(|(name, count)| {
                let map = snapshot.get(&api_client::ObjectKey::new("default", name.as_str()));
                map.is_none_or(|map| data(map).parse::<u64>().unwrap_or(0) < **count)
            });
            ensure!(behind.is_none(), "{behind:?}");
            Ok(Some(()))
        })?;
        stop.cancel();
        while let Some(writer) = writers.join_next().await {
            writer??;
        }
        tasks.close();
        tasks.wait().await;
        drop(cache);
        let rescans = seen.await??;
        // One for the first list; a restart costs none: the server reads its last writes again.
        ensure!(rescans <= 1, "the watcher had to list again {rescans} times");
        Ok(())
    })
}

/// Counts a ConfigMap up, over every failure, and notes what was acknowledged.
async fn count_up(
    client: Client,
    name: String,
    acknowledged: Arc<Mutex<BTreeMap<String, u64>>>,
    total: Arc<AtomicU64>,
    stop: CancellationToken,
) -> Result<()> {
    let api: Api<ConfigMap> = client.api();
    let key = api_client::ObjectKey::new("default", name.as_str());
    let mut next = 1;
    while !stop.is_cancelled() {
        let written = match next {
            1 => api.create_value(&config_map(&name, "1")).await.map(drop),
            count => {
                let patch = api_client::Patch::Merge(json!({ "data": { "k": count.to_string() } }));
                api.patch(&key, &patch).await.map(drop)
            }
        };
        match written {
            Ok(()) => {
                acknowledged.lock().expect("no writer panics").insert(name.clone(), next);
                total.fetch_add(1, Ordering::Relaxed);
                next += 1;
            }
            // Done, though nobody could say so.
            Err(error) if next == 1 && error.is_already_exists() => next += 1,
            Err(_) => tokio::task::yield_now().await,
        }
    }
    Ok(())
}

/// A file system of its own, small enough to be filled.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Result<Self> {
        std::fs::create_dir_all(at)?;
        run(command("mount", ["-t", "tmpfs", "-o", "size=12m", "tmpfs"]).arg(at))?;
        Ok(Self(at.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Err(error) = run(command("umount", ["--lazy"]).arg(&self.0)) {
            eprintln!("{error:#}");
        }
    }
}

#[test]
fn a_full_disk_refuses_writes_and_recovers_by_itself() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let disk = SmallDisk::mount(&dir.path().join("keelson"))?;
    let server = Server::start(options(dir.path())?)?;
    let pid = server.0.server.pid();
    block_on(async {
        let api: Api<ConfigMap> = server.client()?.api();
        // Somebody else's file takes nearly all of the space.
        let filler = disk.0.join("filler");
        std::fs::write(&filler, vec![0; 4 << 20])?;
        let mut written = BTreeSet::new();
        let refused = loop {
            let name = format!("fill-{}", written.len());
            match api.create_value(&config_map(&name, &"x".repeat(200_000))).await {
                Ok(_) => drop(written.insert(name)),
                Err(error) => break error,
            }
            ensure!(written.len() < 100, "12 MB hold no more than this");
        };
        ensure!(!written.is_empty(), "there was room at first");
        let api_client::Error::Status(status) = &refused else { bail!("no Status: {refused:?}") };
        ensure!((status.code, status.reason.as_str()) == (507, "InsufficientStorage"), "{status:?}");
        ensure!(status.message.contains("free space"), "says what to do: {}", status.message);
        // Small writes may still find a place; large ones do not, and nothing is half done.
        for _ in 0..5 {
            ensure!(api.create_value(&config_map("late", &"x".repeat(200_000))).await.is_err(), "there is no room");
        }
        let names = |list: Vec<ConfigMap>| -> BTreeSet<String> {
            let names = list.into_iter().filter_map(|map| map.metadata.name);
            names.filter(|name| name.starts_with("fill-") || name == "late").collect()
        };
        let here = ListParams::namespace("default");
        ensure!(names(api.list(&here).await?.items) == written, "reads go on, and show what was acknowledged");

        std::fs::remove_file(&filler)?;
        api.create_value(&config_map("late", &"x".repeat(200_000))).await.context("there is room again")?;
        written.insert("late".into());
        ensure!(server.0.server.pid() == pid, "nobody had to restart it");
        ensure!(names(api.list(&here).await?.items) == written);

        // It also starts on a full disk, and shows what it has.
        let rest = run(command("df", ["--output=avail", "-B1"]).arg(&disk.0))?;
        let rest: usize = rest.lines().last().unwrap_or_default().trim().parse()?;
        std::fs::write(&filler, vec![0; rest])?;
        server.0.server.kill()?;
        Ok(())
    })?;
    let mut server = server;
    server.0.start_server().context("start on a full disk")?;
    let maps = server.0.kubectl()?.get(&["configmaps"])?;
    let count = maps["items"].as_array().map_or(0, Vec::len);
    ensure!(count > 1, "{count} objects are left");
    Ok(())
}

fn names_of(server: &Server, resource: &str) -> Result<BTreeSet<String>> {
    let list = server.0.kubectl()?.get(&[resource, "-n", "default"])?;
    let items = list["items"].as_array().context("a list")?.iter();
    Ok(items.filter_map(|item| item["metadata"]["name"].as_str()).map(str::to_owned).collect())
}

/// Backup beside a running server, restore on an empty machine and in the server's place.
#[test]
fn a_backup_makes_the_same_cluster_again() -> Result<()> {
    let (dir, other) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let mut server = Server::start(options(dir.path())?)?;
    let kubectl = server.0.kubectl()?;
    kubectl.run(&["create", "configmap", "kept", "--from-literal=k=v"])?;
    kubectl.run(&["create", "serviceaccount", "robot"])?;
    let token = kubectl.run(&["create", "token", "robot"])?;
    let file = dir.path().join("cluster.backup");
    let said = run(server.keelson(&["backup"]).arg(&file))?;
    ensure!(said.contains("key files") && said.contains("private keys"), "{said}");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file)?.permissions());
    ensure!(mode & 0o777 == 0o600, "mode {mode:o}");
    kubectl.run(&["create", "configmap", "later", "--from-literal=k=v"])?;
    let seen = revision(&kubectl)?;
    let seen_item = kubectl.get(&["configmap", "kept"])?;

    // A running server is not pulled away from under its users.
    let refused = run(server.keelson(&["restore", "--force"]).arg(&file)).expect_err("a server runs");
    ensure!(refused.to_string().contains("a server is running"), "{refused}");
    server.0.server.stop()?;
    let refused = run(server.keelson(&["restore"]).arg(&file)).expect_err("there is a store");
    ensure!(refused.to_string().contains("--force"), "{refused}");
    let said = run(server.keelson(&["restore", "--force", "--dry-run"]).arg(&file))?;
    ensure!(said.contains("Nothing was restored"), "{said}");
    damaged_backups_are_refused(&server, &file)?;

    // In the server's place.
    run(server.keelson(&["restore", "--force"]).arg(&file))?;
    server.0.start_server()?;
    let names = names_of(&server, "configmaps")?;
    ensure!(names.contains("kept") && !names.contains("later"), "{names:?}");
    nobody_sees_time_go_backwards(&server, seen, &seen_item)?;

    // On an empty machine: the same keys, so that nodes, users and pods are who they were.
    let mut options = options(other.path())?;
    options.port = server.0.options.port;
    let mut restored = Server(Cluster::at(options));
    run(restored.keelson(&["restore"]).arg(&file))?;
    server.0.server.stop()?;
    restored.0.start_server()?;
    let old_kubeconfig = server.0.kubectl()?;
    ensure!(old_kubeconfig.run(&["get", "configmap", "kept"])?.contains("kept"), "the old kubeconfig goes on");
    let review = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
        "metadata": { "name": "r" }, "spec": { "token": token.trim() } });
    let path = other.path().join("review.json");
    std::fs::write(&path, review.to_string())?;
    let reviewed = old_kubeconfig.run(&["create", "-f", &path.to_string_lossy(), "-o", "json"])?;
    ensure!(reviewed.contains("system:serviceaccount:default:robot"), "tokens of pods go on: {reviewed}");
    Ok(())
}

fn damaged_backups_are_refused(server: &Server, file: &Path) -> Result<()> {
    let whole = std::fs::read(file)?;
    let bad = file.with_extension("bad");
    let refuse = |content: &[u8], why: &str| -> Result<()> {
        std::fs::write(&bad, content)?;
        let refused = run(server.keelson(&["restore", "--force"]).arg(&bad)).expect_err("a damaged backup");
        ensure!(refused.to_string().contains(why), "{refused}");
        Ok(())
    };
    refuse(&whole[..whole.len() / 2], "is cut off at byte")?;
    let mut flipped = whole.clone();
    flipped[whole.len() / 3] ^= 0x10;
    refuse(&flipped, "is damaged at byte")?;
    refuse(b"apiVersion: v1\n", "no backup of Keelson")
}

/// Of a list, as a client sees it.
fn revision(kubectl: &Kubectl) -> Result<u64> {
    let list = kubectl.run(&["get", "--raw", "/api/v1/namespaces/default/configmaps"])?;
    let list: Value = serde_json::from_str(&list)?;
    list["metadata"]["resourceVersion"].as_str().unwrap_or_default().parse().context("a revision")
}

fn nobody_sees_time_go_backwards(server: &Server, seen: u64, seen_item: &Value) -> Result<()> {
    let kubectl = server.0.kubectl()?;
    let now = revision(&kubectl)?;
    ensure!(now > seen + 1_000_000, "{now} is far above {seen}");
    let path = format!("/api/v1/namespaces/default/configmaps?watch=true&timeoutSeconds=5&resourceVersion={seen}");
    let answer = kubectl.run(&["get", "--raw", &path]);
    let text = answer.unwrap_or_else(|error| format!("{error:#}"));
    ensure!(text.contains("too old resource version") || text.contains("410"), "old watchers are told: {text}");
    // What was read before cannot overwrite what is there now.
    let stale = server.0.options.dir.join("stale.json");
    std::fs::write(&stale, seen_item.to_string())?;
    let refused = kubectl.run(&["replace", "-f", &stale.to_string_lossy()]).expect_err("a stale write");
    ensure!(refused.to_string().contains("Conflict") || refused.to_string().contains("modified"), "{refused}");
    Ok(())
}
