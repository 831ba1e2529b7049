//! Compiles the schemas of all built-in types into the arena that the crate reads in place: shapes, descriptions and
//! required fields from the `k8s-openapi` crate, merge rules, zero values and defaults from the tables in `data/`.

#[path = "build/compile.rs"]
mod compile;
#[path = "src/schema/encode.rs"]
#[allow(dead_code)]
mod encode;
#[path = "build/roots.rs"]
mod roots;
#[path = "build/tables.rs"]
mod tables;

use std::path::PathBuf;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=build");
    println!("cargo:rerun-if-changed=data");
    println!("cargo:rerun-if-changed=src/schema/encode.rs");
    let tables = tables::Tables::read();
    let mut definitions = roots::definitions();
    roots::add_lists(&mut definitions);
    let compiled = compile::compile(&definitions, &tables);
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let write = |name: &str, content: &[u8]| {
        std::fs::write(out.join(name), content).unwrap_or_else(|e| panic!("writing {name}: {e}"));
    };
    write("schemas.bin", &compiled.words);
    write("schemas.txt", compiled.text.as_bytes());
    write("defaults.json", compiled.defaults.to_string().as_bytes());
}
