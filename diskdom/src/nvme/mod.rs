//! The driver of NVMe controllers (NVM Express Base Specification 1.4, NVM command set, PCIe transport).
//!
//! One admin queue and one pair of I/O queues a controller; each namespace is a disk. Commands name their memory by page
//! lists out of a pool that is allocated at the start, so that nothing is allocated on the way of a request. The
//! interrupt only wakes the domain: completions are found by the phase bit, and a lost interrupt costs a second at most.
//! A controller that reports a fatal status, answers nothing any more or leaves a command unanswered is reset, and what was
//! in flight is issued again; one that cannot be reset is cut off from memory, and everything fails.
//!
//! What a controller says is checked like anything from outside: an unknown command identifier, a namespace of impossible
//! form or a register of all ones is reported and survived.

mod bring_up;
pub mod command;
mod controller;
#[cfg(test)]
pub mod fake;
pub mod identify;
mod namespace;
mod prp;
pub mod queue;
pub mod registers;
pub mod status;
#[cfg(test)]
mod tests;

pub use bring_up::{NvmeError, start};
pub use controller::Controller;
pub use namespace::NamespaceDisk;
