//! `keelson why`: finds the cluster as kubectl does, asks, and prints.

use std::path::PathBuf;

use ::why::Target;
use anyhow::{Context, Result, bail};
use api_client::{Client, kubeconfig, transport};
use jiff::Timestamp;

use crate::args::{Why, WhyForm};
use crate::{config, state};

pub async fn run(arguments: Why) -> Result<()> {
    let path = arguments
        .kubeconfig
        .clone()
        .or_else(usual)
        .unwrap_or_else(|| state::kubeconfig(config::DEFAULT_DATA_DIR.as_ref()));
    let connection = kubeconfig::load(&path).with_context(|| format!("kubeconfig {}", path.display()))?;
    let transport = transport::Remote::new(&connection).context("set up the connection to the API server")?;
    let client = Client::new(transport, concat!("keelson-why/", env!("CARGO_PKG_VERSION")));
    let namespace = arguments.namespace.as_deref().unwrap_or("default");
    let Some(target) = Target::parse(&arguments.object, namespace) else {
        bail!("{:?} names no object: say KIND/NAME, such as pod/web-0", arguments.object.join(" "));
    };
    let explanation = ::why::ask(&client, &target, Timestamp::now()).await.context("explain")?;
    match arguments.output {
        WhyForm::Text => print!("{explanation}"),
        WhyForm::Json => println!("{}", serde_json::to_string_pretty(&explanation)?),
    }
    Ok(())
}

/// `$KUBECONFIG` or the file in the home directory, where there is one.
fn usual() -> Option<PathBuf> {
    let named = std::env::var_os("KUBECONFIG").filter(|value| !value.is_empty()).map(PathBuf::from);
    let home =
        || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".kube/config")).filter(|path| path.exists());
    named.or_else(home)
}
