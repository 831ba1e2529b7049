//! Interfaces of running pods that somebody else took away, loosened or brought down: found by one look at the host's
//! interfaces, and put back with the same addresses, so that connections of the pods go on.

use std::{fs::File, path::Path};

use nix::sched::{CloneFlags, setns};

use super::{
    bridge::{Attach, Bridge, Error, host_interface, link_error},
    netlink::{Interface, Socket},
};

/// What a pod's end on the host lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// There is none.
    Interface,
    /// It is down, or no port of the bridge.
    Port,
}

/// The host's interfaces at one moment.
#[derive(Debug)]
pub struct Found {
    interfaces: Vec<Interface>,
    bridge: Option<Interface>,
}

impl Found {
    pub fn look(socket: &mut Socket, bridge: &str) -> Result<Self, Error> {
        let interfaces = socket.interfaces().map_err(link_error("list interfaces beside", bridge))?;
        Ok(Self { bridge: interfaces.iter().find(|one| one.name == bridge).cloned(), interfaces })
    }

    /// `None` when all is as it should be.
    pub fn lack(&self, uid: &str) -> Option<Lack> {
        let name = host_interface(uid);
        let Some(interface) = self.interfaces.iter().find(|one| one.name == name) else { return Some(Lack::Interface) };
        let bridge = self.bridge.as_ref().map(|bridge| bridge.index);
        (interface.master.is_none() || interface.master != bridge || !interface.is_up).then_some(Lack::Port)
    }

    /// Whether a bridge that pods hang on is gone, down, or without one of its addresses.
    pub fn bridge_lacks(&self, socket: &mut Socket, bridge: &Bridge) -> Result<bool, Error> {
        let Some(found) = self.bridge.as_ref().filter(|found| found.is_up) else { return Ok(true) };
        let addresses = socket.addresses(found.index).map_err(link_error("read addresses of", &bridge.name))?;
        Ok(bridge.ranges().any(|range| !addresses.contains(&range.gateway())))
    }
}

/// The bridge as it should be.
pub fn bridge(socket: &mut Socket, bridge: &Bridge, mtu: u32) -> Result<(), Error> {
    let link = bridge.ensure(socket, mtu)?;
    if link.is_up { Ok(()) } else { socket.set_up(link.index).map_err(link_error("bring up bridge", &bridge.name)) }
}

/// Puts back what the pod lacks. `netns`: its network namespace.
pub fn pod(socket: &mut Socket, attach: Attach, lack: Lack, netns: &Path) -> Result<(), Error> {
    match lack {
        Lack::Interface => attach_again(attach, netns),
        Lack::Port => {
            let name = host_interface(&attach.uid);
            let failed = |action| link_error(action, &name);
            let bridge = attach.bridge.ensure(socket, attach.mtu)?;
            // Gone again meanwhile: the next look finds it.
            let Some(port) = socket.link(Some(&name), 0).map_err(failed("find interface"))? else { return Ok(()) };
            socket.set_master(port.index, bridge.index).map_err(failed("attach to the bridge"))?;
            socket.set_hairpin(port.index).map_err(failed("prepare interface"))
        }
    }
}

fn attach_again(attach: Attach, netns: &Path) -> Result<(), Error> {
    let failed = |action| {
        let path = netns.to_owned();
        move |source| Error::Io { action, path, source }
    };
    let namespace = File::open(netns).map_err(failed("open namespace"))?;
    let entered = failed("enter namespace");
    // A thread that has entered a namespace can't go back.
    let work = move || {
        let host = attach.on_host()?;
        setns(namespace, CloneFlags::CLONE_NEWNET).map_err(|errno| entered(errno.into()))?;
        attach.in_pod(host)
    };
    let ended = std::thread::spawn(work).join();
    ended.unwrap_or_else(|_panic| Err(failed("attach")(std::io::ErrorKind::Other.into())))
}
