//! How the containers of one pod behave: the defaults of [`Timing`], overridden by annotations under [`PREFIX`].
//!
//! | annotation | meaning |
//! |---|---|
//! | `start` | how long from seeing the pod to running, such as `2s`; `never`: it stays Pending |
//! | `ready` | how long from running to ready; `never`: it stays unready |
//! | `run` | how long from running to the exit; `never`: it runs until it is stopped |
//! | `exit` | exit codes of the first, second, ... run, such as `1,1,0`; the last one repeats |
//! | `stop` | how long stopping takes, within the grace period |

use std::time::Duration;

use serde::Deserialize;

use crate::options::Timing;

/// Before the name of each annotation that is read.
pub const PREFIX: &str = "simulate.keelson.dev/";

/// The annotations as they are written.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Annotations {
    #[serde(rename = "simulate.keelson.dev/start")]
    start: Option<String>,
    #[serde(rename = "simulate.keelson.dev/ready")]
    ready: Option<String>,
    #[serde(rename = "simulate.keelson.dev/run")]
    run: Option<String>,
    #[serde(rename = "simulate.keelson.dev/exit")]
    exit: Option<String>,
    #[serde(rename = "simulate.keelson.dev/stop")]
    stop: Option<String>,
}

/// `None` of a duration is "never".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Behaviour {
    pub start: Option<Duration>,
    pub ready: Option<Duration>,
    pub run: Option<Duration>,
    pub stop: Duration,
    exits: Vec<i32>,
}

impl Behaviour {
    /// `always`: the pod's restart policy; such a pod runs until told otherwise.
    pub fn new(annotations: &Annotations, timing: &Timing, always: bool) -> Self {
        let exits = annotations.exit.iter().flat_map(|text| text.split(',')).filter_map(|c| c.trim().parse().ok());
        let exits: Vec<i32> = exits.collect();
        // Codes without a time mean that it does exit.
        let stays = always && exits.is_empty();
        Self {
            start: read(&annotations.start, Some(timing.start.draw())),
            ready: read(&annotations.ready, Some(timing.ready.draw())),
            run: read(&annotations.run, (!stays).then(|| timing.run.draw())),
            stop: read(&annotations.stop, Some(timing.stop.draw())).unwrap_or(Duration::MAX),
            exits,
        }
    }

    /// The exit code of a run, counted from 0.
    pub fn exit_code(&self, run: u32) -> i32 {
        self.exits.get(run as usize).or(self.exits.last()).copied().unwrap_or_default()
    }
}

/// A text that is no duration is read as absent: the pod behaves as most do.
fn read(text: &Option<String>, otherwise: Option<Duration>) -> Option<Duration> {
    match text.as_deref().map(str::trim) {
        None => otherwise,
        Some("never") => None,
        Some(text) => {
            let parsed = text.parse::<jiff::SignedDuration>().ok().and_then(|d| Duration::try_from(d).ok());
            parsed.or(otherwise)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: serde_json::Value, always: bool) -> Behaviour {
        let annotations: Annotations = serde_json::from_value(json).expect("annotations");
        Behaviour::new(&annotations, &Timing::default(), always)
    }

    #[test]
    fn annotations_override_the_timing() {
        let plain = of(serde_json::json!({}), true);
        assert_eq!((plain.run, plain.exit_code(0)), (None, 0));
        let job = of(serde_json::json!({}), false);
        assert_eq!(job.run, Some(Duration::from_secs(1)));
        let odd = of(
            serde_json::json!({
                "simulate.keelson.dev/start": "never", "simulate.keelson.dev/ready": "1m30s",
                "simulate.keelson.dev/exit": "1, 2,0",
            }),
            true,
        );
        assert_eq!((odd.start, odd.ready), (None, Some(Duration::from_secs(90))));
        assert!(odd.run.is_some(), "exit codes mean that it exits");
        assert_eq!([0, 1, 2, 9].map(|run| odd.exit_code(run)), [1, 2, 0, 0]);
    }
}
