//! The scenarios of `tests/scenarios/*.txt`, each a trial of its own: text on the real components of a cluster, in
//! simulated time, from a seed. `tests/scenarios/README.md` says how to write, run and reproduce them.

mod cluster;
mod commands;
mod conditions;
mod process;
mod random;
mod requests;
mod session;
mod simulation;
mod stores;
mod text;
mod truth;
mod wire;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;

use libtest_mimic::{Arguments, Failed, Trial};
use process::SEED;
use text::Scenario;

/// Set, outputs are written into the files instead of being compared.
const REWRITE: &str = "KEELSON_REWRITE";
/// The seed of scenarios; any other is as good.
const DEFAULT_SEED: u64 = 1;

fn main() -> ExitCode {
    match std::env::var(process::TRIAL) {
        Ok(name) => process::child(&name, one),
        Err(_) => libtest_mimic::run(&Arguments::from_args(), trials()).exit_code(),
    }
}

/// Every trial, each run in a process of its own.
fn trials() -> Vec<Trial> {
    let mut trials = vec![
        Trial::test("runner::text", || Ok(text::check()?)),
        Trial::test("runner::one_seed_one_run", || Ok(same_twice()?)),
        // By hand (`-- --ignored`): some seeds make pods without end until the limit of a trial's time (ROADMAP.md).
        Trial::test("runner::a_fault_is_found", || Ok(fault_found()?)).with_ignored_flag(true),
    ];
    trials.extend(seeds().map(random_trial));
    match files() {
        Ok(scenarios) => trials.extend(scenarios.into_iter().map(trial)),
        Err(error) => trials.push(Trial::test("runner::files", || Err(Failed::from(error)))),
    }
    trials
}

/// What a process of a trial does; gives what it tells its parent.
fn one(trial: &str) -> Result<String, String> {
    let said = Mutex::new(String::new());
    let say = |text: String| *said.lock().expect("nobody panics while holding it") = text;
    if trial == FINGERPRINT {
        let scenario = same_scenario()?;
        simulation::run(7, || async { session::fingerprint(&scenario).await.map(say) })?;
    } else if trial.starts_with(RANDOM) {
        simulation::run(seed(), || random::run(seed(), false))?;
    } else if trial == FORGETFUL {
        simulation::run(seed(), || random::run(seed(), true))?;
    } else {
        let scenario = files()?.into_iter().find(|s| name(s) == trial).ok_or("there is no such scenario")?;
        let rewriting = std::env::var_os(REWRITE).is_some();
        simulation::run(seed(), || async {
            let outputs = session::play(&scenario, rewriting).await?;
            say(serde_json::json!(outputs).to_string());
            Ok(())
        })?;
    }
    Ok(said.into_inner().expect("nobody panics while holding it"))
}

/// Trials of the randomized run are named by this and their seed.
const RANDOM: &str = "random::seed_";
/// Which seeds: `FROM..TO`, without TO.
const SEEDS: &str = "KEELSON_SEEDS";
const DEFAULT_SEEDS: std::ops::Range<u64> = 1..201;

fn seeds() -> std::ops::Range<u64> {
    let asked = std::env::var(SEEDS).ok();
    let bounds = asked.as_deref().and_then(|text| text.split_once(".."));
    let range = bounds.and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    range.unwrap_or(DEFAULT_SEEDS)
}

fn random_trial(seed: u64) -> Trial {
    let name = format!("{RANDOM}{seed}");
    Trial::test(name.clone(), move || {
        let (end, log) = (seed + 1, process::LOG);
        let reproduce = format!(
            "reproduce with: {SEEDS}={seed}..{end} {log}=debug cargo test -p tests --test scenarios -- --exact {name}"
        );
        process::run(&name, seed).map(drop).map_err(|error| Failed::from(format!("{error}\n{reproduce}")))
    })
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios")
}

fn files() -> Result<Vec<Scenario>, String> {
    let entries = std::fs::read_dir(directory()).map_err(|e| format!("read {}: {e}", directory().display()))?;
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == "txt"));
    paths.sort();
    let mut all = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(&path).map_err(|e| format!("read {}: {e}", path.display()))?;
        let shown = Path::new("tests/scenarios").join(path.file_name().unwrap_or_default());
        all.extend(text::parse(&shown, &text)?);
    }
    Ok(all)
}

fn name(scenario: &Scenario) -> String {
    let file = scenario.file.file_stem().unwrap_or_default().to_string_lossy();
    format!("{file}::{}", scenario.name.replace(' ', "_"))
}

fn seed() -> u64 {
    std::env::var(SEED).ok().and_then(|text| text.parse().ok()).unwrap_or(DEFAULT_SEED)
}

fn trial(scenario: Scenario) -> Trial {
    Trial::test(name(&scenario), move || {
        let said = process::run(&name(&scenario), seed())
            .map_err(|error| Failed::from(format!("{error}\n{}", reproduction(&scenario))))?;
        if std::env::var_os(REWRITE).is_some() {
            let outputs: Vec<String> = serde_json::from_str(&said).map_err(|e| format!("{said}: {e}"))?;
            rewrite(&scenario, &outputs)?;
        }
        Ok(())
    })
}

fn reproduction(scenario: &Scenario) -> String {
    let (name, seed) = (name(scenario), seed());
    let log = process::LOG;
    format!("reproduce with: {SEED}={seed} {log}=debug cargo test -p tests --test scenarios -- --exact {name}")
}

fn rewrite(scenario: &Scenario, outputs: &[String]) -> Result<(), String> {
    static FILES: Mutex<()> = Mutex::new(());
    let _one_at_a_time = FILES.lock().map_err(|e| e.to_string())?;
    let path = directory().join(scenario.file.file_name().unwrap_or_default());
    let text = std::fs::read_to_string(&path).map_err(|e| format!("read {}: {e}", path.display()))?;
    // Other scenarios of the file may have grown or shrunk since it was read.
    let now = text::parse(&scenario.file, &text)?;
    let same = now.iter().find(|s| s.name == scenario.name).ok_or("the scenario is no longer in its file")?;
    std::fs::write(&path, text::rewrite(&text, same, outputs)).map_err(|e| format!("write {}: {e}", path.display()))
}

/// A randomized run in which controllers act on caches that have not seen their own writes.
const FORGETFUL: &str = "random::forgetful";
/// Seeds that are tried before the randomized run is taken to be blind to that.
const FORGETFUL_SEEDS: std::ops::Range<u64> = 1..21;

/// The randomized run notices a real fault, and by the right sign: too many pods.
fn fault_found() -> Result<(), String> {
    let mut others = Vec::new();
    for seed in FORGETFUL_SEEDS {
        match process::run(FORGETFUL, seed) {
            Err(failure) if failure.contains(random::TOO_MANY) => return Ok(()),
            Err(failure) => others.push(failure),
            Ok(_) => {}
        }
    }
    Err(format!("{FORGETFUL_SEEDS:?} did not show pods made twice; other failures: {others:#?}"))
}

const FINGERPRINT: &str = "runner::fingerprint";

/// Two runs with one seed write the same objects, down to uids and times, and end at the same revision.
fn same_twice() -> Result<(), String> {
    let (first, second) = (process::run(FINGERPRINT, 7)?, process::run(FINGERPRINT, 7)?);
    if first == second && !first.is_empty() {
        return Ok(());
    }
    let differ = first.lines().zip(second.lines()).find(|(a, b)| a != b);
    Err(format!("two runs of one seed differ: {differ:?}"))
}

fn same_scenario() -> Result<Scenario, String> {
    let text = "scenario same\nnodes 2\nfaults controllers delay=1s lag=2s refuse=20%\n\
                create deployment web replicas=5\nwait deployment/web rolled-out\nlose watches all\n\
                image deployment/web app:2\nadvance 40s\n";
    text::parse(Path::new("same.txt"), text)?.pop().ok_or_else(|| "no scenario".to_owned())
}
