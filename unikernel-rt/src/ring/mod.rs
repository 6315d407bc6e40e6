//! Rings: how a frontend and a backend pass requests and responses through shared pages (ring.h), and how consoles and
//! xenstore pass bytes.
//!
//! [`FrontRing`] and [`BackRing`] keep every index that matters in private memory; a shared index is read once,
//! compared with the private ones, and only then believed. A peer that claims more than the ring holds gets
//! [`RingError::Index`], which its owner answers by ending the connection.

mod back;
pub mod bytes;
mod front;

pub use back::BackRing;
pub use front::FrontRing;

use thiserror::Error;

use crate::memory::{MemoryError, SharedMemory};

/// Why a ring cannot go on.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum RingError {
    /// The peer published an index that no ring of this size can have.
    #[error("the peer claims {claimed} entries in a ring of {capacity}")]
    Index {
        /// How many entries the peer's index amounts to.
        claimed: u32,
        /// How many the ring has.
        capacity: u32,
    },
    /// More was pushed than the peer has room for: a fault of ours.
    #[error("the ring of {capacity} entries is full")]
    Full {
        /// How many entries the ring has.
        capacity: u32,
    },
    /// The memory is too small for the ring.
    #[error("{bytes} bytes cannot hold a ring")]
    TooSmall {
        /// The memory's length.
        bytes: usize,
    },
    /// The memory did not serve an access.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// Offsets in the shared ring's head.
const REQ_PROD: usize = 0;
const REQ_EVENT: usize = 4;
const RSP_PROD: usize = 8;
const RSP_EVENT: usize = 12;
/// Where the entries begin.
const ENTRIES: usize = 64;

/// What both ends know of the ring's form.
#[derive(Clone, Debug)]
struct Shape {
    memory: SharedMemory,
    capacity: u32,
    entry: usize,
}

impl Shape {
    fn new(memory: SharedMemory, entry: usize) -> Result<Self, RingError> {
        let room = memory.len().saturating_sub(ENTRIES) / entry;
        if room == 0 {
            return Err(RingError::TooSmall { bytes: memory.len() });
        }
        let capacity = 1 << (room as u32).ilog2();
        Ok(Self {
            memory,
            capacity,
            entry,
        })
    }

    fn offset(&self, index: u32) -> usize {
        ENTRIES + (index & (self.capacity - 1)) as usize * self.entry
    }

    /// Publishes a producer index; answers whether the peer asked to be told.
    fn publish(&self, prod: usize, event: usize, old: u32, new: u32) -> Result<bool, RingError> {
        if old == new {
            return Ok(false);
        }
        self.memory.store(prod, new)?;
        // The peer must see the index before we look whether it sleeps, or both sides may wait.
        core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
        let wanted = self.memory.load(event)?;
        Ok(new.wrapping_sub(wanted) < new.wrapping_sub(old))
    }
}

#[cfg(test)]
mod tests;
