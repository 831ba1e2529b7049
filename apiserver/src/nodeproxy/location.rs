//! From objects and parameters to where a request goes. Pure.

use api::status::Status;
use serde_json::Value;

use crate::request::Query;

const NODE_PORT_DEFAULT: u16 = 10_250;
/// Which of a node's addresses to call, in this order: those that need no name service first.
const ADDRESS_TYPES: [&str; 3] = ["InternalIP", "ExternalIP", "Hostname"];

/// Host and port of a node's own API.
pub fn node_address(node: &Value) -> Result<(String, u16), Status> {
    let addresses = node["status"]["addresses"].as_array().map_or(&[][..], Vec::as_slice);
    let of_type = |kind: &str| addresses.iter().find(|a| a["type"] == kind).and_then(|a| a["address"].as_str());
    let host = ADDRESS_TYPES.iter().find_map(|kind| of_type(kind)).ok_or_else(|| {
        let name = api::meta::name(node);
        Status::new(500, "", format!("no preferred addresses found; known addresses of node {name:?}: {addresses:?}"))
    })?;
    let port = node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64();
    let port = port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0).unwrap_or(NODE_PORT_DEFAULT);
    Ok((host.to_owned(), port))
}

/// The container a request means: the one it names, or the pod's only one.
pub fn container<'p>(pod: &'p Value, asked: &'p str) -> Result<&'p str, Status> {
    let name = api::meta::name(pod);
    let names = |list: &str| pod["spec"][list].as_array().into_iter().flatten().filter_map(|c| c["name"].as_str());
    let all: Vec<&str> =
        names("initContainers").chain(names("containers")).chain(names("ephemeralContainers")).collect();
    if !asked.is_empty() {
        if all.contains(&asked) {
            return Ok(asked);
        }
        return Err(Status::bad_request(format!("container {asked} is not valid for pod {name}")));
    }
    let mut own = names("containers");
    match (own.next(), own.next()) {
        (Some(only), None) => Ok(only),
        (None, _) => Err(Status::bad_request(format!("a container name must be specified for pod {name}"))),
        _ => Err(Status::bad_request(format!(
            "a container name must be specified for pod {name}, choose one of: [{}]",
            all.join(" ")
        ))),
    }
}

/// The query of a log request as nodes take it, checked as upstream's `ValidatePodLogOptions`.
pub fn log_query(query: &Query) -> Result<String, Status> {
    use api::field::Error;
    let mut errors = Vec::new();
    let mut number = |name: &str, least: i64, why: &str| -> Result<Option<i64>, Status> {
        let Some(text) = query.get(name).filter(|text| !text.is_empty()) else { return Ok(None) };
        let value: i64 = text.parse().map_err(|_| Status::bad_request(format!("{name}: {text:?} is not a number")))?;
        if value < least {
            errors.push(Error::invalid(name, value, why));
        }
        Ok(Some(value))
    };
    let tail_lines = number("tailLines", 0, "must be greater than or equal to 0")?;
    let limit_bytes = number("limitBytes", 1, "must be greater than 0")?;
    let since_seconds = number("sinceSeconds", 1, "must be greater than 0")?;
    let since_time = query.get("sinceTime").filter(|text| !text.is_empty());
    if since_time.is_some() && since_seconds.is_some() {
        errors.push(Error::forbidden("", "at most one of `sinceTime` or `sinceSeconds` may be specified"));
    }
    let stream = query.get("stream").filter(|text| !text.is_empty()).unwrap_or("All");
    if !["All", "Stdout", "Stderr"].contains(&stream) {
        errors.push(Error::not_supported("stream", stream, &["All", "Stderr", "Stdout"]));
    }
    if stream != "All" && tail_lines.is_some() {
        errors.push(Error::forbidden("", "`tailLines` and specific `stream` are mutually exclusive for now"));
    }
    if !errors.is_empty() {
        return Err(Status::invalid("", "PodLogOptions", "", &errors));
    }
    let mut out = QueryWriter::default();
    for flag in ["follow", "previous", "timestamps"] {
        if query.flag(flag) {
            out.add(flag, "true");
        }
    }
    for (name, value) in [("sinceSeconds", since_seconds), ("tailLines", tail_lines), ("limitBytes", limit_bytes)] {
        if let Some(value) = value {
            out.add(name, &value.to_string());
        }
    }
    if let Some(time) = since_time {
        out.add("sinceTime", time);
    }
    out.add("stream", stream);
    Ok(out.0)
}

/// The query of exec and attach as nodes take it.
pub fn stream_query(query: &Query, with_command: bool) -> String {
    let mut out = QueryWriter::default();
    // Output is on unless switched off, as upstream defaults the two options.
    let on = |name: &str, default: bool| query.get(name).map_or(default, |_| query.flag(name));
    for (ours, theirs, default) in
        [("stdin", "input", false), ("stdout", "output", true), ("stderr", "error", true), ("tty", "tty", false)]
    {
        if on(ours, default) {
            out.add(theirs, "1");
        }
    }
    if with_command {
        query.all("command").for_each(|part| out.add("command", part));
    }
    out.0
}

/// The query of a port forward as nodes take it.
pub fn port_query(query: &Query) -> Result<String, Status> {
    let mut ports = Vec::new();
    for part in query.all("ports").chain(query.all("port")).flat_map(|list| list.split(',')).filter(|p| !p.is_empty()) {
        let port: u16 = part.parse().map_err(|_| Status::bad_request(format!("port {part:?} is not a port number")))?;
        ports.push(port.to_string());
    }
    let mut out = QueryWriter::default();
    if !ports.is_empty() {
        out.add("port", &ports.join(","));
    }
    Ok(out.0)
}

#[derive(Default)]
struct QueryWriter(String);

impl QueryWriter {
    fn add(&mut self, key: &str, value: &str) {
        if !self.0.is_empty() {
            self.0.push('&');
        }
        self.0.push_str(key);
        self.0.push('=');
        escape(value, &mut self.0);
    }
}

/// Percent-encodes all but unreserved characters.
pub fn escape(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
}

/// What a proxy request names: `[scheme:]name[:port]`, as upstream's `SplitSchemeNamePort`.
#[derive(Debug, PartialEq, Eq)]
pub struct Named<'a> {
    pub https: bool,
    pub name: &'a str,
    pub port: &'a str,
}

pub fn named(text: &str) -> Option<Named<'_>> {
    let parts: Vec<&str> = text.split(':').collect();
    let (scheme, name, port) = match parts.as_slice() {
        [name] => ("", *name, ""),
        [name, port] => ("", *name, *port),
        [scheme, name, port] => (*scheme, *name, *port),
        _ => return None,
    };
    let known = matches!(scheme, "" | "http" | "https");
    (known && !name.is_empty()).then_some(Named { https: scheme == "https", name, port })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nodes_are_called_at_their_internal_address() {
        let node = json!({"status": {
            "addresses": [{"type": "Hostname", "address": "n1"}, {"type": "InternalIP", "address": "192.0.2.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10260}},
        }});
        assert_eq!(node_address(&node).unwrap(), ("192.0.2.1".to_owned(), 10260));
        let bare = json!({"status": {"addresses": [{"type": "Hostname", "address": "n1"}]}});
        assert_eq!(node_address(&bare).unwrap(), ("n1".to_owned(), 10250));
        assert!(node_address(&json!({})).is_err());
    }

    #[test]
    fn the_container_is_named_or_the_only_one() {
        let pod = json!({"metadata": {"name": "a"}, "spec": {
            "initContainers": [{"name": "i"}], "containers": [{"name": "c"}, {"name": "d"}]}});
        assert_eq!(container(&pod, "i").unwrap(), "i");
        let message = |asked: &str| container(&pod, asked).unwrap_err().message;
        assert_eq!(message(""), "a container name must be specified for pod a, choose one of: [i c d]");
        assert_eq!(message("x"), "container x is not valid for pod a");
        let one = json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c"}]}});
        assert_eq!(container(&one, "").unwrap(), "c");
    }

    #[test]
    fn parameters_are_translated_and_checked() {
        let log = |text: &str| log_query(&Query::parse(text));
        assert_eq!(log("follow=true&tailLines=5&container=c").unwrap(), "follow=true&tailLines=5&stream=All");
        assert_eq!(log("tailLines=-1").unwrap_err().code, 422);
        assert_eq!(log("tailLines=x").unwrap_err().code, 400);
        assert_eq!(log("sinceSeconds=1&sinceTime=2020-01-01T00:00:00Z").unwrap_err().code, 422);
        let exec = Query::parse("command=sh&command=-c&command=echo%20%26&stdin=true&tty=true&stderr=false");
        assert_eq!(stream_query(&exec, true), "input=1&output=1&tty=1&command=sh&command=-c&command=echo%20%26");
        assert_eq!(port_query(&Query::parse("ports=80&ports=443")).unwrap(), "port=80%2C443");
        assert!(port_query(&Query::parse("ports=99999")).is_err());
    }

    #[test]
    fn proxied_names_have_scheme_and_port() {
        assert_eq!(named("a"), Some(Named { https: false, name: "a", port: "" }));
        assert_eq!(named("a:web"), Some(Named { https: false, name: "a", port: "web" }));
        assert_eq!(named("https:a:443"), Some(Named { https: true, name: "a", port: "443" }));
        for bad in ["", ":80", "ftp:a:21", "a:b:c:d"] {
            assert_eq!(named(bad), None, "{bad}");
        }
    }
}
