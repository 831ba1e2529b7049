//! Why the containers of a pod on a node that works do not run or are not ready.

use serde_json::Value;

use super::{image, needs};
use crate::chain::Cause;
use crate::look::{Look, count, items, kubectl, text};

pub fn causes(look: &Look, pod: &Value) -> Vec<Cause> {
    let init = items(&pod["status"]["initContainerStatuses"]).map(|c| (c, true));
    let main = items(&pod["status"]["containerStatuses"]).map(|c| (c, false));
    let mut causes: Vec<Cause> = Vec::new();
    for (container, is_init) in init.chain(main) {
        if let Some(cause) = cause(look, pod, container, is_init) {
            causes.push(cause);
            // Those behind an init container wait for it and have nothing to tell of their own.
            if is_init && !is_sidecar(pod, text(&container["name"])) {
                break;
            }
        }
    }
    causes
}

fn specification<'p>(pod: &'p Value, name: &str) -> Option<&'p Value> {
    let spec = &pod["spec"];
    items(&spec["containers"]).chain(items(&spec["initContainers"])).find(|c| c["name"] == name)
}

fn is_sidecar(pod: &Value, name: &str) -> bool {
    specification(pod, name).is_some_and(|c| c["restartPolicy"] == "Always")
}

/// How a container is called: its name alone says too little, and a pod of one has nothing to tell apart.
fn called(pod: &Value, container: &Value, is_init: bool) -> String {
    let name = text(&container["name"]);
    match is_init {
        true => format!("its init container {name}"),
        false if items(&pod["spec"]["containers"]).count() == 1 => format!("its container {name}"),
        false => format!("the container {name}"),
    }
}

fn cause(look: &Look, pod: &Value, container: &Value, is_init: bool) -> Option<Cause> {
    let who = called(pod, container, is_init);
    let state = &container["state"];
    let waiting = &state["waiting"];
    let once = is_init && !is_sidecar(pod, text(&container["name"]));
    match text(&waiting["reason"]) {
        "" if !waiting.is_null() => return None,
        "CrashLoopBackOff" => return Some(crash(look, pod, container, &who)),
        reason if image::REASONS.contains(&reason) => {
            return Some(image::cause(look, pod, container, &who, waiting));
        }
        "ContainerCreating" | "PodInitializing" => return None,
        "" => {}
        reason => return Some(refused(look, pod, &who, reason, text(&waiting["message"]))),
    }
    if let Some(terminated) = state.get("terminated").filter(|t| !t.is_null()) {
        let ended_well = count(&terminated["exitCode"]) == 0;
        return (!(once && ended_well)).then(|| ended(look, pod, container, &who, terminated, false));
    }
    if once {
        let since = look.since(&state["running"]["startedAt"]).map(|s| format!(" for {s}")).unwrap_or_default();
        let message = format!("{who} runs{since}, and the others start when it has ended");
        let logs = logs(pod, container, false);
        return Some(Cause::new("InitContainerRuns", message).about(pod).fix("what it waits for", logs));
    }
    (container["ready"] != true).then(|| unready(look, pod, container, &who))
}

fn logs(pod: &Value, container: &Value, previous: bool) -> String {
    let (name, container) = (api::meta::name(pod), text(&container["name"]));
    let previous = if previous { " --previous" } else { "" };
    kubectl(api::meta::namespace(pod), &format!("logs {name} -c {container}{previous}"))
}

/// The node could not make the container from what the pod says.
fn refused(look: &Look, pod: &Value, who: &str, reason: &str, message: &str) -> Cause {
    let needs = needs::causes(look, pod);
    if reason == "CreateContainerConfigError" && !needs.is_empty() {
        return Cause::new(reason, format!("{who} cannot be made from what the pod says")).about(pod).because(needs);
    }
    let message = if message.is_empty() { String::new() } else { format!(": {message}") };
    Cause::new(reason, format!("{who} cannot be started ({reason}){message}")).about(pod)
}

/// Ends again and again.
fn crash(look: &Look, pod: &Value, container: &Value, who: &str) -> Cause {
    let last = &container["lastState"]["terminated"];
    ended(look, pod, container, who, last, true)
}

fn ended(look: &Look, pod: &Value, container: &Value, who: &str, terminated: &Value, previous: bool) -> Cause {
    let name = text(&container["name"]);
    let restarts = count(&container["restartCount"]);
    let code = count(&terminated["exitCode"]);
    let (reason, why) = meaning(look, pod, terminated, code, name);
    let message = match restarts {
        0 => format!("{who} ended with {why}"),
        1 => format!("{who} ends again and again (restarted once), last with {why}"),
        n => format!("{who} ends again and again (restarted {n} times), last with {why}"),
    };
    let cause = Cause::new(reason, message).about(pod);
    let below = last_words(look, pod, name, terminated, previous);
    let cause = cause.because(below);
    match reason {
        "OOMKilled" => match super::workload(look, pod) {
            Some(workload) => {
                let set = format!("set resources {workload} -c {name} --limits=memory=MORE");
                cause.fix("or find out what takes it", kubectl(api::meta::namespace(pod), &set))
            }
            None => cause.fix("", logs(pod, container, previous)),
        },
        _ => cause.fix("", logs(pod, container, previous)),
    }
}

/// The reason for programs and what an exit code says to people.
fn meaning(look: &Look, pod: &Value, terminated: &Value, code: i64, name: &str) -> (&'static str, String) {
    if text(&terminated["reason"]) == "OOMKilled" {
        let limit = specification(pod, name).map(|c| text(&c["resources"]["limits"]["memory"])).unwrap_or_default();
        let of = if limit.is_empty() { "its node's".to_owned() } else { format!("its limit of {limit}") };
        return ("OOMKilled", format!("code {code}: the kernel ended it because it took more memory than {of}"));
    }
    let killing = look.event(pod, &["Killing"]).map(|e| text(&e["message"])).unwrap_or_default();
    if killing.contains("liveness") || killing.contains("startup") {
        let probe = if killing.contains("startup") { "startup" } else { "liveness" };
        let said = look.event(pod, &["Unhealthy"]).map(|e| format!(" ({})", text(&e["message"]))).unwrap_or_default();
        return ("ProbeKills", format!("code {code}: it is ended because its {probe} probe fails{said}"));
    }
    match code {
        0 => ("EndsByItself", "code 0: it does its work and ends, and its pod wants it to run always".to_owned()),
        126 => ("NotExecutable", "code 126: its command is there and cannot be executed".to_owned()),
        127 => ("CommandNotFound", "code 127: its command is not in the image".to_owned()),
        128 => ("StartError", format!("code 128: it could not be started: {}", text(&terminated["message"]))),
        137 => ("Killed", "code 137: it was killed (SIGKILL)".to_owned()),
        139 => ("Crashes", "code 139: it touched memory that is not its own (SIGSEGV)".to_owned()),
        143 => ("Terminated", "code 143: it was asked to end (SIGTERM)".to_owned()),
        code @ 129..160 => ("Crashes", format!("code {code}: it got signal {}", code - 128)),
        code => ("Crashes", format!("code {code}")),
    }
}

/// What it said of itself before it ended: its termination message, else its last line.
fn last_words(look: &Look, pod: &Value, name: &str, terminated: &Value, previous: bool) -> Option<Cause> {
    let said = text(&terminated["message"]).trim();
    let line = if said.is_empty() {
        look.world.last_line(api::meta::namespace(pod), api::meta::name(pod), name, previous)?
    } else {
        said.lines().next_back().unwrap_or(said)
    };
    Some(Cause::new("LastWords", format!("its last words are: {line}")))
}

fn unready(look: &Look, pod: &Value, container: &Value, who: &str) -> Cause {
    let name = text(&container["name"]);
    let probes = specification(pod, name);
    let has = |probe: &str| probes.is_some_and(|c| !c[probe].is_null());
    let said = look.event(pod, &["Unhealthy"]).map(|e| format!(": {}", text(&e["message"]))).unwrap_or_default();
    let (reason, message) = if has("startupProbe") && container["started"] != true {
        ("StartupProbe", format!("{who} runs and its startup probe has not passed yet{said}"))
    } else if has("readinessProbe") {
        ("ReadinessProbe", format!("{who} runs and its readiness probe does not pass{said}"))
    } else {
        ("NotReady", format!("{who} runs and is not ready yet"))
    };
    Cause::new(reason, message).about(pod).fix("", logs(pod, container, false))
}

/// How the containers of a pod that failed have ended.
pub fn exits(look: &Look, pod: &Value) -> Vec<Cause> {
    let init = items(&pod["status"]["initContainerStatuses"]).map(|c| (c, true));
    let all = init.chain(items(&pod["status"]["containerStatuses"]).map(|c| (c, false)));
    let failed = all.filter(|(c, _)| count(&c["state"]["terminated"]["exitCode"]) != 0);
    failed.map(|(c, is_init)| ended(look, pod, c, &called(pod, c, is_init), &c["state"]["terminated"], false)).collect()
}
