//! The OCI runtime spec of a container: everything the pod, the image and the node say about it, put into the one
//! document an OCI runtime reads.

pub mod env;
pub mod mounts;
pub mod seccomp;
pub mod security;

use std::{
    collections::HashMap,
    fs::File,
    io::Read,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use containerd_client::types::Mount as SnapshotMount;
use k8s_openapi::api::core::v1::{Container, PodSpec};
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use oci_spec::{
    image::ImageConfiguration,
    runtime::{
        Capabilities, Linux, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxCpuBuilder, LinuxDevice, LinuxDeviceBuilder,
        LinuxDeviceCgroupBuilder, LinuxDeviceType, LinuxMemoryBuilder, LinuxNamespace, LinuxNamespaceBuilder,
        LinuxNamespaceType, LinuxResources, LinuxResourcesBuilder, Mount, Process, ProcessBuilder, RootBuilder, Spec,
        SpecBuilder,
    },
};

use crate::{
    cgroup,
    pod::resources::{CPU_PERIOD_US, Resources, oom_score_adj},
};
use security::{Seccomp, UserDatabase};

/// containerd's shims of containers with the same value are one process.
const SHIM_GROUP: &str = "io.containerd.runc.v2.group";
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Larger user databases in an image are not read.
const USER_DATABASE_BYTES_MAX: u64 = 1 << 20;

/// Configuration the user must mend: reported as `CreateContainerConfigError` or `CreateContainerError`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Env(#[from] env::Error),
    #[error(transparent)]
    Security(#[from] security::Error),
    #[error(transparent)]
    Mounts(#[from] mounts::Error),
    #[error("no command specified")]
    NoCommand,
    #[error("seccomp profile {name:?} can't be loaded")]
    Seccomp { name: String },
}

impl Error {
    /// `CreateContainerConfigError` in contrast to `CreateContainerError`: what the kubelet finds before it asks the
    /// runtime for anything (`GenerateRunContainerOptions`).
    pub fn is_config(&self) -> bool {
        matches!(self, Error::Env(_) | Error::Security(_) | Error::Mounts(_))
    }
}

/// What this process may hand on, read once.
#[derive(Clone, Debug)]
pub struct Host {
    pub capabilities: Capabilities,
    /// Lowest `oom_score_adj` we may give: without CAP_SYS_RESOURCE that is our own.
    pub oom_score_adj_min: i64,
    pub memory_bytes: i64,
    pub cgroups: cgroup::Version,
    pub seccomp_dir: PathBuf,
}

impl Host {
    pub fn read(cgroups: cgroup::Version, seccomp_dir: PathBuf) -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("CapPrm:"));
        let mask = mask.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
        let capabilities = security::from_mask(mask);
        let own = std::fs::read_to_string("/proc/self/oom_score_adj").ok().and_then(|text| text.trim().parse().ok());
        let may_lower = capabilities.contains(&oci_spec::runtime::Capability::SysResource);
        let oom_score_adj_min = if may_lower { -1000 } else { own.unwrap_or(0) };
        let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let total = memory.lines().find_map(|line| line.strip_prefix("MemTotal:"));
        let kib = total.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<i64>().ok()).unwrap_or(0);
        Self { capabilities, oom_score_adj_min, memory_bytes: kib * 1024, cgroups, seccomp_dir }
    }
}

pub struct Request<'a> {
    pub uid: &'a str,
    pub container_id: &'a str,
    pub spec: &'a PodSpec,
    pub container: &'a Container,
    pub image: &'a ImageConfiguration,
    pub users: &'a UserDatabase,
    pub hostname: &'a str,
    pub env: Vec<(String, String)>,
    pub mounts: Vec<Mount>,
    /// Directory of the pod's pinned namespaces, and which there are.
    pub namespaces: (&'a Path, &'a [String]),
    /// The pod's cgroup.
    pub cgroup: &'a str,
    pub host: &'a Host,
}

pub fn read_only_root(container: &Container) -> bool {
    container.security_context.as_ref().and_then(|own| own.read_only_root_filesystem).unwrap_or(false)
}

pub fn build(request: Request<'_>) -> Result<Spec, Error> {
    let process = process(&request)?;
    let linux = linux(&request)?;
    let root = RootBuilder::default().path("rootfs").readonly(read_only_root(request.container)).build();
    let mut mounts = mounts::system(request.container, request.host.cgroups);
    mounts.extend(request.mounts);
    let mut spec = SpecBuilder::default()
        .version("1.0.2")
        .process(process)
        .root(root.expect("the path is set"))
        .mounts(mounts)
        .annotations(HashMap::from([(SHIM_GROUP.to_owned(), request.uid.to_owned())]))
        .linux(linux)
        .build()
        .expect("every field of a spec has a default");
    // The sandbox has its name already, and a host-network container must not change the host's.
    spec.set_hostname(None).set_domainname(None);
    Ok(spec)
}

fn process(request: &Request<'_>) -> Result<Process, Error> {
    let config = request.image.config().clone().unwrap_or_default();
    let container = request.container;
    let image_env = config.env().clone().unwrap_or_default();
    let env = environment(request, &image_env);
    let args = command(container, config.entrypoint(), config.cmd(), &request.env)?;
    let image_user = config.user().clone().unwrap_or_default();
    let identity = security::identity(request.spec, container, &image_user, request.users)?;
    let working_dir = container.working_dir.clone().filter(|dir| !dir.is_empty());
    let working_dir = working_dir.or_else(|| config.working_dir().clone()).filter(|dir| !dir.is_empty());
    let capabilities = security::capabilities(container, &request.host.capabilities)?;
    let capabilities = LinuxCapabilitiesBuilder::default()
        .bounding(capabilities.clone())
        .effective(capabilities.clone())
        .permitted(capabilities)
        .inheritable(Capabilities::new())
        .ambient(Capabilities::new())
        .build();
    let score = oom_score_adj(request.spec, container, request.host.memory_bytes);
    Ok(ProcessBuilder::default()
        .terminal(container.tty.unwrap_or(false))
        .user(identity.oci())
        .args(args)
        .env(env)
        .cwd(working_dir.unwrap_or_else(|| "/".into()))
        .capabilities(capabilities.expect("every set is given"))
        .rlimits(Vec::new())
        .no_new_privileges(security::no_new_privileges(container))
        .oom_score_adj(score.max(request.host.oom_score_adj_min) as i32)
        .build()
        .expect("every field of a process has a default"))
}

/// The image's variables, overridden by the container's.
fn environment(request: &Request<'_>, image: &[String]) -> Vec<String> {
    let own = &request.env;
    let is_own = |name: &str| own.iter().any(|(known, _)| known == name);
    let mut env =
        image.iter().filter(|entry| !is_own(entry.split('=').next().unwrap_or_default())).cloned().collect::<Vec<_>>();
    let lacks = |env: &[String], name: &str| {
        !is_own(name) && !env.iter().any(|entry| entry.strip_prefix(name).is_some_and(|rest| rest.starts_with('=')))
    };
    if lacks(&env, "PATH") {
        env.push(format!("PATH={DEFAULT_PATH}"));
    }
    if lacks(&env, "HOSTNAME") {
        env.push(format!("HOSTNAME={}", request.hostname));
    }
    if request.container.tty.unwrap_or(false) && lacks(&env, "TERM") {
        env.push("TERM=xterm".to_owned());
    }
    env.extend(own.iter().map(|(name, value)| format!("{name}={value}")));
    env
}

/// `command` replaces the image's entrypoint and, with it, the image's arguments; `args` replaces the arguments.
fn command(
    container: &Container,
    entrypoint: &Option<Vec<String>>,
    cmd: &Option<Vec<String>>,
    env: &[(String, String)],
) -> Result<Vec<String>, Error> {
    let known = |name: &str| env.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let expanded = |list: &Vec<String>| list.iter().map(|text| env::expand(text, known)).collect::<Vec<_>>();
    let given = |list: &Option<Vec<String>>| list.as_ref().filter(|list| !list.is_empty()).map(expanded);
    let (own_command, own_args) = (given(&container.command), given(&container.args));
    let mut all = match &own_command {
        Some(command) => command.clone(),
        None => entrypoint.clone().unwrap_or_default(),
    };
    match (own_args, own_command) {
        (Some(args), _) => all.extend(args),
        (None, Some(_)) => {}
        (None, None) => all.extend(cmd.clone().unwrap_or_default()),
    }
    if all.is_empty() { Err(Error::NoCommand) } else { Ok(all) }
}

fn linux(request: &Request<'_>) -> Result<Linux, Error> {
    let privileged = security::is_privileged(request.container);
    let capabilities = security::capabilities(request.container, &request.host.capabilities)?;
    let seccomp = match security::seccomp(request.spec, request.container) {
        Seccomp::Unconfined => None,
        Seccomp::RuntimeDefault => Some(seccomp::runtime_default(&capabilities)),
        Seccomp::Localhost(name) => Some(
            seccomp::localhost(&request.host.seccomp_dir, &name)
                .ok_or_else(|| Error::Seccomp { name: name.clone() })?,
        ),
    };
    let proc_mount = request.container.security_context.as_ref().and_then(|own| own.proc_mount.as_deref());
    let hide = !privileged && proc_mount != Some("Unmasked");
    let list = |paths: &[&str]| if hide { paths.iter().map(|path| (*path).to_owned()).collect() } else { Vec::new() };
    let propagation = rootfs_propagation(request.container);
    let mut linux = LinuxBuilder::default()
        .namespaces(namespaces(request))
        .resources(resources(request, privileged))
        .cgroups_path(format!("{}/{}", request.cgroup, request.container_id))
        .devices(if privileged { host_devices(Path::new("/dev")) } else { Vec::new() })
        .masked_paths(list(&MASKED))
        .readonly_paths(list(&READ_ONLY));
    if let Some(seccomp) = seccomp {
        linux = linux.seccomp(seccomp);
    }
    if let Some(propagation) = propagation {
        linux = linux.rootfs_propagation(propagation);
    }
    Ok(linux.build().expect("every field has a default"))
}

const MASKED: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// A mount that receives or sends propagation needs a root that does.
fn rootfs_propagation(container: &Container) -> Option<&'static str> {
    let modes = container.volume_mounts.iter().flatten().filter_map(|mount| mount.mount_propagation.as_deref());
    let mut strongest = None;
    for mode in modes {
        match mode {
            "Bidirectional" => return Some("rshared"),
            "HostToContainer" => strongest = Some("rslave"),
            _ => {}
        }
    }
    strongest
}

fn namespaces(request: &Request<'_>) -> Vec<LinuxNamespace> {
    let (directory, pinned) = request.namespaces;
    let of = |kind| LinuxNamespaceBuilder::default().typ(kind);
    let done = |builder: LinuxNamespaceBuilder| builder.build().expect("the type is set");
    let mut all = vec![done(of(LinuxNamespaceType::Mount))];
    for (name, kind) in [
        ("net", LinuxNamespaceType::Network),
        ("ipc", LinuxNamespaceType::Ipc),
        ("uts", LinuxNamespaceType::Uts),
        ("pid", LinuxNamespaceType::Pid),
    ] {
        if pinned.iter().any(|pinned| pinned == name) {
            all.push(done(of(kind).path(directory.join(name))));
        } else if kind == LinuxNamespaceType::Pid && !request.spec.host_pid.unwrap_or(false) {
            all.push(done(of(kind)));
        }
    }
    if request.host.cgroups == cgroup::Version::V2 && !security::is_privileged(request.container) {
        all.push(done(of(LinuxNamespaceType::Cgroup)));
    }
    all
}

fn resources(request: &Request<'_>, privileged: bool) -> LinuxResources {
    let own = Resources::of(request.container.resources.as_ref());
    let mut cpu = LinuxCpuBuilder::default().shares(own.cpu_shares()).period(CPU_PERIOD_US);
    if let Some(quota) = own.cpu_quota_us() {
        cpu = cpu.quota(quota);
    }
    let device = LinuxDeviceCgroupBuilder::default().allow(privileged).access("rwm").build();
    let mut resources = LinuxResourcesBuilder::default()
        .devices(vec![device.expect("the rule is complete")])
        .cpu(cpu.build().expect("every field has a default"));
    if let Some(limit) = own.memory_limit() {
        resources = limited(resources, limit, request.host.cgroups);
    }
    resources.build().expect("every field has a default")
}

fn limited(resources: LinuxResourcesBuilder, limit: i64, cgroups: cgroup::Version) -> LinuxResourcesBuilder {
    // Equal limits with and without swap: no swap for the container.
    let memory = LinuxMemoryBuilder::default().limit(limit).swap(limit).build();
    let resources = resources.memory(memory.expect("every field has a default"));
    match cgroups {
        cgroup::Version::V1 => resources,
        // The kernel kills the container as a whole, not one process of it.
        cgroup::Version::V2 => resources.unified(HashMap::from([("memory.oom.group".to_owned(), "1".to_owned())])),
    }
}

/// What changes of a running container whose resources are `own` from now on. A limit that is gone is named as none.
pub fn resized(own: Resources, cgroups: cgroup::Version) -> LinuxResources {
    const UNLIMITED: i64 = -1;
    let quota = own.cpu_quota_us().unwrap_or(UNLIMITED);
    let cpu = LinuxCpuBuilder::default().shares(own.cpu_shares()).period(CPU_PERIOD_US).quota(quota).build();
    let resources = LinuxResourcesBuilder::default().cpu(cpu.expect("every field has a default"));
    let resources = match own.memory_limit() {
        Some(limit) => limited(resources, limit, cgroups),
        None => {
            let memory = LinuxMemoryBuilder::default().limit(UNLIMITED).swap(UNLIMITED).build();
            resources.memory(memory.expect("every field has a default"))
        }
    };
    resources.build().expect("every field has a default")
}

/// All device files of the host, for privileged containers. Terminals and shared memory get instances of their own.
fn host_devices(directory: &Path) -> Vec<LinuxDevice> {
    const OWN_INSTANCE: [&str; 6] = ["pts", "shm", "fd", "mqueue", "console", "ptmx"];
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if OWN_INSTANCE.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            found.extend(host_devices(&entry.path()));
            continue;
        }
        let typ = match (kind.is_char_device(), kind.is_block_device()) {
            (true, _) => LinuxDeviceType::C,
            (_, true) => LinuxDeviceType::B,
            _ => continue,
        };
        let Ok(meta) = entry.metadata() else { continue };
        let device = LinuxDeviceBuilder::default()
            .path(entry.path())
            .typ(typ)
            .major(nix::sys::stat::major(meta.rdev()) as i64)
            .minor(nix::sys::stat::minor(meta.rdev()) as i64)
            .file_mode(meta.mode() & 0o777)
            .uid(meta.uid())
            .gid(meta.gid())
            .build();
        found.extend(device.ok());
    }
    found
}

/// The image's `/etc/passwd` and `/etc/group`, read from the layers without mounting them.
pub fn user_database(rootfs: &[SnapshotMount]) -> UserDatabase {
    UserDatabase { passwd: image_file(rootfs, "etc/passwd"), group: image_file(rootfs, "etc/group") }
}

/// From the uppermost layer that has the file; empty when none has. Symlinks are followed within their layer only.
fn image_file(rootfs: &[SnapshotMount], path: &str) -> String {
    let layers = rootfs.iter().flat_map(|mount| match mount.r#type.as_str() {
        "bind" => vec![mount.source.clone()],
        _ => {
            let option = |name: &str| mount.options.iter().find_map(|option| option.strip_prefix(name));
            let lower = option("lowerdir=").into_iter().flat_map(|list| list.split(':'));
            option("upperdir=").into_iter().chain(lower).map(str::to_owned).collect()
        }
    });
    layers.map(PathBuf::from).find_map(|layer| read_beneath(&layer, path)).unwrap_or_default()
}

fn read_beneath(root: &Path, path: &str) -> Option<String> {
    let root = File::open(root).ok()?;
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT);
    let file = File::from(openat2(&root, path, how).ok()?);
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut text = Vec::new();
    file.take(USER_DATABASE_BYTES_MAX).read_to_end(&mut text).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests;
