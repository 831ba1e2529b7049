//! A cluster in one thread: the real API server, controllers and scheduler, and simulated nodes, each on a wire of its
//! own.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use api_client::{Client, ObjectKey};
use apiserver::{ApiServer, User, pki};
use jiff::Timestamp;
use simulate::{Happening, Runtime};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::simulation::EPOCH_SECONDS;
use crate::stores::Stores;
use crate::truth::Truth;
use crate::wire::{Faults, Front, Wire};

/// Which pods run where, and what must never be.
#[derive(Default)]
pub struct Ledger(Mutex<Running>);

#[derive(Default)]
struct Running {
    /// Node and name by uid.
    pods: BTreeMap<String, (String, ObjectKey)>,
    broken: Vec<String>,
}

impl Ledger {
    fn note(&self, happening: &Happening) {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match happening {
            Happening::Started { node, uid, pod } => {
                let twice = running.pods.iter().find(|(other, (_, name))| *other == uid || name == pod);
                if let Some((other, (elsewhere, name))) = twice {
                    let text = format!("pod {pod} ({uid}) starts on {node} while {name} ({other}) runs on {elsewhere}");
                    running.broken.push(text);
                }
                running.pods.insert(uid.clone(), (node.clone(), pod.clone()));
            }
            Happening::Ended { uid, .. } => {
                running.pods.remove(uid);
            }
        }
    }

    pub fn broken(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).broken.clone()
    }
}

/// A component at work.
struct Part {
    stop: CancellationToken,
    task: JoinHandle<Result<(), String>>,
}

impl Part {
    async fn end(self) -> Result<(), String> {
        self.stop.cancel();
        self.task.await.map_err(|e| format!("a part of the cluster panicked: {e}"))?
    }
}

/// A machine: it can be there without its agent running.
pub struct Node {
    pub runtime: Arc<Runtime>,
    options: simulate::Options,
    agent: Option<Part>,
}

pub struct Cluster {
    stores: Stores,
    pub front: Arc<Front>,
    pub truth: Truth,
    pub ledger: Arc<Ledger>,
    follower: Option<JoinHandle<()>>,
    wires: BTreeMap<String, Arc<Wire>>,
    parts: BTreeMap<String, Part>,
    pub nodes: BTreeMap<String, Node>,
    /// See [`reconciler::Options::forgetful`].
    pub forgetful: bool,
    /// Who commands, over a wire without faults unless they are asked for.
    pub user: Client,
}

/// The components that scenarios start and stop by name.
pub const COMPONENTS: [&str; 2] = ["controllers", "scheduler"];

/// Keys for all clusters of this process: making some takes longer than a scenario.
fn identity() -> Arc<pki::Cluster> {
    static IDENTITY: OnceLock<Arc<pki::Cluster>> = OnceLock::new();
    let make = || {
        let epoch = Timestamp::from_second(EPOCH_SECONDS).expect("the epoch is a time");
        Arc::new(pki::Cluster::ephemeral(&server_options().names(), epoch).expect("keys can be made"))
    };
    Arc::clone(IDENTITY.get_or_init(make))
}

/// Makes what all clusters share; to be called before the first simulation, whose randomness it would take.
pub fn prepare() {
    identity();
}

fn server_options() -> apiserver::Options {
    apiserver::Options {
        advertise_address: Some(Ipv4Addr::new(192, 0, 2, 1).into()),
        // Simulated nodes have no port to ask.
        resource_metrics: false,
        ..apiserver::Options::default()
    }
}

impl Cluster {
    /// A server with its default objects, and the components of `start`.
    pub async fn start(stores: Stores, start: &[&str]) -> Result<Self, String> {
        Self::start_with(stores, Truth::default(), start).await
    }

    /// The same, watched by `truth`.
    pub async fn start_with(stores: Stores, truth: Truth, start: &[&str]) -> Result<Self, String> {
        let front = Arc::new(Front::default());
        let wire = Wire::new(Arc::clone(&front));
        let user = wire.client(User::new("system:admin", &["system:masters"]), "kubectl");
        let mut cluster = Self {
            stores,
            front,
            truth,
            ledger: Arc::default(),
            follower: None,
            wires: BTreeMap::from([("user".to_owned(), wire)]),
            parts: BTreeMap::new(),
            nodes: BTreeMap::new(),
            forgetful: false,
            user,
        };
        cluster.start_server().await?;
        for name in start {
            cluster.start_component(name)?;
        }
        Ok(cluster)
    }

    pub async fn start_server(&mut self) -> Result<(), String> {
        if self.front.server().is_some() {
            return Err("the server runs already".to_owned());
        }
        let store = self.stores.open().await?;
        self.follower = Some(tokio::spawn(self.truth.clone().follow(Arc::clone(&store))));
        let options = apiserver::Options { identity: Some(identity()), ..server_options() };
        let server = ApiServer::start(options, store).await.map_err(|e| format!("start the server: {e}"))?;
        server.bootstrapped().await;
        self.truth.set_catalogue(server.server().catalogue.load_full());
        self.front.open(server);
        Ok(())
    }

    /// The server goes away in the middle of whatever it does.
    pub async fn stop_server(&mut self) -> Result<(), String> {
        let Some(server) = self.front.close() else { return Err("the server does not run".to_owned()) };
        server.stop().await;
        drop(server);
        if let Some(follower) = self.follower.take() {
            if matches!(self.stores, Stores::Embedded { .. }) {
                // It ends when the store closes, which happens when the server's last task has let go of it.
                follower.await.map_err(|e| format!("following the store: {e}"))?;
            } else {
                follower.abort();
            }
        }
        Ok(())
    }

    fn wire(&mut self, name: &str) -> Arc<Wire> {
        let front = &self.front;
        Arc::clone(self.wires.entry(name.to_owned()).or_insert_with(|| Wire::new(Arc::clone(front))))
    }

    /// The wires that a name stands for: a component's or a node's, or those of all.
    pub fn wires(&self, name: &str) -> Result<Vec<Arc<Wire>>, String> {
        let all = self.wires.iter().filter(|(n, _)| *n != "user").map(|(_, wire)| Arc::clone(wire));
        match name {
            "all" => Ok(all.collect()),
            "nodes" => Ok(self.nodes.keys().filter_map(|n| self.wires.get(n)).map(Arc::clone).collect()),
            name => self.wires.get(name).map(|w| vec![Arc::clone(w)]).ok_or_else(|| format!("nothing is named {name}")),
        }
    }

    /// No faults any more, on any wire.
    pub fn heal(&self) {
        self.wires.values().for_each(|wire| wire.set(Faults::default()));
    }

    pub fn start_component(&mut self, name: &str) -> Result<(), String> {
        if self.parts.contains_key(name) {
            return Err(format!("{name} runs already"));
        }
        let wire = self.wire(name);
        let stop = CancellationToken::new();
        let task = match name {
            "controllers" => {
                let client = wire.client(User::new("system:kube-controller-manager", &["system:masters"]), name);
                let options = reconciler::Options {
                    cluster_cidrs: vec!["10.244.0.0/16".into()],
                    root_ca: Some("the root".into()),
                    forgetful: self.forgetful,
                    ..reconciler::Options::default()
                };
                let run = reconciler::run(client, options, stop.clone());
                tokio::spawn(async move { run.await.map_err(|e| format!("controllers: {e}")) })
            }
            "scheduler" => {
                let client = wire.client(User::new("system:kube-scheduler", &[]), name);
                let run = scheduler::run(client, scheduler::Options::default(), stop.clone());
                tokio::spawn(async move { run.await.map_err(|e| format!("scheduler: {e}")) })
            }
            other => return Err(format!("no component is named {other}; there are {COMPONENTS:?}")),
        };
        self.parts.insert(name.to_owned(), Part { stop, task });
        Ok(())
    }

    pub fn runs(&self, name: &str) -> bool {
        self.parts.contains_key(name)
    }

    pub async fn stop_component(&mut self, name: &str) -> Result<(), String> {
        self.parts.remove(name).ok_or_else(|| format!("{name} does not run"))?.end().await
    }

    /// A new machine, with its agent.
    pub fn add_node(&mut self, name: &str, shape: simulate::Shape, timing: simulate::Timing) -> Result<(), String> {
        let ledger = Arc::clone(&self.ledger);
        let number = u32::try_from(self.nodes.len()).unwrap_or_default();
        let options = simulate::Options {
            shape,
            timing,
            first_address: Ipv4Addr::from(u32::from(Ipv4Addr::new(100, 64, 0, 0)) + (number << 10)),
            ..simulate::Options::new(vec![name.to_owned()])
        };
        let runtime = Arc::new(Runtime::observed(move |happening| ledger.note(happening)));
        self.nodes.insert(name.to_owned(), Node { runtime, options, agent: None });
        self.start_agent(name)
    }

    pub fn start_agent(&mut self, name: &str) -> Result<(), String> {
        let user = User::new(format!("system:node:{name}"), &["system:nodes"]);
        let client = self.wire(name).client(user, "agent");
        let node = self.nodes.get_mut(name).ok_or_else(|| format!("there is no node {name}"))?;
        if node.agent.is_some() {
            return Err(format!("the agent of {name} runs already"));
        }
        let stop = CancellationToken::new();
        let run = simulate::run(client, node.options.clone(), Arc::clone(&node.runtime), stop.clone());
        let task = tokio::spawn(async move { run.await.map_err(|e| format!("node: {e}")) });
        node.agent = Some(Part { stop, task });
        Ok(())
    }

    /// Ends the agent; what runs on the node goes on.
    pub async fn stop_agent(&mut self, name: &str) -> Result<(), String> {
        let node = self.nodes.get_mut(name).ok_or_else(|| format!("there is no node {name}"))?;
        let agent = node.agent.take().ok_or_else(|| format!("the agent of {name} does not run"))?;
        agent.end().await
    }

    /// The machine goes down with all that runs on it.
    pub async fn crash_node(&mut self, name: &str) -> Result<(), String> {
        if self.nodes.get(name).is_some_and(|node| node.agent.is_some()) {
            self.stop_agent(name).await?;
        }
        let node = self.nodes.get(name).ok_or_else(|| format!("there is no node {name}"))?;
        node.runtime.reboot();
        Ok(())
    }

    /// The machine is gone for good.
    pub async fn lose_node(&mut self, name: &str) -> Result<(), String> {
        self.crash_node(name).await?;
        self.nodes.remove(name);
        self.wires.remove(name);
        Ok(())
    }

    pub fn has_agent(&self, name: &str) -> bool {
        self.nodes.get(name).is_some_and(|node| node.agent.is_some())
    }

    /// What must never have happened, and did.
    pub fn broken(&self) -> Vec<String> {
        let mut broken = self.ledger.broken();
        broken.extend(self.truth.broken());
        broken
    }

    /// Ends everything. A part that ended by itself or panicked is an error.
    pub async fn stop(mut self) -> Result<(), String> {
        let nodes: Vec<String> = self.nodes.keys().cloned().collect();
        for name in nodes {
            if self.has_agent(&name) {
                self.stop_agent(&name).await?;
            }
        }
        for (_, part) in std::mem::take(&mut self.parts) {
            part.end().await?;
        }
        if self.front.server().is_some() {
            self.stop_server().await?;
        }
        Ok(())
    }
}
