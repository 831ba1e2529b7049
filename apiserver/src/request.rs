//! What a request asks for, from method, path and query; upstream's `RequestInfoFactory.NewRequestInfo`.
//! Pure: it says what was asked, not whether it exists.

use http::Method;
use http::request::Parts;

use api::status::Status;

use crate::user::{Peer, User};

/// Longest path and query accepted; longer ones are refused before anything is parsed.
pub const URI_BYTES_MAX: usize = 60 * 1024;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    pub resource_request: bool,
    /// Decoded path.
    pub path: String,
    /// Kubernetes verb of a resource request (`get`, `list`, `watch`, `create`, …), else the method in lower case.
    pub verb: String,
    /// `api` or `apis`.
    pub prefix: String,
    pub group: String,
    pub version: String,
    pub namespace: String,
    pub resource: String,
    pub subresource: String,
    pub name: String,
    /// Path segments after the namespace: resource, name, subresource and beyond (for proxies).
    pub segments: Vec<String>,
}

/// Decoded query parameters in order of appearance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    pub fn parse(query: &str) -> Self {
        let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (percent_decode(key, true), percent_decode(value, true))
        });
        Self(pairs.collect())
    }

    /// The first value of `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }

    /// Upstream's `Convert_Slice_string_To_bool`: absent, `0` and `false` (any case) are false, everything else,
    /// the empty string included, is true.
    pub fn flag(&self, key: &str) -> bool {
        self.get(key).is_some_and(|v| v != "0" && !v.eq_ignore_ascii_case("false"))
    }
}

/// One request on its way through the pipeline, known user included. The body travels beside it.
#[derive(Clone, Debug)]
pub struct Call {
    pub info: RequestInfo,
    pub parts: Parts,
    pub query: Query,
    pub user: User,
    pub peer: Peer,
}

impl RequestInfo {
    pub fn parse(method: &Method, path: &str, query: &Query) -> Result<Self, Status> {
        let path = percent_decode(path, false);
        let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
        let plain = Self { path: path.clone(), verb: method.as_str().to_ascii_lowercase(), ..Self::default() };
        let (prefix, group, rest) = match segments.as_slice() {
            ["api", rest @ ..] if rest.len() >= 2 => ("api", "", rest),
            ["apis", group, rest @ ..] if rest.len() >= 2 => ("apis", *group, rest),
            _ => return Ok(plain),
        };
        let mut info = Self {
            resource_request: true,
            prefix: prefix.to_owned(),
            group: group.to_owned(),
            version: rest[0].to_owned(),
            ..plain
        };
        let mut rest = &rest[1..];
        info.verb = verb_of(method).to_owned();
        if let ["watch" | "proxy", below @ ..] = rest {
            if below.is_empty() {
                return Err(Status::internal(format!("unable to determine kind and namespace from url, {path}")));
            }
            info.verb = rest[0].to_owned();
            rest = below;
        }
        if let ["namespaces", namespace, below @ ..] = rest {
            info.namespace = (*namespace).to_owned();
            if below.first().is_some_and(|s| *s != "status" && *s != "finalize") {
                rest = below;
            }
        }
        info.segments = rest.iter().map(|s| (*s).to_owned()).collect();
        let segment = |index: usize| rest.get(index).map_or(String::new(), |s| (*s).to_owned());
        (info.resource, info.name, info.subresource) = (segment(0), segment(1), segment(2));
        info.collection_verb(query);
        Ok(info)
    }

    /// A get or delete without a name concerns the collection; a field selector on the name counts as a name for
    /// authorization.
    fn collection_verb(&mut self, query: &Query) {
        if self.name.is_empty() && self.verb == "get" {
            self.verb = if query.flag("watch") { "watch" } else { "list" }.to_owned();
        }
        if self.name.is_empty() && self.verb == "delete" {
            self.verb = "deletecollection".to_owned();
        }
    }
}

/// The beginning of a text, at most so many bytes, whole characters.
pub(crate) fn cut(text: &str, bytes_max: usize) -> &str {
    let end = text.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= bytes_max).last();
    &text[..end.unwrap_or(0)]
}

fn verb_of(method: &Method) -> &'static str {
    match method.as_str() {
        "POST" => "create",
        "GET" | "HEAD" => "get",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "",
    }
}

/// Decodes `%XX` (and `+` in a query); a broken escape stays as it is, invalid UTF-8 becomes U+FFFD.
pub(crate) fn percent_decode(text: &str, plus_is_space: bool) -> String {
    let escaped = text.contains('%') || (plus_is_space && text.contains('+'));
    if !escaped {
        return text.to_owned();
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while index < bytes.len() {
        let hex = |at: usize| bytes.get(at).and_then(|b| (*b as char).to_digit(16));
        match (bytes[index], hex(index + 1), hex(index + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                index += 3;
            }
            (b'+', ..) if plus_is_space => {
                out.push(b' ');
                index += 1;
            }
            (byte, ..) => {
                out.push(byte);
                index += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(method: &str, target: &str) -> RequestInfo {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        RequestInfo::parse(&method.parse().unwrap(), path, &Query::parse(query)).unwrap()
    }

    #[test]
    fn verbs_and_parts_follow_from_method_and_path() {
        let check = |method, target, verb: &str, resource: &str, namespace: &str, name: &str, subresource: &str| {
            let info = parse(method, target);
            let got = [&info.verb, &info.resource, &info.namespace, &info.name, &info.subresource];
            assert_eq!(got, [verb, resource, namespace, name, subresource], "{method} {target}");
        };
        check("GET", "/api/v1/pods", "list", "pods", "", "", "");
        check("GET", "/api/v1/namespaces/n/pods?watch=true", "watch", "pods", "n", "", "");
        check("GET", "/api/v1/watch/namespaces/n/pods/p", "watch", "pods", "n", "p", "");
        check("GET", "/api/v1/namespaces/n", "get", "namespaces", "n", "n", "");
        check("PUT", "/api/v1/namespaces/n/finalize", "update", "namespaces", "n", "n", "finalize");
        check("DELETE", "/apis/apps/v1/namespaces/n/deployments", "deletecollection", "deployments", "n", "", "");
        check("PATCH", "/apis/apps/v1/namespaces/n/deployments/d/scale", "patch", "deployments", "n", "d", "scale");
        check("GET", "/api/v1/namespaces/n/roles/x%3Ay", "get", "roles", "n", "x:y", "");
        assert!(!parse("GET", "/healthz").resource_request);
        assert!(!parse("GET", "/apis/apps/v1").resource_request);
    }

    #[test]
    fn queries_are_decoded() {
        let query = Query::parse("labelSelector=a%3Db+c&dryRun=All&dryRun=x&flag&no=False&bad=%zz");
        assert_eq!(query.get("labelSelector"), Some("a=b c"));
        assert_eq!(query.all("dryRun").collect::<Vec<_>>(), ["All", "x"]);
        assert!(query.flag("flag") && !query.flag("no") && !query.flag("absent"));
        assert_eq!(query.get("bad"), Some("%zz"));
    }

    #[test]
    fn cuts_keep_characters_whole() {
        assert_eq!((cut("aé", 2), cut("aé", 3), cut("abc", 9)), ("a", "aé", "abc"));
    }
}
