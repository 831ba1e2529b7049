//! `keelson`: one binary that is a control plane, a node agent, or both. Parse, configure, run, drain.

mod agent;
mod args;
mod backup;
mod cluster;
mod config;
mod control_plane;
mod dns;
mod eviction;
mod guard;
mod images;
mod install;
mod logging;
mod metrics;
mod metrics_port;
mod node;
mod notify;
mod proxy;
mod restore;
mod server;
mod shutdown;
mod simulate;
mod state;
mod supervise;
mod token;
mod why;

use std::process::ExitCode;

use anyhow::{Context, Result};

use args::{Command, ControllersCommand, GraphForm, ImageCommand, InstallRole};

/// glibc's allocator keeps one arena per thread and gives memory back late; see ARCHITECTURE.md for the figures.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    without_huge_pages();
    match run(args::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("keelson: {}", chain(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Server(arguments) => {
            let settings = config::load(*arguments)?;
            logging::start(&settings.log)?;
            let runtime = runtime()?;
            let result = runtime.block_on(server::run(settings));
            // Every part has ended or had its time; what still blocks a thread must not hold up the exit.
            runtime.shutdown_background();
            result
        }
        Command::Agent(arguments) => {
            let settings = config::load_agent(*arguments)?;
            logging::start(&settings.log)?;
            let runtime = runtime()?;
            let result = runtime.block_on(agent::run(settings));
            runtime.shutdown_background();
            result
        }
        Command::Token(arguments) => runtime()?.block_on(token::run(arguments.command)),
        Command::Kubeconfig(arguments) => state::print_kubeconfig(arguments),
        Command::Image(image) => match image.command {
            ImageCommand::Import { node, archives } => runtime()?.block_on(node::import(node, &archives)),
        },
        Command::Controllers(controllers) => match controllers.command {
            ControllersCommand::Graph { output } => {
                print!("{}", runtime()?.block_on(async { graph(output) }));
                Ok(())
            }
        },
        Command::Simulate(arguments) => runtime()?.block_on(simulate::run(arguments)),
        Command::Why(arguments) => runtime()?.block_on(why::run(arguments)),
        Command::Cleanup(arguments) => runtime()?.block_on(node::cleanup(arguments.node)),
        Command::Install(install) => match install.role {
            InstallRole::Server(arguments) => install::server(*arguments),
            InstallRole::Agent(arguments) => install::agent(*arguments),
        },
        Command::Uninstall(arguments) => runtime()?.block_on(install::uninstall(arguments)),
        Command::Pause => ::agent::pause(),
        Command::Backup(arguments) => runtime()?.block_on(backup::run(arguments)),
        Command::Restore(arguments) => runtime()?.block_on(restore::run(arguments)),
        Command::Version => {
            println!("keelson {} (Kubernetes v1.36)", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
    }
}

fn graph(form: GraphForm) -> String {
    let controllers = reconciler::declared();
    match form {
        GraphForm::Text => reconciler::graph::text(&controllers),
        GraphForm::Dot => reconciler::graph::dot(&controllers),
    }
}

/// The whole chain on one line: what was attempted, and why it failed. Some libraries' errors already tell their
/// cause; it is not told twice.
fn chain(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |text, cause| match text.as_str() {
        "" => cause,
        told if told.contains(&cause) => text,
        _ => format!("{text}: {cause}"),
    })
}

/// Where the kernel gives everybody pages of 2 MiB, an idle server would fill them to a small part only. (The allocator
/// is built not to ask for them.) Children inherit this; what a container runs is no child of ours.
fn without_huge_pages() {
    // Where it cannot be had, the process takes more memory and works as well.
    match nix::sys::prctl::set_thp_disable(true) {
        Ok(()) | Err(_) => {}
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start the async runtime")
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    #[test]
    fn a_cause_is_told_once() {
        let error = anyhow!("refused").context("connect: refused").context("open the store");
        assert_eq!(super::chain(&error), "open the store: connect: refused");
        assert_eq!(super::chain(&anyhow!("no such file").context("read a.yaml")), "read a.yaml: no such file");
    }
}
