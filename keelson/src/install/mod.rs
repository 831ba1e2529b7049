//! `keelson install`: makes this host a server or a node that comes back after every boot.
//!
//! Safe to repeat, and the way to upgrade: what is right already is left alone, settings given earlier are kept, and
//! the service is restarted only when something of it changed. Pods do not notice a restart.

mod checks;
mod layout;
mod systemd;
mod traces;
mod uninstall;

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::args::{Agent, Component, InstallAgent, InstallServer, Server};
use crate::config::{self, Settings};
use checks::Needs;
use layout::{Layout, Role};

pub use uninstall::uninstall;

/// `keelson install server`.
pub fn server(arguments: InstallServer) -> Result<()> {
    let layout = Layout::new(arguments.installation.root.as_deref())?;
    let before: Server = match layout.role() {
        // The other role's settings are not ours to read; `install` says so.
        Some(Role::Agent) => Server::default(),
        _ => config::read_or_default(&layout.config())?,
    };
    let under = match &arguments.settings.config {
        Some(file) => config::merge(config::read(file)?, before.clone()),
        None => before.clone(),
    };
    let wanted = Server { config: None, ..config::merge(arguments.settings, under) };
    let settings = config::resolve(wanted.clone())?;
    // A file that says the same already keeps its comments.
    let text = if wanted == before && layout.config().exists() { None } else { Some(config::show(&wanted)?) };
    let needs = Needs {
        node: settings.runs(Component::Agent),
        containerd: settings.containerd_address.clone(),
        ports: ports(&settings),
        start: !arguments.installation.no_start,
    };
    install(&layout, Role::Server, text.as_deref(), &needs)?;
    if needs.start && layout.is_host() {
        println!("Go on with: keelson kubeconfig > ~/.kube/config");
    }
    Ok(())
}

/// `keelson install agent`.
pub fn agent(arguments: InstallAgent) -> Result<()> {
    let layout = Layout::new(arguments.installation.root.as_deref())?;
    let before: Agent = match layout.role() {
        // The other role's settings are not ours to read; `install` says so.
        Some(Role::Server) => Agent::default(),
        _ => config::read_or_default(&layout.config())?,
    };
    let under = match &arguments.settings.config {
        Some(file) => config::merge_agent(config::read(file)?, before.clone()),
        None => before.clone(),
    };
    let wanted = Agent { config: None, ..config::merge_agent(arguments.settings, under) };
    let settings = config::resolve_agent(wanted.clone())?;
    let text = if wanted == before && layout.config().exists() { None } else { Some(config::show(&wanted)?) };
    let needs = Needs {
        node: true,
        containerd: settings.containerd_address.clone(),
        ports: vec![("--node-port", (std::net::Ipv4Addr::UNSPECIFIED, settings.node_port).into())],
        start: !arguments.installation.no_start,
    };
    install(&layout, Role::Agent, text.as_deref(), &needs)
}

fn ports(settings: &Settings) -> Vec<(&'static str, std::net::SocketAddr)> {
    let mut ports = Vec::new();
    if settings.runs(Component::Apiserver) {
        ports.push(("--bind", settings.bind));
    }
    if settings.runs(Component::Agent) {
        ports.push(("--node-port", (std::net::Ipv4Addr::UNSPECIFIED, settings.node_port).into()));
    }
    ports
}

/// Puts everything in place for `role`, with `config` as configuration file unless that stays as it is.
fn install(layout: &Layout, role: Role, config: Option<&str>, needs: &Needs) -> Result<()> {
    if let Some(other) = layout.role().filter(|other| *other != role) {
        bail!("{} is installed here already, and a host has one role: `keelson uninstall` first", other.unit_name());
    }
    let start = needs.start && layout.is_host();
    if layout.is_host() {
        if !nix::unistd::geteuid().is_root() {
            bail!("installing changes the whole host: run this as root");
        }
        // What our own service holds is not in the way of it.
        let ports = if systemd::is_active(role) { Vec::new() } else { needs.ports.clone() };
        checks::host(&Needs { ports, containerd: needs.containerd.clone(), ..*needs })?;
    }
    let mut changed = false;
    let mut tell = |path: &Path, is_new: bool| {
        println!("{} {}", if is_new { "wrote    " } else { "unchanged" }, path.display());
        changed |= is_new;
    };
    tell(&layout.binary(), layout.write_binary()?);
    tell(&layout.config(), config.map_or(Ok(false), |text| layout.write_config(text))?);
    let written = layout.write_unit(role)?;
    for path in [layout.unit(role), layout.modules(), layout.enabled(role)] {
        tell(&path, written.contains(&path));
    }
    if !layout.is_host() {
        println!("prepared for the first boot; nothing was started");
        return Ok(());
    }
    if systemd::is_here() {
        systemd::reload()?;
    }
    if !start {
        println!("not started: `systemctl start {}` does", role.unit_name());
        return Ok(());
    }
    if !changed && systemd::is_active(role) {
        println!("{} runs already", role.unit_name());
        return Ok(());
    }
    systemd::restart(role).with_context(|| format!("everything is installed, but {} fails", role.unit_name()))?;
    println!("{}: {}", role.unit_name(), systemd::status(role));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Installation;

    fn run(root: &Path, settings: Server) -> Result<()> {
        server(InstallServer { settings, installation: Installation { root: Some(root.to_owned()), no_start: false } })
    }

    #[test]
    fn settings_given_earlier_are_kept() {
        let root = tempfile::tempdir().expect("a directory");
        let layout = Layout::new(Some(root.path())).expect("a layout");
        run(root.path(), Server { node_name: Some("one".into()), ..Server::default() }).expect("installed");
        run(root.path(), Server { node_port: Some(10260), ..Server::default() }).expect("installed again");
        let kept: Server = config::read_or_default(&layout.config()).expect("readable");
        assert_eq!(kept, Server { node_name: Some("one".into()), node_port: Some(10260), ..Server::default() });
    }

    #[test]
    fn bad_settings_write_nothing() {
        let root = tempfile::tempdir().expect("a directory");
        let bad = Server { service_cidr: Some("ten".into()), ..Server::default() };
        run(root.path(), bad).expect_err("refused");
        assert_eq!(std::fs::read_dir(root.path()).expect("listed").count(), 0);
    }

    #[test]
    fn an_agent_is_told_once_where_its_cluster_is() {
        let root = tempfile::tempdir().expect("a directory");
        let installation = || Installation { root: Some(root.path().to_owned()), no_start: false };
        let settings = Agent { server: Some(vec!["https://10.0.0.1:6443".into()]), ..Agent::default() };
        agent(InstallAgent { settings: Agent::default(), installation: installation() }).expect_err("no server");
        agent(InstallAgent { settings: settings.clone(), installation: installation() }).expect("installed");
        agent(InstallAgent { settings: Agent::default(), installation: installation() }).expect("installed again");
        let layout = Layout::new(Some(root.path())).expect("a layout");
        assert_eq!(config::read::<Agent>(&layout.config()).expect("readable"), settings);
        run(root.path(), Server::default()).expect_err("it is an agent");
    }

    #[test]
    fn a_host_has_one_role() {
        let root = tempfile::tempdir().expect("a directory");
        let layout = Layout::new(Some(root.path())).expect("a layout");
        layout.write_unit(Role::Agent).expect("written");
        let error = run(root.path(), Server::default()).expect_err("refused");
        assert!(format!("{error:#}").contains("keelson-agent.service is installed here already"), "{error:#}");
    }
}
