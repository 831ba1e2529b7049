//! `cargo xtask`: what a developer does with this repository, as Rust. It builds without the protobuf compiler, so
//! that it can install it.

mod cargo;
mod down;
mod step;
mod test;
mod tidy;
mod up;
mod vm;

use anyhow::{Result, bail};

const USAGE: &str = "\
cargo xtask COMMAND

  up [--dir DIR]      install what is missing, build, start a cluster and run examples/hello.yaml on it
  down [--dir DIR]    stop that cluster and remove everything it made
  test                install what is missing, check style, build, and run all tests
  tidy                check the house style only
  vm [--agents N] [--binary FILE] [--keep]
                      boot a server and agents as virtual machines, installed by cloud-init, and check the cluster
  vm exec MACHINE COMMAND..., vm stop
                      work with, and end, machines that were kept
  bench [NAME...]     measure: binary, startup, first-pod, idle, pods, memory, creates, list, dns, services (release
                      build; run it alone)
  bench scale [--nodes N] [--pods N]
                      the same with many simulated nodes: 500 and 5000 unless given

DIR is /var/lib/keelson-up unless given.";

fn main() {
    if let Err(error) = run() {
        eprintln!("error: {error:#}");
        std::process::exit(1);
    }
}

fn run() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["up", rest @ ..] => up::run(&directory(rest)?),
        ["down", rest @ ..] => down::run(&directory(rest)?),
        ["test"] => test::run(),
        ["tidy"] => tidy::run(),
        ["vm", rest @ ..] => vm::run(rest),
        ["bench", names @ ..] => bench(names),
        ["help" | "--help" | "-h"] | [] => {
            println!("{USAGE}");
            Ok(())
        }
        other => bail!("unknown arguments: {}\n\n{USAGE}", other.join(" ")),
    }
}

/// The service proxy's cost, which its own crate measures.
const SERVICES: &str = "services";

/// Builds for release and measures with real processes.
fn bench(names: &[&str]) -> Result<()> {
    tests::packages::install(&[tests::packages::RUN])?;
    if names.is_empty() || names.contains(&SERVICES) {
        cargo::run(&["bench", "--quiet", "--package", "service-proxy"], &[])?;
    }
    let others: Vec<&str> = names.iter().copied().filter(|name| *name != SERVICES).collect();
    if others.is_empty() && !names.is_empty() {
        return Ok(());
    }
    cargo::run(&["build", "--release", "--package", "keelson"], &[])?;
    let binary = cargo::binary("release", "keelson");
    let mut args = vec!["bench", "--quiet", "--package", "tests", "--bench", "cluster", "--"];
    args.extend(others);
    cargo::run(&args, &[("KEELSON_BINARY", &binary.to_string_lossy())])
}

/// The directory of the developer's cluster.
fn directory(args: &[&str]) -> Result<std::path::PathBuf> {
    match args {
        [] => Ok("/var/lib/keelson-up".into()),
        ["--dir", dir] => Ok(std::path::absolute(dir)?),
        other => bail!("unknown arguments: {}\n\n{USAGE}", other.join(" ")),
    }
}
