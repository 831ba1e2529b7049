//! A KubeSchedulerConfiguration as a file: decoding, merging with the defaults, and all that is wrong with it, each
//! fault with its path (`apis/config/v1.mergePlugins`, `apis/config/validation`).

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::args;
use super::{Args, Config, Extender, Profile};
use crate::objects::DEFAULT_SCHEDULER_NAME;
use crate::plugins::Plugin;

const API_VERSION: &str = "kubescheduler.config.k8s.io/v1";
const KIND: &str = "KubeSchedulerConfiguration";
/// All plugins, where a list of disabled ones is meant.
const ALL: &str = "*";

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the scheduler's configuration can't be read: {0}")]
    Syntax(String),
    #[error(
        "the scheduler's configuration is of kind {kind:?} and version {version:?}; it must be {KIND} of {API_VERSION}"
    )]
    Kind { kind: String, version: String },
    /// All faults, each with its path.
    #[error("the scheduler's configuration is invalid: {}", .0.join("; "))]
    Invalid(Vec<String>),
}

/// Faults found so far.
#[derive(Default)]
pub(super) struct Faults(Vec<String>);

impl Faults {
    /// A value that won't do (`field.Invalid`).
    pub(super) fn invalid(&mut self, path: &str, value: impl std::fmt::Display, detail: &str) {
        self.0.push(format!("{path}: Invalid value: {value}: {detail}"));
    }

    pub(super) fn add(&mut self, path: &str, detail: impl std::fmt::Display) {
        self.0.push(format!("{path}: {detail}"));
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    profiles: Vec<RawProfile>,
    percentage_of_nodes_to_score: Option<i64>,
    pod_initial_backoff_seconds: Option<i64>,
    pod_max_backoff_seconds: Option<i64>,
    #[serde(default)]
    extenders: Vec<args::RawExtender>,
    parallelism: Option<i64>,
    // Said elsewhere here: who leads and how the server is reached are the process's own settings.
    #[serde(rename = "leaderElection")]
    _leader_election: Option<Value>,
    #[serde(rename = "clientConnection")]
    _client_connection: Option<Value>,
    #[serde(rename = "enableProfiling")]
    _enable_profiling: Option<bool>,
    #[serde(rename = "enableContentionProfiling")]
    _enable_contention_profiling: Option<bool>,
    #[serde(rename = "delayCacheUntilActive")]
    _delay_cache_until_active: Option<bool>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawProfile {
    scheduler_name: Option<String>,
    percentage_of_nodes_to_score: Option<i64>,
    #[serde(default)]
    plugins: RawPlugins,
    #[serde(default)]
    plugin_config: Vec<RawPluginConfig>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct RawPlugins {
    multi_point: RawSet,
    pre_enqueue: RawSet,
    queue_sort: RawSet,
    pre_filter: RawSet,
    filter: RawSet,
    post_filter: RawSet,
    pre_score: RawSet,
    score: RawSet,
    reserve: RawSet,
    permit: RawSet,
    pre_bind: RawSet,
    bind: RawSet,
    post_bind: RawSet,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct RawSet {
    enabled: Vec<RawPlugin>,
    disabled: Vec<RawPlugin>,
}

impl RawSet {
    fn disables(&self, name: &str) -> bool {
        self.disabled.iter().any(|d| d.name == name || d.name == ALL)
    }
}

#[derive(Deserialize, Default, Clone)]
#[serde(default, deny_unknown_fields)]
struct RawPlugin {
    name: String,
    weight: Option<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPluginConfig {
    name: String,
    #[serde(default)]
    args: Value,
}

impl Config {
    /// From YAML or JSON.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let file: File = serde_yaml::from_str(text).map_err(|e| Error::Syntax(e.to_string()))?;
        if file.api_version != API_VERSION || file.kind != KIND {
            return Err(Error::Kind { kind: file.kind, version: file.api_version });
        }
        let mut faults = Faults::default();
        let config = build(file, &mut faults);
        if faults.0.is_empty() { Ok(config) } else { Err(Error::Invalid(faults.0)) }
    }
}

fn build(file: File, faults: &mut Faults) -> Config {
    let first = file.pod_initial_backoff_seconds.unwrap_or(1);
    let max = file.pod_max_backoff_seconds.unwrap_or(10);
    if first <= 0 {
        faults.invalid("podInitialBackoffSeconds", first, "must be greater than 0");
    }
    if max < first {
        faults.invalid("podMaxBackoffSeconds", max, "must be greater than or equal to PodInitialBackoffSeconds");
    }
    if let Some(parallelism) = file.parallelism.filter(|p| *p <= 0) {
        faults.invalid("parallelism", parallelism, "should be an integer value greater than zero");
    }
    let percentage = percentage("percentageOfNodesToScore", file.percentage_of_nodes_to_score, faults);
    let raw = if file.profiles.is_empty() { vec![RawProfile::default()] } else { file.profiles };
    let is_single = raw.len() == 1;
    let mut profiles: Vec<Profile> = Vec::new();
    for (index, raw) in raw.into_iter().enumerate() {
        let path = format!("profiles[{index}]");
        let profile = profile(&path, raw, is_single, faults);
        if profiles.iter().any(|p| p.scheduler_name == profile.scheduler_name) {
            faults.add(&format!("{path}.schedulerName"), format!("Duplicate value: {:?}", profile.scheduler_name));
        }
        profiles.push(profile);
    }
    let extenders: Vec<Extender> = args::extenders(file.extenders, faults);
    // What an extender counts by itself the scheduler leaves to it.
    let left = extenders.iter().flat_map(|e| &e.managed).filter(|(_, is_left)| **is_left).map(|(name, _)| name);
    for profile in &mut profiles {
        profile.args.fit.ignored_resources.extend(left.clone().cloned());
    }
    let seconds = |n: i64| Duration::from_secs(u64::try_from(n).unwrap_or_default());
    Config {
        profiles,
        percentage_of_nodes_to_score: percentage.unwrap_or_default(),
        backoff_first: seconds(first),
        backoff_max: seconds(max),
        extenders,
    }
}

fn percentage(path: &str, value: Option<i64>, faults: &mut Faults) -> Option<i64> {
    if let Some(value) = value.filter(|v| !(0..=100).contains(v)) {
        faults.invalid(path, value, "not in valid range [0-100]");
    }
    value
}

fn profile(path: &str, raw: RawProfile, is_single: bool, faults: &mut Faults) -> Profile {
    // Only one profile may go without a name.
    let default_name = || if is_single { DEFAULT_SCHEDULER_NAME.to_owned() } else { String::new() };
    let scheduler_name = raw.scheduler_name.unwrap_or_else(default_name);
    if scheduler_name.is_empty() {
        faults.add(&format!("{path}.schedulerName"), "Required value");
    }
    let own = percentage(&format!("{path}.percentageOfNodesToScore"), raw.percentage_of_nodes_to_score, faults);
    let mut profile = Profile { scheduler_name, percentage_of_nodes_to_score: own, ..Profile::default() };
    plugins(path, &raw.plugins, &mut profile, faults);
    let mut args = Args::default();
    let mut seen: Vec<String> = Vec::new();
    for (index, config) in raw.plugin_config.into_iter().enumerate() {
        let path = format!("{path}.pluginConfig[{index}]");
        if seen.contains(&config.name) {
            faults.add(&path, format!("Duplicate value: {:?}", config.name));
        }
        args::plugin(&format!("{path}.args"), &config.name, config.args, &mut args, faults);
        seen.push(config.name);
    }
    profile.args = args;
    profile
}

/// Where plugins can be switched on and off here.
#[derive(Clone, Copy, PartialEq)]
enum Point {
    PreEnqueue,
    QueueSort,
    Filter,
    PostFilter,
    Score,
    Bind,
}

impl Point {
    fn takes(self, plugin: Plugin) -> bool {
        use Plugin as P;
        match self {
            Self::PreEnqueue => plugin == P::SchedulingGates,
            Self::QueueSort => plugin == P::PrioritySort,
            Self::Filter => Profile::default().filters.contains(&plugin),
            Self::PostFilter => Profile::default().post_filters.contains(&plugin),
            Self::Score => Profile::default().scores.iter().any(|(p, _)| *p == plugin),
            Self::Bind => plugin == P::DefaultBinder,
        }
    }
}

/// The weight a score plugin has by default.
fn default_weight(plugin: Plugin) -> Option<i64> {
    Profile::default().scores.into_iter().find(|(p, _)| *p == plugin).map(|(_, weight)| weight)
}

fn plugins(path: &str, raw: &RawPlugins, profile: &mut Profile, faults: &mut Faults) {
    let everywhere = multi_point(&raw.multi_point);
    let mut at = |name: &str, set: &RawSet, point: Point| -> Vec<(Plugin, Option<i64>)> {
        let path = format!("{path}.plugins.{name}");
        check_names(&path, set, Some(point), faults);
        resolve(set, &everywhere, point)
    };
    profile.filters = at("filter", &raw.filter, Point::Filter).into_iter().map(|(p, _)| p).collect();
    profile.post_filters = at("postFilter", &raw.post_filter, Point::PostFilter).into_iter().map(|(p, _)| p).collect();
    let scores = at("score", &raw.score, Point::Score);
    profile.scores = scores.into_iter().map(|(p, weight)| (p, weight.filter(|w| *w != 0).unwrap_or(1))).collect();
    profile.holds_gated = !at("preEnqueue", &raw.pre_enqueue, Point::PreEnqueue).is_empty();
    let name = profile.scheduler_name.clone();
    if at("queueSort", &raw.queue_sort, Point::QueueSort).is_empty() {
        faults.add(
            &format!("{path}.plugins"),
            format!("only one queue sort plugin required for profile with scheduler name {name:?}, but got 0"),
        );
    }
    if resolve(&raw.bind, &everywhere, Point::Bind).is_empty() {
        let detail = format!("at least one bind plugin is needed for profile with scheduler name {name:?}");
        faults.add(&format!("{path}.plugins"), detail);
    }
    check_names(&format!("{path}.plugins.bind"), &raw.bind, Some(Point::Bind), faults);
    check_names(&format!("{path}.plugins.multiPoint"), &raw.multi_point, None, faults);
    // Steps that plugins have no switch of their own for here: names are checked, and the filter or score decides.
    for (name, set) in [
        ("preFilter", &raw.pre_filter),
        ("preScore", &raw.pre_score),
        ("reserve", &raw.reserve),
        ("permit", &raw.permit),
        ("preBind", &raw.pre_bind),
        ("postBind", &raw.post_bind),
    ] {
        check_names(&format!("{path}.plugins.{name}"), set, None, faults);
    }
}

fn check_names(path: &str, set: &RawSet, point: Option<Point>, faults: &mut Faults) {
    for (index, plugin) in set.enabled.iter().enumerate() {
        let path = format!("{path}.enabled[{index}]");
        match (Plugin::named(&plugin.name), point) {
            (None, _) => faults.add(&path, format!("plugin {:?} does not exist", plugin.name)),
            (Some(known), Some(point)) if !point.takes(known) => {
                faults.add(&path, format!("plugin {:?} has nothing to do here", plugin.name));
            }
            (Some(_), _) if set.enabled[..index].iter().any(|p| p.name == plugin.name) => {
                faults.add(&path, format!("plugin {:?} already registered", plugin.name));
            }
            (Some(_), _) => {}
        }
    }
}

/// The defaults and what the file makes of them (`mergePluginSet`), in order.
fn multi_point(set: &RawSet) -> Vec<(Plugin, Option<i64>)> {
    let custom = |plugin: Plugin| set.enabled.iter().find(|e| Plugin::named(&e.name) == Some(plugin));
    let mut out: Vec<(Plugin, Option<i64>)> = Vec::new();
    for plugin in Plugin::ALL.into_iter().filter(|p| !set.disables(&p.name())) {
        out.push((plugin, custom(plugin).map_or(default_weight(plugin), |c| c.weight)));
    }
    for enabled in &set.enabled {
        if let Some(plugin) = Plugin::named(&enabled.name)
            && out.iter().all(|(p, _)| *p != plugin)
        {
            out.push((plugin, enabled.weight));
        }
    }
    out
}

/// The plugins of one point: those it names itself and that are everywhere, the others that are everywhere, and what
/// else it names (`expandMultiPointPlugins`).
fn resolve(set: &RawSet, everywhere: &[(Plugin, Option<i64>)], point: Point) -> Vec<(Plugin, Option<i64>)> {
    let named: Vec<(Plugin, Option<i64>)> =
        set.enabled.iter().filter_map(|e| Some((Plugin::named(&e.name)?, e.weight))).collect();
    let is_everywhere = |plugin: Plugin| everywhere.iter().any(|(p, _)| *p == plugin);
    let names = |plugin: Plugin| named.iter().any(|(p, _)| *p == plugin);
    let mut out: Vec<_> = named.iter().copied().filter(|(p, _)| is_everywhere(*p)).collect();
    out.extend(everywhere.iter().copied().filter(|(p, _)| point.takes(*p) && !names(*p) && !set.disables(&p.name())));
    out.extend(named.iter().copied().filter(|(p, _)| !is_everywhere(*p)));
    out
}
