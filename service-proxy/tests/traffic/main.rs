//! The proxy's tables under real traffic, in network namespaces: what clients reach, and which address servers see.

mod faults;
mod proxy;
mod refusals;
mod sctp;
mod services;
mod world;
