//! One RBAC rule in the form it is evaluated in: parsed once when its role changes, never per request.
//! Matching follows upstream's `rbacv1helpers` (`VerbMatches`, `ResourceMatches`, …) and `validation.Covers`.

use serde_json::Value;

use super::Attributes;

/// Matches everything of its kind.
const ALL: &str = "*";

type Strings = Vec<Box<str>>;

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    pub verbs: Strings,
    pub groups: Strings,
    pub resources: Strings,
    pub names: Strings,
    pub urls: Strings,
}

impl Rule {
    pub fn parse(rule: &Value) -> Self {
        Self {
            verbs: strings(rule, "verbs"),
            groups: strings(rule, "apiGroups"),
            resources: strings(rule, "resources"),
            names: strings(rule, "resourceNames"),
            urls: strings(rule, "nonResourceURLs"),
        }
    }

    /// The rules of a role object; none when it has none.
    pub fn parse_all(role: &Value) -> Vec<Self> {
        role.get("rules").and_then(Value::as_array).into_iter().flatten().map(Self::parse).collect()
    }

    pub fn allows(&self, asked: &Attributes<'_>) -> bool {
        if !has_or_all(&self.verbs, asked.verb) {
            return false;
        }
        if !asked.resource_request {
            return self.urls.iter().any(|url| url_covers(url, asked.path));
        }
        has_or_all(&self.groups, asked.group)
            && self.resources.iter().any(|r| resource_matches(r, asked.resource, asked.subresource))
            && (self.names.is_empty() || has(&self.names, asked.name))
    }

    /// Splits into rules of at most one verb, group, resource, name or URL each.
    fn breakdown(&self) -> Vec<Self> {
        let one = |text: &str| vec![Box::<str>::from(text)];
        let mut parts = Vec::new();
        for verb in &self.verbs {
            for group in &self.groups {
                for resource in &self.resources {
                    let part =
                        Self { verbs: one(verb), groups: one(group), resources: one(resource), ..Self::default() };
                    if self.names.is_empty() {
                        parts.push(part);
                        continue;
                    }
                    parts.extend(self.names.iter().map(|name| Self { names: one(name), ..part.clone() }));
                }
            }
            parts.extend(self.urls.iter().map(|url| Self { verbs: one(verb), urls: one(url), ..Self::default() }));
        }
        parts
    }

    /// Whether holding `self` implies holding `part`, a product of [`Self::breakdown`].
    fn covers(&self, part: &Self) -> bool {
        let names = if part.names.is_empty() {
            self.names.is_empty()
        } else {
            self.names.is_empty() || part.names.iter().all(|n| has(&self.names, n))
        };
        names
            && part.verbs.iter().all(|v| has_or_all(&self.verbs, v))
            && part.groups.iter().all(|g| has_or_all(&self.groups, g))
            && part.resources.iter().all(|r| self.covers_resource(r))
            && part.urls.iter().all(|u| self.urls.iter().any(|own| url_covers(own, u)))
    }

    fn covers_resource(&self, resource: &str) -> bool {
        if has_or_all(&self.resources, resource) {
            return true;
        }
        resource.split_once('/').is_some_and(|(_, subresource)| {
            self.resources.iter().any(|own| own.strip_prefix("*/").is_some_and(|s| s == subresource))
        })
    }
}

impl std::fmt::Display for Rule {
    /// `{APIGroups:[""], Resources:["pods"], Verbs:["get"]}`, as upstream's `CompactString`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts = [
            ("APIGroups", &self.groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.urls),
            ("ResourceNames", &self.names),
            ("Verbs", &self.verbs),
        ];
        f.write_str("{")?;
        let mut first = true;
        for (name, values) in parts.into_iter().filter(|(_, values)| !values.is_empty()) {
            write!(f, "{}{name}:{}", if first { "" } else { ", " }, quoted(values.iter().map(AsRef::as_ref)))?;
            first = false;
        }
        f.write_str("}")
    }
}

/// The parts of `wanted` that none of `held` covers, small parts joined again for the reader.
pub fn missing<'r>(held: impl IntoIterator<Item = &'r Rule>, wanted: &[Rule]) -> Vec<Rule> {
    let mut open: Vec<Rule> = wanted.iter().flat_map(Rule::breakdown).collect();
    for own in held {
        if open.is_empty() {
            break;
        }
        open.retain(|part| !own.covers(part));
    }
    compact(open)
}

/// Joins the verbs of parts that differ in nothing else; upstream's `CompactRules`.
fn compact(parts: Vec<Rule>) -> Vec<Rule> {
    let mut joined: Vec<Rule> = Vec::new();
    for part in parts {
        let same = |r: &&mut Rule| {
            r.groups == part.groups && r.resources == part.resources && r.names == part.names && part.urls.is_empty()
        };
        match joined.iter_mut().find(same) {
            Some(rule) => rule.verbs.extend(part.verbs),
            None => joined.push(part),
        }
    }
    joined
}

/// `["a" "b"]`, as Go prints a list of strings with `%q`.
pub fn quoted<'s>(values: impl Iterator<Item = &'s str>) -> String {
    let texts: Vec<String> = values.map(|v| format!("{v:?}")).collect();
    format!("[{}]", texts.join(" "))
}

fn strings(rule: &Value, field: &str) -> Strings {
    let list = rule.get(field).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).map(Box::from).collect()
}

fn has(set: &[Box<str>], wanted: &str) -> bool {
    set.iter().any(|s| s.as_ref() == wanted)
}

fn has_or_all(set: &[Box<str>], wanted: &str) -> bool {
    set.iter().any(|s| s.as_ref() == wanted || s.as_ref() == ALL)
}

fn resource_matches(rule: &str, resource: &str, subresource: &str) -> bool {
    if rule == ALL {
        return true;
    }
    if subresource.is_empty() {
        return rule == resource;
    }
    let Some((own, own_sub)) = rule.split_once('/') else { return false };
    own_sub == subresource && (own == resource || own == ALL)
}

fn url_covers(pattern: &str, path: &str) -> bool {
    pattern == path || pattern.ends_with('*') && path.starts_with(pattern.trim_end_matches('*'))
}

#[cfg(test)]
#[path = "rule_tests.rs"]
mod tests;
