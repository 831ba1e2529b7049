//! Deployments and their like, jobs and cron jobs.
use super::*;

fn workload(plural: &str, fields: Value) -> Result<Value, Vec<(String, String)>> {
    let mut spec = json!({"selector": {"matchLabels": {"app": "a"}}, "template": template()});
    spec.as_object_mut().unwrap().append(fields.as_object().cloned().as_mut().unwrap());
    create("apps", plural, json!({"spec": spec}))
}

#[test]
fn defaults() {
    let deployment = workload("deployments", json!({})).unwrap();
    let spec = &deployment["spec"];
    assert_eq!(
        spec["strategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}})
    );
    assert_eq!((&spec["replicas"], &spec["revisionHistoryLimit"]), (&json!(1), &json!(10)));
    assert_eq!(spec["progressDeadlineSeconds"], 600);
    assert_eq!(spec["template"]["spec"]["restartPolicy"], "Always");
    let set = workload("daemonsets", json!({})).unwrap();
    let rolling = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}});
    assert_eq!(set["spec"]["updateStrategy"], rolling);
    let set = workload("statefulsets", json!({"serviceName": "s"})).unwrap();
    assert_eq!(set["spec"]["podManagementPolicy"], "OrderedReady");
    assert_eq!(set["spec"]["updateStrategy"], json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}));
}

#[test]
fn selectors() {
    for plural in ["deployments", "replicasets", "daemonsets", "statefulsets"] {
        refused(
            workload(plural, json!({"selector": {"matchLabels": {"app": "b"}}})),
            &[("Invalid", "spec.template.metadata.labels")],
        );
        let old = workload(plural, json!({})).unwrap();
        let more = json!({"app": "a", "x": "y"});
        let moved = update(("apps", plural, ""), &old, |new| {
            new["spec"]["template"]["metadata"]["labels"] = more.clone();
            new["spec"]["selector"]["matchLabels"] = more.clone();
        });
        let found = moved.expect_err("a selector is immutable");
        assert!(found.iter().any(|(_, path)| path.starts_with("spec")), "{plural}: {found:?}");
    }
}

#[test]
fn rolling_updates_must_be_able_to_roll() {
    let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}});
    refused(
        workload("deployments", json!({"strategy": strategy})),
        &[("Invalid", "spec.strategy.rollingUpdate.maxUnavailable")],
    );
    let strategy = json!({"type": "Recreate", "rollingUpdate": {"maxSurge": 1}});
    refused(workload("deployments", json!({"strategy": strategy})), &[("Forbidden", "spec.strategy.rollingUpdate")]);
    refused(workload("deployments", json!({"replicas": -1})), &[("Invalid", "spec.replicas")]);
}

fn job(fields: Value) -> Result<Value, Vec<(String, String)>> {
    let mut spec = json!({"template": {"spec": {"restartPolicy": "Never", "containers": containers()}}});
    spec.as_object_mut().unwrap().append(fields.as_object().cloned().as_mut().unwrap());
    create("batch", "jobs", json!({"spec": spec}))
}

#[test]
fn jobs_select_their_pods_by_their_own_uid() {
    let made = job(json!({})).unwrap();
    let spec = &made["spec"];
    assert_eq!(spec["selector"]["matchLabels"], json!({"batch.kubernetes.io/controller-uid": "1"}));
    let labels = &spec["template"]["metadata"]["labels"];
    assert_eq!((&labels["batch.kubernetes.io/job-name"], &labels["controller-uid"]), (&json!("a"), &json!("1")));
    assert_eq!((&spec["parallelism"], &spec["completions"], &spec["backoffLimit"]), (&json!(1), &json!(1), &json!(6)));
    let always = json!({"template": {"spec": {"restartPolicy": "Always", "containers": containers()}}});
    refused(job(always), &[("Required", "spec.template.spec.restartPolicy")]);
    let suspended = job(json!({"suspend": true, "completions": 2})).unwrap();
    refused(
        update(("batch", "jobs", ""), &suspended, |new| new["spec"]["completions"] = 3.into()),
        &[("Invalid", "spec.completions")],
    );
}

#[test]
fn cron_jobs_have_a_schedule() {
    let cron = |schedule: &str| {
        let spec = json!({"schedule": schedule, "jobTemplate": {"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": containers()}}}}});
        create("batch", "cronjobs", json!({"spec": spec}))
    };
    let made = cron("*/5 * * * *").unwrap();
    assert_eq!((&made["spec"]["concurrencyPolicy"], &made["spec"]["suspend"]), (&json!("Allow"), &json!(false)));
    refused(cron("every day"), &[("Invalid", "spec.schedule")]);
}
