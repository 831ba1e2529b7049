//! Pods.
use super::*;

fn pod(spec: Value) -> Result<Value, Vec<(String, String)>> {
    let mut spec = spec;
    if spec.get("containers").is_none() {
        spec["containers"] = containers();
    }
    // Admission sets these before strategies look.
    spec["serviceAccountName"] = "default".into();
    create("", "pods", json!({"spec": spec}))
}

fn one(container: Value) -> Result<Value, Vec<(String, String)>> {
    let mut container = container;
    container["name"] = "c".into();
    container["image"] = "i:1".into();
    pod(json!({"containers": [container]}))
}

#[test]
fn defaults() {
    let made = pod(json!({})).unwrap();
    let spec = &made["spec"];
    let expected = json!({
        "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler",
        "terminationGracePeriodSeconds": 30, "enableServiceLinks": true, "securityContext": {},
    });
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(&spec[field], value, "{field}");
    }
    let container = json!({"name": "c", "image": "registry.example/app:1", "imagePullPolicy": "IfNotPresent",
        "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File", "resources": {}});
    assert_eq!(spec["containers"][0], container);
    assert_eq!((&made["status"]["phase"], &made["status"]["qosClass"]), (&json!("Pending"), &json!("BestEffort")));
}

#[test]
fn requests_follow_limits() {
    let made = one(json!({"resources": {"limits": {"cpu": "1", "memory": "1Gi"}}})).unwrap();
    assert_eq!(made["spec"]["containers"][0]["resources"]["requests"], json!({"cpu": "1", "memory": "1Gi"}));
    assert_eq!(made["status"]["qosClass"], "Guaranteed");
    let made = one(json!({"resources": {"requests": {"cpu": "100m"}}})).unwrap();
    assert_eq!(made["status"]["qosClass"], "Burstable");
    refused(
        one(json!({"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}})),
        &[("Invalid", "spec.containers[0].resources.requests")],
    );
}

#[test]
fn probes_and_ports() {
    let made = one(json!({"ports": [{"containerPort": 80}], "livenessProbe": {"httpGet": {"port": 80}}})).unwrap();
    let container = &made["spec"]["containers"][0];
    assert_eq!(container["ports"][0]["protocol"], "TCP");
    let probe = json!({"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1,
        "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3});
    assert_eq!(container["livenessProbe"], probe);
    refused(
        one(json!({"livenessProbe": {"successThreshold": 2, "tcpSocket": {"port": 80}}})),
        &[("Invalid", "spec.containers[0].livenessProbe.successThreshold")],
    );
    refused(
        one(json!({"ports": [{"containerPort": 70000}]})),
        &[("Invalid", "spec.containers[0].ports[0].containerPort")],
    );
}

#[test]
fn refusals() {
    refused(pod(json!({"containers": []})), &[("Required", "spec.containers")]);
    refused(pod(json!({"restartPolicy": "Sometimes"})), &[("NotSupported", "spec.restartPolicy")]);
    refused(
        one(json!({"env": [{"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]})),
        &[("Invalid", "spec.containers[0].env[0].valueFrom")],
    );
    refused(
        one(json!({"volumeMounts": [{"name": "none", "mountPath": "/x"}]})),
        &[("NotFound", "spec.containers[0].volumeMounts[0].name")],
    );
    let twice = json!([{"name": "c", "image": "i"}, {"name": "c", "image": "i"}]);
    refused(pod(json!({"containers": twice})), &[("Duplicate", "spec.containers[1].name")]);
    refused(
        pod(json!({"volumes": [{"name": "v", "emptyDir": {}, "hostPath": {"path": "/x"}}]})),
        &[("Forbidden", "spec.volumes[0].hostPath")],
    );
}

#[test]
fn little_of_a_pod_changes() {
    let old = pod(json!({"activeDeadlineSeconds": 10})).unwrap();
    let target = ("", "pods", "");
    let image = update(target, &old, |new| new["spec"]["containers"][0]["image"] = "j:2".into()).unwrap();
    assert_eq!(image["metadata"]["generation"], 2);
    refused(update(target, &old, |new| new["spec"]["hostNetwork"] = true.into()), &[("Forbidden", "spec")]);
    assert!(update(target, &old, |new| new["spec"]["activeDeadlineSeconds"] = 5.into()).is_ok());
    let longer = update(target, &old, |new| new["spec"]["activeDeadlineSeconds"] = 50.into());
    refused(longer, &[("Invalid", "spec.activeDeadlineSeconds")]);
}

#[test]
fn a_resize_may_add_what_was_not_there() {
    let container = |name: &str, resources: Value| json!({"name": name, "image": "i:1", "resources": resources});
    let given = json!({"requests": {"cpu": "100m"}});
    let before = pod(json!({"containers": [container("a", given.clone()), container("b", json!({}))]})).unwrap();
    let resized = |resources: Value| {
        update(("", "pods", "resize"), &before, |new| new["spec"]["containers"][1]["resources"] = resources)
    };
    let added = json!({"requests": {"cpu": "20m", "memory": "20Mi"}, "limits": {"cpu": "30m"}});
    assert_eq!(resized(added.clone()).unwrap()["spec"]["containers"][1]["resources"], added);
    refused(resized(json!({"limits": {"example.com/gpu": "1"}})), &[("Forbidden", "spec")]);
}

#[test]
fn deletion_is_graceful_for_scheduled_pods() {
    let mut pod = pod(json!({})).unwrap();
    let grace = |pod: &Value, asked| of("", "pods").deletion_grace_seconds(pod, asked);
    assert_eq!(grace(&pod, None), Some(0));
    pod["spec"]["nodeName"] = "n".into();
    assert_eq!((grace(&pod, None), grace(&pod, Some(5)), grace(&pod, Some(0))), (Some(30), Some(5), Some(0)));
    pod["status"]["phase"] = "Succeeded".into();
    assert_eq!(grace(&pod, None), Some(0));
}

#[test]
fn warnings_name_what_is_likely_a_slip() {
    let container = json!({"name": "c", "image": "i",
        "env": [{"name": "A", "value": "x"}, {"name": "A", "value": "y"}, {"name": "A", "value": "$(A)z"}],
        "ports": [{"containerPort": 80, "protocol": "TCP", "name": "web"}, {"containerPort": 80, "protocol": "TCP", "hostPort": 1}],
        "resources": {"limits": {"memory": "100m"}}});
    let spec = json!({"containers": [container], "nodeSelector": {"beta.kubernetes.io/os": "linux"}});
    let template = json!({"metadata": {"name": "a.b"}, "spec": {"template": {"spec": spec}}});
    let strategy = of("apps", "deployments");
    let warnings = strategy.warnings(&template, None, &context("", Verb::Create));
    let places: Vec<&str> = warnings.iter().map(|w| w.split(": ").next().unwrap()).collect();
    let container = "spec.template.spec.containers[0]";
    assert_eq!(
        places,
        [
            "metadata.name",
            "spec.template.spec.nodeSelector[beta.kubernetes.io/os]",
            &format!("{container}.resources.limits[memory]"),
            &format!("{container}.env[1]"),
            &format!("{container}.ports[1]"),
        ]
    );
    // Writers of status and of metadata don't hear of it again.
    assert!(strategy.warnings(&template, Some(&template), &context("", Verb::Update)).is_empty());
}
