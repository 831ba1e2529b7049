//! Rules of a job's status: counters only grow, conditions fit each other (`validateJobStatus`,
//! `ValidateJobStatusUpdate`). As upstream, a rule applies when the fields it is about change.

use crate::field::Error;
use crate::strategy::place::{Errors, Place};

const COUNTS: &[&str] = &["active", "succeeded", "failed", "ready", "terminating"];

pub fn rules(new: &Place, old: &Place, errors: &mut Errors) {
    let (spec, status, before) = (new.field("spec"), new.field("status"), old.field("status"));
    for count in COUNTS {
        status.field(count).nonnegative(errors);
    }
    uncounted(&status.field("uncountedTerminatedPods"), errors);
    conditions(&spec, &status, &before, errors);
    finished(&spec, &status, &before, errors);
    indexes(&spec, &status, &before, errors);
    counters(&spec, &status, &before, errors);
}

/// The condition `kind` holds in a status.
fn holds(status: &Place, kind: &str) -> bool {
    status.field("conditions").list().iter().any(|c| c["type"] == kind && c["status"] == "True")
}

fn uncounted(pods: &Place, errors: &mut Errors) {
    let mut seen: Vec<&str> = Vec::new();
    for list in ["succeeded", "failed"] {
        for uid in pods.field(list).items() {
            if uid.is_empty() {
                errors.push(uid.invalid("must not be empty"));
            } else if seen.contains(&uid.str()) {
                errors.push(uid.duplicate());
            }
            seen.push(uid.str());
        }
    }
}

fn conditions(spec: &Place, status: &Place, before: &Place, errors: &mut Errors) {
    let place = status.field("conditions");
    let changed = |kind: &str| holds(status, kind) != holds(before, kind);
    let [complete, failed, failing, succeeding] =
        ["Complete", "Failed", "FailureTarget", "SuccessCriteriaMet"].map(|kind| holds(status, kind));
    let mut refuse = |wrong: bool, detail: &str| {
        if wrong {
            errors.push(place.invalid(detail));
        }
    };
    let complete_changed = changed("Complete");
    refuse(
        (complete_changed || changed("Failed")) && complete && failed,
        "cannot set Complete=True and Failed=true conditions",
    );
    refuse(
        (complete_changed || changed("FailureTarget")) && complete && failing,
        "cannot set Complete=True and FailureTarget=true conditions",
    );
    refuse(
        changed("Failed") && failed && !failing,
        "cannot set Failed=True condition without the FailureTarget=true condition",
    );
    refuse(
        (complete_changed || changed("SuccessCriteriaMet")) && complete && !succeeding,
        "cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
    );
    refuse(succeeding && failed, "cannot set SuccessCriteriaMet=True and Failed=true conditions");
    refuse(succeeding && failing, "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions");
    refuse(
        spec.field("successPolicy").is_set() && complete && !succeeding,
        "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True",
    );
    for kind in ["Failed", "Complete", "FailureTarget"] {
        let detail = format!("cannot disable the terminal {kind}=True condition");
        refuse(holds(before, kind) && !holds(status, kind), &detail);
    }
    refuse(holds(before, "SuccessCriteriaMet") && !succeeding, "cannot disable the SuccessCriteriaMet=True condition");
}

fn finished(spec: &Place, status: &Place, before: &Place, errors: &mut Errors) {
    let is_finished = |status: &Place| holds(status, "Complete") || holds(status, "Failed");
    let (done, complete) = (is_finished(status), holds(status, "Complete"));
    let done_changed = done != is_finished(before);
    let changed = |field: &str| !status.field(field).same(&before.field(field));
    let (start, completion) = (status.field("startTime"), status.field("completionTime"));
    if changed("completionTime") || complete != holds(before, "Complete") {
        if completion.is_set() && !complete {
            errors.push(completion.invalid("cannot set completionTime when there is no Complete=True condition"));
        }
        if !completion.is_set() && complete {
            errors.push(completion.required("completionTime is required for Complete jobs"));
        }
    }
    // Times are canonical texts in UTC, which sort by time.
    let ordered = start.str() <= completion.str();
    if (changed("completionTime") || changed("startTime")) && start.is_set() && completion.is_set() && !ordered {
        errors.push(completion.invalid("must be equal to or after `startTime`"));
    }
    let positive = |field: &str| status.field(field).int().unwrap_or(0) > 0;
    for field in ["active", "terminating"] {
        if (done_changed || changed(field)) && done && positive(field) {
            errors.push(status.field(field).invalid(format!("{field}>0 is invalid for finished job")));
        }
    }
    let never_ran = spec.field("suspend").is_true() && spec.field("completions").int() == Some(0);
    if (done_changed || changed("startTime")) && !never_ran && done && !start.is_set() {
        errors.push(start.required("startTime is required for finished job"));
    }
    let uncounted = status.field("uncountedTerminatedPods");
    let leftover = ["succeeded", "failed"].iter().any(|list| !uncounted.field(list).is_empty());
    if (done_changed || changed("uncountedTerminatedPods")) && done && leftover {
        errors.push(uncounted.invalid("must be empty for finished job"));
    }
}

fn indexes(spec: &Place, status: &Place, before: &Place, errors: &mut Errors) {
    let total = spec.field("completions").int();
    let (completed, failed) = (status.field("completedIndexes"), status.field("failedIndexes"));
    let completed_changed = !completed.same(&before.field("completedIndexes"));
    let failed_changed = !failed.same(&before.field("failedIndexes"));
    let per_index = spec.field("backoffLimitPerIndex").is_set();
    if completed_changed {
        if let Some(Err(problem)) = total.map(|total| index_count(completed.str(), total)) {
            errors.push(completed.invalid(format!("error parsing completedIndexes: {problem}")));
        }
        if !completed.is_empty() && spec.field("completionMode").str() != "Indexed" {
            errors.push(completed.invalid("cannot set non-empty completedIndexes when non-indexed completion mode"));
        }
    }
    if failed_changed && failed.is_set() {
        if let Some(Err(problem)) = total.filter(|_| per_index).map(|total| index_count(failed.str(), total)) {
            errors.push(failed.invalid(format!("error parsing failedIndexes: {problem}")));
        }
        if !per_index {
            errors.push(failed.invalid("cannot set non-null failedIndexes when backoffLimitPerIndex is null"));
        }
    }
    if (failed_changed || completed_changed) && total.is_some() {
        let (completed_at, failed_at) = (intervals(completed.str()), intervals(failed.str()));
        let overlap = completed_at.iter().flat_map(|c| failed_at.iter().map(move |f| (c, f)));
        if let Some((c, f)) = overlap.into_iter().find(|(c, f)| c.0 <= f.1 && f.0 <= c.1) {
            let at = c.0.max(f.0);
            errors.push(failed.invalid(format!("failedIndexes and completedIndexes overlap at index: {at}")));
        }
    }
}

fn counters(spec: &Place, status: &Place, before: &Place, errors: &mut Errors) {
    let count = |status: &Place, field: &str| status.field(field).int().unwrap_or(0);
    if count(status, "failed") < count(before, "failed") {
        errors.push(zero_shown(&status.field("failed"), "cannot decrease the failed counter"));
    }
    let elastic = spec.field("completionMode").str() == "Indexed"
        && spec.field("completions").value == spec.field("parallelism").value;
    if !elastic && count(status, "succeeded") < count(before, "succeeded") {
        errors.push(zero_shown(&status.field("succeeded"), "cannot decrease the succeeded counter"));
    }
    let (completion, was) = (status.field("completionTime"), before.field("completionTime"));
    if completion.is_set() && was.is_set() && !completion.same(&was) {
        errors.push(completion.invalid("field is immutable"));
    }
    let (start, was) = (status.field("startTime"), before.field("startTime"));
    let resuming = holds(before, "Suspended")
        && status.field("conditions").list().iter().any(|c| c["type"] == "Suspended" && c["status"] == "False");
    if was.is_set() && !start.same(&was) && !spec.field("suspend").is_true() && !resuming {
        errors.push(start.invalid("field is immutable for unsuspended job once set"));
    }
    let ready_changed = !status.field("ready").same(&before.field("ready"));
    let active_changed = !status.field("active").same(&before.field("active"));
    if (ready_changed || active_changed) && count(status, "ready") > count(status, "active") {
        errors.push(status.field("ready").invalid("cannot set more ready pods than active"));
    }
}

fn zero_shown(place: &Place, detail: &str) -> Error {
    Error::invalid(place.path(), place.int().unwrap_or(0), detail)
}

/// How many indexes a text such as `1,3-5` lists, below `completions` and in order (`validateIndexesFormat`).
pub fn index_count(text: &str, completions: i64) -> Result<i64, String> {
    if text.is_empty() {
        return Ok(0);
    }
    let mut last = -1;
    let mut total = 0;
    for part in text.split(',') {
        let number = |text: &str| -> Result<i64, String> {
            let n = text.parse().map_err(|_| format!("cannot convert string to integer for index: {text:?}"))?;
            if n >= completions { Err(format!("too large index: {text:?}")) } else { Ok(n) }
        };
        let limits: Vec<&str> = part.split('-').collect();
        let (first, end) = match limits.as_slice() {
            [one] => (number(one)?, number(one)?),
            [first, end] => (number(first)?, number(end)?),
            _ => {
                return Err(format!(
                    "the fragment {part:?} violates the requirement that an index interval can have at most two parts separated by '-'"
                ));
            }
        };
        if (limits.len() == 2 && first >= end) || last >= first {
            return Err(format!("non-increasing order, previous: {}, current: {end}", last.max(first)));
        }
        total += end - first + 1;
        last = end;
    }
    Ok(total)
}

/// The readable intervals of an index list.
fn intervals(text: &str) -> Vec<(i64, i64)> {
    let parse = |part: &str| {
        let (first, end) = part.split_once('-').unwrap_or((part, part));
        Some((first.parse().ok()?, end.parse().ok()?))
    };
    text.split(',').filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_lists() {
        assert_eq!(index_count("", 5), Ok(0));
        assert_eq!(index_count("0,2-4", 5), Ok(4));
        for wrong in ["5", "3,1", "2-1", "1-2-3", "x", "1,1"] {
            assert!(index_count(wrong, 5).is_err(), "{wrong}");
        }
    }
}
