//! Configuration files: what they make of the defaults, and what is said about wrong ones.

use expect_test::{Expect, expect};

use super::*;

fn parse(body: &str) -> Result<Config, Error> {
    Config::parse(&format!("apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n{body}"))
}

fn refused(body: &str, expected: Expect) {
    expected.assert_eq(&parse(body).expect_err("a refusal").to_string());
}

fn plugins(profile: &Profile) -> String {
    let scores: Vec<String> = profile.scores.iter().map(|(p, weight)| format!("{}={weight}", p.name())).collect();
    let filters: Vec<String> = profile.filters.iter().map(|p| p.name()).collect();
    format!("{} | {}", filters.join(" "), scores.join(" "))
}

#[test]
fn an_empty_file_is_the_default() {
    let config = parse("").expect("a configuration");
    assert_eq!(plugins(&config.profiles[0]), plugins(&Profile::default()));
    assert_eq!(config.profiles[0].post_filters, Profile::default().post_filters);
    assert_eq!((config.profiles[0].scheduler_name.as_str(), config.backoff_max.as_secs()), ("default-scheduler", 10));
}

#[test]
fn plugins_are_switched_and_weighed() {
    let config = parse(
        "
profiles:
- schedulerName: packed
  percentageOfNodesToScore: 70
  plugins:
    filter: {disabled: [{name: '*'}], enabled: [{name: NodeResourcesFit}, {name: TaintToleration}]}
    score: {disabled: [{name: ImageLocality}], enabled: [{name: NodeResourcesFit, weight: 5}]}
    multiPoint: {disabled: [{name: InterPodAffinity}]}
  pluginConfig:
  - name: NodeResourcesFit
    args:
      kind: NodeResourcesFitArgs
      ignoredResourceGroups: [example.com]
      scoringStrategy: {type: MostAllocated, resources: [{name: cpu, weight: 3}]}
",
    )
    .expect("a configuration");
    let profile = &config.profiles[0];
    expect![
        "NodeResourcesFit TaintToleration | NodeResourcesFit=5 TaintToleration=3 NodeAffinity=2 PodTopologySpread=2 NodeResourcesBalancedAllocation=1"
    ]
    .assert_eq(&plugins(profile));
    assert_eq!(profile.args.fit.strategy, Strategy::MostAllocated);
    assert_eq!(profile.args.fit.resources[0].weight, 3);
    assert!(profile.args.fit.ignores("example.com/gpu") && !profile.args.fit.ignores("example.org/gpu"));
    assert_eq!(profile.percentage_of_nodes_to_score, Some(70));
}

#[test]
fn all_faults_are_told_with_their_paths() {
    refused(
        "
podInitialBackoffSeconds: 0
podMaxBackoffSeconds: -1
percentageOfNodesToScore: 101
profiles:
- plugins: {score: {enabled: [{name: Nonsense}, {name: NodePorts}]}}
  pluginConfig:
  - name: NodeResourcesFit
    args: {scoringStrategy: {type: Fullest}}
  - name: InterPodAffinity
    args: {hardPodAffinityWeight: 200}
- schedulerName: b
",
        expect![[
            r#"the scheduler's configuration is invalid: podInitialBackoffSeconds: Invalid value: 0: must be greater than 0; podMaxBackoffSeconds: Invalid value: -1: must be greater than or equal to PodInitialBackoffSeconds; percentageOfNodesToScore: Invalid value: 101: not in valid range [0-100]; profiles[0].schedulerName: Required value; profiles[0].plugins.score.enabled[0]: plugin "Nonsense" does not exist; profiles[0].plugins.score.enabled[1]: plugin "NodePorts" has nothing to do here; profiles[0].pluginConfig[0].args.scoringStrategy.type: Unsupported value: "Fullest": supported values: "LeastAllocated", "MostAllocated", "RequestedToCapacityRatio"; profiles[0].pluginConfig[1].args.hardPodAffinityWeight: Invalid value: 200: not in valid range [0, 100]"#
        ]],
    );
    refused(
        "profiles: [{pluginConfig: [{name: DefaultPreemption, args: {minCandidateNodes: 3}}]}]",
        expect![
            "the scheduler's configuration is invalid: profiles[0].pluginConfig[0].args: unknown field `minCandidateNodes`, expected `minCandidateNodesPercentage` or `minCandidateNodesAbsolute`"
        ],
    );
}

#[test]
fn other_kinds_are_refused() {
    let error = Config::parse("apiVersion: kubescheduler.config.k8s.io/v1beta3\nkind: KubeSchedulerConfiguration\n");
    expect![[
        r#"the scheduler's configuration is of kind "KubeSchedulerConfiguration" and version "kubescheduler.config.k8s.io/v1beta3"; it must be KubeSchedulerConfiguration of kubescheduler.config.k8s.io/v1"#
    ]]
    .assert_eq(&error.expect_err("a refusal").to_string());
}

#[test]
fn without_queue_sort_or_binder_nothing_works() {
    refused(
        "profiles: [{plugins: {multiPoint: {disabled: [{name: '*'}]}}}]",
        expect![[
            r#"the scheduler's configuration is invalid: profiles[0].plugins: only one queue sort plugin required for profile with scheduler name "default-scheduler", but got 0; profiles[0].plugins: at least one bind plugin is needed for profile with scheduler name "default-scheduler""#
        ]],
    );
}
