//! Joining, over real TLS to a real API server on the memory store with the real certificate controllers: the way in,
//! and every way to fail with what it says.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use agent::certificates::{Files, JoinError, JoinOptions, Token, join};
use api_client::transport::{Config, InProcess, Remote};
use api_client::{Client, ObjectKey};
use apiserver::serve::Listener;
use apiserver::user::Peer;
use apiserver::{ApiServer, User, pki};
use http_body_util::{BodyExt, Full};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Secret};
use reconciler::controllers::certificates::Signer;
use serde_json::json;
use store_client::memory::Memory;
use tokio_util::sync::CancellationToken;

/// Everything here takes well under a second; this only ends a test that hangs.
const LIMIT: Duration = Duration::from_secs(60);

struct Authority(Arc<pki::Cluster>);

impl Signer for Authority {
    fn sign(&self, request: &[u8], usages: &[&str], _: Option<Duration>) -> Result<String, String> {
        let validity = pki::Validity { now: Timestamp::now(), lifetime: self.0.lifetime() };
        self.0.authority.sign_request(request, usages.iter().copied(), validity).map_err(|e| e.to_string())
    }
}

/// A cluster that listens, and a machine that wants to join.
struct World {
    identity: Arc<pki::Cluster>,
    server: ApiServer,
    admin: Client,
    address: SocketAddr,
    stop: CancellationToken,
    machine: tempfile::TempDir,
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl World {
    async fn start() -> Self {
        Self::at(Timestamp::now(), None).await
    }

    /// With certificates issued at `issued`, for `lifetime`.
    async fn at(issued: Timestamp, lifetime: Option<Duration>) -> Self {
        let mut options = apiserver::Options { certificate_lifetime: lifetime, ..apiserver::Options::default() };
        let identity = Arc::new(pki::Cluster::ephemeral(&options.names(), issued).expect("keys"));
        options.identity = Some(Arc::clone(&identity));
        let server = ApiServer::start(options, Arc::new(Memory::new())).await.expect("starts");
        server.bootstrapped().await;
        let admin = client(&server, User::new("admin", &["system:masters"]));
        let listener = Listener::bind("127.0.0.1:0".parse().expect("an address"), &identity).await.expect("binds");
        let (address, stop) = (listener.address(), CancellationToken::new());
        tokio::spawn(listener.run(server.clone(), stop.clone()));
        let signer: Arc<dyn Signer> = Arc::new(Authority(Arc::clone(&identity)));
        let options = reconciler::Options { signer: Some(signer), ..reconciler::Options::default() };
        tokio::spawn(reconciler::run(admin.clone(), options, stop.clone()));
        Self { identity, server, admin, address, stop, machine: tempfile::tempdir().expect("a directory") }
    }

    fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    fn files(&self) -> Files {
        Files::new(self.machine.path().join("pki"))
    }

    /// A token as `keelson token create` makes them.
    async fn token(&self, expires: Timestamp) -> Token {
        let token = Token {
            id: "abcdef".to_owned(),
            secret: "0123456789abcdef".to_owned(),
            pin: self.identity.authority.pin().expect("a key"),
        };
        let object = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token",
            "metadata": {"name": "bootstrap-token-abcdef", "namespace": "kube-system"},
            "stringData": {
                "token-id": token.id, "token-secret": token.secret, "usage-bootstrap-authentication": "true",
                "auth-extra-groups": "system:bootstrappers:keelson:nodes", "expiration": expires.to_string(),
            },
        });
        self.admin.api::<Secret>().create_value(&object).await.expect("token made");
        token
    }

    async fn good_token(&self) -> Token {
        self.token(Timestamp::now() + SignedDuration::from_hours(1)).await
    }

    fn options(&self, token: Option<Token>) -> JoinOptions {
        JoinOptions { servers: vec![self.url()], token, node_name: "n1".to_owned(), files: self.files() }
    }

    async fn join(&self, token: Option<Token>) -> Result<Config, JoinError> {
        run(&self.options(token)).await
    }
}

async fn run(options: &JoinOptions) -> Result<Config, JoinError> {
    tokio::time::timeout(LIMIT, join(options, &CancellationToken::new())).await.expect("join ends")
}

fn client(server: &ApiServer, user: User) -> Client {
    let server = server.clone();
    let call = move |request: http::Request<bytes::Bytes>| -> futures_util::future::BoxFuture<'static, _> {
        let (server, peer) = (server.clone(), Peer::Component(user.clone()));
        let request = request.map(|bytes| Full::new(bytes).map_err(|never| match never {}).boxed_unsync());
        Box::pin(async move { server.call(request, peer).await })
    };
    Client::new(Arc::new(InProcess::new(Arc::new(call))), "tests")
}

fn node(key: Option<&str>) -> serde_json::Value {
    let annotations = key.map(|key| json!({"keelson.io/node-key": key}));
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "annotations": annotations}})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_with_a_token_becomes_a_node_and_only_that_node() {
    let world = World::start().await;
    let config = world.join(Some(world.good_token().await)).await.expect("joins");
    let client = Client::new(Remote::new(&config).expect("a transport"), "tests");
    let nodes = client.api::<Node>();
    nodes.create_value(&node(None)).await.expect("registers itself");
    let other = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n2"}});
    let refused = nodes.create_value(&other).await.expect_err("registers nobody else");
    assert!(refused.is_forbidden(), "{refused}");
    let secret = client.api::<Secret>().get(&ObjectKey::new("kube-system", "bootstrap-token-abcdef")).await;
    assert!(secret.expect_err("reads no token").is_forbidden());
    // From now on it needs no token, and no server to say so.
    world.stop.cancel();
    world.server.stop().await;
    assert_eq!(world.join(None).await.expect("is a node already"), config);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_and_expired_tokens_end_the_join_and_say_what_to_do() {
    let world = World::start().await;
    let expired = world.token(Timestamp::now() - SignedDuration::from_hours(1)).await;
    // The token cleaner may be faster; then the token is simply unknown.
    let error = world.join(Some(expired.clone())).await.expect_err("expired").to_string();
    assert!(error.contains("keelson token create"), "{error}");
    let wrong = Token { secret: "fedcba9876543210".to_owned(), ..expired };
    let error = world.join(Some(wrong)).await.expect_err("wrong").to_string();
    assert!(error.contains("does not accept the token") && error.contains("keelson token create"), "{error}");
    let error = world.join(None).await.expect_err("none").to_string();
    assert!(error.contains("no token is given"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_another_cluster_is_told_from_this_ones() {
    let (world, other) = (World::start().await, World::start().await);
    let error = world.join(Some(other.good_token().await)).await.expect_err("another authority").to_string();
    assert!(error.contains("another cluster than the token"), "{error}");
    assert!(!world.files().authority().exists(), "nothing unverified is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_name_is_refused_and_its_own_machine_comes_back() {
    let world = World::start().await;
    let token = world.good_token().await;
    let nodes = world.admin.api::<Node>();
    nodes.create_value(&node(Some("sha256:another"))).await.expect("a node of another machine");
    let error = world.join(Some(token.clone())).await.expect_err("taken").to_string();
    assert!(error.contains("\"n1\" is taken") && error.contains("--node-name"), "{error}");
    // The same machine with its key: its certificate is lost or expired, its Node is still there.
    let key = world.files().client().pin().expect("the key was made").to_string();
    let patch = api_client::Patch::Merge(json!({"metadata": {"annotations": {"keelson.io/node-key": key}}}));
    nodes.patch(&ObjectKey::new("", "n1"), &patch).await.expect("patched");
    world.join(Some(token)).await.expect("comes back");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_node_rejoins_with_a_token_and_says_so_without() {
    let world = World::at(Timestamp::now(), Some(Duration::from_secs(3600))).await;
    let token = world.good_token().await;
    world.join(Some(token.clone())).await.expect("joins");
    let pair = world.files().client();
    let first = pair.facts().expect("readable").expect("there");
    // Switched off for long: a certificate of the same key whose time is over.
    let key = pair.key().expect("the key");
    let mut params = rcgen::CertificateParams::new(Vec::new()).expect("params");
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, "system:node:n1");
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    pair.write_certificate(&params.self_signed(&key).expect("made").pem()).expect("written");
    let error = world.join(None).await.expect_err("expired").to_string();
    assert!(error.contains("expired at 2021-01-01") && error.contains("keelson token create"), "{error}");
    world.join(Some(token)).await.expect("rejoins");
    let second = pair.facts().expect("readable").expect("there");
    assert!(second.not_after > Timestamp::now().as_second());
    assert_eq!(second.pin, first.pin, "a node is its key");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_name_in_the_same_directory_is_refused() {
    let world = World::start().await;
    world.join(Some(world.good_token().await)).await.expect("joins");
    let options = JoinOptions { node_name: "n2".to_owned(), ..world.options(None) };
    let error = run(&options).await.expect_err("another node's directory").to_string();
    assert!(error.contains("certificate of node n1") && error.contains("--node-name n1"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_server_is_passed_over_and_waited_for() {
    let world = World::start().await;
    let token = world.good_token().await;
    // Nobody listens there.
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds").local_addr().expect("an address");
    let servers = vec![format!("https://{closed}"), world.url()];
    run(&JoinOptions { servers, ..world.options(Some(token.clone())) }).await.expect("joins by the second");

    let fresh = tempfile::tempdir().expect("a directory");
    let stop = CancellationToken::new();
    let options = JoinOptions {
        servers: vec![format!("https://{closed}")],
        files: Files::new(fresh.path().join("pki")),
        ..world.options(Some(token))
    };
    let waiting = tokio::time::timeout(Duration::from_millis(1500), join(&options, &stop)).await;
    assert!(waiting.is_err(), "goes on trying");
    stop.cancel();
    assert!(matches!(run_until(&options, &stop).await, Err(JoinError::Stopped)));
}

async fn run_until(options: &JoinOptions, stop: &CancellationToken) -> Result<Config, JoinError> {
    tokio::time::timeout(LIMIT, join(options, stop)).await.expect("join ends")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_clock_is_named_with_its_distance() {
    let check = async |issued: Timestamp, expected: &str| {
        let world = World::at(issued, Some(Duration::from_secs(24 * 3600))).await;
        let (host, port) = (world.address.ip().to_string(), world.address.port());
        let pin = world.identity.authority.pin().expect("a key");
        let error = tls::fetch_authority(&host, port, pin).await.expect_err("the certificate is not good now");
        let tls::FetchError::Handshake(error) = error else { panic!("{error}") };
        let text = tls::problem(&error).expect("a problem of TLS").to_string();
        assert!(text.contains(expected), "{text}");
    };
    check(Timestamp::now() + SignedDuration::from_hours(100), "the clock is behind by at least").await;
    check(Timestamp::now() - SignedDuration::from_hours(100), "has expired at").await;
}
