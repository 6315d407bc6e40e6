//! Memory: addresses that cannot be mixed up, the map through which the hypervisor reaches machine memory, the frames that nobody holds, and
//! what a domain sees of it all (its p2m).

mod address;
mod direct_map;
mod frames;
mod p2m;
mod tables;
pub mod walk;

pub use address::{Frame, GuestAddress, GuestVirtual, MachineAddress, PAGE_SIZE};
pub use direct_map::DirectMap;
pub use frames::FrameAllocator;
pub use p2m::{Mapping, P2m, PageKind};
pub use tables::{Entry as TableEntry, LongMode, TableFormat};

/// Machine memory is exhausted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("machine memory is exhausted")]
pub struct OutOfMemory;
