//! `/containerLogs`: a container's log files as text.

mod options;
mod reader;
mod rotation;

use std::path::PathBuf;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use k8s_openapi::api::core::v1::{ContainerStatus, PodStatus};
use tokio::sync::mpsc;

use self::{options::LogOptions, reader::Reader};
use super::{
    answer::{self, Answer, BoxError, Refusal},
    handler::Handler,
    query::Query,
    route::Target,
};
use crate::{
    logs::Growth,
    pod::{ContainerView, PodView, container},
};

/// Chunks read ahead of a slow client; each is at most `reader::CHUNK_BYTES` and a line.
const AHEAD: usize = 2;

pub async fn answer(handler: &Handler, target: &Target, query: &Query) -> Result<Answer, Refusal> {
    let options = LogOptions::parse(query)?;
    let view = handler.shared.views.find(&target.namespace, &target.pod, None);
    let view = view.ok_or_else(|| Refusal::not_found(format!("pod {:?} does not exist", target.pod)))?;
    let spec = view.pod.spec.as_ref();
    if spec.and_then(|spec| container(spec, &target.container)).is_none() {
        let message = format!("container {:?} not found in pod {:?}", target.container, target.pod);
        return Err(Refusal::not_found(message));
    }
    let (path, container) = log(&view, &target.container, options.previous)?;
    // Before the first read: what is written after it then wakes us.
    let growth = container.filter(|_| options.follow && !options.previous);
    let growth = growth.and_then(|container| handler.shared.streams.growth(&container.id));
    let opened = tokio::task::spawn_blocking(move || Reader::open(&path, options)).await;
    let failed = |problem: String| {
        Refusal::internal(format!("failed to read the log of container {:?}: {problem}", target.container))
    };
    let reader = opened.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))?;
    let (sender, receiver) = mpsc::channel(AHEAD);
    handler.spawn(send(reader, growth, sender));
    let chunks = stream::unfold(receiver, |mut receiver| async move {
        let chunk: Result<Bytes, BoxError> = receiver.recv().await?;
        Some((chunk.map(Frame::data), receiver))
    });
    Ok(answer::text_stream(StreamBody::new(chunks).boxed_unsync()))
}

/// The file that holds what was asked for, or why there is none, in the words of the kubelet's
/// `validateContainerLogStatus`.
fn log<'a>(view: &'a PodView, name: &str, previous: bool) -> Result<(PathBuf, Option<&'a ContainerView>), Refusal> {
    let container = view.containers.get(name);
    if previous {
        let log = container.and_then(|container| container.previous_log.clone());
        return match log {
            Some(log) => Ok((log, container)),
            None => Err(Refusal::bad_request(format!(
                "previous terminated container {name:?} in pod {:?} not found",
                view.id.name
            ))),
        };
    }
    if let Some(container) = container {
        return Ok((container.log.clone(), Some(container)));
    }
    let pod = &view.id.name;
    let status = status(&view.status, name);
    let waiting = status.and_then(|status| status.state.as_ref()?.waiting.as_ref());
    let why = match (status, waiting.map(|waiting| waiting.reason.as_deref().unwrap_or_default())) {
        (None, _) => "is not available".to_owned(),
        (_, Some("ErrImagePull")) => "is waiting to start: image can't be pulled".to_owned(),
        (_, Some("ImagePullBackOff")) => "is waiting to start: trying and failing to pull image".to_owned(),
        (_, Some(reason)) => format!("is waiting to start: {reason}"),
        (Some(_), None) => "is waiting to start - no logs yet".to_owned(),
    };
    Err(Refusal::bad_request(format!("container {name:?} in pod {pod:?} {why}")))
}

fn status<'a>(status: &'a PodStatus, name: &str) -> Option<&'a ContainerStatus> {
    let lists = [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses];
    lists.into_iter().flatten().flatten().find(|status| status.name == name)
}

/// Sends what there is, then what comes, until the container or the client ends.
async fn send(mut reader: Reader, mut growth: Option<Growth>, sender: mpsc::Sender<Result<Bytes, BoxError>>) {
    loop {
        // Seen before the read: growth during it is news.
        let ended = growth.as_mut().is_none_or(Growth::is_over);
        loop {
            let read = tokio::task::spawn_blocking(move || {
                let chunk = reader.chunk();
                (reader, chunk)
            });
            let Ok((same, chunk)) = read.await else { return };
            reader = same;
            let chunk = match chunk {
                Ok(None) => break,
                Ok(Some(chunk)) => Ok(chunk),
                Err(error) => Err(error.into()),
            };
            let broken = chunk.is_err();
            // A client that left has dropped its body.
            if sender.send(chunk).await.is_err() || broken || reader.is_done() {
                return;
            }
        }
        let Some(growth) = growth.as_mut().filter(|_| !ended && !reader.is_done()) else { return };
        tokio::select! {
            () = growth.changed() => {}
            () = sender.closed() => return,
        }
    }
}
