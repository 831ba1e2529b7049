//! The memory engine passes the suite.

use std::sync::Arc;

use store_client::memory::Memory;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms() {
    store_client::conformance::run(Arc::new(Memory::new())).await;
}
