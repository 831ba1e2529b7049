//! The queue by itself: order, pauses, and which events reach whom.

use super::*;

fn pod(uid: &str, priority: i32) -> Arc<Pod> {
    let json = serde_json::json!({
        "metadata": { "name": uid, "namespace": "default", "uid": uid },
        "spec": { "priority": priority, "schedulerName": "default-scheduler",
            "containers": [{ "resources": { "requests": { "cpu": "1" } } }] },
    });
    Arc::new(serde_json::from_value(json).expect("a Pod"))
}

/// A node of `cpu` cores.
fn node(cpu: &str) -> crate::objects::Node {
    let json = serde_json::json!({
        "metadata": { "name": "n" }, "status": { "allocatable": { "cpu": cpu, "pods": "10" } },
    });
    serde_json::from_value(json).expect("a Node")
}

fn fit() -> BTreeSet<Plugin> {
    BTreeSet::from([Plugin::NodeResourcesFit])
}

/// A queue in which pod `a` was just refused for want of CPU.
fn waiting(start: Instant) -> Queue {
    let mut queue = Queue::new(&Config::default());
    queue.add(&pod("a", 0));
    queue.pop();
    queue.refused("a", fit(), start);
    queue
}

fn popped(queue: &mut Queue) -> Option<String> {
    queue.pop().map(|pod| pod.metadata.uid.clone())
}

fn wake(queue: &mut Queue, event: &Event<'_>, cluster: &Cluster, now: Instant) {
    queue.wake(event, &Config::default(), cluster, now);
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn higher_priority_and_longer_waiting_pods_come_first() {
    let mut queue = Queue::new(&Config::default());
    queue.add(&pod("old", 0));
    queue.add(&pod("new", 0));
    queue.add(&pod("urgent", 10));
    assert_eq!(
        [popped(&mut queue), popped(&mut queue), popped(&mut queue)].map(Option::unwrap),
        ["urgent", "old", "new"]
    );
    assert_eq!(popped(&mut queue), None);
}

#[test]
fn only_an_event_that_helps_wakes_a_pod() {
    let start = Instant::now();
    let mut queue = waiting(start);
    let cluster = Cluster::default();
    let other = pod("b", 0);
    wake(&mut queue, &Event::Pod { old: None, new: &other }, &cluster, start + 5 * SECOND);
    let small = node("500m");
    wake(&mut queue, &Event::Node { old: None, new: &small }, &cluster, start + 5 * SECOND);
    assert_eq!(popped(&mut queue), None);
    let large = node("2");
    wake(&mut queue, &Event::Node { old: Some(&small), new: &large }, &cluster, start + 5 * SECOND);
    assert_eq!(popped(&mut queue).as_deref(), Some("a"));
}

#[test]
fn a_pod_gone_helps_where_there_is_room_then() {
    let start = Instant::now();
    let mut queue = waiting(start);
    let mut cluster = Cluster::default();
    cluster.set_node(Arc::new(node("2")));
    let running = [pod("b", 0), pod("c", 0), pod("d", 0)];
    running.iter().for_each(|p| cluster.assume(p, "n"));
    cluster.remove_pod("b");
    wake(&mut queue, &Event::PodGone { pod: &running[0], node: "n" }, &cluster, start + 5 * SECOND);
    assert_eq!(popped(&mut queue), None, "the node is still full");
    cluster.remove_pod("c");
    wake(&mut queue, &Event::PodGone { pod: &running[1], node: "n" }, &cluster, start + 5 * SECOND);
    assert_eq!(popped(&mut queue).as_deref(), Some("a"));
}

#[test]
fn a_woken_pod_waits_for_its_backoff_only_behind_others() {
    let start = Instant::now();
    let mut queue = waiting(start);
    queue.add(&pod("b", 0));
    let large = node("2");
    wake(&mut queue, &Event::Node { old: None, new: &large }, &Cluster::default(), start);
    assert_eq!(queue.tick(start), Some(start + SECOND));
    assert_eq!(popped(&mut queue).as_deref(), Some("b"));
    assert_eq!(popped(&mut queue).as_deref(), Some("a"));
}

#[test]
fn a_failed_attempt_waits_for_its_backoff() {
    let start = Instant::now();
    let mut queue = Queue::new(&Config::default());
    queue.add(&pod("a", 0));
    queue.pop();
    queue.failed("a", start);
    assert_eq!(popped(&mut queue), None);
    assert_eq!(queue.tick(start), Some(start + SECOND));
    assert_eq!(queue.tick(start + SECOND), None);
    assert_eq!(popped(&mut queue).as_deref(), Some("a"));
}

#[test]
fn nothing_waits_for_ever() {
    let start = Instant::now();
    let mut queue = waiting(start);
    assert_eq!(queue.tick(start), Some(start + UNSCHEDULABLE_MAX));
    queue.tick(start + UNSCHEDULABLE_MAX);
    assert_eq!(popped(&mut queue).as_deref(), Some("a"));
}

#[test]
fn a_pod_that_left_is_nowhere() {
    let start = Instant::now();
    let mut queue = waiting(start);
    queue.remove("a");
    assert_eq!((queue.len(), queue.tick(start), popped(&mut queue)), (0, None, None));
    let large = node("2");
    wake(&mut queue, &Event::Node { old: None, new: &large }, &Cluster::default(), start);
    assert_eq!(popped(&mut queue), None);
}

#[test]
fn pauses_double_up_to_the_limit() {
    let queue = Queue::new(&Config::default());
    assert_eq!([1, 2, 3, 4, 5, 50].map(|n| queue.backoff(n).as_secs()), [1, 2, 4, 8, 10, 10]);
}
