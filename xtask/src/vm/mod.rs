//! `cargo xtask vm`: a cluster of virtual machines, installed as a user would: by cloud-init, `keelson install`, the
//! systemd units and a join token. Works without KVM, by emulation, in minutes. No part of `cargo xtask test`.

mod disk;
mod guest;
mod machine;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tests::cluster::free_port;
use tests::kubectl::Kubectl;
use tests::{image, packages, wait};

use crate::cargo;
use crate::step::step;
use disk::Base;
use machine::{Link, Machine};

/// The user data a new machine starts with, as anybody could use it.
const SERVER: &str = include_str!("../../../vm-images/server.user-data.yaml");
const AGENT: &str = include_str!("../../../vm-images/agent.user-data.yaml");
/// What stands in [`AGENT`] for what only a running server knows.
const SERVER_URL: &str = "https://SERVER:6443";
const TOKEN: &str = "TOKEN";
const SERVER_NAME: &str = "server";

/// cloud-init and the installation, after the guest agent answers.
const INSTALL_LIMIT: Duration = Duration::from_secs(600);
const READY_LIMIT: Duration = Duration::from_secs(300);
const COMMAND_LIMIT: Duration = Duration::from_secs(120);

pub const USAGE: &str = "\
cargo xtask vm [--agents N] [--binary FILE] [--keep] [--dir DIR]
cargo xtask vm exec MACHINE COMMAND...
cargo xtask vm stop";

pub struct Options {
    dir: PathBuf,
    agents: usize,
    binary: Option<PathBuf>,
    keep: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { dir: cargo::target().join("vm"), agents: 1, binary: None, keep: false }
    }
}

pub fn run(args: &[&str]) -> Result<()> {
    match args {
        ["stop"] => return stop(&Options::default().dir),
        ["exec", machine, command @ ..] => {
            let machine = Machine::at(&Options::default().dir, machine);
            print!("{}", machine.guest.run(&command.join(" "), COMMAND_LIMIT)?);
            return Ok(());
        }
        _ => {}
    }
    let mut options = Options::default();
    let mut rest = args;
    while let [flag, more @ ..] = rest {
        rest = match (*flag, more) {
            ("--keep", more) => {
                options.keep = true;
                more
            }
            ("--agents", [count, more @ ..]) => {
                options.agents = count.parse().with_context(|| format!("--agents {count}"))?;
                more
            }
            ("--binary", [file, more @ ..]) => {
                options.binary = Some(std::path::absolute(file)?);
                more
            }
            ("--dir", [dir, more @ ..]) => {
                options.dir = std::path::absolute(dir)?;
                more
            }
            _ => bail!("unknown arguments: {}\n\n{USAGE}", rest.join(" ")),
        };
    }
    ensure!(options.agents > 0, "--agents: at least one, as the Deployment is spread over server and agents");
    cluster(&options)
}

/// From nothing to a checked cluster, and, unless it is to be kept, to nothing again.
fn cluster(options: &Options) -> Result<()> {
    let start = Instant::now();
    ensure!(std::env::consts::ARCH == "x86_64", "the recipe is for x86_64 machines");
    step("operating system packages", || {
        let installed = packages::install(&[packages::RUN, packages::VM])?;
        Ok(if installed.is_empty() { "all present".to_owned() } else { format!("installed {}", installed.join(" ")) })
    })?;
    let base = Base::at(&options.dir);
    step("disk", || base.ensure())?;
    let binary = match &options.binary {
        Some(binary) => binary.clone(),
        None => {
            println!("- keelson, release build");
            cargo::run(&["build", "--release", "--package", "keelson"], &[])?;
            cargo::binary("release", "keelson")
        }
    };
    let mut machines = Vec::new();
    let result = walk(options, &base, &binary, &mut machines);
    let logs = collect(&machines, result.is_err());
    if options.keep && machines.iter().any(Machine::is_running) {
        println!("The machines are left running. Go on with:");
        println!("  export KUBECONFIG={}", kubeconfig(&options.dir).display());
        println!("  cargo xtask vm exec {SERVER_NAME} systemctl status keelson-server");
        println!("  cargo xtask vm stop");
    } else {
        step("shutdown", || shut_down(&machines))?;
    }
    println!("{logs}");
    result?;
    println!("done in {:.0} s", start.elapsed().as_secs_f64());
    Ok(())
}

fn kubeconfig(dir: &Path) -> PathBuf {
    dir.join("kubeconfig")
}

fn walk(options: &Options, base: &Base, binary: &Path, machines: &mut Vec<Machine>) -> Result<()> {
    let hello = image::hello("1");
    let archive = options.dir.join("hello.tar");
    hello.write(&archive)?;
    let program = options.dir.join("keelson");
    fs::copy(binary, &program).with_context(|| format!("copy {binary:?}"))?;
    let files = [program.as_path(), archive.as_path()];
    let api_port = free_port()?;
    let ports = (0..options.agents).map(|_| free_port()).collect::<Result<Vec<_>>>()?;

    let link = Link::Hub { api_port, ports: ports.clone() };
    machines.push(Machine::start(&options.dir, SERVER_NAME, base, &link, SERVER, &files)?);
    boot(&machines[0])?;
    let kubeconfig = kubeconfig(&options.dir);
    let script = format!("keelson kubeconfig --server https://127.0.0.1:{api_port}");
    fs::write(&kubeconfig, machines[0].guest.run(&script, COMMAND_LIMIT)?)?;
    let kubectl = Kubectl::new(&kubeconfig)?;
    let mut url = String::new();
    step("server Ready", || {
        let address = ready(&kubectl, SERVER_NAME)?;
        url = format!("https://{address}:6443");
        Ok(url.clone())
    })?;

    // An emulated server may take longer to shake hands than a client waits.
    let token =
        wait::until("a token", READY_LIMIT, || machines[0].guest.run("keelson token create", COMMAND_LIMIT).map(Some))?;
    let user_data = AGENT.replace(SERVER_URL, &url).replace(TOKEN, token.trim());
    // All at once, as they boot at the same time then.
    for (number, port) in (1..).zip(&ports) {
        let name = format!("agent-{number}");
        let link = Link::Cable { port: *port, number };
        machines.push(Machine::start(&options.dir, &name, base, &link, &user_data, &files)?);
    }
    for agent in &machines[1..] {
        boot(agent)?;
        step(&format!("{} Ready", agent.name), || ready(&kubectl, &agent.name))?;
    }
    step("vm-images/spread.yaml", || spread(&kubectl, machines))?;
    step("restarts under systemd", || restarts(machines))?;
    println!("\n{}", kubectl.run(&["get", "nodes,pods", "-o", "wide"])?);
    if !options.keep {
        let last = &machines[machines.len() - 1];
        step(&format!("uninstall of {}", last.name), || uninstall(last))?;
    }
    Ok(())
}

/// Waits until cloud-init has done all it was told, which includes `keelson install`.
fn boot(machine: &Machine) -> Result<()> {
    step(&format!("{} boots", machine.name), || {
        machine.wait_until_up()?;
        Ok("takes commands".to_owned())
    })?;
    step(&format!("{} installs", machine.name), || {
        let script = "cloud-init status --wait >/dev/null; cat /run/keelson-installed";
        machine.guest.run(script, INSTALL_LIMIT).context("cloud-init did not get to its end; see its journal")?;
        machine.guest.run("keelson version; systemctl is-active 'keelson-*' || true", COMMAND_LIMIT).map(one_line)
    })
}

fn one_line(text: String) -> String {
    text.lines().collect::<Vec<_>>().join(", ")
}

/// Waits until a node is Ready, and returns its address.
fn ready(kubectl: &Kubectl, node: &str) -> Result<String> {
    wait::until(&format!("node {node} to be Ready"), READY_LIMIT, || {
        let node = kubectl.get(&["node", node])?;
        let conditions = node["status"]["conditions"].as_array().context("no conditions yet")?;
        let ready = conditions.iter().find(|c| c["type"] == "Ready").context("no Ready condition yet")?;
        ensure!(ready["status"] == "True", "{}", ready["message"]);
        let addresses = node["status"]["addresses"].as_array().context("no addresses yet")?;
        let internal = addresses.iter().find(|a| a["type"] == "InternalIP").context("no address yet")?;
        Ok(internal["address"].as_str().map(str::to_owned))
    })
}

/// A Deployment with pods on every machine, each of which is reached from every machine, directly and by Service.
fn spread(kubectl: &Kubectl, machines: &[Machine]) -> Result<String> {
    let manifest = cargo::root().join("vm-images/spread.yaml");
    kubectl.run(&["apply", "-f", &manifest.to_string_lossy()])?;
    let replicas = format!("--replicas={}", machines.len() * 2);
    kubectl.run(&["scale", "deployment/spread", &replicas])?;
    kubectl.run(&["rollout", "status", "deployment/spread", "--timeout=300s"])?;
    let pods = kubectl.get(&["pods", "-l", "app=spread"])?;
    let pods = pods["items"].as_array().context("a list of pods")?;
    for machine in machines {
        let here = pods.iter().filter(|pod| pod["spec"]["nodeName"] == machine.name.as_str()).count();
        ensure!(here == 2, "{here} of {} pods are on {}", pods.len(), machine.name);
    }
    let service = kubectl.get(&["service", "spread"])?;
    let mut targets: Vec<String> =
        pods.iter().filter_map(|pod| Some(format!("{}:8080", pod["status"]["podIP"].as_str()?))).collect();
    targets.push(format!("{}:80", service["spec"]["clusterIP"].as_str().context("a cluster IP")?));
    let mut asked = 0;
    for pod in pods {
        let name = pod["metadata"]["name"].as_str().context("a pod has a name")?;
        for target in &targets {
            wait::until(&format!("{name} to reach {target}"), COMMAND_LIMIT, || {
                let url = format!("http://{target}/");
                let answer = kubectl.run(&["exec", name, "--", "timeout", "5", "wget", "-q", "-O", "-", &url])?;
                ensure!(answer.contains("hello from"), "{answer}");
                Ok(Some(()))
            })?;
            asked += 1;
        }
    }
    Ok(format!("{} pods on {} machines, {asked} of {asked} requests answered", pods.len(), machines.len()))
}

/// Neither a restart of containerd nor one of Keelson itself, nor installing again, disturbs a container.
fn restarts(machines: &[Machine]) -> Result<String> {
    for machine in machines {
        let role = if machine.name == SERVER_NAME { SERVER_NAME } else { "agent" };
        let unit = format!("keelson-{role}");
        let ask = |script: &str| machine.guest.run(script, COMMAND_LIMIT);
        let shims = || ask("pgrep containerd-shim | sort | tr '\\n' ' '");
        let main = || ask(&format!("systemctl show --value --property=MainPID {unit}"));
        let (shims_before, main_before) = (shims()?, main()?);
        ensure!(!shims_before.trim().is_empty(), "no container runs on {}", machine.name);
        ask("systemctl restart containerd")?;
        ensure!(main()? == main_before, "restarting containerd has restarted {unit} on {}", machine.name);
        let again = ask(&format!("keelson install {role}"))?;
        ensure!(again.contains("runs already"), "installing again on {}:\n{again}", machine.name);
        ask(&format!("systemctl restart {unit}"))?;
        ensure!(main()? != main_before, "{unit} was not restarted on {}", machine.name);
        wait::until("status text", READY_LIMIT, || {
            let status = ask(&format!("systemctl show --value --property=StatusText {unit}"))?;
            ensure!(status.starts_with("Ready, "), "{unit} on {} says {status}", machine.name);
            Ok(Some(()))
        })?;
        ensure!(shims()? == shims_before, "a container was disturbed on {}", machine.name);
    }
    Ok("containerd and Keelson restarted on every machine, no container noticed".to_owned())
}

fn uninstall(machine: &Machine) -> Result<String> {
    let report = machine.guest.run("/usr/local/bin/keelson uninstall", INSTALL_LIMIT)?;
    ensure!(report.contains("nothing of Keelson is left on this host"), "{report}");
    let left = "pgrep -l -x keelson; pgrep -l containerd-shim; \
                ls -d /var/lib/keelson /etc/keelson /usr/local/bin/keelson; \
                systemctl list-unit-files --no-legend 'keelson*'; nft list tables | grep keelson; \
                ip -o link | grep -v -e ' lo:' -e ' en' -e ' eth'";
    let left = machine.guest.run(&format!("({left}) 2>/dev/null || true"), COMMAND_LIMIT)?;
    ensure!(left.trim().is_empty(), "left on {}:\n{left}", machine.name);
    Ok(format!("removed {} traces", report.lines().filter(|line| line.starts_with("removed ")).count()))
}

/// The journals, or, of a machine that does not answer, the end of its console.
fn collect(machines: &[Machine], failed: bool) -> String {
    let mut told = String::new();
    for machine in machines.iter().filter(|machine| machine.is_running()) {
        let line = match machine.collect_logs() {
            Ok(path) => format!("journal of {}: {}\n", machine.name, path.display()),
            Err(error) => format!("no journal of {} ({error:#})\n", machine.name),
        };
        told.push_str(&line);
        if failed {
            let console = tests::cluster::tail(&machine.console(), 10);
            told.push_str(&format!("console of {}: {}\n{console}\n", machine.name, machine.console().display()));
        }
    }
    told
}

/// Agents first: the Ethernet is in the server's process.
fn shut_down(machines: &[Machine]) -> Result<String> {
    let mut cut_off = Vec::new();
    for machine in machines.iter().rev() {
        if !machine.stop()? {
            cut_off.push(machine.name.as_str());
        }
    }
    Ok(if cut_off.is_empty() { "in order".to_owned() } else { format!("cut off {}", cut_off.join(", ")) })
}

fn stop(dir: &Path) -> Result<()> {
    let names = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let mut names: Vec<String> = names.map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort();
    let machines: Vec<Machine> = ["agent-", SERVER_NAME]
        .into_iter()
        .rev()
        .flat_map(|prefix| names.iter().filter(move |name| name.starts_with(prefix)))
        .map(|name| Machine::at(dir, name))
        .filter(Machine::is_running)
        .collect();
    println!("{} machines: {}", machines.len(), shut_down(&machines)?);
    Ok(())
}
