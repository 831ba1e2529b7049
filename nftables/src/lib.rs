//! nftables over netlink: transactions, dumps and news, without the `nft` program.
//!
//! A [`Batch`] collects changes and [`Socket::commit`] has the kernel apply all of them or none. Nothing is cached and
//! nothing is listed behind the caller's back: what a call costs is what it names. What the kernel has is read with the
//! dumps of [`Socket`] ([`Socket::elements`] and its like), and [`Monitor`] tells when somebody else changed a table.
//!
//! ```no_run
//! use nftables::{Batch, Chain, Element, Expr, Family, Hook, Register, Rule, Set, Socket, Table, Type, Value, Verdict};
//!
//! # fn main() -> Result<(), nftables::Error> {
//! const R: Register = Register(0);
//! let table = Table { family: Family::Ip, name: "example" };
//! let mut batch = Batch::new();
//! batch.add_table(table, Some("a comment that nft shows"));
//! batch.add_set(table, &Set::new("banned", &[Type::Ipv4]));
//! batch.add_chain(table, &Chain::base("in", "filter", Hook::Input, 0));
//! batch.add_rule(table, &Rule::new("in", vec![
//!     nftables::source_address(table.family, R),
//!     Expr::lookup("banned", R),
//!     Expr::Verdict(Verdict::Drop),
//! ]));
//! batch.add_elements(table, "banned", [Element::new(Value::new().address("192.0.2.1".parse().unwrap()))]);
//! Socket::open()?.commit(&mut batch)
//! # }
//! ```
//!
//! Keys of several fields are built field by field ([`Value`]) and compared with as many registers in a row: each field
//! takes whole registers of four bytes. A rule must fill a register before it reads it; nothing is handed from one rule
//! to the next (newer kernels refuse such rules).
//!
//! `nft` (at least up to 1.0.6) ends with a failed assertion when it lists a rule whose key has a part that is what
//! another lookup gave. Such a rule works, but nobody could list the ruleset any more; what a map gives goes through the
//! packet's mark or priority instead.
//!
//! What costs more than it seems, in the kernel: each element that is added to a map is checked against every rule that
//! looks into it, so few rules should; an element with a jump makes the kernel walk all verdict maps of the table, so
//! maps that change often hold data rather than jumps; and a rule bound to a map makes it walk the map once.
//!
//! Tables have no owner in the kernel's sense (`NFT_TABLE_F_OWNER`): such a table ends with the process that made it,
//! and what this crate is for must outlive its process.

mod batch;
pub mod conntrack;
mod dump;
mod element;
mod error;
mod expression;
mod kernel;
mod message;
mod monitor;
mod set;
mod socket;

pub use batch::{Batch, Chain, Hook, Rule, Table};
pub use dump::{FoundChain, FoundRule, FoundSet, FoundTable};
pub use element::{Data, Element, Value};
pub use error::Error;
pub use expression::{
    Compare, Ct, DynsetOp, Expr, FibOf, Header, Meta, Nat, Original, Register, Reject, Verdict, destination_address,
    destination_port, equals, in_range, is_new, l4proto, set_mark_bits, source_address, source_port,
};
pub use kernel::Family;
pub use monitor::Monitor;
pub use set::{Set, Type};
pub use socket::Socket;

#[cfg(test)]
mod tests;
