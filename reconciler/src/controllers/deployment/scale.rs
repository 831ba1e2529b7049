//! Scaling a deployment whose rollout may be halfway: in proportion, so that the risk of the rollout stays what it was
//! (`DeploymentController.scale`). Pure.

use super::plan::{DESIRED_REPLICAS, MAX_REPLICAS, Rollout};
use super::replica_set::Set;
use super::status;

pub fn scale(rollout: &mut Rollout<'_>) {
    if let Some(only) = active_or_latest(rollout) {
        rollout.resize(only, rollout.replicas, false);
        return;
    }
    if rollout.new.is_some_and(|new| is_saturated(rollout, &rollout.sets[new])) {
        for index in rollout.old_indexes() {
            if rollout.sets[index].replicas > 0 {
                rollout.resize(index, 0, false);
            }
        }
        return;
    }
    if rollout.is_rolling() {
        in_proportion(rollout);
    }
}

/// The only set with pods; where there is none, the new set or else the youngest (`FindActiveOrLatest`).
fn active_or_latest(rollout: &Rollout<'_>) -> Option<usize> {
    let active: Vec<usize> = (0..rollout.sets.len()).filter(|i| rollout.sets[*i].replicas > 0).collect();
    match active.as_slice() {
        [] => rollout.new.or(rollout.sets.len().checked_sub(1)),
        [only] => Some(*only),
        _ => None,
    }
}

/// The new set has everything it was asked for (`IsSaturated`).
fn is_saturated(rollout: &Rollout<'_>, new: &Set) -> bool {
    let desired = new.annotations.get(DESIRED_REPLICAS).and_then(|d| d.parse::<i32>().ok());
    new.replicas == rollout.replicas && desired == Some(rollout.replicas) && new.available() == rollout.replicas
}

fn in_proportion(rollout: &mut Rollout<'_>) {
    let mut active: Vec<usize> = (0..rollout.sets.len()).filter(|i| rollout.sets[*i].replicas > 0).collect();
    let allowed = if rollout.replicas > 0 { rollout.replicas + rollout.max_surge() } else { 0 };
    let to_add = allowed - active.iter().map(|i| rollout.sets[*i].replicas).sum::<i32>();
    // Sets are held oldest first. The largest gets first; of equal ones the newer grows, the older shrinks first.
    if to_add > 0 {
        active.reverse();
    }
    active.sort_by_key(|i| std::cmp::Reverse(rollout.sets[*i].replicas));
    let mut added = 0;
    let mut sizes = Vec::new();
    for index in &active {
        let set = &rollout.sets[*index];
        let share = share(rollout, set, to_add, added);
        added += share;
        sizes.push(set.replicas + share);
    }
    if let Some(first) = sizes.first_mut().filter(|_| to_add != 0) {
        *first = (*first + to_add - added).max(0);
    }
    for (index, size) in active.into_iter().zip(sizes) {
        rollout.resize(index, size, true);
    }
}

/// A set's part of the change, never more than is left (`GetReplicaSetProportion`).
fn share(rollout: &Rollout<'_>, set: &Set, to_add: i32, added: i32) -> i32 {
    if set.replicas == 0 || to_add == 0 || to_add == added {
        return 0;
    }
    let fraction = fraction(rollout, set);
    let left = to_add - added;
    if to_add > 0 { fraction.min(left) } else { fraction.max(left) }
}

fn fraction(rollout: &Rollout<'_>, set: &Set) -> i32 {
    if rollout.replicas == 0 {
        return -set.replicas;
    }
    let before = set.annotations.get(MAX_REPLICAS).and_then(|m| m.parse::<i32>().ok()).filter(|m| *m > 0);
    let observed = status::Status::of(rollout.input.deployment.status.as_ref()).replicas;
    let Some(before) = before.or(Some(observed).filter(|o| *o != 0)) else { return 0 };
    let most = f64::from(rollout.replicas + rollout.max_surge());
    // Sizes are far below 2^31, so rounding to i32 is exact.
    (f64::from(set.replicas) * most / f64::from(before)).round() as i32 - set.replicas
}
