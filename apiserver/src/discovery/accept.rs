//! Which form of a discovery document a client accepts.

use api::status::Status;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Json,
    Yaml,
    /// The aggregated document in this version of `apidiscovery.k8s.io`.
    Aggregated {
        version: &'static str,
    },
}

const ACCEPTED: &str = "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf";

/// The first acceptable range decides, as upstream's `NegotiateMediaTypeOptions`; `aggregates` says whether the
/// aggregated document is offered on this path.
pub fn negotiate(accept: &str, aggregates: bool) -> Result<Form, Status> {
    if accept.trim().is_empty() {
        return Ok(Form::Json);
    }
    accept.split(',').find_map(|range| one(range, aggregates)).ok_or_else(|| Status::not_acceptable(ACCEPTED))
}

fn one(range: &str, aggregates: bool) -> Option<Form> {
    let mut parts = range.split(';').map(str::trim);
    let form = match parts.next()? {
        "application/json" | "application/*" | "*/*" => Form::Json,
        "application/yaml" => Form::Yaml,
        _ => return None,
    };
    let parameter = |name: &str| {
        let given = range.split(';').skip(1).filter_map(|p| p.trim().split_once('='));
        given.filter(|(key, _)| *key == name).map(|(_, value)| value).last()
    };
    match (parameter("g"), parameter("v"), parameter("as")) {
        (None, None, None) => Some(form),
        (Some("apidiscovery.k8s.io"), Some(version), Some("APIGroupDiscoveryList")) if aggregates => match version {
            "v2" => Some(Form::Aggregated { version: "v2" }),
            "v2beta1" => Some(Form::Aggregated { version: "v2beta1" }),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

    #[test]
    fn the_first_form_we_have_wins() {
        let check =
            |accept: &str, aggregates, wanted| assert_eq!(negotiate(accept, aggregates).ok(), wanted, "{accept}");
        check("", true, Some(Form::Json));
        check("*/*", true, Some(Form::Json));
        check("text/html, application/yaml", true, Some(Form::Yaml));
        check(V2, true, Some(Form::Aggregated { version: "v2" }));
        check(&format!("{V2},application/json"), true, Some(Form::Aggregated { version: "v2" }));
        check(&format!("{V2},application/json"), false, Some(Form::Json));
        check(V2, false, None);
        check("application/vnd.kubernetes.protobuf", true, None);
        check("application/json;g=x;v=v2;as=APIGroupDiscoveryList", true, None);
    }
}
