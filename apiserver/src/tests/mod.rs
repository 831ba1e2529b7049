//! The server as its callers see it: the real pipeline on the memory store, in this process.

mod bad_input;
mod custom;
mod lists;
mod nodes;
mod policies;
mod rig;
mod rows;
mod subresources;
mod watches;
mod writes;
