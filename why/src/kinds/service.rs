//! Why a Service or an Ingress leads nowhere.

use api::selector::LabelSelector;
use serde_json::Value;

use super::set;
use crate::chain::Cause;
use crate::look::{Look, condition_is, count, items, kubectl, names, text};
use crate::world::Found;

pub fn causes(look: &Look, service: &Value) -> Vec<Cause> {
    let spec = &service["spec"];
    let mut causes = Vec::new();
    if spec["type"] == "ExternalName" {
        return causes;
    }
    if endpoints(look, service).0 == 0 && !is_node_dns(service) {
        causes.push(without_endpoints(look, service));
    }
    if spec["type"] == "LoadBalancer" && items(&service["status"]["loadBalancer"]["ingress"]).next().is_none() {
        let ports: Vec<String> =
            items(&spec["ports"]).map(|p| count(&p["nodePort"])).filter(|p| *p > 0).map(|p| p.to_string()).collect();
        let message = match ports.is_empty() {
            true => "nothing in this cluster has given it an address from outside".to_owned(),
            false => format!(
                "nothing in this cluster has given it an address from outside; until then it is at port {} of every node",
                ports.join(", ")
            ),
        };
        let below = look.event(service, &["SyncLoadBalancerFailed", "AllocationFailed"]).map(|event| {
            Cause::new(text(&event["reason"]), format!("its controller says: {}", text(&event["message"])))
        });
        causes.push(Cause::new("LoadBalancerPending", message).about(service).because(below));
    }
    causes
}

/// The cluster's DNS without endpoints and without a selector: each node answers for it.
fn is_node_dns(service: &Value) -> bool {
    let place = (api::meta::namespace(service), api::meta::name(service));
    place == ("kube-system", "kube-dns") && service["spec"]["selector"].is_null()
}

pub fn state(look: &Look, service: &Value) -> String {
    if service["spec"]["type"] == "ExternalName" {
        return format!("another name of {}", text(&service["spec"]["externalName"]));
    }
    match endpoints(look, service) {
        (0, 0) if is_node_dns(service) => "answered on each node".to_owned(),
        (0, 0) => "no endpoints".to_owned(),
        (ready, 0) => format!("{} ready", crate::look::counted(ready, "endpoint")),
        (ready, not) => format!("{ready} of {} ready", crate::look::counted(ready + not, "endpoint")),
    }
}

/// Ready endpoints, and those that are not.
fn endpoints(look: &Look, service: &Value) -> (usize, usize) {
    let labels = format!("kubernetes.io/service-name={}", api::meta::name(service));
    let slices = look.world.select("endpointslices.discovery.k8s.io", api::meta::namespace(service), &labels, "");
    let all =
        slices.iter().filter(|s| items(&s["ports"]).next().is_some()).flat_map(|slice| items(&slice["endpoints"]));
    let (mut ready, mut not) = (0, 0);
    for endpoint in all {
        let count = items(&endpoint["addresses"]).count();
        if endpoint["conditions"]["ready"] == false { not += count } else { ready += count }
    }
    (ready, not)
}

fn without_endpoints(look: &Look, service: &Value) -> Cause {
    let (namespace, name) = (api::meta::namespace(service), api::meta::name(service));
    let cause = |reason: &str, message: String| Cause::new(reason, message).about(service);
    let Some(selector) = service["spec"]["selector"].as_object().filter(|s| !s.is_empty()) else {
        let message = "it has no selector, and nobody has given it endpoints by hand";
        return cause("NoSelector", message.to_owned())
            .fix("if pods are meant", kubectl(namespace, &format!("set selector service {name} KEY=VALUE")));
    };
    let pods = look.world.list("pods", namespace);
    let selects = LabelSelector::from_map(Some(selector));
    let over = |pod: &&Value| matches!(text(&pod["status"]["phase"]), "Succeeded" | "Failed");
    let selected: Vec<&Value> =
        pods.iter().filter(|p| selects.matches(api::meta::labels(p))).filter(|p| !over(p)).collect();
    let shown: Vec<String> = selector.iter().map(|(key, value)| format!("{key}={}", text(value))).collect();
    if selected.is_empty() {
        return no_pods(service, pods, &shown);
    }
    let ready: Vec<&&Value> = selected.iter().filter(|pod| condition_is(pod, "Ready", "True").is_some()).collect();
    if !ready.is_empty() {
        return wrong_port(service, &selected);
    }
    let message = match selected.len() {
        1 => format!("the only pod with {} is not ready", shown.join(",")),
        n => format!("none of the {n} pods with {} is ready", shown.join(",")),
    };
    cause("PodsNotReady", message).because(set::pods(look, service, &selected))
}

fn no_pods(service: &Value, pods: &[Value], shown: &[String]) -> Cause {
    let (namespace, name) = (api::meta::namespace(service), api::meta::name(service));
    let message = format!("no pod in {namespace} has the labels {} that it selects by", shown.join(","));
    let cause = Cause::new("NoPodsSelected", message).about(service);
    let selector = &service["spec"]["selector"];
    // A pod that has the same labels by key tells a typo in a value.
    let close = pods.iter().find_map(|pod| {
        let labels = api::meta::labels(pod)?;
        let mut differ = false;
        let found: Option<Vec<String>> = selector
            .as_object()?
            .iter()
            .map(|(key, value)| {
                let has = labels.get(key)?;
                differ |= has != value;
                Some(format!("{key}={}", text(has)))
            })
            .collect();
        found.filter(|_| differ).map(|labels| (api::meta::name(pod), labels))
    });
    match close {
        Some((pod, labels)) => cause.fix(
            format!("as the pod {pod} has them"),
            kubectl(namespace, &format!("set selector service {name} {}", labels.join(","))),
        ),
        None => cause.fix("shows what labels there are", kubectl(namespace, "get pods --show-labels")),
    }
}

/// Ready pods, none of which has the port.
fn wrong_port(service: &Value, pods: &[&Value]) -> Cause {
    let named: Vec<&str> = items(&service["spec"]["ports"]).filter_map(|p| p["targetPort"].as_str()).collect();
    let has = |name: &str| {
        pods.iter()
            .flat_map(|p| items(&p["spec"]["containers"]))
            .flat_map(|c| items(&c["ports"]))
            .any(|p| p["name"] == name)
    };
    let missing: Vec<&str> = named.into_iter().filter(|name| !has(name)).collect();
    let (namespace, name) = (api::meta::namespace(service), api::meta::name(service));
    if missing.is_empty() {
        let message = "its pods are ready, and it has no endpoints yet: do the controllers run?";
        return Cause::new("EndpointsLate", message).about(service);
    }
    let message = format!("its target port {} is the name of no port of its pods", names(&missing));
    Cause::new("PortNameUnknown", message)
        .about(service)
        .fix("with a number, or a name that the containers have", kubectl(namespace, &format!("edit service {name}")))
}

pub fn ingress(look: &Look, ingress: &Value) -> Vec<Cause> {
    let (namespace, name) = (api::meta::namespace(ingress), api::meta::name(ingress));
    let spec = &ingress["spec"];
    let mut causes = Vec::new();
    if let Some(class) = spec["ingressClassName"].as_str()
        && look.world.get("ingressclasses.networking.k8s.io", "", class).is_absent()
    {
        let message = format!("the IngressClass {class} that it names does not exist");
        causes.push(Cause::new("IngressClassMissing", message).about(ingress).fix("", "kubectl get ingressclasses"));
    }
    let rules = items(&spec["rules"]).flat_map(|r| items(&r["http"]["paths"])).map(|p| &p["backend"]);
    let mut backends: Vec<&str> =
        rules.chain([&spec["defaultBackend"]]).filter_map(|b| b["service"]["name"].as_str()).collect();
    backends.sort_unstable();
    backends.dedup();
    for backend in backends {
        match look.world.get("services", namespace, backend) {
            Found::Absent => {
                let message = format!("the Service {backend} that it leads to does not exist");
                causes.push(
                    Cause::new("ServiceMissing", message)
                        .about(ingress)
                        .fix("", kubectl(namespace, &format!("edit ingress {name}"))),
                );
            }
            Found::Here(service) => {
                let below = look.why(service);
                if !below.is_empty() {
                    causes.push(Cause::new("ServiceLeadsNowhere", "leads nowhere").about(service).because(below));
                }
            }
            Found::Unknown => {}
        }
    }
    if causes.is_empty() && items(&ingress["status"]["loadBalancer"]["ingress"]).next().is_none() {
        let message = "no ingress controller has taken it on: it has no address";
        causes.push(
            Cause::new("NoAddress", message)
                .about(ingress)
                .fix("is there one, and for its class?", "kubectl get ingressclasses"),
        );
    }
    causes
}
