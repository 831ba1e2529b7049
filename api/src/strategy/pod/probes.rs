//! Rules of probes, hooks and stop signals (`validateProbe`, `validateLifecycle`, `validateHandler`).

use super::containers::Scope;
use crate::field::Error;
use crate::strategy::format;
use crate::strategy::place::{Errors, Place};

const PROBE_HANDLERS: &[&str] = &["exec", "httpGet", "tcpSocket", "grpc"];
const HOOK_HANDLERS: &[&str] = &["exec", "httpGet", "tcpSocket", "sleep"];
const COUNTS: [&str; 5] =
    ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"];
/// Signals of Linux by name, without `SIG`; real-time signals are computed.
const SIGNALS: &[&str] = &[
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL", "PIPE", "POLL",
    "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU", "URG", "USR1",
    "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ", "RTMIN", "RTMAX",
];

pub fn rules(container: &Place, scope: &Scope, errors: &mut Errors) {
    let lifecycle = container.field("lifecycle");
    for hook in ["postStart", "preStop"] {
        let hook = lifecycle.field(hook);
        if hook.is_set() {
            handler(&hook, HOOK_HANDLERS, scope, errors);
        }
    }
    let signal = lifecycle.field("stopSignal");
    if signal.is_set() {
        stop_signal(&signal, scope, errors);
    }
    for (name, once) in [("livenessProbe", true), ("readinessProbe", false), ("startupProbe", true)] {
        let probe = container.field(name);
        if probe.is_set() {
            self::probe(&probe, once, scope, errors);
        }
    }
}

/// `once`: a single success decides; such probes may also have a grace period of their own.
fn probe(probe: &Place, once: bool, scope: &Scope, errors: &mut Errors) {
    handler(probe, PROBE_HANDLERS, scope, errors);
    for count in COUNTS {
        probe.field(count).nonnegative(errors);
    }
    let grace = probe.field("terminationGracePeriodSeconds");
    grace.positive(errors);
    let successes = probe.field("successThreshold");
    if once && successes.int() != Some(1) {
        errors.push(successes.invalid("must be 1"));
    }
    if !once && grace.is_set() {
        errors.push(grace.invalid("must not be set for readinessProbes"));
    }
}

fn handler(holder: &Place, kinds: &[&str], scope: &Scope, errors: &mut Errors) {
    let mut found = false;
    for kind in kinds {
        let action = holder.field(kind);
        if !action.is_set() {
            continue;
        }
        if found {
            errors.push(action.forbidden("may not specify more than 1 handler type"));
            continue;
        }
        found = true;
        match *kind {
            "exec" => {
                action.field("command").require(errors);
            }
            "httpGet" => http_get(&action, errors),
            "sleep" => sleep(&action, scope, errors),
            _ => format::port(&action.field("port"), errors),
        }
    }
    if !found {
        errors.push(holder.required("must specify a handler type"));
    }
}

fn http_get(action: &Place, errors: &mut Errors) {
    action.field("path").require(errors);
    format::port(&action.field("port"), errors);
    let scheme = action.field("scheme");
    if !["HTTP", "HTTPS"].contains(&scheme.str()) {
        errors.push(scheme.not_supported(&["HTTP", "HTTPS"]));
    }
    let headers = action.field("httpHeaders");
    for header in headers.items() {
        let name = header.field("name").str();
        errors.extend(format::http_header_name(name).into_iter().map(|p| Error::invalid(headers.path(), name, p)));
    }
}

fn sleep(action: &Place, scope: &Scope, errors: &mut Errors) {
    let Some(grace) = scope.grace_seconds else { return };
    let seconds = action.field("seconds").int().unwrap_or(0);
    if seconds < 0 || seconds > grace {
        let detail = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
        errors.push(Error::invalid(action.path(), seconds, detail));
    }
}

fn stop_signal(signal: &Place, scope: &Scope, errors: &mut Errors) {
    match scope.os {
        "" => errors.push(signal.forbidden("may not be set for containers with empty `spec.os.name`")),
        "windows" => signal.one_of(&["SIGKILL", "SIGTERM"], errors),
        "linux" if !is_signal(signal.str()) => {
            let named: Vec<String> = SIGNALS.iter().map(|s| format!("SIG{s}")).collect();
            let named: Vec<&str> = named.iter().map(String::as_str).collect();
            errors.push(signal.not_supported(&named));
        }
        _ => {}
    }
}

fn is_signal(name: &str) -> bool {
    let Some(name) = name.strip_prefix("SIG") else { return false };
    let offset = |prefix: &str, max: u8| {
        let number = name.strip_prefix(prefix).filter(|n| !n.starts_with('0')).and_then(|n| n.parse::<u8>().ok());
        number.is_some_and(|n| (1..=max).contains(&n))
    };
    SIGNALS.contains(&name) || offset("RTMIN+", 15) || offset("RTMAX-", 14)
}
