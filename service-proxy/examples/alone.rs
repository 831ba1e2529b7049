//! The service proxy alone, for the network namespace it is started in, as upstream's kube-proxy runs:
//! `alone KUBECONFIG NODE POD_RANGE[,POD_RANGE]`. Health is on port 10256. Made for comparisons; tables stay at its end.

use std::{path::Path, sync::Arc};

use api_client::{Client, kubeconfig, transport::Remote};
use service_proxy::{Fixed, Metrics, Options};
use tokio_util::sync::CancellationToken;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [config, node, pods] = args.as_slice() else { return Err("usage: alone KUBECONFIG NODE POD_RANGES".into()) };
    let remote = Remote::new(&kubeconfig::load(Path::new(config))?)?;
    let options = Options {
        node_name: node.clone(),
        dns: None,
        table: Fixed {
            name: "alone".to_owned(),
            pods: pods.split(',').filter_map(api::cidr::Cidr::parse).collect(),
            masquerades_egress: false,
            node_port_ranges: Vec::new(),
            localhost_node_ports: false,
        },
        healthz: Some(([0, 0, 0, 0], 10256).into()),
        metrics: Metrics::default(),
        unready: tokio::sync::watch::channel(Arc::default()).1,
    };
    Ok(service_proxy::run(Client::new(remote, "alone"), options, CancellationToken::new()).await?)
}
