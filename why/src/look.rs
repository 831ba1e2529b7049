//! How the explaining functions look at the world: through this, which knows the time and the way that led here.

use std::cell::RefCell;

use jiff::Timestamp;
use serde_json::Value;

use crate::chain::Cause;
use crate::kinds;
use crate::world::World;

/// A chain has so many objects at most: beyond it nobody reads on.
const DEPTH_MAX: usize = 6;

pub struct Look<'w> {
    pub world: &'w World,
    pub now: Timestamp,
    /// The uids of the objects that are being explained, each because of the one before.
    way: RefCell<Vec<String>>,
}

impl<'w> Look<'w> {
    pub fn new(world: &'w World, now: Timestamp) -> Self {
        Self { world, now, way: RefCell::default() }
    }

    /// The causes of another object's state; none if it is already on the way, or too far away.
    pub fn why(&self, object: &Value) -> Vec<Cause> {
        let uid = api::meta::uid(object).to_owned();
        {
            let mut way = self.way.borrow_mut();
            if way.len() >= DEPTH_MAX || way.contains(&uid) {
                return Vec::new();
            }
            way.push(uid);
        }
        let causes = kinds::causes(self, object);
        self.way.borrow_mut().pop();
        causes
    }

    /// The events about an object, newest first.
    pub fn events(&self, object: &Value) -> Vec<&'w Value> {
        // Events about a node and other cluster-scoped objects are in `default`.
        let namespace = match api::meta::namespace(object) {
            "" => "default",
            namespace => namespace,
        };
        let (kind, name) = (text(&object["kind"]), api::meta::name(object));
        let fields = format!("involvedObject.kind={kind},involvedObject.name={name}");
        let uid = api::meta::uid(object);
        let all = self.world.select("events", namespace, "", &fields).iter();
        // A node's agent knows its node by name only.
        let about = |event: &&Value| matches!(text(&event["involvedObject"]["uid"]), about if about == uid || about == name || about.is_empty());
        let mut events: Vec<&Value> = all.filter(about).collect();
        events.sort_by_key(|event| std::cmp::Reverse(event_time(event)));
        events
    }

    /// The newest event of one of these reasons.
    pub fn event(&self, object: &Value, reasons: &[&str]) -> Option<&'w Value> {
        self.events(object).into_iter().find(|event| reasons.contains(&text(&event["reason"])))
    }

    /// How long ago something was, if it is worth a word: `5m`.
    pub fn since(&self, time: &Value) -> Option<String> {
        let at: Timestamp = time.as_str()?.parse().ok()?;
        let seconds = self.now.duration_since(at).as_secs();
        (seconds >= 60).then(|| span(seconds))
    }

    pub fn seconds_since(&self, time: &Value) -> Option<i64> {
        let at: Timestamp = time.as_str()?.parse().ok()?;
        Some(self.now.duration_since(at).as_secs())
    }
}

fn event_time(event: &Value) -> String {
    let times = ["/series/lastObservedTime", "/lastTimestamp", "/eventTime", "/metadata/creationTimestamp"];
    times.iter().find_map(|path| event.pointer(path)?.as_str()).unwrap_or_default().to_owned()
}

/// The text of a field; empty if it has none.
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

pub fn count(value: &Value) -> i64 {
    value.as_i64().unwrap_or_default()
}

pub fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// A condition of the object's status.
pub fn condition<'v>(object: &'v Value, kind: &str) -> Option<&'v Value> {
    items(&object["status"]["conditions"]).find(|c| c["type"] == kind)
}

/// The condition, if it has this status.
pub fn condition_is<'v>(object: &'v Value, kind: &str, status: &str) -> Option<&'v Value> {
    condition(object, kind).filter(|c| c["status"] == status)
}

/// `5m`, `3h`, `2d`: one unit is enough to know how long.
pub fn span(seconds: i64) -> String {
    match seconds {
        ..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// `n1, n2, n3 and 4 more`.
pub fn names<S: AsRef<str>>(all: &[S]) -> String {
    const SHOWN: usize = 3;
    let shown: Vec<&str> = all.iter().take(SHOWN).map(AsRef::as_ref).collect();
    match all.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// `1 pod`, `2 pods`.
pub fn counted(count: usize, thing: &str) -> String {
    if count == 1 { format!("1 {thing}") } else { format!("{count} {thing}s") }
}

/// `is` or `are`.
pub fn be(count: usize) -> &'static str {
    if count == 1 { "is" } else { "are" }
}

/// A kubectl command in the namespace of the object.
pub fn kubectl(namespace: &str, rest: &str) -> String {
    if namespace.is_empty() { format!("kubectl {rest}") } else { format!("kubectl -n {namespace} {rest}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        assert_eq!([59, 60, 3599, 7300, 200_000].map(span), ["59s", "1m", "59m", "2h", "2d"]);
        assert_eq!(names(&["a", "b", "c"]), "a, b, c");
        assert_eq!(names(&["a", "b", "c", "d", "e"]), "a, b, c and 2 more");
        assert_eq!((counted(1, "pod"), counted(0, "pod")), ("1 pod".into(), "0 pods".into()));
        assert_eq!(kubectl("", "get nodes"), "kubectl get nodes");
    }
}
