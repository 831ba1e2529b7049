//! Links in what a proxied server answers: a path from its own root becomes a path through the proxy, in `Location` and
//! in HTML (upstream's `proxyutil.Transport`). Pages that are compressed or too large pass as they are.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::BodyExt;

use crate::body::{self, Body};

/// Larger pages are not looked into.
const PAGE_BYTES_MAX: usize = 4 << 20;
/// Elements with the attributes of theirs that are links.
const LINKS: &[(&str, &[&str])] = &[
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];
/// What is in these is text, whatever it looks like.
const RAW: &[&str] = &["script", "style", "textarea", "title", "xmp", "iframe", "noframes"];

/// Where answers come from, and where clients find it.
pub struct Place {
    /// Path of the proxy, without a slash at its end.
    pub prefix: String,
    /// Address and port of the server behind it.
    pub host: String,
}

impl Place {
    /// The link as clients must follow it, if it differs.
    fn rewritten(&self, link: &str) -> Option<String> {
        let own = ["http://", "https://", "//"].iter().find_map(|scheme| {
            let rest = link.strip_prefix(scheme)?.strip_prefix(self.host.as_str())?;
            (rest.is_empty() || rest.starts_with('/')).then_some(rest)
        });
        let path = match own {
            Some("") => "/",
            Some(path) => path,
            None => link,
        };
        let from_root = path.starts_with('/') && !path.starts_with("//");
        (from_root && !path.starts_with(&self.prefix)).then(|| format!("{}{path}", self.prefix))
    }

    fn page(&self, page: &str) -> String {
        let mut out = String::with_capacity(page.len() + page.len() / 8);
        let mut rest = page;
        while let Some(at) = rest.find('<') {
            out.push_str(&rest[..at]);
            rest = &rest[at..];
            let Some(tag) = Tag::read(rest) else {
                let end = if rest.starts_with("<!--") { rest.find("-->").map_or(rest.len(), |at| at + 3) } else { 1 };
                out.push_str(&rest[..end]);
                rest = &rest[end..];
                continue;
            };
            out.push_str(&self.tag(&tag));
            rest = &rest[tag.text.len()..];
            if RAW.contains(&tag.name.as_str()) {
                let closing = format!("</{}", tag.name);
                let lower = rest.to_ascii_lowercase();
                let end = lower.find(&closing).unwrap_or(rest.len());
                out.push_str(&rest[..end]);
                rest = &rest[end..];
            }
        }
        out + rest
    }

    fn tag(&self, tag: &Tag<'_>) -> String {
        let links = LINKS.iter().find(|(name, _)| *name == tag.name).map_or(&[][..], |(_, links)| links);
        let mut out = tag.text.to_owned();
        // From behind, so that places before stay right.
        for (_, value) in tag.attributes.iter().rev().filter(|(name, _)| links.contains(&name.as_str())) {
            if let Some(link) = self.rewritten(&tag.text[value.clone()]) {
                out.replace_range(value.clone(), &link);
            }
        }
        out
    }
}

/// The start of an element.
struct Tag<'a> {
    text: &'a str,
    /// In lower case.
    name: String,
    /// Names in lower case, and where the values lie in `text`.
    attributes: Vec<(String, std::ops::Range<usize>)>,
}

impl<'a> Tag<'a> {
    /// `page` begins with `<`.
    fn read(page: &'a str) -> Option<Self> {
        let bytes = page.as_bytes();
        let word = |from: usize, ends: &[u8]| {
            let end = bytes[from..].iter().position(|b| b.is_ascii_whitespace() || ends.contains(b));
            end.map(|length| from + length)
        };
        if !bytes.get(1)?.is_ascii_alphabetic() {
            return None;
        }
        let mut at = word(1, b"/>")?;
        let name = page[1..at].to_ascii_lowercase();
        let mut attributes = Vec::new();
        loop {
            at += bytes[at..].iter().position(|b| !b.is_ascii_whitespace() && *b != b'/')?;
            if bytes[at] == b'>' {
                return Some(Self { text: &page[..=at], name, attributes });
            }
            // An attribute may begin with an equals sign, which is then part of its name.
            let end = word(at + 1, b"=/>")?;
            let attribute = page.get(at..end)?.to_ascii_lowercase();
            at = end + bytes[end..].iter().position(|b| !b.is_ascii_whitespace())?;
            if bytes[at] != b'=' {
                continue;
            }
            at += 1;
            at += bytes[at..].iter().position(|b| !b.is_ascii_whitespace())?;
            let (start, end) = match bytes[at] {
                quote @ (b'"' | b'\'') => (at + 1, at + 1 + bytes[at + 1..].iter().position(|b| *b == quote)?),
                _ => (at, word(at, b">")?),
            };
            attributes.push((attribute, start..end));
            at = if start == at { end } else { end + 1 };
        }
    }
}

fn is_plain_page(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).unwrap_or_default();
    text(header::CONTENT_TYPE).to_ascii_lowercase().starts_with("text/html")
        && matches!(text(header::CONTENT_ENCODING), "" | "identity")
}

/// The answer with links that lead through the proxy.
pub async fn rewrite(response: Response<Body>, place: &Place) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    let location = parts.headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
    if let Some(value) = location.and_then(|link| HeaderValue::from_str(&place.rewritten(link)?).ok()) {
        parts.headers.insert(header::LOCATION, value);
    }
    let has_page = parts.status != StatusCode::SWITCHING_PROTOCOLS && is_plain_page(&parts.headers);
    let fits = http_body::Body::size_hint(&body).upper().is_none_or(|bytes| bytes <= PAGE_BYTES_MAX as u64);
    if !has_page || !fits {
        return Response::from_parts(parts, body);
    }
    let (whole, rest) = collect(body).await;
    let page = match (std::str::from_utf8(&whole), &rest) {
        (Ok(text), None) => Bytes::from(place.page(text)),
        _ => whole,
    };
    match rest {
        Some(rest) => Response::from_parts(parts, body::prepend(page, rest)),
        None => {
            parts.headers.remove(header::CONTENT_LENGTH);
            Response::from_parts(parts, body::full(page))
        }
    }
}

/// All of a body, or what came of it before it was too much or failed, and the rest.
async fn collect(mut body: Body) -> (Bytes, Option<Body>) {
    let mut whole = Vec::new();
    while whole.len() <= PAGE_BYTES_MAX {
        match body.frame().await {
            None => return (whole.into(), None),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    whole.extend_from_slice(&data);
                }
            }
            // The client is to see the failure where it was.
            Some(Err(error)) => return (whole.into(), Some(body::failed(error))),
        }
    }
    (whole.into(), Some(body))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(text: &str) -> String {
        Place { prefix: "/api/v1/nodes/n/proxy".into(), host: "10.1.0.1:80".into() }.page(text)
    }

    #[test]
    fn links_from_the_root_lead_through_the_proxy() {
        assert_eq!(page(r#"<a href="/x">t</a>"#), r#"<a href="/api/v1/nodes/n/proxy/x">t</a>"#);
        assert_eq!(
            page("<p>x<IMG alt='/no' SRC=/i.png usemap='#m'/><form method=post action='/f?a=/b'>"),
            "<p>x<IMG alt='/no' SRC=/api/v1/nodes/n/proxy/i.png usemap='#m'/>\
             <form method=post action='/api/v1/nodes/n/proxy/f?a=/b'>"
        );
        assert_eq!(page("<a href=http://10.1.0.1:80/x>"), "<a href=/api/v1/nodes/n/proxy/x>");
    }

    #[test]
    fn what_is_no_such_link_stays() {
        for text in [
            "<a href=x>",
            "<a href='//elsewhere/x'>",
            "<a href='http://10.1.0.1:8000/x'>",
            "<a href='/api/v1/nodes/n/proxy/x'>",
            "<a title='/x'>",
            "<div href='/x'>",
            "<!-- <a href='/x'> -->",
            "<script>document.write(\"<a href='/x'>\")</script>",
            "1 < 2 <a href='/x",
            "<",
            "< a href='/x'>",
            "é<ä href='/x'>",
        ] {
            assert_eq!(page(text), text);
        }
    }
}
