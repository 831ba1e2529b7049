//! Images from a real registry into a real containerd: whole, interrupted, damaged, private, mirrored, and collected.

#![allow(clippy::unwrap_used, reason = "a test ends at the first thing that is not as it must be")]

mod support;

use agent::image::{
    drop_in::DropIn,
    gc::{
        Collector,
        plan::{Disk, Policy},
    },
    name::Name,
};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use support::{
    Board, Containerd, Node, PATIENCE, busybox_archive, busybox_layer,
    registry::{Fault, Layer, PASSWORD, Proxy, Registry, TestImage, USER, file_layer, noise},
};

const LOOP: &str = "trap 'exit 0' TERM; while true; do sleep 0.05; done";

async fn node(containerd: &Containerd) -> Node {
    Node::start(Node::options(containerd, "n1"), Board::default()).await
}

fn pod(image: &str, policy: &str) -> Value {
    json!({"containers": [
        {"name": "main", "image": image, "imagePullPolicy": policy, "command": ["sh", "-c", LOOP]},
    ]})
}

fn waits(reason: &'static str) -> impl Fn(&Value) -> bool {
    move |object| object["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == reason
}

fn message(object: &Value) -> String {
    object["status"]["containerStatuses"][0]["state"]["waiting"]["message"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_runs_from_an_index_with_layers_of_every_compression() {
    let containerd = Containerd::start();
    let directory = containerd.directory.path();
    let registry = Registry::start(false).await;
    let proxy = Proxy::before(&registry, Fault::default()).await;
    let mut node = node(&containerd).await;
    let image = |version: &str| {
        let layers = vec![
            Layer::gzip(&busybox_layer()),
            Layer::zstd(&file_layer("version", version.as_bytes()), directory),
            Layer::plain(&file_layer("plain", b"plain")),
        ];
        TestImage::new(layers)
    };
    let foreign = TestImage { architecture: "s390x", ..TestImage::new(vec![Layer::plain(b"not for us")]) };
    let first = registry.push_index("team/app", "1", &[foreign, image("one")]).await;

    let name = format!("{}/team/app:1", proxy.address);
    let mut spec = pod(&name, "Always");
    let mut second = spec["containers"][0].clone();
    second["name"] = json!("side");
    spec["containers"].as_array_mut().unwrap().push(second);
    let running = node.put("one", spec);
    let object = node.board.wait_phase("one", "Running").await;
    let image_id = format!("{}/team/app@{first}", proxy.address);
    assert_eq!(object["status"]["containerStatuses"][0]["imageID"], image_id);
    assert_eq!(node.exec("one", &["cat", "/version", "/plain"]).await, "oneplain");
    assert!(!node.board.events_with(&format!("Pulling: Pulling image \"{name}\"")).is_empty());
    let pulled = node.board.events_with("Pulled: Successfully pulled image");
    assert!(pulled.len() == 2 && pulled[0].contains(" including waiting). Image size: "), "{pulled:?}");
    let names = node.shared.runtime.list_images().await.unwrap();
    let names = names.iter().map(|listed| (listed.name.as_str(), listed.target.as_str())).collect::<Vec<_>>();
    assert_eq!(names, [(name.as_str(), first.as_str()), (image_id.as_str(), first.as_str())]);

    // Asked for again, it is not fetched again…
    let before = proxy.passed();
    node.put("again", pod(&name, "Always"));
    node.board.wait_phase("again", "Running").await;
    assert!(proxy.passed() - before < 10_000, "{} bytes came again", proxy.passed() - before);
    // …but another image under the tag is, without taking the old one from those who run it.
    let second = registry.push_index("team/app", "1", &[image("two")]).await;
    node.put("old", pod(&name, "IfNotPresent"));
    node.board.wait_phase("old", "Running").await;
    assert_eq!(node.exec("old", &["cat", "/version"]).await, "one");
    let present = format!("Container image \"{name}\" already present on machine and can be accessed by the pod");
    assert_eq!(node.board.events_with(&present).len(), 1);
    node.put("new", pod(&name, "Always"));
    node.board.wait_phase("new", "Running").await;
    assert_eq!(node.exec("new", &["cat", "/version"]).await, "two");
    let by_digest = format!("{}/team/app@{first}", proxy.address);
    node.put("digest", pod(&by_digest, "IfNotPresent"));
    node.board.wait_phase("digest", "Running").await;
    assert_eq!(node.board.events_with(&format!("Pulling image \"{by_digest}\"")), Vec::<String>::new());
    assert_ne!(first, second);
    node.delete_and_wait(&running, 1).await;
    node.end(&containerd).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_download_goes_on_and_a_damaged_one_is_refused() {
    let containerd = Containerd::start();
    let registry = Registry::start(false).await;
    let cut = Fault { cut_after: Some(400_000), ..Fault::default() };
    let proxy = Proxy::before(&registry, cut).await;
    let mut node = node(&containerd).await;
    let layers = vec![Layer::docker(&busybox_layer()), Layer::plain(&file_layer("noise", &noise(1_000_000)))];
    let size = layers.iter().map(Layer::size).sum::<u64>();
    registry.push("app", "1", &TestImage::new(layers)).await;

    // Two pods at once: one pull, whose bytes come once although the line breaks again and again.
    let name = format!("{}/app:1", proxy.address);
    node.put("a", pod(&name, "IfNotPresent"));
    node.put("b", pod(&name, "IfNotPresent"));
    node.board.wait_phase("a", "Running").await;
    node.board.wait_phase("b", "Running").await;
    // What the line held when it broke came twice.
    assert!(proxy.passed() < size + size / 2, "{} bytes for {size}", proxy.passed());

    // A byte that is not what it was never becomes an image.
    proxy.set(Fault { damage_every: Some(300_000), ..Fault::default() });
    registry.push("app", "2", &TestImage::new(vec![Layer::plain(&file_layer("noise", &noise(500_000)))])).await;
    let damaged = Name::parse(&format!("{}/app:2", proxy.address)).unwrap();
    let flight = node.shared.images.pulls.start(&damaged, Vec::new());
    let failure = flight.outcome().await.err().unwrap();
    assert_eq!(failure.reason, "ErrImagePull");
    assert!(failure.message.contains("unexpected commit digest"), "{failure:?}");
    assert!(node.shared.runtime.find_image(&damaged.full()).await.unwrap().is_none());
    // Nothing of it is in the way when the line is good again.
    proxy.set(Fault::default());
    let flight = node.shared.images.pulls.start(&damaged, Vec::new());
    flight.outcome().await.unwrap_or_else(|failure| panic!("{failure:?}"));

    // A layer whose content is not what the config says is as bad.
    let lying = Layer::plain(&file_layer("x", b"x")).with_wrong_diff_id();
    registry.push("app", "3", &TestImage::new(vec![lying])).await;
    let flight = node.shared.images.pulls.start(&Name::parse(&format!("{}/app:3", proxy.address)).unwrap(), vec![]);
    let failure = flight.outcome().await.err().unwrap();
    assert!(failure.message.contains("wrong diff id"), "{failure:?}");
    node.end(&containerd).await;
}

/// A pull secret, as `kubectl create secret docker-registry` makes it.
fn secret(uid: &str, registry: &str, password: &str) -> Value {
    let config = json!({"auths": {registry: {"username": USER, "password": password}}}).to_string();
    let data = k8s_openapi::ByteString(config.into_bytes());
    json!({
        "metadata": {"name": uid, "uid": uid}, "type": "kubernetes.io/dockerconfigjson",
        "data": {".dockerconfigjson": data},
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_image_is_for_those_who_have_its_secret() {
    let containerd = Containerd::start();
    let registry = Registry::start(true).await;
    let mut node = node(&containerd).await;
    registry.push("team/private", "1", &TestImage::new(vec![Layer::gzip(&busybox_layer())])).await;
    let name = format!("{}/team/private:1", registry.address);
    let with = |secrets: &[&str], policy: &str| {
        let mut spec = pod(&name, policy);
        spec["imagePullSecrets"] = secrets.iter().map(|name| json!({"name": name})).collect();
        spec
    };
    for (uid, password) in [("good", PASSWORD), ("same", PASSWORD), ("wrong", "guess")] {
        let secret = secret(uid, &registry.address, password);
        node.board.secrets.lock().unwrap().insert(uid.to_owned(), secret);
    }

    node.put("anonymous", with(&[], "IfNotPresent"));
    let object = node.board.wait("anonymous", "refused", waits("ErrImagePull")).await;
    let expected = format!(
        "failed to pull and unpack image \"{name}\": failed to resolve reference \"{name}\": pull access denied, \
         repository does not exist or may require authorization: authorization failed: no basic auth credentials"
    );
    assert_eq!(message(&object), expected);
    let object = node.board.wait("anonymous", "waiting", waits("ImagePullBackOff")).await;
    assert_eq!(message(&object), format!("Back-off pulling image \"{name}\": ErrImagePull: {expected}"));
    let mut events = node.board.events.lock().unwrap().clone();
    events.retain(|event| event.contains("image") || event.contains("Image"));
    assert_eq!(
        events,
        [
            format!("Pulling: Pulling image \"{name}\""),
            format!("Failed: Failed to pull image \"{name}\": {expected}"),
            "Failed: Error: ErrImagePull".to_owned(),
            format!("BackOff: Back-off pulling image \"{name}\""),
            "Failed: Error: ImagePullBackOff".to_owned(),
        ]
    );
    node.put("wrong", with(&["wrong", "missing"], "IfNotPresent"));
    node.board.wait("wrong", "refused", waits("ErrImagePull")).await;
    let missing = "FailedToRetrieveImagePullSecret: Unable to retrieve some image pull secrets (missing); attempting to \
                   pull the image may not succeed.";
    assert_eq!(node.board.events_with(missing).len(), 1);

    node.put("good", with(&["wrong", "good"], "IfNotPresent"));
    node.board.wait_phase("good", "Running").await;
    // It is on the node now, and still not for everybody.
    node.put("stranger", with(&[], "IfNotPresent"));
    node.board.wait("stranger", "refused", waits("ErrImagePull")).await;
    node.put("never", with(&["wrong"], "Never"));
    node.board.wait("never", "refused", waits("ErrImageNeverPull")).await;
    node.put("same", with(&["same"], "Never"));
    node.board.wait_phase("same", "Running").await;
    // Whoever was refused asks again by and by, and would get in with what comes now.
    for refused in ["anonymous", "wrong", "stranger", "never"] {
        let refused = node.pod(refused, with(&[], "Never"));
        node.delete_and_wait(&refused, 0).await;
    }
    // The node's own credentials serve every pod.
    let config = json!({"auths": {&registry.address: {"username": USER, "password": PASSWORD}}});
    std::fs::write(node.options.registry_credentials.as_ref().unwrap(), config.to_string()).unwrap();
    node.put("by-node", with(&[], "Always"));
    node.board.wait_phase("by-node", "Running").await;
    node.put("all", with(&[], "Never"));
    node.board.wait_phase("all", "Running").await;
    node.end(&containerd).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrors_are_asked_first_and_the_registry_last() {
    let containerd = Containerd::start();
    let registry = Registry::start(false).await;
    let mut node = node(&containerd).await;
    let (digest, _) = registry.push("team/app", "1", &TestImage::new(vec![Layer::gzip(&busybox_layer())])).await;
    let directory = node.options.registry_config_dir.join("registry.example");
    std::fs::create_dir_all(&directory).unwrap();
    // The first knows nothing, the second has all.
    let empty = Registry::start(false).await;
    let hosts = format!(
        "server = \"http://127.0.0.1:1\"\n[host.\"http://{}\"]\ncapabilities = [\"pull\", \"resolve\"]\n\
         [host.\"http://{}/v2\"]\noverride_path = true\n",
        empty.address, registry.address
    );
    std::fs::write(directory.join("hosts.toml"), hosts).unwrap();
    node.put("mirrored", pod("registry.example/team/app:1", "IfNotPresent"));
    let object = node.board.wait_phase("mirrored", "Running").await;
    let expected = format!("registry.example/team/app@{digest}");
    assert_eq!(object["status"]["containerStatuses"][0]["imageID"], expected);

    // Over TLS, with an authority of its own, and with none at all.
    let names = vec!["127.0.0.1".to_owned()];
    let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(names).unwrap();
    let secure = registry.with_tls(&cert.pem(), &signing_key.serialize_pem()).await;
    let pull = async |registry: &str, extra: &str| {
        let directory = node.options.registry_config_dir.join(registry);
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("own.pem"), cert.pem()).unwrap();
        std::fs::write(directory.join("hosts.toml"), format!("server = \"https://{}\"\n{extra}", secure.address))
            .unwrap();
        let name = Name::parse(&format!("{registry}/team/app:1")).unwrap();
        node.shared.images.pulls.start(&name, Vec::new()).outcome().await
    };
    let failure = pull("strange.example", "").await.err().unwrap();
    assert!(failure.message.contains("invalid peer certificate"), "{failure:?}");
    for (registry, extra) in [("own.example", "ca = \"own.pem\""), ("any.example", "skip_verify = true")] {
        let pulled = pull(registry, extra).await.unwrap_or_else(|failure| panic!("{registry}: {failure:?}"));
        assert_eq!(pulled.image.target, digest);
    }

    node.put("nowhere", pod("registry.example/team/none:1", "IfNotPresent"));
    let object = node.board.wait("nowhere", "refused", waits("ErrImagePull")).await;
    let told = message(&object);
    assert!(told.contains("none:1: not found; ") && told.contains("Connection refused"), "{told}");
    node.end(&containerd).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_takes_unused_images_and_no_others() {
    let containerd = Containerd::start();
    let registry = Registry::start(false).await;
    let mut node = node(&containerd).await;
    for repository in ["used", "finished", "unused", "wanted"] {
        let layers = vec![Layer::gzip(&busybox_layer()), Layer::plain(&file_layer(repository, repository.as_bytes()))];
        registry.push(repository, "1", &TestImage::new(layers)).await;
    }
    let name = |repository: &str| format!("{}/{repository}:1", registry.address);
    let runtime = &containerd.runtime();
    // Archives that appear are imported; nothing could bring those images back.
    let drop_dir = containerd.directory.path().join("images");
    let drop_in = DropIn::new(runtime.clone(), drop_dir.clone(), containerd.directory.path());
    let running = tokio::spawn(drop_in.run(node.shared.shutdown.clone()));

    node.put("used", pod(&name("used"), "IfNotPresent"));
    node.board.wait_phase("used", "Running").await;
    let mut once = pod(&name("finished"), "IfNotPresent");
    once["restartPolicy"] = json!("Never");
    once["containers"][0]["command"] = json!(["true"]);
    node.put("finished", once);
    node.board.wait_phase("finished", "Succeeded").await;
    for repository in ["unused", "wanted"] {
        let flight = node.shared.images.pulls.start(&Name::parse(&name(repository)).unwrap(), Vec::new());
        flight.outcome().await.unwrap_or_else(|failure| panic!("{failure:?}"));
    }
    node.put("imported", pod("localhost/busybox:test", "IfNotPresent"));
    node.board.wait("imported", "not there yet", waits("ErrImagePull")).await;
    let archive = busybox_archive(containerd.directory.path());
    std::fs::rename(&archive, drop_dir.join("busybox.tar")).unwrap();
    node.board.wait_phase("imported", "Running").await;

    // As a pod that has asked for it and has no container yet.
    let claim = node.shared.images.uses.claim(&name("wanted"));
    let policy = Policy { min_age: SignedDuration::ZERO, ..Policy::default() };
    let collector = Collector::new(runtime.clone(), node.shared.images.uses.clone(), policy);
    let roomy = Disk { capacity_bytes: 1000, available_bytes: 500 };
    assert!(collector.collect_on(roomy, Timestamp::now()).await.unwrap().names.is_empty());
    let full = Disk { capacity_bytes: 1_000_000_000, available_bytes: 0 };
    let error = collector.collect_on(full, Timestamp::now()).await.err().unwrap();
    assert!(error.to_string().contains("Failed to free sufficient space"), "{error}");
    let left = runtime.list_images().await.unwrap().into_iter().map(|listed| listed.name).collect::<Vec<_>>();
    let kept = |text: &str| left.iter().filter(|name| name.contains(text)).count();
    assert_eq!(
        (kept("/used"), kept("/finished"), kept("/wanted"), kept("localhost/busybox")),
        (2, 2, 2, 1),
        "{left:?}"
    );
    assert_eq!(kept("/unused"), 0, "{left:?}");
    drop(claim);
    assert!(collector.collect_on(full, Timestamp::now()).await.is_err());
    assert!(runtime.find_image(&name("wanted")).await.unwrap().is_none());
    assert!(runtime.image_directory().await.unwrap().starts_with(containerd.directory.path()));
    assert_eq!(node.exec("used", &["cat", "/used"]).await, "used");
    // What is gone comes again when a pod asks for it.
    node.put("again", pod(&name("wanted"), "IfNotPresent"));
    node.board.wait_phase("again", "Running").await;
    node.end(&containerd).await;
    tokio::time::timeout(PATIENCE, running).await.expect("the import ends at shutdown").unwrap();
}
