//! The driver of virtio block devices (VIRTIO 1.2, section 5.2), modern and transitional, on PCI.
//!
//! The crate `virtio-drivers` brings the transport: finding the structures in the BARs, the negotiation of features, the
//! configuration space, the doorbell. The queue is our own. The crate's queue takes Rust slices and asks a `Hal` for the
//! bus address of each, by its place in this domain's memory. Data here lies in other domains' pages: no Rust reference
//! may be made to them, and their bus addresses come with the mapping, not from a place. With its own queue the
//! driver passes bus addresses on as they are and copies nothing; it also gets flushes that nobody waits for, discards,
//! and more than sixteen descriptors. The `Hal` of `unikernel-rt` still maps the registers for the transport.

mod block;
#[cfg(test)]
pub(crate) mod fake;
mod features;
mod queue;
#[cfg(test)]
mod tests;

pub use block::{VirtioDisk, VirtioError};
pub use features::{Config, Features};
