//! The protocol against a registry made of scripted answers: what Debian's registry on loopback does not do.

use std::sync::{Arc, Mutex};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::{Error, Session, resolve};
use crate::image::{credentials::Credential, hosts::Endpoint};

#[test]
fn redirects_are_absolute_or_below_the_same_host() {
    let base = "https://a.io:5000/v2/x/blobs/1?ns=b";
    assert_eq!(resolve(base, "https://cdn.io/x").as_deref(), Some("https://cdn.io/x"));
    assert_eq!(resolve(base, "/y?z").as_deref(), Some("https://a.io:5000/y?z"));
    assert_eq!(resolve(base, "file:///etc/passwd"), None);
    assert_eq!(resolve(base, "y"), None);
}

/// Answers every request by what its head says, one per connection. Returns the address, and the heads that came.
async fn serve(answer: impl Fn(&str) -> String + Send + 'static) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let heads = Arc::new(Mutex::new(Vec::new()));
    let log = heads.clone();
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let Ok(byte) = connection.read_u8().await else { break };
                head.push(byte);
            }
            let head = String::from_utf8(head).unwrap().to_lowercase();
            let text = answer(&head);
            log.lock().unwrap().push(head);
            connection.write_all(text.as_bytes()).await.unwrap();
        }
    });
    (address, heads)
}

fn reply(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len())
}

fn session(address: &str, credential: Option<Credential>) -> Session {
    let endpoint = Endpoint {
        scheme: "http",
        authority: address.to_owned(),
        path: "/v2".into(),
        resolves: true,
        pulls: true,
        namespace: None,
        tls: Default::default(),
        headers: vec![("x-team".into(), "a".into())],
        dial_timeout: None,
    };
    Session::new(endpoint, "team/app", credential).unwrap()
}

fn credential() -> Option<Credential> {
    Some(Credential { username: "u".into(), password: "p".into(), secret_uid: None })
}

#[tokio::test]
async fn a_token_is_fetched_once_and_sent_from_then_on() {
    let (address, heads) = serve(|head| {
        let host = head.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
        if head.starts_with("get /token?") {
            return reply("200 OK", "", r#"{"access_token": "T"}"#);
        }
        if head.contains("authorization: bearer t\r\n") {
            return reply("200 OK", "docker-content-digest: sha256:1\r\ncontent-type: x; y\r\n", "");
        }
        let challenge = format!(r#"Bearer realm="http://{host}/token",service="s",scope="repository:team/app:pull""#);
        reply("401 Unauthorized", &format!("www-authenticate: {challenge}\r\n"), "")
    })
    .await;
    let session = session(&address, credential());
    let head = session.head("1").await.unwrap();
    assert_eq!((head.digest.as_deref(), head.media_type.as_str()), (Some("sha256:1"), "x"));
    session.head("2").await.unwrap();
    let heads = heads.lock().unwrap();
    let lines = heads.iter().map(|head| head.lines().next().unwrap()).collect::<Vec<_>>();
    assert_eq!(
        lines,
        [
            "head /v2/team/app/manifests/1 http/1.1",
            "get /token?scope=repository:team/app:pull&service=s http/1.1",
            "head /v2/team/app/manifests/1 http/1.1",
            "head /v2/team/app/manifests/2 http/1.1",
        ]
    );
    assert!(heads[1].contains("authorization: basic dtpw\r\n"), "{}", heads[1]);
    assert!(heads[3].contains("x-team: a\r\n") && heads[3].contains("accept: application/vnd.docker"), "{}", heads[3]);
}

#[tokio::test]
async fn only_the_registry_sees_the_credential() {
    let (store, seen) = serve(|head| {
        assert!(head.contains("range: bytes=3-"), "{head}");
        reply("206 Partial Content", "content-range: bytes 3-5/6\r\n", "def")
    })
    .await;
    let (address, _) = serve(move |head| match head.contains("authorization: basic") {
        true => reply("307 Temporary Redirect", &format!("location: http://{store}/blob?sig\r\n"), ""),
        false => reply("401 Unauthorized", "www-authenticate: Basic realm=\"r\"\r\n", ""),
    })
    .await;
    let mut download = session(&address, credential()).blob("sha256:2", 3).await.unwrap();
    assert_eq!(download.offset, 3);
    assert_eq!(super::next(&mut download.body, "").await.unwrap().unwrap(), "def");
    let seen = seen.lock().unwrap();
    assert!(!seen[0].contains("authorization") && !seen[0].contains("x-team"), "{}", seen[0]);
}

#[tokio::test]
async fn refusals_say_what_they_are() {
    let (address, _) = serve(|head| {
        let document = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}"#;
        match head.split('/').nth(5).unwrap().split(' ').next().unwrap() {
            "missing" => reply("404 Not Found", "", ""),
            "limited" => reply("429 Too Many Requests", "retry-after: 7\r\n", document),
            "down" => reply("503 Service Unavailable", "", ""),
            "denied" => reply("403 Forbidden", "", r#"{"errors":[{"code":"DENIED"}]}"#),
            "again" => reply("302 Found", "location: /v2/team/app/manifests/again\r\n", ""),
            _ => reply("401 Unauthorized", "www-authenticate: Basic realm=\"r\"\r\n", ""),
        }
    })
    .await;
    let session = session(&address, credential());
    let refused = async |reference: &str| session.manifest(reference).await.unwrap_err();
    assert_eq!(refused("missing").await.to_string(), format!("{address}/team/app:missing: not found"));
    let limited = refused("limited").await;
    assert!(limited.is_passing() && !limited.is_unavailable());
    assert_eq!(limited.retry_after(), Some(std::time::Duration::from_secs(7)));
    assert!(limited.to_string().ends_with("429 Too Many Requests: toomanyrequests: slow down"), "{limited}");
    assert!(refused("down").await.is_unavailable());
    assert!(refused("denied").await.to_string().ends_with("server message: denied"));
    assert!(matches!(refused("again").await, Error::Redirects { .. }));
    assert!(refused("login").await.is_denied(), "a credential that is not taken");
}
