//! A job in pure time: a script of what its pods do, and the story of what the plan makes of it. Reconciles run after
//! each line until nothing changes, as the engine would run them.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use expect_test::{Expect, expect};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use serde_json::{Value, json};

use super::backoff::Record;
use super::plan::{Action, FINALIZER, Sync};
use super::status::{self, Acted};
use super::template;
use crate::objects::Pod;

struct Story {
    job: Value,
    /// By name, in their API form.
    pods: BTreeMap<String, Value>,
    made: usize,
    now: Timestamp,
    record: Record,
    told: Vec<String>,
}

impl Story {
    fn new(spec: Value) -> Self {
        let template = json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "c"}]}});
        let mut job = json!({
            "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j", "namespace": "a", "uid": "u"},
            "spec": {"parallelism": 1, "backoffLimit": 6, "template": template},
        });
        merge(&mut job["spec"], &spec);
        let now = "2026-01-01T12:00:00Z".parse().unwrap();
        Self { job, pods: BTreeMap::new(), made: 0, now, record: Record::default(), told: Vec::new() }
    }

    /// Reconciles until nothing changes.
    fn settle(&mut self) {
        for _ in 0..20 {
            if !self.reconcile() {
                break;
            }
        }
        self.told.push(format!("  {}", self.status()));
    }

    fn reconcile(&mut self) -> bool {
        let job: Job = serde_json::from_value(self.job.clone()).unwrap();
        if status::is_finished(job.status.as_ref()) {
            return false;
        }
        let before = (self.job.clone(), self.pods.clone());
        let pods: Vec<Arc<Pod>> =
            self.pods.values().map(|p| Arc::new(serde_json::from_value(p.clone()).unwrap())).collect();
        let mut sync = Sync::new(&job, pods, self.record, self.now).unwrap();
        let action = sync.action();
        let acted = self.act(&job, &action);
        let mut events = sync.acted(acted);
        let released = sync.track();
        let stored = job.status.clone().unwrap_or_default();
        if let Some(patch) = status::patch(&stored, &sync.status, "") {
            merge(&mut self.job["status"], &patch["status"]);
            self.record = sync.record;
        }
        released.iter().for_each(|p| self.remove_finalizer(&p.metadata.name));
        let noted = sync.status.clone();
        events.extend(sync.settle(&released.iter().map(|p| p.metadata.uid.as_str()).collect::<HashSet<&str>>()));
        if let Some(patch) = status::patch(&noted, &sync.status, "") {
            merge(&mut self.job["status"], &patch["status"]);
        }
        for event in events {
            self.told.push(format!("  event {}: {}", event.reason, event.message));
        }
        before != (self.job.clone(), self.pods.clone())
    }

    fn act(&mut self, job: &Job, action: &Action) -> Acted {
        let mut acted = Acted::default();
        match action {
            Action::Nothing => {}
            Action::Wait(left) => self.told.push(format!("  wait {}s", left.as_secs())),
            Action::Create(new) => {
                for mut pod in template::pods(job, new) {
                    self.made += 1;
                    let name = format!("p{}", self.made);
                    let index = pod["metadata"]["annotations"][template::INDEX].as_str().unwrap_or("-").to_owned();
                    let failures = &pod["metadata"]["annotations"][template::INDEX_FAILURES];
                    self.told.push(format!("  create {name} index {index} failures {failures}"));
                    pod["metadata"]["name"] = name.as_str().into();
                    pod["metadata"]["namespace"] = "a".into();
                    pod["metadata"]["uid"] = name.as_str().into();
                    pod["metadata"]["creationTimestamp"] = self.now.to_string().into();
                    pod["spec"]["nodeName"] = "n".into();
                    pod["status"] = json!({"phase": "Running"});
                    self.pods.insert(name, pod);
                    acted.created += 1;
                }
            }
            Action::End(doomed) | Action::Remove(doomed) => {
                for pod in doomed {
                    let name = &pod.metadata.name;
                    self.told.push(format!("  delete {name}"));
                    if matches!(action, Action::Remove(_)) {
                        self.remove_finalizer(name);
                    }
                    let time = self.now.to_string();
                    if let Some(pod) = self.pods.get_mut(name) {
                        pod["metadata"]["deletionTimestamp"] = time.into();
                    }
                    acted.deleted += 1;
                    acted.deleted_ready += i32::from(pod.is_ready());
                }
            }
        }
        acted
    }

    fn remove_finalizer(&mut self, name: &str) {
        let Some(pod) = self.pods.get_mut(name) else { return };
        if let Some(list) = pod["metadata"]["finalizers"].as_array_mut() {
            list.retain(|f| f != FINALIZER);
        }
        let ended = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
        if ended && pod["metadata"].get("deletionTimestamp").is_some() {
            self.pods.remove(name);
        }
    }

    fn line(&mut self, line: &str) {
        self.told.push(line.to_owned());
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        let mut words = rest.split_whitespace();
        match verb {
            "after" => self.now += Duration::from_secs(rest.parse().unwrap()),
            "set" => merge(&mut self.job, &serde_json::from_str(rest).unwrap()),
            "ok" => words.for_each(|name| self.end(name, "Succeeded", 0)),
            "ready" => {
                let ready = json!([{"type": "Ready", "status": "True"}]);
                words.for_each(|name| self.pods.get_mut(name).unwrap()["status"]["conditions"] = ready.clone());
            }
            "fail" => {
                let name = words.next().unwrap();
                let code = words.next().map_or(1, |code| code.parse().unwrap());
                self.end(name, "Failed", code);
            }
            // The kubelet has ended a pod that is being deleted.
            "gone" => words.for_each(|name| {
                self.end(name, "Failed", 137);
                let tracked = self.pods[name]["metadata"]["finalizers"].as_array().is_some_and(|f| !f.is_empty());
                if !tracked {
                    self.pods.remove(name);
                }
            }),
            "lose" => words.for_each(|name| drop(self.pods.remove(name))),
            "evict" => words.for_each(|name| {
                let time = self.now.to_string();
                self.pods.get_mut(name).unwrap()["metadata"]["deletionTimestamp"] = time.into();
            }),
            other => panic!("unknown verb {other}"),
        }
        self.settle();
    }

    fn end(&mut self, name: &str, phase: &str, code: i32) {
        let state = json!({"terminated": {"exitCode": code, "finishedAt": self.now.to_string()}});
        let status = json!({"phase": phase, "containerStatuses": [{"name": "c", "state": state}]});
        self.pods.get_mut(name).unwrap()["status"] = status;
    }

    fn status(&self) -> String {
        let status = &self.job["status"];
        let mut told = Vec::new();
        for field in ["active", "ready", "terminating", "succeeded", "failed", "completedIndexes", "failedIndexes"] {
            let value = &status[field];
            if !value.is_null() && value != 0 {
                told.push(format!("{field} {}", value.to_string().trim_matches('"')));
            }
        }
        let conditions = status["conditions"].as_array().into_iter().flatten();
        told.extend(conditions.map(|c| {
            let text = |field: &str| c[field].as_str().unwrap_or_default();
            format!("{}={}({})", text("type"), text("status"), text("reason"))
        }));
        let held = self.pods.values().filter(|p| p["metadata"]["finalizers"].as_array().is_some_and(|f| !f.is_empty()));
        told.push(format!("held {}", held.count()));
        told.join(", ")
    }
}

/// RFC 7386.
fn merge(target: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else { return *target = patch.clone() };
    if !target.is_object() {
        *target = json!({});
    }
    for (name, value) in fields {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(name);
        } else {
            merge(&mut target[name], value);
        }
    }
}

fn check(spec: Value, script: &str, expected: Expect) {
    let mut story = Story::new(spec);
    story.settle();
    script.lines().map(str::trim).filter(|line| !line.is_empty()).for_each(|line| story.line(line));
    expected.assert_eq(&(story.told.join("\n") + "\n"));
}

#[test]
fn completions_are_counted_and_no_more_pods_made_than_needed() {
    check(
        json!({"completions": 3, "parallelism": 2}),
        "ready p1 p2\nok p1\nok p2\nok p3",
        expect![[r#"
          create p1 index - failures null
          create p2 index - failures null
          active 2, held 2
        ready p1 p2
          active 2, ready 2, held 2
        ok p1
          create p3 index - failures null
          active 2, ready 1, succeeded 1, held 2
        ok p2
          active 1, succeeded 2, held 1
        ok p3
          event Completed: Job completed
          succeeded 3, SuccessCriteriaMet=True(CompletionsReached), Complete=True(CompletionsReached), held 0
    "#]],
    );
}

#[test]
fn without_completions_one_success_ends_it() {
    check(
        json!({"parallelism": 2}),
        "ok p1\nok p2",
        expect![[r#"
          create p1 index - failures null
          create p2 index - failures null
          active 2, held 2
        ok p1
          active 1, succeeded 1, held 1
        ok p2
          event Completed: Job completed
          succeeded 2, SuccessCriteriaMet=True(CompletionsReached), Complete=True(CompletionsReached), held 0
    "#]],
    );
}

#[test]
fn failures_delay_the_next_pod_and_the_limit_ends_the_job() {
    let script = "fail p1\nafter 4\nafter 6\nfail p2\nafter 20\nfail p3";
    check(
        json!({"completions": 2, "backoffLimit": 2, "parallelism": 1}),
        script,
        expect![[r#"
          create p1 index - failures null
          active 1, held 1
        fail p1
          wait 10s
          wait 10s
          failed 1, held 0
        after 4
          wait 6s
          failed 1, held 0
        after 6
          create p2 index - failures null
          active 1, failed 1, held 1
        fail p2
          wait 20s
          wait 20s
          failed 2, held 0
        after 20
          create p3 index - failures null
          active 1, failed 2, held 1
        fail p3
          event BackoffLimitExceeded: Job has reached the specified backoff limit
          failed 3, FailureTarget=True(BackoffLimitExceeded), Failed=True(BackoffLimitExceeded), held 0
    "#]],
    );
}

#[test]
fn a_failed_job_waits_for_its_pods() {
    check(
        json!({"completions": 2, "backoffLimit": 0, "parallelism": 2}),
        "fail p1\ngone p2",
        expect![[r#"
          create p1 index - failures null
          create p2 index - failures null
          active 2, held 2
        fail p1
          delete p2
          terminating 1, failed 2, FailureTarget=True(BackoffLimitExceeded), held 0
        gone p2
          event BackoffLimitExceeded: Job has reached the specified backoff limit
          failed 2, FailureTarget=True(BackoffLimitExceeded), Failed=True(BackoffLimitExceeded), held 0
    "#]],
    );
}

#[test]
fn indexes_run_once_each() {
    let script = "ok p2\nfail p1\nafter 10\nok p3\nok p4";
    check(
        json!({"completions": 3, "parallelism": 2, "completionMode": "Indexed"}),
        script,
        expect![[r#"
          create p1 index 0 failures null
          create p2 index 1 failures null
          active 2, held 2
        ok p2
          create p3 index 2 failures null
          active 2, succeeded 1, completedIndexes 1, held 2
        fail p1
          wait 10s
          wait 10s
          active 1, succeeded 1, failed 1, completedIndexes 1, held 1
        after 10
          create p4 index 0 failures null
          active 2, succeeded 1, failed 1, completedIndexes 1, held 2
        ok p3
          active 1, succeeded 2, failed 1, completedIndexes 1,2, held 1
        ok p4
          event Completed: Job completed
          succeeded 3, failed 1, completedIndexes 0-2, SuccessCriteriaMet=True(CompletionsReached), Complete=True(CompletionsReached), held 0
    "#]],
    );
}

#[test]
fn limits_per_index_leave_others_alone() {
    let spec = json!({
        "completions": 2, "parallelism": 2, "completionMode": "Indexed", "backoffLimitPerIndex": 1,
        "backoffLimit": 2147483647,
    });
    check(
        spec,
        "fail p1\nafter 10\nfail p3\nok p2",
        expect![[r#"
          create p1 index 0 failures "0"
          create p2 index 1 failures "0"
          active 2, failedIndexes , held 2
        fail p1
          wait 10s
          wait 10s
          active 1, failedIndexes , held 2
        after 10
          create p3 index 0 failures "1"
          active 2, failed 1, failedIndexes , held 2
        fail p3
          active 1, failed 2, failedIndexes 0, held 1
        ok p2
          event FailedIndexes: Job has failed indexes
          succeeded 1, failed 2, completedIndexes 1, failedIndexes 0, FailureTarget=True(FailedIndexes), Failed=True(FailedIndexes), held 0
    "#]],
    );
}

#[test]
fn too_many_failed_indexes_end_the_job() {
    let spec = json!({
        "completions": 4, "parallelism": 4, "completionMode": "Indexed", "backoffLimitPerIndex": 0,
        "maxFailedIndexes": 1, "backoffLimit": 2147483647,
    });
    check(
        spec,
        "fail p1\nfail p2\ngone p3 p4",
        expect![[r#"
          create p1 index 0 failures "0"
          create p2 index 1 failures "0"
          create p3 index 2 failures "0"
          create p4 index 3 failures "0"
          active 4, failedIndexes , held 4
        fail p1
          active 3, failed 1, failedIndexes 0, held 3
        fail p2
          delete p3
          delete p4
          terminating 2, failed 4, failedIndexes 0,1, FailureTarget=True(MaxFailedIndexesExceeded), held 0
        gone p3 p4
          event MaxFailedIndexesExceeded: Job has exceeded the specified maximal number of failed indexes
          failed 4, failedIndexes 0,1, FailureTarget=True(MaxFailedIndexesExceeded), Failed=True(MaxFailedIndexesExceeded), held 0
    "#]],
    );
}

#[test]
fn the_failure_policy_ignores_or_ends() {
    let rules = json!([
        {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}},
        {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [7]}},
    ]);
    let spec = json!({"completions": 2, "parallelism": 2, "backoffLimit": 0, "podFailurePolicy": {"rules": rules}});
    check(
        spec,
        "fail p1 7\nafter 10\nfail p2 42\ngone p3",
        expect![[r#"
          create p1 index - failures null
          create p2 index - failures null
          active 2, held 2
        fail p1 7
          wait 10s
          wait 10s
          active 1, held 1
        after 10
          create p3 index - failures null
          active 2, held 2
        fail p2 42
          delete p3
          terminating 1, failed 2, FailureTarget=True(PodFailurePolicy), held 0
        gone p3
          event PodFailurePolicy: Container c for pod a/p2 failed with exit code 42 matching FailJob rule at index 0
          failed 2, FailureTarget=True(PodFailurePolicy), Failed=True(PodFailurePolicy), held 0
    "#]],
    );
}

#[test]
fn the_success_policy_ends_others() {
    let spec = json!({
        "completions": 3, "parallelism": 3, "completionMode": "Indexed",
        "successPolicy": {"rules": [{"succeededIndexes": "1"}]},
    });
    check(
        spec,
        "ok p2\ngone p1 p3",
        expect![[r#"
          create p1 index 0 failures null
          create p2 index 1 failures null
          create p3 index 2 failures null
          active 3, held 3
        ok p2
          delete p1
          delete p3
          terminating 2, succeeded 1, completedIndexes 1, SuccessCriteriaMet=True(SuccessPolicy), held 0
        gone p1 p3
          event Completed: Job completed
          succeeded 1, completedIndexes 1, SuccessCriteriaMet=True(SuccessPolicy), Complete=True(SuccessPolicy), held 0
    "#]],
    );
}

#[test]
fn suspension_removes_pods_without_counting_them() {
    let script = r#"set {"spec": {"suspend": true}}
        gone p1 p2
        after 60
        set {"spec": {"suspend": false}}"#;
    check(
        json!({"completions": 2, "parallelism": 2, "activeDeadlineSeconds": 100}),
        script,
        expect![[r#"
          create p1 index - failures null
          create p2 index - failures null
          active 2, held 2
        set {"spec": {"suspend": true}}
          delete p1
          delete p2
          event Suspended: Job suspended
          terminating 2, Suspended=True(JobSuspended), held 0
        gone p1 p2
          Suspended=True(JobSuspended), held 0
        after 60
          Suspended=True(JobSuspended), held 0
        set {"spec": {"suspend": false}}
          create p3 index - failures null
          create p4 index - failures null
          event Resumed: Job resumed
          active 2, Suspended=False(JobResumed), held 2
    "#]],
    );
}

#[test]
fn a_deadline_ends_the_job() {
    check(
        json!({"completions": 1, "activeDeadlineSeconds": 30}),
        "after 29\nafter 1\ngone p1",
        expect![[r#"
          create p1 index - failures null
          active 1, held 1
        after 29
          active 1, held 1
        after 1
          delete p1
          terminating 1, failed 1, FailureTarget=True(DeadlineExceeded), held 0
        gone p1
          event DeadlineExceeded: Job was active longer than specified deadline
          failed 1, FailureTarget=True(DeadlineExceeded), Failed=True(DeadlineExceeded), held 0
    "#]],
    );
}

#[test]
fn parallelism_shrinks_and_grows() {
    let script = r#"ready p1
        set {"spec": {"parallelism": 1}}
        gone p2 p3
        set {"spec": {"parallelism": 2}}"#;
    check(
        json!({"completions": 5, "parallelism": 3}),
        script,
        expect![[r#"
          create p1 index - failures null
          create p2 index - failures null
          create p3 index - failures null
          active 3, held 3
        ready p1
          active 3, ready 1, held 3
        set {"spec": {"parallelism": 1}}
          delete p2
          delete p3
          active 1, ready 1, terminating 2, held 1
        gone p2 p3
          active 1, ready 1, held 1
        set {"spec": {"parallelism": 2}}
          create p4 index - failures null
          active 2, ready 1, held 2
    "#]],
    );
}

#[test]
fn an_indexed_job_is_elastic() {
    let script = r#"ok p3
        set {"spec": {"parallelism": 2, "completions": 2}}
        ok p1
        set {"spec": {"parallelism": 3, "completions": 3}}
        ok p2 p4"#;
    check(
        json!({"completions": 3, "parallelism": 3, "completionMode": "Indexed"}),
        script,
        expect![[r#"
          create p1 index 0 failures null
          create p2 index 1 failures null
          create p3 index 2 failures null
          active 3, held 3
        ok p3
          active 2, succeeded 1, completedIndexes 2, held 2
        set {"spec": {"parallelism": 2, "completions": 2}}
          active 2, held 2
        ok p1
          active 1, succeeded 1, completedIndexes 0, held 1
        set {"spec": {"parallelism": 3, "completions": 3}}
          create p4 index 2 failures null
          active 2, succeeded 1, completedIndexes 0, held 2
        ok p2 p4
          event Completed: Job completed
          succeeded 3, completedIndexes 0-2, SuccessCriteriaMet=True(CompletionsReached), Complete=True(CompletionsReached), held 0
    "#]],
    );
}

#[test]
fn replacement_waits_for_the_end_where_asked() {
    let spec = json!({"completions": 1, "podReplacementPolicy": "Failed"});
    check(
        spec,
        "evict p1\ngone p1\nafter 10",
        expect![[r#"
          create p1 index - failures null
          active 1, held 1
        evict p1
          terminating 1, held 1
        gone p1
          wait 10s
          wait 10s
          failed 1, held 0
        after 10
          create p2 index - failures null
          active 1, failed 1, held 1
    "#]],
    );
    check(
        json!({"completions": 1}),
        "evict p1\nafter 10",
        expect![[r#"
          create p1 index - failures null
          active 1, held 1
        evict p1
          wait 10s
          wait 10s
          terminating 1, failed 1, held 0
        after 10
          create p2 index - failures null
          active 1, terminating 1, failed 1, held 1
    "#]],
    );
}
