//! Statuses as text: phase, conditions and containers of a pod in one place each.

use expect_test::{Expect, expect};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod, PodStatus};
use serde_json::{Value, json};

use super::{back_offs, patch, status};
use crate::pod::observed::{
    Attempt, Ending, Exited, Image, Observed, Retry, Sandbox, Series, StartFailure, State, Volumes, definition_hash,
};
use crate::pod::resize::Pending;

fn now() -> Timestamp {
    "2026-01-01T01:00:00Z".parse().unwrap()
}

fn at(seconds: i64) -> Timestamp {
    now() + SignedDuration::from_secs(seconds)
}

fn pod(spec: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "shop", "uid": "u1", "generation": 3}, "spec": spec,
    }))
    .unwrap()
}

fn plain(name: &str) -> Value {
    json!({"name": name, "image": "app"})
}

fn up() -> Observed {
    Observed {
        sandbox: Sandbox::Ready { addresses: vec!["10.244.0.5".parse().unwrap()], ready_at: at(-100) },
        volumes: Volumes::Ready,
        started_at: Some(at(-100)),
        ..Observed::default()
    }
}

fn attempt(number: u32, state: State) -> Attempt {
    Attempt {
        id: format!("id{number}"),
        number,
        backoff_seconds: 10 * number,
        created_at: at(-50),
        hash: definition_hash("main", "app"),
        image: "app".into(),
        image_id: "sha256:1".into(),
        resources: None,
        state,
    }
}

fn running(number: u32) -> Series {
    let state = State::Running { started_at: at(-50), pid: 7 };
    Series { latest: Some(attempt(number, state)), started: true, ready: true, ..Series::default() }
}

fn exited(number: u32, code: i32) -> Series {
    let exited = Exited {
        code,
        reason: if code == 0 { "Completed" } else { "Error" }.into(),
        message: "bye".into(),
        started_at: Some(at(-50)),
        finished_at: at(-5),
        settled: true,
    };
    Series { latest: Some(attempt(number, State::Exited(exited))), ..Series::default() }
}

fn with(mut observed: Observed, name: &str, series: Series) -> Observed {
    observed.containers.insert(name.to_owned(), series);
    observed
}

fn state(state: Option<&ContainerState>) -> String {
    let Some(state) = state else { return "-".into() };
    match (&state.waiting, &state.running, &state.terminated) {
        (Some(waiting), ..) => {
            let message = waiting.message.as_ref().map(|message| format!(" ({message})")).unwrap_or_default();
            format!("waiting {}{message}", waiting.reason.as_deref().unwrap_or_default())
        }
        (_, Some(_), _) => "running".into(),
        (_, _, Some(ended)) => {
            format!("terminated {} {}", ended.exit_code, ended.reason.as_deref().unwrap_or_default())
        }
        _ => "-".into(),
    }
}

fn text(status: &PodStatus) -> String {
    let mut text = status.phase.clone().unwrap_or_default();
    if let Some(reason) = &status.reason {
        text += &format!(" {reason}");
    }
    text += "\n";
    for condition in status.conditions.iter().flatten() {
        text += &format!("  {} {}", condition.type_, condition.status);
        if let Some(reason) = &condition.reason {
            text += &format!(" {reason}");
        }
        if let Some(message) = &condition.message {
            text += &format!(": {message}");
        }
        text += "\n";
    }
    let lists = [&status.init_container_statuses, &status.container_statuses];
    let all = lists.into_iter().flatten().flatten().collect::<Vec<&ContainerStatus>>();
    for container in all {
        let flags = [("ready", container.ready), ("started", container.started.unwrap_or(false))];
        let flags = flags.iter().filter(|(_, set)| *set).map(|(name, _)| format!(" {name}")).collect::<String>();
        text += &format!("  {}:{flags} {}", container.name, state(container.state.as_ref()));
        text += &format!(", last {}, restarts {}\n", state(container.last_state.as_ref()), container.restart_count);
    }
    text
}

fn check(pod: &Pod, observed: &Observed, expected: Expect) {
    let host = ["192.168.0.2".parse().unwrap()];
    expected.assert_eq(&text(&status(pod, observed, &host, &PodStatus::default(), now())));
}

#[test]
fn a_new_pod_is_pending() {
    check(
        &pod(json!({"containers": [plain("main")]})),
        &Observed::default(),
        expect![[r#"
            Pending
              PodReadyToStartContainers False
              Initialized True
              Ready False ContainersNotReady: containers with unready status: [main]
              ContainersReady False ContainersNotReady: containers with unready status: [main]
              main: waiting ContainerCreating, last -, restarts 0
        "#]],
    );
}

#[test]
fn init_containers_are_waited_for() {
    let pod = pod(json!({"initContainers": [plain("i1"), plain("i2")], "containers": [plain("main")]}));
    check(
        &pod,
        &with(up(), "i1", running(0)),
        expect![[r#"
            Pending
              PodReadyToStartContainers True
              Initialized False ContainersNotInitialized: containers with incomplete status: [i1 i2]
              Ready False ContainersNotReady: containers with unready status: [main]
              ContainersReady False ContainersNotReady: containers with unready status: [main]
              i1: started running, last -, restarts 0
              i2: waiting PodInitializing, last -, restarts 0
              main: waiting PodInitializing, last -, restarts 0
        "#]],
    );
}

#[test]
fn a_running_pod_is_ready_when_its_containers_are() {
    let pod = pod(json!({"containers": [plain("a"), plain("b")]}));
    let observed = with(with(up(), "a", running(0)), "b", Series { ready: false, ..running(2) });
    check(
        &pod,
        &observed,
        expect![[r#"
            Running
              PodReadyToStartContainers True
              Initialized True
              Ready False ContainersNotReady: containers with unready status: [b]
              ContainersReady False ContainersNotReady: containers with unready status: [b]
              a: ready started running, last -, restarts 0
              b: started running, last -, restarts 2
        "#]],
    );
    check(
        &pod,
        &with(observed, "b", running(2)),
        expect![[r#"
            Running
              PodReadyToStartContainers True
              Initialized True
              Ready True
              ContainersReady True
              a: ready started running, last -, restarts 0
              b: ready started running, last -, restarts 2
        "#]],
    );
}

#[test]
fn readiness_gates_hold_back_ready_alone() {
    let pod = pod(json!({"containers": [plain("a")], "readinessGates": [{"conditionType": "x/lb"}]}));
    let observed = with(up(), "a", running(0));
    let with_gate = |value: &str| PodStatus {
        conditions: serde_json::from_value(json!([{"type": "x/lb", "status": value}])).unwrap(),
        ..PodStatus::default()
    };
    let ready = |before: &PodStatus| {
        let status = status(&pod, &observed, &[], before, now());
        let ready = status.conditions.into_iter().flatten().find(|condition| condition.type_ == "Ready").unwrap();
        format!("{} {}", ready.status, ready.message.unwrap_or_default())
    };
    expect![[r#"False corresponding condition of pod readiness gate "x/lb" does not exist."#]]
        .assert_eq(&ready(&PodStatus::default()));
    expect![[r#"False the status of pod readiness gate "x/lb" is not "True", but False"#]]
        .assert_eq(&ready(&with_gate("False")));
    expect!["True "].assert_eq(&ready(&with_gate("True")));
}

#[test]
fn a_crash_loop_waits_and_shows_the_last_end() {
    let pod = pod(json!({"containers": [plain("main")]}));
    check(
        &pod,
        &with(up(), "main", exited(2, 3)),
        expect![[r#"
            Running
              PodReadyToStartContainers True
              Initialized True
              Ready False ContainersNotReady: containers with unready status: [main]
              ContainersReady False ContainersNotReady: containers with unready status: [main]
              main: waiting CrashLoopBackOff (back-off 20s restarting failed container=main pod=web_shop(u1)), last terminated 3 Error, restarts 2
        "#]],
    );
}

#[test]
fn what_keeps_a_container_from_starting_is_told() {
    let pod = pod(json!({"containers": [plain("main")]}));
    let retry = |failed: i64| Retry { count: 1, failed_at: at(failed), at: at(9), message: "no such host".into() };
    let line = |observed: &Observed| {
        let status = status(&pod, observed, &[], &PodStatus::default(), now());
        state(status.container_statuses.unwrap()[0].state.as_ref())
    };
    let image = |reason, failed| {
        let mut observed = up();
        observed.images.insert("app".into(), Image::Failed { reason, retry: retry(failed) });
        observed
    };
    expect!["waiting ErrImagePull (no such host)"].assert_eq(&line(&image("ErrImagePull", 0)));
    expect![[r#"waiting ImagePullBackOff (Back-off pulling image "app": ErrImagePull: no such host)"#]]
        .assert_eq(&line(&image("ErrImagePull", -8)));
    expect!["waiting ErrImageNeverPull (no such host)"].assert_eq(&line(&image("ErrImageNeverPull", -8)));
    let failure = StartFailure { reason: "CreateContainerConfigError", retry: retry(0) };
    let series = Series { start_failure: Some(failure), ..Series::default() };
    expect!["waiting CreateContainerConfigError (no such host)"].assert_eq(&line(&with(up(), "main", series)));
}

#[test]
fn a_pod_that_never_restarts_succeeds_or_fails() {
    let pod = pod(json!({"restartPolicy": "Never", "containers": [plain("a"), plain("b")]}));
    check(
        &pod,
        &with(with(up(), "a", exited(0, 0)), "b", exited(0, 0)),
        expect![[r#"
            Succeeded
              PodReadyToStartContainers True
              Initialized True PodCompleted
              Ready False PodCompleted
              ContainersReady False PodCompleted
              a: terminated 0 Completed, last -, restarts 0
              b: terminated 0 Completed, last -, restarts 0
        "#]],
    );
    check(
        &pod,
        &with(with(up(), "a", exited(0, 0)), "b", exited(0, 1)),
        expect![[r#"
            Failed
              PodReadyToStartContainers True
              Initialized True
              Ready False PodFailed
              ContainersReady False PodFailed
              a: terminated 0 Completed, last -, restarts 0
              b: terminated 1 Error, last -, restarts 0
        "#]],
    );
    let one = with(with(up(), "a", exited(0, 0)), "b", running(0));
    assert_eq!(status(&pod, &one, &[], &PodStatus::default(), now()).phase.as_deref(), Some("Running"));
}

#[test]
fn a_deleted_pod_ends_in_a_final_phase() {
    let pod = pod(json!({"containers": [plain("main")]}));
    let mut observed = with(up(), "main", exited(0, 0));
    observed.ending = Some(Ending { since: at(-1), deadline: at(1) });
    let phase = |observed: &Observed| status(&pod, observed, &[], &PodStatus::default(), now()).phase.unwrap();
    assert_eq!(phase(&observed), "Succeeded");
    assert_eq!(phase(&with(observed.clone(), "main", exited(0, 137))), "Failed");
    assert_eq!(phase(&with(observed, "main", running(0))), "Running");
}

#[test]
fn an_expired_pod_has_failed() {
    let pod = pod(json!({"activeDeadlineSeconds": 5, "containers": [plain("main")]}));
    let mut observed = with(up(), "main", exited(0, 137));
    observed.expired = true;
    let status = status(&pod, &observed, &[], &PodStatus::default(), now());
    assert_eq!((status.phase.as_deref(), status.reason.as_deref()), (Some("Failed"), Some("DeadlineExceeded")));
}

#[test]
fn a_final_phase_never_changes_again() {
    let pod = pod(json!({"containers": [plain("main")]}));
    let before = PodStatus { phase: Some("Failed".into()), reason: Some("Evicted".into()), ..PodStatus::default() };
    let status = status(&pod, &with(up(), "main", exited(0, 0)), &[], &before, now());
    assert_eq!((status.phase.as_deref(), status.reason.as_deref()), (Some("Failed"), Some("Evicted")));
}

#[test]
fn a_patch_names_only_what_changed() {
    let pod = pod(json!({"containers": [plain("main")]}));
    let host = ["192.168.0.2".parse().unwrap()];
    let first = status(&pod, &Observed::default(), &host, &PodStatus::default(), at(-60));
    assert!(patch(&first, &status(&pod, &Observed::default(), &host, &first, now())).is_none());
    let second = status(&pod, &with(up(), "main", running(0)), &host, &first, now());
    let change = patch(&first, &second).unwrap();
    let fields = change["status"].as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
    expect!["conditions containerStatuses phase podIP podIPs startTime"].assert_eq(&fields);
    let conditions = change["status"]["conditions"].as_array().unwrap();
    let kinds = conditions.iter().map(|condition| condition["type"].as_str().unwrap()).collect::<Vec<_>>();
    assert_eq!(kinds, ["PodReadyToStartContainers", "Ready", "ContainersReady"]);
    assert_eq!(conditions[1]["reason"], Value::Null);
}

#[test]
fn transitions_keep_their_time_until_the_status_changes() {
    let pod = pod(json!({"containers": [plain("main")]}));
    let first = status(&pod, &up(), &[], &PodStatus::default(), at(-60));
    let second = status(&pod, &with(up(), "main", running(0)), &[], &first, now());
    let time = |status: &PodStatus, kind: &str| {
        let condition = status.conditions.iter().flatten().find(|condition| condition.type_ == kind).unwrap();
        condition.last_transition_time.clone().unwrap().0
    };
    assert_eq!(time(&second, "PodReadyToStartContainers"), at(-60));
    assert_eq!(time(&second, "Ready"), now());
    assert!(second.conditions.iter().flatten().all(|condition| condition.observed_generation == Some(3)));
}

#[test]
fn a_back_off_is_an_event_when_it_begins() {
    let pod = pod(json!({"containers": [plain("main"), plain("side")]}));
    let at_restart = |number: i32, main: Value, side: Value| -> PodStatus {
        let container = |name: &str, state: Value| json!({"name": name, "image": "app", "imageID": "", "ready": false, "restartCount": number, "state": state});
        serde_json::from_value(json!({"containerStatuses": [container("main", main), container("side", side)]}))
            .unwrap()
    };
    let waiting = |reason: &str| json!({"waiting": {"reason": reason, "message": "back-off 10s"}});
    let told = |before: &PodStatus, after: &PodStatus| {
        let lines = back_offs(&pod, before, after).into_iter().map(|event| {
            let kind = if event.warning { "Warning" } else { "Normal" };
            format!("{kind} {} {}: {}", event.reason, event.container.unwrap_or_default(), event.message)
        });
        lines.collect::<Vec<_>>().join("\n")
    };
    let first = at_restart(1, waiting("CrashLoopBackOff"), waiting("ImagePullBackOff"));
    expect![[r#"
        Warning BackOff main: Back-off restarting failed container main in pod web_shop(u1)
        Normal BackOff side: Back-off pulling image "app"
        Warning Failed side: Error: ImagePullBackOff"#]]
    .assert_eq(&told(&at_restart(1, waiting("ErrImagePull"), waiting("ErrImagePull")), &first));
    expect![""].assert_eq(&told(&first, &first));
    expect![""].assert_eq(&told(&first, &at_restart(1, json!({"running": {}}), waiting("ErrImagePull"))));
    expect!["Warning BackOff main: Back-off restarting failed container main in pod web_shop(u1)"]
        .assert_eq(&told(&first, &at_restart(2, waiting("CrashLoopBackOff"), json!({"running": {}}))));
}

#[test]
fn a_pod_that_is_over_stays_as_told_when_its_containers_are_gone() {
    let pod = pod(json!({"restartPolicy": "Never", "containers": [plain("main")]}));
    let ended = with(up(), "main", exited(0, 3));
    let told = status(&pod, &ended, &[], &PodStatus::default(), now());
    assert_eq!(told.phase.as_deref(), Some("Failed"));
    let gone = Observed { terminal: true, ..Observed::default() };
    let later = status(&pod, &gone, &[], &told, now());
    assert_eq!(later.phase.as_deref(), Some("Failed"));
    assert_eq!(later.container_statuses, told.container_statuses);
}

#[test]
fn a_resize_shows_what_it_waits_for_and_goes_when_it_is_over() {
    let container = json!({"name": "main", "image": "app", "resources": {"requests": {"cpu": "200m"}}});
    let pod = pod(json!({"containers": [container]}));
    let mut series = running(0);
    let given: k8s_openapi::api::core::v1::ResourceRequirements =
        serde_json::from_value(json!({"requests": {"cpu": "100m"}})).unwrap();
    series.latest.as_mut().unwrap().resources = Some(given.clone());
    let mut observed = with(up(), "main", series);
    observed.resize_pending = Some(Pending { reason: "Deferred", message: "full".into(), summary: String::new() });
    check(
        &pod,
        &observed,
        expect![[r"
            Running
              PodReadyToStartContainers True
              Initialized True
              Ready True
              ContainersReady True
              PodResizePending True Deferred: full
              PodResizeInProgress True
              main: ready started running, last -, restarts 0
        "]],
    );
    let before = status(&pod, &observed, &[], &PodStatus::default(), now());
    let told = &before.container_statuses.as_ref().unwrap()[0];
    assert_eq!(told.resources, Some(given));
    assert_eq!(told.allocated_resources.as_ref().unwrap()["cpu"].0, "200m");
    observed.resize_pending = None;
    observed.containers.get_mut("main").unwrap().latest.as_mut().unwrap().resources = None;
    let after = status(&pod, &observed, &[], &before, now());
    let patch = patch(&before, &after).unwrap();
    let gone = json!([
        {"type": "PodResizePending", "$patch": "delete"},
        {"type": "PodResizeInProgress", "$patch": "delete"},
    ]);
    assert_eq!(patch["status"]["conditions"], gone);
}
