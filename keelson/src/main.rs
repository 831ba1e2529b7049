//! `keelson`: one binary that is a control plane, a node agent, or both. Parse, configure, run, drain.

mod args;
mod config;
mod control_plane;
mod logging;
mod node;
mod notify;
mod server;
mod shutdown;
mod state;

use std::process::ExitCode;

use anyhow::{Context, Result};

use args::{Command, ImageCommand};

/// glibc's allocator keeps one arena per thread and gives memory back late; see ARCHITECTURE.md for the figures.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match run(args::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The whole chain on one line: what was attempted, and why it failed.
            eprintln!("keelson: {error:#}");
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
        Command::Kubeconfig(arguments) => state::print_kubeconfig(arguments),
        Command::Image(image) => match image.command {
            ImageCommand::Import { node, archives } => runtime()?.block_on(node::import(node, &archives)),
        },
        Command::Cleanup(arguments) => runtime()?.block_on(node::cleanup(arguments.node)),
        Command::Pause => agent::pause(),
        Command::Version => {
            println!("keelson {} (Kubernetes v1.36)", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start the async runtime")
}
