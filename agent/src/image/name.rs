//! Image references in full form, as containerd stores them: `busybox` is `docker.io/library/busybox:latest`.

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("couldn't parse image name {name:?}: {problem}")]
pub struct Error {
    name: String,
    problem: &'static str,
}

/// A parsed reference. At least one of `tag` and `digest` is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// With the registry: `docker.io/library/busybox`.
    pub repository: String,
    pub tag: Option<String>,
    pub digest: Option<String>,
}

/// Longest repository name registries accept.
const NAME_LENGTH_MAX: usize = 255;
const TAG_LENGTH_MAX: usize = 128;

impl Name {
    pub fn parse(name: &str) -> Result<Self, Error> {
        let fail = |problem| Error { name: name.to_owned(), problem };
        let (rest, digest) = match name.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.to_owned())),
            None => (name, None),
        };
        if digest.as_deref().is_some_and(|digest| !is_digest(digest)) {
            return Err(fail("invalid digest"));
        }
        // A colon before the last slash belongs to a registry's port.
        let slash = rest.rfind('/').map_or(0, |at| at + 1);
        let (path, tag) = match rest[slash..].find(':') {
            Some(colon) => (&rest[..slash + colon], Some(rest[slash + colon + 1..].to_owned())),
            None => (rest, None),
        };
        if tag.as_deref().is_some_and(|tag| !is_tag(tag)) {
            return Err(fail("invalid tag"));
        }
        let (registry, path) = match path.split_once('/') {
            Some((first, remote)) if first.contains(['.', ':']) || first == "localhost" => (first, remote.to_owned()),
            Some(_) => ("docker.io", path.to_owned()),
            None => ("docker.io", format!("library/{path}")),
        };
        let registry = if registry == "index.docker.io" { "docker.io" } else { registry };
        if !is_registry(registry) {
            return Err(fail("invalid reference format"));
        }
        if path.chars().any(|letter| letter.is_ascii_uppercase()) {
            return Err(fail("invalid reference format: repository name must be lowercase"));
        }
        if path.split('/').any(|component| !is_component(component)) || path == "library/" {
            return Err(fail("invalid reference format"));
        }
        let repository = format!("{registry}/{path}");
        if repository.len() > NAME_LENGTH_MAX {
            return Err(fail("repository name must not be more than 255 characters"));
        }
        let tag = if tag.is_none() && digest.is_none() { Some("latest".to_owned()) } else { tag };
        Ok(Self { repository, tag, digest })
    }

    /// The key in containerd's image store. A digest outweighs the tag beside it.
    pub fn full(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => format!("{}@{digest}", self.repository),
            (None, Some(tag)) => format!("{}:{tag}", self.repository),
            (None, None) => self.repository.clone(),
        }
    }

    /// Host (and port) as the name spells it: `docker.io`.
    pub fn registry(&self) -> &str {
        self.repository.split_once('/').map_or("", |(registry, _)| registry)
    }

    /// Below the registry: `library/busybox`.
    pub fn path(&self) -> &str {
        self.repository.split_once('/').map_or("", |(_, path)| path)
    }

    /// What a registry is asked for: the digest, else the tag.
    pub fn reference(&self) -> &str {
        self.digest.as_deref().or(self.tag.as_deref()).unwrap_or_default()
    }

    /// The name under which the image stays when its tag moves on.
    pub fn at(&self, digest: &str) -> String {
        format!("{}@{digest}", self.repository)
    }

    /// `imagePullPolicy` left out means Always for this tag and IfNotPresent else.
    pub fn is_latest(&self) -> bool {
        self.digest.is_none() && self.tag.as_deref() == Some("latest")
    }
}

fn is_digest(digest: &str) -> bool {
    digest
        .strip_prefix("sha256:")
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')))
}

fn is_tag(tag: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !tag.is_empty()
        && tag.len() <= TAG_LENGTH_MAX
        && word(tag.as_bytes()[0])
        && tag.bytes().all(|byte| word(byte) || byte == b'.' || byte == b'-')
}

/// A host name or address, maybe with a port. Also what keeps a name from leaving the directory of registries.
fn is_registry(registry: &str) -> bool {
    let (host, port) = match registry.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (registry, None),
    };
    let is_label = |label: &str| {
        let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        edge(label.as_bytes().first())
            && edge(label.as_bytes().last())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let is_host = match address {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.split('.').all(is_label),
    };
    is_host && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Letters and digits with single separators (`.`, `_`, `__` or dashes) between them.
fn is_component(component: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = component.as_bytes();
    edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
        && !component.contains("..")
        && !component.contains("___")
}

/// An image named by the digest of its config, as `imageID` shows it.
pub fn is_image_id(name: &str) -> bool {
    is_digest(name)
}

#[cfg(test)]
mod tests {
    use super::Name;

    fn full(name: &str) -> String {
        Name::parse(name).map_or_else(|error| error.problem.to_owned(), |name| name.full())
    }

    #[test]
    fn names_take_their_full_form() {
        let digest = format!("sha256:{}", "a1".repeat(32));
        for (name, expected) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("busybox:1.36", "docker.io/library/busybox:1.36"),
            ("team/app", "docker.io/team/app:latest"),
            ("localhost/app", "localhost/app:latest"),
            ("registry:5000/app", "registry:5000/app:latest"),
            ("registry:5000/a/b:v1", "registry:5000/a/b:v1"),
            ("index.docker.io/library/busybox", "docker.io/library/busybox:latest"),
            ("Busybox", "invalid reference format: repository name must be lowercase"),
            ("busybox:", "invalid tag"),
            ("a//b", "invalid reference format"),
            ("../a", "invalid reference format"),
            ("a_b.io/c", "invalid reference format"),
            ("a.io:x/c", "invalid reference format"),
            ("[::1]:5000/a", "[::1]:5000/a:latest"),
            ("", "invalid reference format"),
            ("busybox@sha256:12", "invalid digest"),
        ] {
            assert_eq!(full(name), expected, "{name}");
        }
        assert_eq!(full(&format!("busybox:1@{digest}")), format!("docker.io/library/busybox@{digest}"));
    }

    #[test]
    fn only_the_tag_latest_is_latest() {
        assert!(Name::parse("a").unwrap().is_latest());
        assert!(Name::parse("a:latest").unwrap().is_latest());
        assert!(!Name::parse("a:v1").unwrap().is_latest());
    }
}
