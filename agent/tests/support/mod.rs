//! A private containerd and a small cluster in memory for tests of the runtime path. They need root, containerd, an
//! OCI runtime and the CNI plugins, and fail where one is missing.

#![allow(clippy::unwrap_used, reason = "a test ends at the first thing that is not as it must be")]
#![allow(dead_code, reason = "each test file uses its part")]

pub mod registry;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use agent::{
    Options,
    cluster::{self, Cluster, PodEvent},
    pod::{PodId, Pods, Shared},
    runtime::Runtime,
    spec::env::ServiceAddress,
};
use async_trait::async_trait;
use k8s_openapi::api::{
    authentication::v1::TokenRequest,
    core::v1::{ConfigMap, Pod, Secret},
};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Long enough for a busy machine; a test that meets it has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Instances started by this process.
static STARTED: AtomicU32 = AtomicU32::new(0);

/// containerd with its own root, state and socket; gone with the value.
pub struct Containerd {
    pub directory: tempfile::TempDir,
    process: Child,
    /// Tells the host-wide names of this one's nodes from those of others.
    number: u32,
}

impl Containerd {
    pub fn start() -> Self {
        // Shown when the test fails; a second test of the process finds it set.
        let filter = tracing_subscriber::EnvFilter::new("warn,agent=debug");
        let _set_before = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
        // Short: socket paths have 108 bytes.
        let directory = tempfile::Builder::new().prefix("kl").tempdir_in("/tmp").expect("make a directory in /tmp");
        let process = Self::spawn(directory.path());
        let number = std::process::id() * 8 + STARTED.fetch_add(1, Ordering::Relaxed);
        let containerd = Self { directory, process, number };
        std::fs::write(containerd.boot_id_file(), "first").expect("write the boot id");
        containerd.wait_for_socket();
        containerd
    }

    fn spawn(directory: &Path) -> Child {
        let at = |name: &str| directory.join(name).display().to_string();
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = {:?}\n",
            at("root"),
            at("state"),
            at("c.sock"),
        );
        std::fs::write(directory.join("config.toml"), config).expect("write containerd's configuration");
        let log = std::fs::File::options().create(true).append(true).open(directory.join("log")).expect("open log");
        Command::new("containerd")
            .args(["--config", &at("config.toml"), "--log-level", "warn"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("start containerd: it must be installed")
    }

    fn wait_for_socket(&self) {
        let deadline = std::time::Instant::now() + PATIENCE;
        while std::os::unix::net::UnixStream::connect(self.socket()).is_err() {
            assert!(std::time::Instant::now() < deadline, "containerd does not listen: {}", self.log());
            std::thread::yield_now();
        }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("c.sock")
    }

    /// Of its own: runc keeps its state by namespace and container id, whichever containerd calls it, and pods of the
    /// same name in two tests have containers of the same id.
    pub fn namespace(&self) -> String {
        format!("k8s.io-{}", self.number)
    }

    fn bridge(&self) -> String {
        format!("kt{}", self.number % 10_000_000)
    }

    fn cgroup_parent(&self) -> String {
        format!("keelson-test-{}", self.number)
    }

    /// Ends what a failed test left running.
    fn end_containers(&self) {
        let runtime = self.runtime();
        let end = async move {
            for record in runtime.list_containers(&[]).await? {
                runtime.remove_container(&record.id).await?;
            }
            Ok::<(), agent::runtime::Error>(())
        };
        // Drop runs inside the test's own runtime, which cannot be waited on here.
        let ended = std::thread::spawn(move || {
            let waiting = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("make a runtime");
            waiting.block_on(end)
        });
        match ended.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => eprintln!("containers of a failed test are left: {error}"),
            Err(_panic) => eprintln!("containers of a failed test are left"),
        }
        let bridge = agent::network::bridge::remove(&self.bridge(), &self.directory.path().join("agent/addresses"));
        let cgroups = agent::cgroup::Tree::new(&self.cgroup_parent()).remove_all();
        eprintln!("after a failed test: bridge {bridge:?}, cgroups {cgroups:?}");
    }

    pub fn runtime(&self) -> Runtime {
        Runtime::new(&self.socket(), &self.namespace(), "overlayfs", None).expect("a valid address")
    }

    /// Ends everything a boot ends: containerd, its shims, all containers, and every mount. Files stay, but for what a
    /// host keeps in memory. The next boot id is another one.
    pub fn reboot(&mut self) {
        self.process.kill().expect("kill containerd");
        self.process.wait().expect("wait for containerd");
        // A shim is told by the socket it serves; a container by its cgroup.
        let socket = self.socket().display().to_string();
        let mut doomed = Vec::new();
        for process in procfs::process::all_processes().expect("list processes").flatten() {
            let is_shim = process.cmdline().is_ok_and(|words| words.contains(&socket));
            let in_cgroup = process
                .cgroups()
                .is_ok_and(|cgroups| cgroups.into_iter().any(|cgroup| cgroup.pathname.contains(&self.cgroup_parent())));
            if is_shim || in_cgroup {
                doomed.push(process.pid);
            }
        }
        for pid in &doomed {
            let killed = nix::sys::signal::kill(nix::unistd::Pid::from_raw(*pid), nix::sys::signal::Signal::SIGKILL);
            assert!(matches!(killed, Ok(()) | Err(nix::Error::ESRCH)), "{killed:?}");
        }
        let deadline = std::time::Instant::now() + PATIENCE;
        let runs = |pid: &i32| {
            procfs::process::Process::new(*pid).and_then(|process| process.stat()).is_ok_and(|stat| stat.state != 'Z')
        };
        while doomed.iter().any(runs) {
            assert!(std::time::Instant::now() < deadline, "killed processes go on");
            std::thread::yield_now();
        }
        self.unmount_all();
        for gone in ["state", "c.sock"] {
            let path = self.directory.path().join(gone);
            let removed = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            removed.unwrap_or_else(|error| panic!("remove {}: {error}", path.display()));
        }
        std::fs::write(self.boot_id_file(), "another").expect("write the boot id");
        self.process = Self::spawn(self.directory.path());
        self.wait_for_socket();
    }

    pub fn boot_id_file(&self) -> PathBuf {
        self.directory.path().join("boot_id")
    }

    fn unmount_all(&self) {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let own = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        for mount in own.filter(|path| Path::new(path).starts_with(self.directory.path())) {
            nix::mount::umount2(mount, nix::mount::MntFlags::MNT_DETACH).expect("unmount what is left");
        }
    }

    /// Kills containerd as a crash would and starts it again.
    pub fn restart(&mut self) {
        self.process.kill().expect("kill containerd");
        self.process.wait().expect("wait for containerd");
        std::fs::remove_file(self.socket()).expect("remove the dead socket");
        self.process = Self::spawn(self.directory.path());
        self.wait_for_socket();
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.end_containers();
        }
        if self.process.kill().is_ok() {
            self.process.wait().expect("wait for containerd");
        }
        // Overlay mounts of containers that a failed test left.
        self.unmount_all();
    }
}

/// A layer with static busybox, its common names, and what a container needs beside.
pub fn busybox_layer() -> Vec<u8> {
    let mut layer = tar::Builder::new(Vec::new());
    let mut add = |path: &str, contents: &[u8], mode: u32| {
        let mut header = tar::Header::new_gnu();
        header.set_size(contents.len() as u64);
        header.set_mode(mode);
        layer.append_data(&mut header, path, contents).expect("append to the layer");
    };
    add("bin/busybox", &std::fs::read("/bin/busybox").expect("static busybox must be installed"), 0o755);
    add("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/home/app:/bin/sh\n", 0o644);
    add("etc/group", b"root:x:0:\napp:x:1000:\n", 0o644);
    for name in [
        "sh", "sleep", "cat", "echo", "ls", "id", "env", "true", "false", "hostname", "ip", "ps", "wget", "dd",
        "mount", "grep", "seq", "kill", "touch", "stat", "stty", "tty", "mkdir", "nc", "httpd", "tail",
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        layer.append_link(&mut header, format!("bin/{name}"), "busybox").expect("append to the layer");
    }
    for name in ["tmp/", "proc/", "sys/", "dev/"] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(0o1777);
        header.set_size(0);
        layer.append_data(&mut header, name, std::io::empty()).expect("append to the layer");
    }
    layer.into_inner().expect("finish the layer")
}

/// An archive as `docker save` writes it, image `localhost/busybox:test`.
pub fn busybox_archive(directory: &Path) -> PathBuf {
    let layer = busybox_layer();
    let digest = sha256(&layer);
    let config = json!({
        "architecture": agent::image::platform::architecture(),
        "os": "linux",
        "config": {"Env": ["PATH=/bin", "FROM_IMAGE=yes"], "Cmd": ["sh"], "WorkingDir": "/tmp"},
        "rootfs": {"type": "layers", "diff_ids": [digest]},
        "history": [],
    })
    .to_string();
    let manifest = json!([{"Config": "config.json", "RepoTags": ["localhost/busybox:test"], "Layers": ["layer.tar"]}]);
    let path = directory.join("busybox.tar");
    let mut archive = tar::Builder::new(std::fs::File::create(&path).expect("create the archive"));
    for (name, contents) in [
        ("layer.tar", layer.as_slice()),
        ("config.json", config.as_bytes()),
        ("manifest.json", manifest.to_string().as_bytes()),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(contents.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, contents).expect("append to the archive");
    }
    archive.finish().expect("finish the archive");
    path
}

pub fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    let hex = sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    format!("sha256:{hex}")
}

/// The server's side of a pod, as far as these tests need it: status patches are merged and can be waited for.
#[derive(Clone)]
pub struct Board {
    pods: watch::Sender<HashMap<String, Value>>,
    pub events: Arc<Mutex<Vec<String>>>,
    pub config_maps: Arc<Mutex<HashMap<String, Value>>>,
    pub secrets: Arc<Mutex<HashMap<String, Value>>>,
}

impl Default for Board {
    fn default() -> Self {
        Self {
            pods: watch::Sender::new(HashMap::new()),
            events: Arc::default(),
            config_maps: Arc::default(),
            secrets: Arc::default(),
        }
    }
}

#[async_trait]
impl Cluster for Board {
    async fn config_map(&self, _: &str, name: &str) -> Result<Option<Arc<ConfigMap>>, cluster::Error> {
        let found = self.config_maps.lock().unwrap().get(name).cloned();
        Ok(found.map(|value| Arc::new(serde_json::from_value(value).unwrap())))
    }
    async fn secret(&self, _: &str, name: &str) -> Result<Option<Arc<Secret>>, cluster::Error> {
        let found = self.secrets.lock().unwrap().get(name).cloned();
        Ok(found.map(|value| Arc::new(serde_json::from_value(value).unwrap())))
    }
    async fn token(&self, _: &str, _: &str, request: &TokenRequest) -> Result<TokenRequest, cluster::Error> {
        Ok(request.clone())
    }
    async fn services(&self, _: &str) -> Result<Vec<ServiceAddress>, cluster::Error> {
        Ok(Vec::new())
    }
    async fn pod(&self, _: &PodId) -> Result<Option<Pod>, cluster::Error> {
        Ok(None)
    }
    async fn patch_pod_status(&self, pod: &PodId, patch: &Value) -> Result<api_client::Revision, cluster::Error> {
        self.pods.send_modify(|pods| {
            let object = pods.entry(pod.name.clone()).or_insert_with(|| json!({"status": {}}));
            for (key, value) in patch["status"].as_object().unwrap() {
                if key == "conditions" {
                    let list = object["status"].get("conditions").cloned().unwrap_or_else(|| json!([]));
                    let mut list = list.as_array().unwrap().clone();
                    for condition in value.as_array().unwrap() {
                        list.retain(|old| old["type"] != condition["type"]);
                        if condition["$patch"] != "delete" {
                            list.push(condition.clone());
                        }
                    }
                    object["status"]["conditions"] = list.into();
                } else {
                    object["status"][key] = value.clone();
                }
            }
        });
        Ok(api_client::Revision::NONE)
    }
    async fn delete_pod(&self, pod: &PodId) -> Result<(), cluster::Error> {
        self.pods.send_modify(|pods| {
            pods.entry(pod.name.clone()).or_insert_with(|| json!({}))["deleted"] = json!(true);
        });
        Ok(())
    }
    fn event(&self, _: &Pod, event: PodEvent) {
        self.events.lock().unwrap().push(format!("{}: {}", event.reason, event.message));
    }
}

impl Board {
    /// Waits until the pod's object fulfils the condition, and returns it.
    pub async fn wait(&self, pod: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let mut pods = self.pods.subscribe();
        let found = pods.wait_for(|pods| pods.get(pod).is_some_and(&holds));
        match tokio::time::timeout(PATIENCE, found).await {
            Ok(found) => found.unwrap()[pod].clone(),
            Err(_) => {
                panic!("{pod} never was {what}:\n{:#}\nevents: {:#?}", self.get(pod), self.events.lock().unwrap())
            }
        }
    }

    pub async fn wait_phase(&self, pod: &str, phase: &str) -> Value {
        self.wait(pod, phase, |object| object["status"]["phase"] == phase).await
    }

    /// Events so far that contain a text.
    pub fn events_with(&self, text: &str) -> Vec<String> {
        self.events.lock().unwrap().iter().filter(|event| event.contains(text)).cloned().collect()
    }

    pub fn get(&self, pod: &str) -> Value {
        self.pods.borrow().get(pod).cloned().unwrap_or_default()
    }
}

/// A pod's uid: no other node's pod has it, as interfaces and containers are named after it.
pub fn uid(options: &Options, name: &str) -> String {
    format!("uid-{}-{name}", options.bridge)
}

/// An agent's pods on a private containerd.
pub struct Node {
    pub shared: Arc<Shared>,
    pub pods: Pods,
    pub board: Board,
    pub options: Options,
}

impl Node {
    pub fn options(containerd: &Containerd, name: &str) -> Options {
        let directory = containerd.directory.path();
        let mut options = Options::new(name);
        options.containerd_address = containerd.socket();
        options.containerd_namespace = containerd.namespace();
        options.state_dir = directory.join("agent");
        options.boot_id_file = containerd.boot_id_file();
        options.log_dir = directory.join("pods");
        options.container_log_dir = directory.join("containers");
        options.cni_config_dir = directory.join("no-cni");
        options.registry_config_dir = directory.join("certs.d");
        options.registry_credentials = Some(directory.join("config.json"));
        // Names and ranges of our own: other tests run at the same time.
        let own = containerd.number;
        options.bridge = containerd.bridge();
        options.pod_cidrs = vec![format!("10.{}.{}.0/24", 64 + own / 250 % 128, own % 250)];
        options.cgroup_parent = containerd.cgroup_parent();
        options.pause_command = vec!["/bin/busybox".into(), "sleep".into(), "infinity".into()];
        options
    }

    pub async fn start(options: Options, board: Board) -> Self {
        let runtime =
            Runtime::new(&options.containerd_address, &options.containerd_namespace, "overlayfs", None).unwrap();
        let addresses = vec!["192.0.2.1".parse().unwrap()];
        let shared =
            Arc::new(Shared::new(&options, runtime, Arc::new(board.clone()), addresses, CancellationToken::new()));
        shared.cgroups.ensure_classes(2000).unwrap();
        let pods = Pods::new(shared.clone()).await.unwrap();
        pods.follow_exits();
        Self { shared, pods, board, options }
    }

    /// Stops the agent's part; pods go on.
    pub async fn stop(self) -> Options {
        self.shared.shutdown.cancel();
        self.shared.tasks.close();
        tokio::time::timeout(PATIENCE, self.shared.tasks.wait()).await.expect("all tasks end at shutdown");
        self.options
    }

    /// Removes everything and checks that nothing is left.
    pub async fn end(self, containerd: &Containerd) {
        let mut options = self.stop().await;
        // What `keelson cleanup` knows.
        options.node_name.clear();
        agent::cleanup(&options).await.unwrap();
        // A second time finds nothing to do.
        agent::cleanup(&options).await.unwrap();
        for directory in [&options.state_dir, &options.log_dir, &options.container_log_dir] {
            let left = std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
            assert!(!directory.exists(), "{directory:?} is left, with {:?}", left.collect::<Vec<_>>());
        }
        assert!(!Path::new("/sys/class/net").join(&options.bridge).exists());
        assert!(containerd.runtime().list_containers(&[]).await.unwrap().is_empty());
        assert!(containerd.runtime().list_tasks().await.unwrap().is_empty());
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let left = mounts.lines().filter(|line| line.contains(&*containerd.directory.path().to_string_lossy()));
        assert_eq!(left.collect::<Vec<_>>(), Vec::<&str>::new());
        for controller in std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
            assert!(!controller.path().join(&options.cgroup_parent).exists(), "{:?}", controller.path());
        }
    }

    pub fn container_id(&self, name: &str) -> String {
        let status = self.board.get(name)["status"]["containerStatuses"][0].clone();
        status["containerID"].as_str().unwrap().trim_start_matches("containerd://").to_owned()
    }

    /// Runs a command in a pod's only container and returns its output.
    pub async fn exec(&self, name: &str, command: &[&str]) -> String {
        let id = self.container_id(name);
        let command = command.iter().map(|word| (*word).to_owned()).collect();
        let fifos = self.shared.paths.exec();
        match self.shared.runtime.exec_capture(&id, command, &fifos, 1 << 20, PATIENCE).await {
            Ok(done) => String::from_utf8(done.output).unwrap(),
            Err(error) => panic!("exec in {name}: {error}\n{:#}\n{}", self.board.get(name), self.log(name, "main", 0)),
        }
    }

    /// A pod from its spec; missing parts are filled in.
    pub fn pod(&self, name: &str, spec: Value) -> Arc<Pod> {
        let mut object = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "default", "uid": uid(&self.options, name), "generation": 1},
            "spec": spec,
        });
        for list in ["containers", "initContainers"] {
            for container in object["spec"][list].as_array_mut().into_iter().flatten() {
                container.as_object_mut().unwrap().entry("image").or_insert(json!("localhost/busybox:test"));
            }
        }
        Arc::new(serde_json::from_value(object).unwrap())
    }

    pub fn put(&mut self, name: &str, spec: Value) -> Arc<Pod> {
        let pod = self.pod(name, spec);
        self.pods.put(pod.clone());
        pod
    }

    /// Deletes the pod and waits until nothing of it is left.
    pub async fn delete_and_wait(&mut self, pod: &Pod, grace: i64) -> Value {
        self.delete(pod, grace);
        let name = pod.metadata.name.clone().unwrap();
        let last = self.board.wait(&name, "deleted", |object| object["deleted"] == true).await;
        self.pods.reap().await;
        last
    }

    pub fn delete(&mut self, pod: &Pod, grace: i64) {
        let mut pod = pod.clone();
        let now = jiff::Timestamp::now();
        pod.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now + jiff::SignedDuration::from_secs(grace)));
        pod.metadata.deletion_grace_period_seconds = Some(grace);
        self.pods.put(Arc::new(pod));
    }

    pub fn log(&self, name: &str, container: &str, attempt: u32) -> String {
        let id = PodId { namespace: "default".into(), name: name.into(), uid: uid(&self.options, name) };
        let path = self.shared.paths.log(&id, container, attempt);
        std::fs::read_to_string(path).unwrap_or_default()
    }

    /// The text of a log without times and tags.
    pub fn output(&self, name: &str, container: &str, attempt: u32) -> String {
        let log = self.log(name, container, attempt);
        log.lines().map(|line| format!("{}\n", line.splitn(4, ' ').nth(3).unwrap_or_default())).collect()
    }
}
