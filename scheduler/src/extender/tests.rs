//! An extender that answers what a test says.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// Serves one request with `answer`; gives what was asked.
async fn serve(status: &'static str, answer: Value) -> (Extender, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let task = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut asked = Vec::new();
        loop {
            let mut part = [0; 4096];
            let read = stream.read(&mut part).await.expect("a request");
            asked.extend_from_slice(&part[..read]);
            let text = String::from_utf8_lossy(&asked);
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length =
                head.lines().find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length: ").map(str::to_owned));
            if body.len() >= length.and_then(|l| l.parse().ok()).unwrap_or(0) {
                break;
            }
        }
        let body = answer.to_string();
        let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(format!("{head}{body}").as_bytes()).await.expect("an answer");
        String::from_utf8_lossy(&asked).into_owned()
    });
    (extender(&format!("http://{address}/scheduler")), task)
}

fn extender(url: &str) -> Extender {
    Extender {
        url_prefix: url.to_owned(),
        filter_verb: "filter".to_owned(),
        preempt_verb: String::new(),
        prioritize_verb: "prioritize".to_owned(),
        bind_verb: "bind".to_owned(),
        weight: 1,
        timeout: Extender::TIMEOUT,
        knows_nodes: true,
        managed: BTreeMap::new(),
        is_ignorable: false,
    }
}

#[tokio::test]
async fn a_filter_is_asked_by_names() {
    let (extender, asked) = serve(
        "200 OK",
        json!({ "nodenames": ["a"], "failedNodes": { "b": "too hot" }, "failedAndUnresolvableNodes": null, "error": "" }),
    )
    .await;
    let names = ["a".to_owned(), "b".to_owned()];
    let answer = Speaker::default().filter(&extender, &json!({}), &Nodes::Names(&names)).await.expect("an answer");
    assert_eq!(answer.fitting, ["a"]);
    assert_eq!(answer.failed["b"], "too hot");
    let asked = asked.await.expect("the request");
    assert!(asked.starts_with("POST /scheduler/filter ") && asked.contains(r#""nodenames":["a","b"]"#), "{asked}");
}

#[tokio::test]
async fn faults_say_who_failed() {
    let (extender, _asked) = serve("500 Oops", json!({})).await;
    let error = Speaker::default().prioritize(&extender, &json!({}), &Nodes::Names(&[])).await.expect_err("a fault");
    assert_eq!(error.to_string(), format!("extender {}/prioritize: status 500", extender.url_prefix));
    let (extender, _asked) = serve("200 OK", json!({ "error": "the node is gone" })).await;
    let error = Speaker::default().bind(&extender, &Pod::default(), "n").await.expect_err("a fault");
    assert_eq!(error.to_string(), "the node is gone");
}
