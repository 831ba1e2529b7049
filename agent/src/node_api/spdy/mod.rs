//! SPDY/3.1 as kubectl and client-go speak it: many streams over one upgraded connection.
//!
//! `frame` and `headers` are the wire format without I/O, `connection` the server's side of a connection.

mod connection;
mod dictionary;
pub mod frame;
pub mod headers;

pub use connection::{Closed, Connection, Incoming, Outgoing, Stream, serve};

#[cfg(test)]
mod tests;
