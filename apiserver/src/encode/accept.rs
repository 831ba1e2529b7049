//! Content negotiation: which form of an answer a request accepts.

use http::HeaderMap;
use http::header;

use api::status::Status;

use crate::request::Call;

/// As upstream lists them; protobuf is what its clients ask for before JSON.
const MEDIA_TYPES: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    Json,
    Yaml,
}

impl Media {
    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
        }
    }
}

/// How much of each object a table row carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IncludeObject {
    None,
    Metadata,
    Object,
}

/// What is made of the object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    Object,
    /// `meta.k8s.io` Table in this version.
    Table(String),
    /// `meta.k8s.io` PartialObjectMetadata(List) in this version.
    PartialMetadata(String),
}

/// The accepted form of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Form {
    pub media: Media,
    pub pretty: bool,
    pub shape: Shape,
    pub include_object: Result<IncludeObject, String>,
    pub gzip: bool,
}

impl Form {
    /// Compact JSON of the object itself.
    pub fn json() -> Self {
        let include_object = Ok(IncludeObject::Metadata);
        Self { media: Media::Json, pretty: false, shape: Shape::Object, include_object, gzip: false }
    }

    /// The form for errors and other plain values: like [`Form::negotiate`], but never fails and never transforms.
    pub fn plain(headers: &HeaderMap, query: &crate::request::Query) -> Self {
        let clauses = clauses(accept(headers));
        let media = clauses.iter().find_map(media_of).unwrap_or(Media::Json);
        let pretty = pretty(headers, query) || clauses.iter().any(|c| c.parameter("pretty") == Some("1"));
        Self { media, pretty, ..Self::json() }
    }

    /// The first acceptable form by the client's order of preference; 406 when there is none.
    pub fn negotiate(call: &Call) -> Result<Self, Status> {
        let headers = &call.parts.headers;
        let mut form = Self { pretty: pretty(headers, &call.query), gzip: accepts_gzip(headers), ..Self::json() };
        form.include_object = match call.query.get("includeObject").unwrap_or_default() {
            "" | "Metadata" => Ok(IncludeObject::Metadata),
            "None" => Ok(IncludeObject::None),
            "Object" => Ok(IncludeObject::Object),
            other => Err(other.to_owned()),
        };
        let clauses = clauses(accept(headers));
        if clauses.is_empty() {
            return Ok(form);
        }
        if !clauses
            .iter()
            .any(|clause| media_of(clause).is_some() || clause.is("application", "vnd.kubernetes.protobuf"))
        {
            let mut status =
                Status::not_acceptable(format!("406: Not Acceptable\n\nAvailable representations: {MEDIA_TYPES}"));
            status.details = Some(Box::default());
            return Err(status);
        }
        for clause in &clauses {
            let (Some(media), Some(shape)) = (media_of(clause), shape_of(clause)) else { continue };
            form.pretty |= clause.parameter("pretty") == Some("1");
            return Ok(Self { media, shape, ..form });
        }
        Err(not_accepted())
    }
}

/// For answers that are objects and nothing else: 406 when the client takes no plain object at all.
pub fn takes_object(headers: &HeaderMap) -> Result<(), Status> {
    let clauses = clauses(accept(headers));
    let plain = |clause: &Clause| {
        let known = media_of(clause).is_some() || clause.is("application", "vnd.kubernetes.protobuf");
        known && shape_of(clause) == Some(Shape::Object)
    };
    if clauses.is_empty() || clauses.iter().any(plain) { Ok(()) } else { Err(not_accepted()) }
}

fn not_accepted() -> Status {
    Status::not_acceptable(format!("only the following media types are accepted: {MEDIA_TYPES}"))
}

fn accept(headers: &HeaderMap) -> String {
    let texts: Vec<&str> = headers.get_all(header::ACCEPT).iter().filter_map(|v| v.to_str().ok()).collect();
    texts.join(",")
}

fn accepts_gzip(headers: &HeaderMap) -> bool {
    let texts = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|v| v.to_str().ok());
    texts.flat_map(|t| t.split(',')).any(|t| t.split(';').next().is_some_and(|name| name.trim() == "gzip"))
}

/// Upstream's `isPrettyPrint`: the query parameter decides, else agents that people read with.
fn pretty(headers: &HeaderMap, query: &crate::request::Query) -> bool {
    if let Some(asked) = query.get("pretty").filter(|p| !p.is_empty()) {
        return matches!(asked, "1" | "t" | "T" | "true" | "TRUE" | "True");
    }
    let agent = headers.get(header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    ["curl", "Wget", "Mozilla/5.0"].iter().any(|prefix| agent.starts_with(prefix))
}

/// One media range of an Accept header.
#[derive(Debug)]
struct Clause {
    kind: String,
    subkind: String,
    parameters: Vec<(String, String)>,
    quality: f32,
}

impl Clause {
    fn is(&self, kind: &str, subkind: &str) -> bool {
        self.kind == kind && self.subkind == subkind
    }
    fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str())
    }
}

/// Media ranges by quality, most wanted first; those of equal quality as the client wrote them.
fn clauses(header: String) -> Vec<Clause> {
    let mut clauses: Vec<Clause> = header.split(',').filter_map(clause).collect();
    clauses.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    clauses
}

fn clause(text: &str) -> Option<Clause> {
    let mut parts = text.split(';').map(str::trim);
    let (kind, subkind) = match parts.next()? {
        "*" => ("*", "*"),
        range => range.split_once('/')?,
    };
    let mut clause = Clause {
        kind: kind.trim().to_owned(),
        subkind: subkind.trim().to_owned(),
        parameters: Vec::new(),
        quality: 1.0,
    };
    for part in parts {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        let value = value.trim().trim_matches('"');
        match key.trim() {
            "q" => clause.quality = value.parse().unwrap_or(1.0),
            key => clause.parameters.push((key.to_owned(), value.to_owned())),
        }
    }
    Some(clause)
}

/// The media type a clause accepts. Protobuf is not among them: clients that ask for it list JSON behind it.
fn media_of(clause: &Clause) -> Option<Media> {
    match (clause.kind.as_str(), clause.subkind.as_str()) {
        ("application", "json" | "*") | ("*", "*") => Some(Media::Json),
        ("application", "yaml") => Some(Media::Yaml),
        _ => None,
    }
}

/// The transformation a clause asks for; `None` when this server has no such form and the clause must be skipped.
fn shape_of(clause: &Clause) -> Option<Shape> {
    if clause.parameter("sv").is_some_and(|v| !v.is_empty()) {
        return None;
    }
    if clause.parameter("stream").is_some_and(|v| !v.is_empty() && v != "watch") {
        return None;
    }
    let (kind, group, version) = (clause.parameter("as"), clause.parameter("g"), clause.parameter("v"));
    let (kind, version) = match (kind, group, version) {
        (None, None, None) => return Some(Shape::Object),
        (Some(kind), Some("meta.k8s.io"), Some(version @ ("v1" | "v1beta1"))) => (kind, version.to_owned()),
        _ => return None,
    };
    match kind {
        "Table" => Some(Shape::Table(version)),
        "PartialObjectMetadata" | "PartialObjectMetadataList" => Some(Shape::PartialMetadata(version)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_tried_by_quality_and_order() {
        let check = |accept: &str, want: Option<(Media, Shape)>| {
            let clauses = clauses(accept.to_owned());
            let got = clauses.iter().find_map(|c| Some((media_of(c)?, shape_of(c)?)));
            assert_eq!(got, want, "{accept}");
        };
        check("*/*", Some((Media::Json, Shape::Object)));
        check("application/yaml;q=0.9, application/json;q=0.5", Some((Media::Yaml, Shape::Object)));
        check("application/vnd.kubernetes.protobuf,application/json", Some((Media::Json, Shape::Object)));
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
        check(table, Some((Media::Json, Shape::Table("v1".to_owned()))));
        check("application/json;as=Nope;v=v1;g=meta.k8s.io,application/json", Some((Media::Json, Shape::Object)));
        check("application/json;as=Table", None);
        check("text/html", None);
    }
}
