//! The server as its callers see it: the real pipeline on the memory store, in this process.

mod bad_input;
mod lists;
mod rig;
mod watches;
mod writes;
