//! `keelson`: one binary that is a control plane, a node agent, or both.

#![allow(dead_code, reason = "the server command is wired next")]

mod args;
mod config;
mod logging;

fn main() {
    args::parse();
}
