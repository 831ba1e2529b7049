//! Why an object is not what its owner wants it to be: the causes as a short chain, each with the command that would
//! help, from nothing but what the API server says.
//!
//! Contract: [`explain`] is a pure function of a [`World`], which is what was read so far; where it looks at something
//! that was not read, the world notes that, and [`ask`] reads it and explains again until nothing is missing. So the
//! reasoning reads like straight-line code, is tested without a server, and all that one step needs is read at once.
//! Nothing is ever written.

mod chain;
mod kinds;
mod look;
mod read;
mod render;
mod target;
mod world;

pub use chain::{Cause, Explanation, Fix, Reference};
pub use kinds::explain;
pub use read::{Error, ask};
pub use target::{Kind, Kinds, Target};
pub use world::{Answer, Query, World};
