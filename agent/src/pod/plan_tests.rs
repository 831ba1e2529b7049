//! Plans as text: a pod, what is observed of it, and the steps that follow.

use expect_test::{Expect, expect};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Time};
use serde_json::{Value, json};

use super::{Plan, Step, plan, replaced_by};
use crate::pod::observed::{
    Attempt, Condemned, Ending, Exited, Hook, Image, Observed, Retry, Sandbox, Series, StartFailure, State, Volumes,
    definition_hash,
};

fn now() -> Timestamp {
    "2026-01-01T01:00:00Z".parse().unwrap()
}

/// Seconds from now.
fn at(seconds: i64) -> Timestamp {
    now() + SignedDuration::from_secs(seconds)
}

fn pod(spec: Value) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "shop", "uid": "u1"}, "spec": spec}))
        .unwrap()
}

fn one(container: Value) -> Pod {
    pod(json!({"containers": [with_name(container, "main")]}))
}

fn with_name(mut container: Value, name: &str) -> Value {
    container["name"] = json!(name);
    container["image"] = json!("app");
    container
}

fn plain(name: &str) -> Value {
    with_name(json!({}), name)
}

fn sidecar(name: &str) -> Value {
    with_name(json!({"restartPolicy": "Always"}), name)
}

/// Sandbox, volumes and image are there.
fn ready() -> Observed {
    Observed {
        sandbox: Sandbox::Ready { addresses: vec![], ready_at: at(-100) },
        volumes: Volumes::Ready,
        images: [("app".to_owned(), Image::Present { image_id: "i".into() })].into(),
        started_at: Some(at(-100)),
        ..Observed::default()
    }
}

fn attempt(name: &str, state: State) -> Attempt {
    Attempt {
        id: format!("{name}-id"),
        number: 0,
        backoff_seconds: 0,
        created_at: at(-50),
        hash: definition_hash(name, "app"),
        image: "app".into(),
        image_id: "i".into(),
        resources: None,
        state,
    }
}

fn running(name: &str) -> Series {
    let state = State::Running { started_at: at(-50), pid: 7 };
    Series { latest: Some(attempt(name, state)), started: true, ready: true, ..Series::default() }
}

fn exited(name: &str, code: i32) -> Series {
    let exited = Exited {
        code,
        reason: String::new(),
        message: String::new(),
        started_at: Some(at(-50)),
        finished_at: at(-5),
        settled: true,
    };
    Series { latest: Some(attempt(name, State::Exited(exited))), ..Series::default() }
}

trait With {
    fn with(self, name: &str, series: Series) -> Self;
}

impl With for Observed {
    fn with(mut self, name: &str, series: Series) -> Self {
        self.containers.insert(name.to_owned(), series);
        self
    }
}

fn text(plan: &Plan) -> String {
    let seconds = |at: Timestamp| at.duration_since(now()).as_secs();
    let line = |step: &Step| match step {
        Step::CreateSandbox => "create sandbox".to_owned(),
        Step::PrepareVolumes => "prepare volumes".to_owned(),
        Step::FindImage { container } => format!("find image of {container}"),
        Step::Settle { container } => format!("settle {container}"),
        Step::Start { container, number, backoff_seconds } => {
            format!("start {container} #{number} backoff {backoff_seconds}")
        }
        Step::PostStart { container } => format!("post-start {container}"),
        Step::Stop { container, deadline, .. } => format!("stop {container} within {}", seconds(*deadline)),
        Step::Expire => "expire".to_owned(),
        Step::TearDown => "tear down".to_owned(),
        Step::Remove => "remove".to_owned(),
        Step::Resize => "resize".to_owned(),
        Step::Finish => "finish".to_owned(),
    };
    let mut text = plan.steps.iter().map(|step| line(step) + "\n").collect::<String>();
    if let Some(wake) = plan.wake {
        text += &format!("wake in {}\n", seconds(wake));
    }
    if text.is_empty() { "nothing\n".to_owned() } else { text }
}

fn check(pod: &Pod, observed: &Observed, expected: Expect) {
    expected.assert_eq(&text(&plan(pod, observed, now())));
}

#[test]
fn a_new_pod_prepares_everything_at_once() {
    let pod = pod(json!({"containers": [plain("a"), plain("b"), {"name": "c", "image": "other"}]}));
    check(
        &pod,
        &Observed::default(),
        expect![[r"
            create sandbox
            prepare volumes
            find image of a
            find image of c
        "]],
    );
}

#[test]
fn containers_start_when_everything_is_prepared() {
    let pod = pod(json!({"containers": [plain("a"), plain("b")]}));
    check(
        &pod,
        &ready(),
        expect![[r"
            start a #0 backoff 0
            start b #0 backoff 0
        "]],
    );
    let both = ready().with("a", running("a")).with("b", running("b"));
    check(&pod, &both, expect!["nothing\n"]);
}

#[test]
fn failed_preparations_wait_for_their_time() {
    let retry = |seconds| Retry { count: 1, failed_at: at(-1), at: at(seconds), message: String::new() };
    let mut observed = ready();
    observed.sandbox = Sandbox::Failed(retry(4));
    observed.volumes = Volumes::Failed(retry(2));
    check(&one(json!({})), &observed, expect!["wake in 2\n"]);
    observed.volumes = Volumes::Failed(retry(0));
    check(
        &one(json!({})),
        &observed,
        expect![[r"
            prepare volumes
            wake in 4
        "]],
    );
    let mut observed = ready();
    observed.images.insert("app".into(), Image::Failed { reason: "ErrImagePull", retry: retry(9) });
    check(&one(json!({})), &observed, expect!["wake in 9\n"]);
    let failure = StartFailure { reason: "CreateContainerConfigError", retry: retry(3) };
    let series = Series { start_failure: Some(failure), ..Series::default() };
    check(&one(json!({})), &ready().with("main", series), expect!["wake in 3\n"]);
}

#[test]
fn contents_of_volumes_are_refreshed_while_the_pod_runs() {
    let mut observed = ready().with("main", running("main"));
    observed.refresh_at = Some(at(5));
    check(&one(json!({})), &observed, expect!["wake in 5\n"]);
    observed.refresh_at = Some(at(0));
    check(&one(json!({})), &observed, expect!["prepare volumes\n"]);
}

#[test]
fn init_containers_run_one_by_one() {
    let pod = pod(json!({"initContainers": [plain("i1"), plain("i2")], "containers": [plain("main")]}));
    check(&pod, &ready(), expect!["start i1 #0 backoff 0\n"]);
    check(&pod, &ready().with("i1", running("i1")), expect!["nothing\n"]);
    check(&pod, &ready().with("i1", exited("i1", 0)), expect!["start i2 #0 backoff 0\n"]);
    check(&pod, &ready().with("i1", exited("i1", 1)), expect!["start i1 #1 backoff 10\n"]);
    let done = ready().with("i1", exited("i1", 0)).with("i2", exited("i2", 0));
    check(&pod, &done.clone(), expect!["start main #0 backoff 0\n"]);
    // With containers running, init containers are history, whatever became of their records.
    check(&pod, &ready().with("main", running("main")), expect!["nothing\n"]);
}

#[test]
fn a_failed_init_container_ends_a_pod_that_never_restarts() {
    let pod = pod(json!({"restartPolicy": "Never", "initContainers": [plain("i1")], "containers": [plain("main")]}));
    check(&pod, &ready().with("i1", exited("i1", 1)), expect!["tear down\n"]);
}

#[test]
fn a_sidecar_must_be_up_before_what_follows() {
    let pod = pod(json!({"initContainers": [sidecar("s"), plain("i")], "containers": [plain("main")]}));
    check(&pod, &ready(), expect!["start s #0 backoff 0\n"]);
    let starting = Series { started: false, ..running("s") };
    check(&pod, &ready().with("s", starting), expect!["nothing\n"]);
    check(&pod, &ready().with("s", running("s")), expect!["start i #0 backoff 0\n"]);
    let up = ready().with("s", running("s")).with("i", exited("i", 0)).with("main", running("main"));
    check(&pod, &up, expect!["nothing\n"]);
    check(&pod, &up.with("s", exited("s", 0)), expect!["start s #1 backoff 10\n"]);
}

#[test]
fn restarts_follow_the_policy() {
    let spec = |policy: &str| pod(json!({"restartPolicy": policy, "containers": [plain("main")]}));
    let of = |code| ready().with("main", exited("main", code));
    check(&spec("Always"), &of(0), expect!["start main #1 backoff 10\n"]);
    check(&spec("OnFailure"), &of(1), expect!["start main #1 backoff 10\n"]);
    check(&spec("OnFailure"), &of(0), expect!["tear down\n"]);
    check(&spec("Never"), &of(1), expect!["tear down\n"]);
    let rule = json!({"restartPolicy": "Never", "restartPolicyRules": [
        {"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]});
    check(&one(rule.clone()), &of(42), expect!["start main #1 backoff 10\n"]);
    check(&one(rule), &of(1), expect!["tear down\n"]);
}

#[test]
fn restarts_back_off_and_recover() {
    let with = |backoff_seconds, created: i64, finished: i64| {
        let mut series = exited("main", 1);
        let latest = series.latest.as_mut().unwrap();
        (latest.number, latest.backoff_seconds, latest.created_at) = (4, backoff_seconds, at(created));
        if let State::Exited(exited) = &mut latest.state {
            exited.finished_at = at(finished);
        }
        let mut observed = ready().with("main", series);
        observed.sandbox = Sandbox::Ready { addresses: vec![], ready_at: at(-5000) };
        observed
    };
    check(&one(json!({})), &with(40, -20, -5), expect!["wake in 35\n"]);
    check(&one(json!({})), &with(40, -60, -45), expect!["start main #5 backoff 80\n"]);
    check(&one(json!({})), &with(300, -600, -300), expect!["start main #5 backoff 300\n"]);
    // Longer than twice the longest wait: as if it had never failed.
    check(&one(json!({})), &with(300, -700, -5), expect!["start main #5 backoff 10\n"]);
}

/// A clock set back by an hour must not add the hour to any wait, nor make a wait of what runs.
#[test]
fn waits_end_when_the_clock_was_set_back() {
    let later = at(3600);
    let retry = Retry { count: 3, failed_at: later, at: later + SignedDuration::from_secs(40), message: "x".into() };
    assert!(retry.is_due(now()) && !retry.is_due(later), "due by the new clock, waiting by the old");
    let mut crashed = exited("main", 1);
    let latest = crashed.latest.as_mut().unwrap();
    latest.backoff_seconds = 40;
    latest.created_at = later - SignedDuration::from_secs(5);
    let State::Exited(exited) = &mut latest.state else { panic!("it has exited") };
    exited.finished_at = later;
    check(&one(json!({})), &ready().with("main", crashed), expect!["start main #1 backoff 80\n"]);
    check(&one(json!({})), &ready().with("main", running("main")), expect!["nothing\n"]);
}

#[test]
fn an_exit_is_settled_before_anything_else() {
    let mut series = exited("main", 1);
    if let State::Exited(exited) = &mut series.latest.as_mut().unwrap().state {
        exited.settled = false;
    }
    check(&one(json!({})), &ready().with("main", series), expect!["settle main\n"]);
}

#[test]
fn a_lost_sandbox_runs_everything_again() {
    let pod = pod(json!({"initContainers": [plain("i")], "containers": [plain("main")]}));
    let mut observed = ready().with("i", exited("i", 0)).with("main", exited("main", 255));
    observed.sandbox = Sandbox::Ready { addresses: vec![], ready_at: at(-1) };
    check(&pod, &observed, expect!["start i #1 backoff 10\n"]);
}

#[test]
fn hooks_hold_back_the_containers_after_them() {
    let pod = pod(json!({"containers": [plain("a"), plain("b")]}));
    let hooked = |post_start| ready().with("a", Series { post_start, ..running("a") });
    check(&pod, &hooked(Hook::Pending), expect!["post-start a\n"]);
    check(&pod, &hooked(Hook::Running), expect!["nothing\n"]);
    check(&pod, &hooked(Hook::Done), expect!["start b #0 backoff 0\n"]);
}

#[test]
fn condemned_and_changed_containers_are_replaced() {
    let condemned = Condemned { message: "probe".into(), grace_seconds: Some(3) };
    let series = Series { condemned: Some(condemned), ..running("main") };
    check(&one(json!({})), &ready().with("main", series.clone()), expect!["stop main within 3\n"]);
    let stopping = Series { stopping: Some(at(3)), ..series };
    check(&one(json!({})), &ready().with("main", stopping), expect!["nothing\n"]);
    let mut changed = running("main");
    changed.latest.as_mut().unwrap().hash = "old".into();
    check(&one(json!({})), &ready().with("main", changed), expect!["stop main within 30\n"]);
}

#[test]
fn a_replacement_does_not_wait_and_is_told_when_it_is_over() {
    let pod = one(json!({}));
    let mut old = exited("main", 0);
    let latest = old.latest.as_mut().unwrap();
    (latest.hash, latest.backoff_seconds) = ("old".into(), 40);
    let observed = |series: Series| ready().with("main", series);
    check(&pod, &observed(old.clone()), expect!["start main #1 backoff 10\n"]);
    let told = |series: &Series| replaced_by(&pod, &observed(series.clone()), now());
    assert_eq!(told(&old), None, "it ended long ago");
    let ended_at = |series: &mut Series| match &mut series.latest.as_mut().unwrap().state {
        State::Exited(exited) => exited.finished_at = at(-1),
        State::Running { .. } => panic!("runs"),
    };
    ended_at(&mut old);
    assert_eq!(told(&old), Some(at(2)));
    let retry = Retry { count: 1, failed_at: now(), at: at(9), message: "no".into() };
    old.start_failure = Some(StartFailure { reason: "CreateContainerError", retry });
    assert_eq!(told(&old), None, "something is in the way");
    let mut crashed = exited("main", 1);
    ended_at(&mut crashed);
    assert_eq!(told(&crashed), None, "nobody wanted it to end");
}

#[test]
fn a_resize_is_given_in_place_or_by_a_new_start() {
    let asks = |cpu: &str, policy: &str| {
        one(json!({
            "resources": {"requests": {"cpu": cpu}},
            "resizePolicy": [{"resourceName": "cpu", "restartPolicy": policy}],
        }))
    };
    let mut given = running("main");
    let resources = serde_json::from_value(json!({"requests": {"cpu": "100m"}})).unwrap();
    given.latest.as_mut().unwrap().resources = Some(resources);
    let mut observed = ready().with("main", given);
    check(&asks("0.1", "NotRequired"), &observed, expect!["nothing\n"]);
    check(&asks("200m", "NotRequired"), &observed, expect!["resize\n"]);
    check(&asks("200m", "RestartContainer"), &observed, expect!["stop main within 30\n"]);
    observed.resize_failure = Some(Retry { count: 1, failed_at: at(-1), at: at(4), message: "in use".into() });
    check(&asks("200m", "NotRequired"), &observed, expect!["wake in 4\n"]);
}

#[test]
fn a_deleted_pod_stops_removes_and_leaves() {
    let mut pod =
        pod(json!({"initContainers": [sidecar("s1"), sidecar("s2")], "containers": [plain("a"), plain("b")]}));
    pod.metadata.deletion_timestamp = Some(Time(at(10)));
    let mut observed =
        ready().with("s1", running("s1")).with("s2", running("s2")).with("a", running("a")).with("b", exited("b", 0));
    observed.ending = Some(Ending { since: at(-1), deadline: at(9) });
    check(&pod, &observed, expect!["stop a within 9\n"]);
    let stopping = Series { stopping: Some(at(9)), ..running("a") };
    check(&pod, &observed.clone().with("a", stopping.clone()), expect!["nothing\n"]);
    // A shorter grace period replaces the stop under way.
    let mut sooner = observed.clone().with("a", stopping);
    sooner.ending = Some(Ending { since: at(-1), deadline: at(0) });
    check(&pod, &sooner, expect!["stop a within 0\n"]);
    // Sidecars end after the containers, last first.
    let mut observed = observed.with("a", exited("a", 0));
    check(&pod, &observed, expect!["stop s2 within 9\n"]);
    observed = observed.with("s2", exited("s2", 0));
    check(&pod, &observed, expect!["stop s1 within 9\n"]);
    observed = observed.with("s1", exited("s1", 0));
    check(&pod, &observed, expect!["tear down\n"]);
    observed.torn_down = true;
    check(&pod, &observed, expect!["remove\n"]);
    observed.containers_removed = true;
    check(&pod, &observed, expect!["finish\n"]);
    observed.containers_removed = false;
    observed.cleanup_failure = Some(Retry { count: 1, failed_at: now(), at: at(2), message: String::new() });
    check(&pod, &observed, expect!["wake in 2\n"]);
}

#[test]
fn a_pod_that_is_over_keeps_its_containers_until_it_is_deleted() {
    let pod = pod(json!({
        "restartPolicy": "Never", "initContainers": [sidecar("s")], "containers": [plain("main")],
    }));
    let mut observed = ready().with("s", running("s")).with("main", exited("main", 0));
    check(&pod, &observed, expect!["stop s within 30\n"]);
    observed = observed.with("s", exited("s", 0));
    check(&pod, &observed, expect!["tear down\n"]);
    observed.torn_down = true;
    check(&pod, &observed, expect!["nothing\n"]);
}

#[test]
fn a_pod_past_its_deadline_expires() {
    let pod = pod(json!({"activeDeadlineSeconds": 90, "containers": [plain("main")]}));
    check(&pod, &ready().with("main", running("main")), expect!["expire\n"]);
    let mut early = ready().with("main", running("main"));
    early.started_at = Some(at(-80));
    check(&pod, &early, expect!["wake in 10\n"]);
}

#[test]
fn a_pod_that_is_over_no_longer_waits_for_its_deadline() {
    let pod = pod(json!({"activeDeadlineSeconds": 90, "restartPolicy": "Never", "containers": [plain("main")]}));
    let mut over = ready().with("main", exited("main", 0));
    over.torn_down = true;
    check(&pod, &over, expect!["nothing\n"]);
}

#[test]
fn a_pod_the_server_knows_as_failed_never_runs_again() {
    let mut observed = ready().with("main", exited("main", 1));
    observed.terminal = true;
    check(&one(json!({})), &observed, expect!["tear down\n"]);
}

#[test]
fn ephemeral_containers_start_once() {
    let pod = pod(json!({"containers": [plain("main")], "ephemeralContainers": [plain("debug")]}));
    let observed = ready().with("main", running("main"));
    check(&pod, &observed, expect!["start debug #0 backoff 0\n"]);
    check(&pod, &observed.with("debug", exited("debug", 1)), expect!["nothing\n"]);
}
