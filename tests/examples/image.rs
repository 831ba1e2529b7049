//! Writes the demo image's archive: `cargo run -p tests --example image -- VERSION FILE`.
fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    tests::image::hello(&args[1]).write(args[2].as_ref())
}
