//! Who a container runs as and what it may do. Pure, apart from the image's user database handed in as text.

use k8s_openapi::api::core::v1::{Container, PodSecurityContext, PodSpec, SecurityContext};
use oci_spec::runtime::{Capabilities, Capability, User, UserBuilder};

/// Each is the message of `CreateContainerConfigError`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("container has runAsNonRoot and image will run as root (container: {container})")]
    Root { container: String },
    #[error("container's runAsUser breaks non-root policy (container: {container})")]
    RootAsked { container: String },
    #[error(
        "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root (container: {container})"
    )]
    NotNumeric { container: String, user: String },
    #[error("image user {user:?} is not in the image's /etc/passwd")]
    NoUser { user: String },
    #[error("image group {group:?} is not in the image's /etc/group")]
    NoGroup { group: String },
    #[error("capability {name:?} is unknown")]
    Capability { name: String },
}

/// `/etc/passwd` and `/etc/group` of the image; empty where it has none.
#[derive(Clone, Debug, Default)]
pub struct UserDatabase {
    pub passwd: String,
    pub group: String,
}

struct Entry<'a> {
    name: &'a str,
    id: u32,
    gid: u32,
    home: &'a str,
}

impl UserDatabase {
    fn users(&self) -> impl Iterator<Item = Entry<'_>> {
        self.passwd.lines().filter_map(|line| {
            let fields = line.split(':').collect::<Vec<_>>();
            Some(Entry {
                name: fields.first()?,
                id: fields.get(2)?.parse().ok()?,
                gid: fields.get(3)?.parse().ok()?,
                home: fields.get(5).copied().unwrap_or("/"),
            })
        })
    }

    /// Name, id and members.
    fn groups(&self) -> impl Iterator<Item = (&str, u32, Vec<&str>)> {
        self.group.lines().filter_map(|line| {
            let fields = line.split(':').collect::<Vec<_>>();
            let members = fields.get(3).map(|list| list.split(',').collect()).unwrap_or_default();
            Some((*fields.first()?, fields.get(2)?.parse().ok()?, members))
        })
    }

    fn group_id(&self, name: &str) -> Option<u32> {
        self.groups().find(|(group, ..)| *group == name).map(|(_, id, _)| id)
    }
}

/// The resolved identity of a container's first process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub home: String,
}

impl Identity {
    pub fn oci(&self) -> User {
        let user = UserBuilder::default().uid(self.uid).gid(self.gid).additional_gids(self.groups.clone()).build();
        user.expect("every field of a user has a default")
    }
}

fn contexts<'a>(
    spec: &'a PodSpec,
    container: &'a Container,
) -> (Option<&'a PodSecurityContext>, Option<&'a SecurityContext>) {
    (spec.security_context.as_ref(), container.security_context.as_ref())
}

/// `image_user` is the image config's `User`: `NAME`, `UID`, either with `:GROUP`, or empty.
pub fn identity(
    spec: &PodSpec,
    container: &Container,
    image_user: &str,
    database: &UserDatabase,
) -> Result<Identity, Error> {
    let (pod, own) = contexts(spec, container);
    let run_as_user = own.and_then(|own| own.run_as_user).or_else(|| pod.and_then(|pod| pod.run_as_user));
    let run_as_group = own.and_then(|own| own.run_as_group).or_else(|| pod.and_then(|pod| pod.run_as_group));
    let non_root = own.and_then(|own| own.run_as_non_root).or_else(|| pod.and_then(|pod| pod.run_as_non_root));
    verify_non_root(container, non_root.unwrap_or(false), run_as_user, image_user)?;

    let (user_text, group_text) = image_user.split_once(':').unwrap_or((image_user, ""));
    let uid = match run_as_user {
        Some(uid) => uid as u32,
        None if user_text.is_empty() => 0,
        None => match user_text.parse() {
            Ok(uid) => uid,
            Err(_) => database
                .users()
                .find(|entry| entry.name == user_text)
                .map(|entry| entry.id)
                .ok_or_else(|| Error::NoUser { user: user_text.to_owned() })?,
        },
    };
    let entry = database.users().find(|entry| entry.id == uid);
    let gid = match (run_as_group, run_as_user) {
        (Some(gid), _) => gid as u32,
        // The image's group belongs to the image's user only.
        (None, None) if !group_text.is_empty() => match group_text.parse() {
            Ok(gid) => gid,
            Err(_) => database.group_id(group_text).ok_or_else(|| Error::NoGroup { group: group_text.to_owned() })?,
        },
        _ => entry.as_ref().map_or(0, |entry| entry.gid),
    };
    let mut groups = vec![gid];
    let strict = pod.and_then(|pod| pod.supplemental_groups_policy.as_deref()) == Some("Strict");
    if let Some(entry) = entry.as_ref().filter(|_| !strict) {
        groups.extend(database.groups().filter(|(.., members)| members.contains(&entry.name)).map(|(_, id, _)| id));
    }
    let asked = pod.into_iter().flat_map(|pod| pod.fs_group.iter().chain(pod.supplemental_groups.iter().flatten()));
    groups.extend(asked.map(|gid| *gid as u32));
    groups.sort_unstable();
    groups.dedup();
    let home = entry.map_or("/", |entry| entry.home).to_owned();
    Ok(Identity { uid, gid, groups, home })
}

fn verify_non_root(
    container: &Container,
    non_root: bool,
    run_as_user: Option<i64>,
    image_user: &str,
) -> Result<(), Error> {
    let name = || container.name.clone();
    let user = image_user.split(':').next().unwrap_or_default();
    match run_as_user {
        _ if !non_root => Ok(()),
        Some(0) => Err(Error::RootAsked { container: name() }),
        Some(_) => Ok(()),
        None => match user.parse::<u32>() {
            Ok(0) => Err(Error::Root { container: name() }),
            Ok(_) => Ok(()),
            Err(_) if user.is_empty() => Err(Error::Root { container: name() }),
            Err(_) => Err(Error::NotNumeric { container: name(), user: user.to_owned() }),
        },
    }
}

/// What every container may do unless told otherwise (containerd's defaults).
const DEFAULT_CAPABILITIES: [Capability; 14] = [
    Capability::AuditWrite,
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Mknod,
    Capability::NetBindService,
    Capability::NetRaw,
    Capability::Setfcap,
    Capability::Setgid,
    Capability::Setpcap,
    Capability::Setuid,
    Capability::SysChroot,
];

pub fn is_privileged(container: &Container) -> bool {
    container.security_context.as_ref().and_then(|own| own.privileged).unwrap_or(false)
}

/// `available` is what this process itself has: more than that cannot be given.
pub fn capabilities(container: &Container, available: &Capabilities) -> Result<Capabilities, Error> {
    if is_privileged(container) {
        return Ok(available.clone());
    }
    let asked = container.security_context.as_ref().and_then(|own| own.capabilities.as_ref());
    let add = asked.and_then(|asked| asked.add.as_deref()).unwrap_or_default();
    let drop = asked.and_then(|asked| asked.drop.as_deref()).unwrap_or_default();
    let all = |list: &[String]| list.iter().any(|name| name.eq_ignore_ascii_case("all"));
    let mut set: Capabilities = match (all(add), all(drop)) {
        (true, _) => available.clone(),
        (false, true) => Capabilities::new(),
        (false, false) => DEFAULT_CAPABILITIES.into_iter().collect(),
    };
    for name in drop.iter().filter(|name| !name.eq_ignore_ascii_case("all")) {
        set.remove(&parse(name)?);
    }
    for name in add.iter().filter(|name| !name.eq_ignore_ascii_case("all")) {
        set.insert(parse(name)?);
    }
    Ok(set)
}

fn parse(name: &str) -> Result<Capability, Error> {
    let upper = name.to_ascii_uppercase();
    let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
    // The enum's own serde names are the kernel's.
    serde_json::from_value(full.into()).map_err(|_| Error::Capability { name: name.to_owned() })
}

/// Capabilities from a `Cap…` mask of `/proc/self/status`.
pub fn from_mask(mask: u64) -> Capabilities {
    const BY_NUMBER: [&str; 41] = [
        "CHOWN",
        "DAC_OVERRIDE",
        "DAC_READ_SEARCH",
        "FOWNER",
        "FSETID",
        "KILL",
        "SETGID",
        "SETUID",
        "SETPCAP",
        "LINUX_IMMUTABLE",
        "NET_BIND_SERVICE",
        "NET_BROADCAST",
        "NET_ADMIN",
        "NET_RAW",
        "IPC_LOCK",
        "IPC_OWNER",
        "SYS_MODULE",
        "SYS_RAWIO",
        "SYS_CHROOT",
        "SYS_PTRACE",
        "SYS_PACCT",
        "SYS_ADMIN",
        "SYS_BOOT",
        "SYS_NICE",
        "SYS_RESOURCE",
        "SYS_TIME",
        "SYS_TTY_CONFIG",
        "MKNOD",
        "LEASE",
        "AUDIT_WRITE",
        "AUDIT_CONTROL",
        "SETFCAP",
        "MAC_OVERRIDE",
        "MAC_ADMIN",
        "SYSLOG",
        "WAKE_ALARM",
        "BLOCK_SUSPEND",
        "AUDIT_READ",
        "PERFMON",
        "BPF",
        "CHECKPOINT_RESTORE",
    ];
    let set = BY_NUMBER.iter().enumerate().filter(|(number, _)| mask & (1 << number) != 0);
    set.filter_map(|(_, name)| parse(name).ok()).collect()
}

/// Only an explicit `allowPrivilegeEscalation: false` sets the bit.
pub fn no_new_privileges(container: &Container) -> bool {
    container.security_context.as_ref().and_then(|own| own.allow_privilege_escalation) == Some(false)
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seccomp {
    Unconfined,
    RuntimeDefault,
    /// Relative to the node's directory of profiles.
    Localhost(String),
}

pub fn seccomp(spec: &PodSpec, container: &Container) -> Seccomp {
    if is_privileged(container) {
        return Seccomp::Unconfined;
    }
    let (pod, own) = contexts(spec, container);
    let profile = own.and_then(|own| own.seccomp_profile.as_ref()).or_else(|| pod?.seccomp_profile.as_ref());
    match profile.map(|profile| (profile.type_.as_str(), &profile.localhost_profile)) {
        Some(("RuntimeDefault", _)) => Seccomp::RuntimeDefault,
        Some(("Localhost", Some(path))) => Seccomp::Localhost(path.clone()),
        _ => Seccomp::Unconfined,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::PodSpec;
    use oci_spec::runtime::Capability;
    use serde_json::{Value, json};

    use super::{Seccomp, UserDatabase, capabilities, from_mask, identity, seccomp};

    fn spec(pod: Value, container: Value) -> PodSpec {
        serde_json::from_value(json!({
            "securityContext": pod, "containers": [{"name": "c", "securityContext": container}],
        }))
        .unwrap()
    }

    fn database() -> UserDatabase {
        UserDatabase {
            passwd: "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:app:/home/app:/bin/sh\n".into(),
            group: "root:x:0:\nwheel:x:10:root\napp:x:1001:\ndocker:x:50:app,other\n".into(),
        }
    }

    fn check(pod: Value, container: Value, image_user: &str) -> String {
        let spec = spec(pod, container);
        match identity(&spec, &spec.containers[0], image_user, &database()) {
            Ok(found) => format!("{}:{} {:?} {}", found.uid, found.gid, found.groups, found.home),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn the_user_is_the_containers_then_the_pods_then_the_images() {
        assert_eq!(check(json!({}), json!({}), ""), "0:0 [0, 10] /root");
        assert_eq!(check(json!({}), json!({}), "app"), "1000:1001 [50, 1001] /home/app");
        assert_eq!(check(json!({}), json!({}), "app:wheel"), "1000:10 [10, 50] /home/app");
        assert_eq!(check(json!({}), json!({}), "7:8"), "7:8 [8] /");
        assert_eq!(check(json!({"runAsUser": 1000}), json!({}), "root"), "1000:1001 [50, 1001] /home/app");
        assert_eq!(check(json!({"runAsUser": 1000}), json!({"runAsUser": 7, "runAsGroup": 9}), ""), "7:9 [9] /");
        assert_eq!(check(json!({}), json!({}), "nobody"), "image user \"nobody\" is not in the image's /etc/passwd");
    }

    #[test]
    fn groups_add_up() {
        let pod = json!({"runAsUser": 1000, "fsGroup": 77, "supplementalGroups": [5, 77]});
        assert_eq!(check(pod, json!({}), ""), "1000:1001 [5, 50, 77, 1001] /home/app");
        let strict = json!({"runAsUser": 1000, "supplementalGroups": [5], "supplementalGroupsPolicy": "Strict"});
        assert_eq!(check(strict, json!({}), ""), "1000:1001 [5, 1001] /home/app");
    }

    #[test]
    fn run_as_non_root_is_verified() {
        let non_root = json!({"runAsNonRoot": true});
        assert!(
            check(non_root.clone(), json!({}), "").starts_with("container has runAsNonRoot and image will run as root")
        );
        assert!(check(non_root.clone(), json!({}), "app").contains("non-numeric user (app)"));
        assert!(check(non_root.clone(), json!({"runAsUser": 0}), "").contains("breaks non-root policy"));
        assert_eq!(check(non_root.clone(), json!({}), "1000"), "1000:1001 [50, 1001] /home/app");
        assert_eq!(check(non_root, json!({"runAsNonRoot": false}), ""), "0:0 [0, 10] /root");
    }

    #[test]
    fn capabilities_are_dropped_before_they_are_added() {
        let all = from_mask((1 << 41) - 1);
        assert_eq!(all.len(), 41);
        let of = |container: Value| {
            let spec = spec(json!({}), container);
            capabilities(&spec.containers[0], &all).unwrap()
        };
        assert_eq!(of(json!({})).len(), 14);
        let one = of(json!({"capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]}}));
        assert_eq!(one.into_iter().collect::<Vec<_>>(), [Capability::NetAdmin]);
        assert!(!of(json!({"capabilities": {"drop": ["CHOWN"]}})).contains(&Capability::Chown));
        assert_eq!(of(json!({"capabilities": {"add": ["ALL"], "drop": ["CAP_SYS_ADMIN"]}})).len(), 40);
        assert_eq!(of(json!({"privileged": true})).len(), 41);
    }

    #[test]
    fn privileged_containers_are_unconfined() {
        let default = json!({"seccompProfile": {"type": "RuntimeDefault"}});
        let of = |spec: PodSpec| seccomp(&spec, &spec.containers[0].clone());
        assert_eq!(of(spec(json!({}), json!({}))), Seccomp::Unconfined);
        assert_eq!(of(spec(default.clone(), json!({}))), Seccomp::RuntimeDefault);
        assert_eq!(of(spec(default, json!({"privileged": true}))), Seccomp::Unconfined);
    }
}
