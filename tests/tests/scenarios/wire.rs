//! What a component's requests travel over: the way to the API server, with faults. Each component has a wire of its
//! own, so that one can be cut off while the others work.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api_client::transport::{Body, BoxError};
use api_client::{Client, Error, Transport};
use apiserver::{ApiServer, Peer, User};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use rand::RngExt;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long a request to nowhere takes to fail.
const UNREACHABLE_AFTER: Duration = Duration::from_secs(1);

/// The API server as clients find it: there, or not.
#[derive(Default)]
pub struct Front(Mutex<Option<(ApiServer, CancellationToken)>>);

impl Front {
    pub fn open(&self, server: ApiServer) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((server, CancellationToken::new()));
    }

    /// Nobody is answered any more, requests on their way neither. Gives the server, for its end.
    pub fn close(&self) -> Option<ApiServer> {
        let (server, alive) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        alive.cancel();
        Some(server)
    }

    pub fn server(&self) -> Option<ApiServer> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|(server, _)| server.clone())
    }

    fn get(&self) -> Option<(ApiServer, CancellationToken)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The state of a wire.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Faults {
    /// Nothing passes; open watches stay silent until it is over and then break.
    pub cut: bool,
    /// A request waits up to this long on its way.
    pub delay: Duration,
    /// Watch events arrive this much later.
    pub lag: Duration,
    /// Share of requests that fail before they reach the server.
    pub refuse: f64,
    /// Share of requests whose answer is lost after the server has acted.
    pub lose_answers: f64,
    /// Only requests whose method and path contain this fail.
    pub only: String,
}

#[derive(Clone, Default)]
struct Line {
    cut: bool,
    /// Counts the times that all open watches were broken.
    breaks: u64,
}

pub struct Wire {
    front: Arc<Front>,
    faults: Mutex<Faults>,
    line: watch::Sender<Line>,
}

impl Wire {
    pub fn new(front: Arc<Front>) -> Arc<Self> {
        Arc::new(Self { front, faults: Mutex::default(), line: watch::Sender::new(Line::default()) })
    }

    pub fn set(&self, faults: Faults) {
        self.line.send_modify(|line| {
            // What was silent breaks when packets flow again.
            line.breaks += u64::from(line.cut && !faults.cut);
            line.cut = faults.cut;
        });
        *self.faults.lock().unwrap_or_else(PoisonError::into_inner) = faults;
    }

    pub fn faults(&self) -> Faults {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn break_watches(&self) {
        self.line.send_modify(|line| line.breaks += 1);
    }

    /// A client over this wire.
    pub fn client(self: &Arc<Self>, user: User, name: &str) -> Client {
        Client::new(Arc::new(Caller { wire: Arc::clone(self), user }), name)
    }
}

struct Caller {
    wire: Arc<Wire>,
    user: User,
}

#[async_trait]
impl Transport for Caller {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Body>, Error> {
        let attempted = format!("{} {}", request.method(), request.uri());
        let broken = |detail: &str| Error::Transport { attempted: attempted.clone(), source: detail.to_owned().into() };
        let faults = self.wire.faults();
        if !faults.delay.is_zero() {
            let delay = rand::rng().random_range(Duration::ZERO..=faults.delay);
            tokio::time::sleep(delay).await;
        }
        let concerned = faults.only.is_empty() || attempted.contains(&faults.only);
        if self.wire.faults().cut {
            tokio::time::sleep(UNREACHABLE_AFTER).await;
            return Err(broken("connection timed out"));
        }
        if concerned && chance(faults.refuse) {
            return Err(broken("connection reset"));
        }
        let Some((server, alive)) = self.wire.front.get() else { return Err(broken("connection refused")) };
        let is_watch = request.uri().query().is_some_and(|q| q.contains("watch=true") || q.contains("watch=1"));
        let body = |bytes| Full::new(bytes).map_err(|never| match never {}).boxed_unsync();
        let call = server.call(request.map(body), Peer::Component(self.user.clone()));
        let Some(response) = alive.run_until_cancelled(call).await else {
            return Err(broken("connection reset by a server that went away"));
        };
        if concerned && chance(faults.lose_answers) {
            return Err(broken("connection reset before the answer"));
        }
        Ok(if is_watch { response.map(|body| self.flow(body, alive)) } else { response })
    }
}

impl Caller {
    fn flow(&self, body: Body, alive: CancellationToken) -> Body {
        let mut line = self.wire.line.subscribe();
        let breaks = line.borrow_and_update().breaks;
        let flow =
            Flow { body, wire: Arc::clone(&self.wire), line, breaks, alive, held: VecDeque::new(), ended: false };
        StreamBody::new(stream::unfold(flow, |mut flow| async move { Some((flow.next().await?, flow)) })).boxed_unsync()
    }
}

fn chance(share: f64) -> bool {
    share > 0.0 && rand::rng().random::<f64>() < share
}

/// A watch on its way to the client.
struct Flow {
    body: Body,
    wire: Arc<Wire>,
    line: watch::Receiver<Line>,
    breaks: u64,
    alive: CancellationToken,
    /// What the lag holds back, with the time of its delivery.
    held: VecDeque<(Instant, Frame<Bytes>)>,
    ended: bool,
}

impl Flow {
    async fn next(&mut self) -> Option<Result<Frame<Bytes>, BoxError>> {
        loop {
            let (cut, breaks) = {
                let line = self.line.borrow_and_update();
                (line.cut, line.breaks)
            };
            if breaks != self.breaks {
                return Some(Err("connection reset".into()));
            }
            let due = self.held.front().map(|(due, _)| *due);
            if self.ended && due.is_none() && !cut {
                return None;
            }
            tokio::select! {
                biased;
                // The sender lives as long as the wire that this holds.
                _ = self.line.changed() => {}
                () = self.alive.cancelled() => return Some(Err("connection reset by a server that went away".into())),
                () = until(due), if !cut => return self.held.pop_front().map(|(_, frame)| Ok(frame)),
                frame = self.body.frame(), if !self.ended && !cut => match frame {
                    Some(Ok(frame)) => {
                        let due = Instant::now() + self.wire.faults().lag;
                        // What came later is never delivered earlier.
                        let due = self.held.back().map_or(due, |(last, _)| due.max(*last));
                        self.held.push_back((due, frame));
                    }
                    Some(Err(error)) => return Some(Err(error)),
                    None => self.ended = true,
                },
            }
        }
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) if due <= Instant::now() => {}
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
