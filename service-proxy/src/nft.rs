//! Transactions to the kernel, through the `nft` program: one short process per transaction.

use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("running nft failed (is the package nftables installed?): {0}")]
    Run(#[from] std::io::Error),
    /// The kernel or `nft` refused; nothing of the transaction took effect.
    #[error("nft refused a transaction: {0}")]
    Refused(String),
}

/// Applies a transaction whole, or not at all.
pub async fn apply(transaction: &str) -> Result<(), Error> {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(transaction.as_bytes()).await?;
    }
    let output = child.wait_with_output().await?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::Refused(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}
