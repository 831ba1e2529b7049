//! Joining: from a token to a client certificate. The first contact trusts a server by the hash in the token; the
//! certificate request is sent with the token as bearer; from then on the node is its certificate.
//!
//! What may get better by itself (a server that is down, a clock that is not set yet) is tried again without end, and
//! spoken of; what only a human can put right ends the process with a message that says how.

use std::time::Duration;

use api_client::transport::{Config, Credentials, Pem, Remote, Tls};
use api_client::{Backoff, Client};
use jiff::Timestamp;
use tls::certificate::Facts;
use tls::{FetchError, Problem};
use tokio_util::sync::CancellationToken;

use super::request::{self, Names, Signer, request};
use super::{Files, Token};

const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(15);
/// The same trouble is told again after this long.
const TOLD_AGAIN: Duration = Duration::from_secs(60);
const USER_AGENT: &str = concat!("keelson-agent/", env!("CARGO_PKG_VERSION"));

pub struct JoinOptions {
    /// URLs of equal API servers.
    pub servers: Vec<String>,
    /// Needed until there is a certificate, and again when that has expired.
    pub token: Option<Token>,
    pub node_name: String,
    pub files: Files,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "this node has not joined a cluster yet and no token is given: make one on a server (keelson token create) and \
         give it with --token or --token-file"
    )]
    NoToken,
    #[error(
        "this node's certificate expired at {at}, {ago} ago, and no token is given to join again: make one on a server \
         (keelson token create) and give it with --token or --token-file; if this host's clock is wrong, set it"
    )]
    Expired { at: String, ago: String },
    #[error(
        "{directory} holds the certificate of node {have}, and this is to be node {wanted}: start with --node-name \
         {have}, or remove {directory} to join as a new node"
    )]
    OtherName { have: String, wanted: String, directory: String },
    #[error(
        "the server does not accept the token ({0}): it is unknown there, expired, deleted or mistyped. Make a new one \
         on a server (keelson token create) and start this node with it"
    )]
    TokenRefused(String),
    #[error("the token may not be used to join nodes: {0}")]
    TokenForbidden(String),
    #[error("join the cluster at {server}: {problem}")]
    Server { server: String, problem: String },
    #[error("the cluster refuses this node: {0}")]
    Denied(String),
    #[error(transparent)]
    Certificates(#[from] super::Error),
    #[error("join the cluster: {0}")]
    Other(String),
    #[error("shutting down")]
    Stopped,
}

/// What to make of a failed attempt.
enum Failure {
    Final(Error),
    Again(String),
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Final(error.into())
    }
}

/// Makes sure the node has a client certificate, and gives what is needed to reach the cluster with it.
pub async fn join(options: &JoinOptions, shutdown: &CancellationToken) -> Result<Config, Error> {
    options.files.create_directory()?;
    let config = access(&options.servers, &options.files);
    let Some(token) = needs_token(options, Timestamp::now().as_second())? else { return Ok(config) };
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
    let mut told: Option<(String, tokio::time::Instant)> = None;
    loop {
        let why = match attempt(options, &token, shutdown).await {
            Ok(()) => return Ok(config),
            Err(Failure::Final(error)) => return Err(error),
            Err(Failure::Again(why)) => why,
        };
        let due = told.as_ref().is_none_or(|(before, at)| *before != why || at.elapsed() > TOLD_AGAIN);
        if due {
            tracing::warn!("cannot join the cluster yet, trying again: {why}");
            told = Some((why, tokio::time::Instant::now()));
        }
        tokio::select! {
            () = tokio::time::sleep(backoff.next(rand::random())) => {}
            () = shutdown.cancelled() => return Err(Error::Stopped),
        }
    }
}

/// How a node that has joined reaches the cluster.
fn access(servers: &[String], files: &Files) -> Config {
    let tls = Tls {
        authority: Some(Pem::File(files.authority())),
        identity: Some(files.client().identity()),
        ..Tls::default()
    };
    Config { servers: servers.to_vec(), tls, credentials: Credentials::None }
}

/// The token to join with; `None` when the node has a certificate that will do.
fn needs_token(options: &JoinOptions, now: i64) -> Result<Option<Token>, Error> {
    let pair = options.files.client();
    let facts = pair.facts()?;
    let Some(facts) = facts else { return options.token.clone().map(Some).ok_or(Error::NoToken) };
    let have = facts.common_name.strip_prefix("system:node:").unwrap_or(&facts.common_name);
    if have != options.node_name {
        return Err(Error::OtherName {
            have: have.to_owned(),
            wanted: options.node_name.clone(),
            directory: options.files.directory().display().to_string(),
        });
    }
    let pin = options.files.authority_pin()?;
    if let Some(token) = options.token.as_ref().filter(|token| pin != Some(token.pin)) {
        tracing::warn!("the token is for another cluster than the one this node joined: joining that");
        return Ok(Some(token.clone()));
    }
    // A certificate that is not valid yet by this host's clock may well be by the server's, which is what counts.
    if now < facts.not_after {
        return Ok(None);
    }
    match &options.token {
        Some(token) => {
            tracing::warn!("this node's certificate has expired: joining again with the token");
            Ok(Some(token.clone()))
        }
        None => Err(expired(&facts, now)),
    }
}

fn expired(facts: &Facts, now: i64) -> Error {
    let at = Timestamp::from_second(facts.not_after).map(|at| at.to_string()).unwrap_or_default();
    Error::Expired { at, ago: tls::duration(now - facts.not_after) }
}

async fn attempt(options: &JoinOptions, token: &Token, shutdown: &CancellationToken) -> Result<(), Failure> {
    if options.files.authority_pin().map_err(Error::from)? != Some(token.pin) {
        let pem = fetch_authority(&options.servers, token).await?;
        options.files.write_authority(&pem).map_err(Error::from)?;
    }
    let config = Config {
        servers: options.servers.clone(),
        tls: Tls { authority: Some(Pem::File(options.files.authority())), ..Tls::default() },
        credentials: Credentials::Token(token.bearer()),
    };
    let transport = Remote::new(&config).map_err(|error| Error::Other(error.to_string()))?;
    let client = Client::new(transport, USER_AGENT);
    let pair = options.files.client();
    let key = pair.key().map_err(Error::from)?;
    let requested = request(&client, Signer::Client, &options.node_name, &Names::default(), &key, shutdown).await;
    let pem = requested.map_err(|error| judge(error, &options.servers))?;
    pair.write_certificate(&pem).map_err(Error::from)?;
    tracing::info!(node = options.node_name, "joined the cluster");
    Ok(())
}

/// From the first server that answers.
async fn fetch_authority(servers: &[String], token: &Token) -> Result<String, Failure> {
    let mut unreachable = Vec::new();
    for server in servers {
        let (host, port) = address(server)?;
        match tls::fetch_authority(&host, port, token.pin).await {
            Ok(pem) => return Ok(pem),
            Err(FetchError::Handshake(error)) => {
                let problem = tls::problem(&error).unwrap_or_else(|| Problem::Other(error.to_string()));
                match problem {
                    Problem::Pin { .. } | Problem::Name { .. } => {
                        return Err(Error::Server { server: server.clone(), problem: problem.to_string() }.into());
                    }
                    // A clock is often set only minutes after boot; a server that restarts cuts handshakes off.
                    _ => unreachable.push(format!("{server}: {problem}")),
                }
            }
            Err(error @ (FetchError::Timeout | FetchError::Connect(_))) => {
                unreachable.push(format!("{server} is not reachable ({error}); is the server running, and does a firewall let its port through?"));
            }
            Err(error) => {
                return Err(Error::Server { server: server.clone(), problem: error.to_string() }.into());
            }
        }
    }
    Err(Failure::Again(unreachable.join("; ")))
}

/// Host and port of a server's URL.
fn address(server: &str) -> Result<(String, u16), Error> {
    let bad = |problem: &str| Error::Server { server: server.to_owned(), problem: problem.to_owned() };
    let full = if server.contains("://") { server.to_owned() } else { format!("https://{server}") };
    let uri: http::Uri = full.parse().map_err(|_| bad("this is no URL"))?;
    if uri.scheme_str() != Some("https") {
        return Err(bad("only https is spoken with servers"));
    }
    let host = uri.host().ok_or_else(|| bad("the URL names no host"))?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Ok((host.to_owned(), uri.port_u16().unwrap_or(443)))
}

fn judge(error: request::Error, servers: &[String]) -> Failure {
    let server = servers.join(",");
    match error {
        request::Error::Denied(message) => Error::Denied(message).into(),
        request::Error::Stopped => Error::Stopped.into(),
        request::Error::File(error) => Error::from(error).into(),
        request::Error::Api(error) => match error.status().map(|status| status.code) {
            Some(401) => Error::TokenRefused(error.to_string()).into(),
            Some(403) => Error::TokenForbidden(error.to_string()).into(),
            // Too many requests, and servers that are starting or in trouble.
            Some(code) if code == 429 || code >= 500 => Failure::Again(error.to_string()),
            Some(_) => Error::Server { server, problem: error.to_string() }.into(),
            None => match error.tls_problem() {
                Some(problem @ Problem::Name { .. }) => Error::Server { server, problem: problem.to_string() }.into(),
                _ => Failure::Again(error.to_string()),
            },
        },
        other => Failure::Again(other.to_string()),
    }
}
