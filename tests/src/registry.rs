//! Debian's docker-registry on loopback, which wants a password, filled by writing its storage: pushing is not what is
//! tested.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::image::Image;
use crate::process::{Background, command};
use crate::{cluster, packages, wait};

pub const USER: &str = "user";
pub const PASSWORD: &str = "secret";
/// bcrypt of it.
const HTPASSWD: &str = "user:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";
const START_LIMIT: Duration = Duration::from_secs(30);

/// Stopped with the value.
pub struct Registry {
    dir: PathBuf,
    process: Background,
    /// Host and port, as image names begin.
    pub address: String,
}

impl Registry {
    pub fn start(dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir).with_context(|| format!("create {dir:?}"))?;
        let address = format!("127.0.0.1:{}", cluster::free_port()?);
        let (config, shown) = (dir.join("config.yml"), dir.display());
        let text = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {shown}/data}}}}\nhttp: {{addr: \"{address}\"}}\n\
             auth: {{htpasswd: {{realm: test, path: {shown}/htpasswd}}}}\n"
        );
        std::fs::write(&config, text).with_context(|| format!("write {config:?}"))?;
        std::fs::write(dir.join("htpasswd"), HTPASSWD).context("write the registry's passwords")?;
        let program = packages::find_program("docker-registry").context("docker-registry is not installed")?;
        let start = command(program, ["serve".as_ref(), config.as_os_str()]);
        let process = Background::start(start, &dir.join("pid"), &dir.join("log"))?;
        let registry = Self { dir: dir.to_owned(), process, address };
        wait::until(&format!("the registry (log: {:?})", dir.join("log")), START_LIMIT, || {
            Ok(std::net::TcpStream::connect(&registry.address).ok())
        })?;
        Ok(registry)
    }

    /// Puts an image under a name such as `team/hello` and a tag.
    pub fn put(&self, image: &Image<'_>, repository: &str, tag: &str) -> Result<()> {
        let contents = image.contents()?;
        for blob in [&contents.layer, &contents.config, &contents.manifest] {
            let hex = crate::image::hex(blob);
            self.write(&format!("blobs/sha256/{}/{hex}/data", &hex[..2]), blob)?;
        }
        let link = |path: String, blob: &[u8]| {
            let digest = format!("sha256:{}", crate::image::hex(blob));
            self.write(&format!("repositories/{repository}/{path}/link"), digest.as_bytes())
        };
        for blob in [&contents.layer, &contents.config] {
            link(format!("_layers/sha256/{}", crate::image::hex(blob)), blob)?;
        }
        let manifest = crate::image::hex(&contents.manifest);
        link(format!("_manifests/revisions/sha256/{manifest}"), &contents.manifest)?;
        link(format!("_manifests/tags/{tag}/current"), &contents.manifest)?;
        link(format!("_manifests/tags/{tag}/index/sha256/{manifest}"), &contents.manifest)
    }

    fn write(&self, path: &str, content: &[u8]) -> Result<()> {
        let path = self.dir.join("data/docker/registry/v2").join(path);
        let parent = path.parent().context("a path below the registry's storage")?;
        std::fs::create_dir_all(parent).with_context(|| format!("create {parent:?}"))?;
        std::fs::write(&path, content).with_context(|| format!("write {path:?}"))
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        if let Err(error) = self.process.stop() {
            eprintln!("the registry is left running: {error:#}");
        }
    }
}
