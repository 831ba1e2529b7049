//! Task exits as containerd reports them. The subscription outlives restarts of containerd: a lost stream is opened
//! again and a `Resync` tells that exits may have been missed.

use std::time::Duration;

use containerd_client::{
    events::TaskExit,
    services::v1::{SubscribeRequest, events_client::EventsClient},
};
use prost::Message;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Exit, Runtime, task::timestamp};

/// Between attempts to reach a containerd that is down.
const RECONNECT: Duration = Duration::from_millis(500);
const EXIT: &str = "/tasks/exit";
const IMAGES: [&str; 2] = ["/images/create", "/images/update"];

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A container's init process ended.
    Exited { container_id: String, exit: Exit },
    /// A process added by exec ended.
    ExecExited { container_id: String, exec_id: String, exit: Exit },
    /// An image of this name was added or is another one now.
    ImageChanged { name: String },
    /// Events may have been lost: look at every task again.
    Resync,
}

impl Runtime {
    /// Sends events until `shutdown`. The first thing sent is a `Resync`.
    pub async fn watch_exits(&self, events: mpsc::Sender<Event>, shutdown: CancellationToken) {
        while !shutdown.is_cancelled() {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.follow(&events) => {}
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(RECONNECT) => {}
            }
        }
    }

    /// One subscription, from its start to its loss.
    async fn follow(&self, events: &mpsc::Sender<Event>) {
        let topics = IMAGES.into_iter().chain([EXIT]);
        let filters = topics.map(|topic| format!("namespace=={:?},topic=={topic:?}", self.namespace())).collect();
        let mut client = EventsClient::new(self.channel());
        // containerd answers the call itself only with the first event, so nothing tells that the subscription stands;
        // the version call queued behind it on the same connection does.
        let subscribe = client.subscribe(self.stream_request(SubscribeRequest { filters }));
        let announce = async {
            match self.version().await {
                Ok(_) => events.send(Event::Resync).await.is_ok(),
                Err(error) => {
                    tracing::warn!(%error, "containerd does not answer");
                    false
                }
            }
        };
        tokio::pin!(subscribe);
        let mut early = None;
        let announced = tokio::select! {
            biased;
            stream = &mut subscribe => { early = Some(stream); true }
            announced = announce => announced,
        };
        if !announced {
            return;
        }
        let stream = match early {
            Some(stream) => {
                if events.send(Event::Resync).await.is_err() {
                    return;
                }
                stream
            }
            None => subscribe.await,
        };
        let mut stream = match stream {
            Ok(stream) => stream.into_inner(),
            Err(status) => return tracing::warn!(%status, "subscription to containerd events ended"),
        };
        loop {
            match stream.message().await {
                Ok(Some(envelope)) => {
                    let event = match envelope.topic.as_str() {
                        EXIT => envelope.event.and_then(|any| decode(&any.value)),
                        _ => envelope.event.and_then(|any| decode_image(&any.value)),
                    };
                    let Some(event) = event else { continue };
                    if events.send(event).await.is_err() {
                        return;
                    }
                }
                Ok(None) => return,
                Err(status) => return tracing::warn!(%status, "subscription to containerd events ended"),
            }
        }
    }
}

/// What the events of images have in common; the client library has no types for them.
#[derive(Clone, PartialEq, Message)]
struct ImageEvent {
    #[prost(string, tag = "1")]
    name: String,
}

/// Creation and update say the same in the same places.
fn decode_image(value: &[u8]) -> Option<Event> {
    match ImageEvent::decode(value) {
        Ok(image) => Some(Event::ImageChanged { name: image.name }),
        Err(error) => {
            tracing::warn!(%error, "containerd sent an image event that does not decode");
            None
        }
    }
}

fn decode(value: &[u8]) -> Option<Event> {
    let exit = match TaskExit::decode(value) {
        Ok(exit) => exit,
        Err(error) => {
            tracing::warn!(%error, "containerd sent an exit event that does not decode");
            return None;
        }
    };
    let ended = Exit { code: exit.exit_status as i32, at: timestamp(exit.exited_at) };
    Some(if exit.id == exit.container_id {
        Event::Exited { container_id: exit.container_id, exit: ended }
    } else {
        Event::ExecExited { container_id: exit.container_id, exec_id: exit.id, exit: ended }
    })
}
