//! `/exec`: a process in a running container, for as long as its client stays.

use bytes::{Bytes, BytesMut};
use http::Request;
use hyper::body::Incoming;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::unix::pipe::{Receiver, Sender},
};
use tokio_util::sync::CancellationToken;

use super::{
    answer::{Answer, Refusal},
    handler::Handler,
    query::Query,
    remote::{self, Input, Outcome, Output, Session, Wanted},
    route::Target,
};
use crate::{
    pod::Shared,
    runtime::{self, Exec, ExecRequest},
};

/// One read of a process's output.
const READ_BYTES: usize = 32 << 10;

pub fn answer(
    handler: &Handler,
    request: Request<Incoming>,
    target: &Target,
    query: &Query,
) -> Result<Answer, Refusal> {
    let wanted = Wanted::parse(query)?;
    let (_, container) = handler.running(target)?;
    let command = query.all("command").map(str::to_owned).collect::<Vec<_>>();
    if command.is_empty() {
        return Err(Refusal::bad_request("you must specify at least one command for the container"));
    }
    let exec = ExecRequest {
        container_id: container.id,
        command,
        stdin: wanted.stdin,
        stdout: wanted.stdout,
        stderr: wanted.stderr,
        tty: wanted.tty,
    };
    let shared = handler.shared.clone();
    Ok(remote::answer(handler, request, wanted, async move |session| {
        let Session { stdin, sizes, output, gone } = session;
        let run = run(&shared, exec, stdin, sizes, &output);
        let outcome = tokio::select! {
            // Dropping the run kills its process.
            () = gone.cancelled() => return,
            outcome = run => outcome,
        };
        let outcome = outcome.unwrap_or_else(|error| {
            Outcome::Failure(format!("error executing command in container: {}", chain(&error)))
        });
        output.finish(outcome).await;
    }))
}

async fn run(
    shared: &Shared,
    request: ExecRequest,
    stdin: Option<Input>,
    sizes: tokio::sync::watch::Receiver<Option<remote::Size>>,
    output: &Output,
) -> Result<Outcome, runtime::Error> {
    let (tty, wants_stdout, wants_stderr) = (request.tty, request.stdout, request.stderr);
    let mut exec = shared.runtime.exec(request, &shared.paths.exec()).await?;
    let (input, stdout, stderr) = (exec.stdin.take(), exec.stdout.take(), exec.stderr.take());
    let ended = CancellationToken::new();
    let exit = async {
        let exit = exec.wait().await;
        ended.cancel();
        exit
    };
    let feed = async {
        tokio::select! {
            () = ended.cancelled() => {}
            () = feed(&exec, stdin, input, tty) => {}
        }
    };
    let resize = async {
        tokio::select! {
            () = ended.cancelled() => {}
            () = resize(&exec, sizes, tty) => {}
        }
    };
    // Output goes on as long as anything holds it open, also after the process's end, as with a kubelet.
    let out = copy(stdout, |data| async { if wants_stdout { output.stdout(data).await } else { Ok(()) } });
    let err = copy(stderr, |data| async { if wants_stderr { output.stderr(data).await } else { Ok(()) } });
    let (exit, (), (), (), ()) = tokio::join!(exit, feed, resize, out, err);
    let exit = exit?;
    exec.finish().await?;
    Ok(Outcome::of_exit(exit.code))
}

/// Gives the client's input to the process, and its end.
async fn feed(exec: &Exec, stdin: Option<Input>, input: Option<Sender>, tty: bool) {
    let (Some(mut stdin), Some(mut input)) = (stdin, input) else { return };
    while let Some(data) = stdin.next().await {
        if let Err(error) = input.write_all(&data).await {
            tracing::debug!(%error, "process does not read its input");
            return;
        }
    }
    drop(input);
    // A terminal's input has no end but what is typed.
    if !tty && let Err(error) = exec.close_stdin().await {
        tracing::debug!(%error, "input of a process stays open");
    }
}

async fn resize(exec: &Exec, mut sizes: tokio::sync::watch::Receiver<Option<remote::Size>>, tty: bool) {
    while tty && sizes.changed().await.is_ok() {
        let Some(size) = *sizes.borrow_and_update() else { continue };
        if let Err(error) = exec.resize(size.width.into(), size.height.into()).await {
            tracing::debug!(%error, "terminal keeps its size");
        }
    }
}

/// Copies a stream to its end. When the client has gone the session is ended from elsewhere.
async fn copy<W, F>(pipe: Option<Receiver>, write: W)
where
    W: Fn(Bytes) -> F,
    F: Future<Output = Result<(), remote::Gone>>,
{
    let Some(mut pipe) = pipe else { return };
    loop {
        let mut buffer = BytesMut::with_capacity(READ_BYTES);
        match pipe.read_buf(&mut buffer).await {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) => return tracing::debug!(%error, "output of a process"),
        }
        if write(buffer.freeze()).await.is_err() {
            return;
        }
    }
}

/// With its sources.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    text
}
