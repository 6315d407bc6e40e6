//! Memory: addresses that cannot be mixed up, the map through which the hypervisor reaches machine memory, the frames that nobody holds, and
//! what a domain sees of it all (its p2m).

mod address;
mod direct_map;

pub use address::{Frame, GuestAddress, GuestVirtual, MachineAddress, PAGE_SIZE};
pub use direct_map::DirectMap;

/// Frames that nobody holds.
pub struct FrameAllocator {}

/// Guest-physical memory of a domain.
pub struct P2m {}
