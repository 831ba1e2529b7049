//! `/attach`: a client joins the streams of a running container.

use std::sync::Arc;

use http::Request;
use hyper::body::Incoming;
use tokio::{
    io::AsyncWriteExt,
    net::unix::pipe::Sender,
    sync::{broadcast, watch},
};

use super::{
    answer::{Answer, Refusal},
    exec::chain,
    handler::Handler,
    query::Query,
    remote::{self, Gone, Input, Outcome, Output, Session, Size, Wanted},
    route::Target,
};
use crate::{
    logs::{Chunk, Stream},
    pod::{Shared, container},
};

pub fn answer(
    handler: &Handler,
    request: Request<Incoming>,
    target: &Target,
    query: &Query,
) -> Result<Answer, Refusal> {
    let mut wanted = Wanted::parse(query)?;
    let missing = || {
        let pod = format!("{}_{}", target.pod, target.namespace);
        Refusal::internal(format!("container {} not found in pod {pod}", target.container))
    };
    let (pod, view) = match handler.running(target) {
        Ok(found) => found,
        Err(refusal) if refusal.code == http::StatusCode::NOT_FOUND => return Err(refusal),
        Err(_) => return Err(missing()),
    };
    // Whether there is a terminal is the container's own matter, not the client's.
    wanted.tty = view.tty;
    wanted.stderr &= !view.tty;
    let definition = pod.pod.spec.as_ref().and_then(|spec| container(spec, &target.container));
    let stdin_once = definition.and_then(|definition| definition.stdin_once).unwrap_or(false);
    let attached = handler.shared.streams.attach(&view.id, wanted.stdin && view.stdin);
    let attached = attached.map_err(|error| Refusal::internal(chain(&error)))?.ok_or_else(missing)?;
    let attachment = Attachment {
        shared: handler.shared.clone(),
        id: view.id,
        wanted,
        // When the first client's input ends, so does the container's.
        closes_input: stdin_once && !view.tty,
    };
    Ok(remote::answer(handler, request, wanted, async move |session| {
        let Session { stdin, sizes, output, gone } = session;
        let input = attachment.feed(stdin, attached.stdin);
        let tell = attachment.copy(attached.output, &output);
        let ended = tokio::select! {
            () = gone.cancelled() => false,
            () = attachment.resize(sizes) => false,
            () = input => true,
            result = tell => result.is_ok(),
        };
        if attachment.closes_input && wanted.stdin {
            attachment.close_input().await;
        }
        if ended {
            output.finish(Outcome::Success).await;
        }
    }))
}

struct Attachment {
    shared: Arc<Shared>,
    id: String,
    wanted: Wanted,
    closes_input: bool,
}

impl Attachment {
    /// Returns when the client's input has ended and nothing else is to be waited for.
    async fn feed(&self, stdin: Option<Input>, input: Option<Sender>) {
        let Some(mut stdin) = stdin else { return std::future::pending().await };
        let mut input = input;
        while let Some(data) = stdin.next().await {
            let Some(pipe) = &mut input else { continue };
            if let Err(error) = pipe.write_all(&data).await {
                tracing::debug!(%error, "container does not read its input");
                input = None;
            }
        }
        drop(input);
        if self.closes_input {
            // What the container makes of its whole input is still to come.
            self.close_input().await;
            std::future::pending::<()>().await;
        }
    }

    async fn close_input(&self) {
        if let Err(error) = self.shared.runtime.close_task_stdin(&self.id).await {
            tracing::debug!(%error, "input of a container stays open");
        }
    }

    async fn resize(&self, mut sizes: watch::Receiver<Option<Size>>) {
        while sizes.changed().await.is_ok() {
            let Some(size) = *sizes.borrow_and_update() else { continue };
            if self.wanted.tty
                && let Err(error) =
                    self.shared.runtime.resize_task(&self.id, size.width.into(), size.height.into()).await
            {
                tracing::debug!(%error, "terminal keeps its size");
            }
        }
        std::future::pending::<()>().await;
    }

    /// Until the container's output ends.
    async fn copy(&self, mut chunks: broadcast::Receiver<Chunk>, output: &Output) -> Result<(), Gone> {
        loop {
            match chunks.recv().await {
                Ok(Chunk { stream: Stream::Stdout, data }) if self.wanted.stdout => output.stdout(data).await?,
                Ok(Chunk { stream: Stream::Stderr, data }) if self.wanted.stderr => output.stderr(data).await?,
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(count)) => {
                    tracing::debug!(count, "an attached client is too slow and misses output");
                }
                Err(broadcast::error::RecvError::Closed) => return Ok(()),
            }
        }
    }
}
