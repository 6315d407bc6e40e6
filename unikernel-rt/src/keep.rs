//! The keep region: a few pages that a domain finds again in its next life, as the last one left them (`keep` in appliance.toml says how many).
//!
//! A life may end at any instruction, so nothing in the region is believed before it was checked. [`Keep::area`] hands out parts of it; the same calls in the same order
//! give the same parts in every life. In an area a [`Record`] holds bytes, and a [`Stored`] one value, both with a magic number, a version and a
//! checksum, twice: a life that ends in the middle of [`Record::store`] leaves what was stored before. A record that is corrupt is told to the log and
//! is as good as none, which must cost no more than what the record is meant to save.
//!
//! ```
//! use unikernel_rt::keep::{Keep, Stored};
//! # let keep = Keep::fake(1);
//! let area = keep.area(Stored::<u64>::LENGTH)?;
//! let (mut starts, found) = Stored::<u64>::open(area, "starts", u32::from_le_bytes(*b"STRT"), 1)?;
//! starts.store(&(found.unwrap_or(0) + 1))?;
//! # Ok::<(), unikernel_rt::keep::KeepError>(())
//! ```

mod record;

pub use record::{Found, Record, Stored};

use alloc::rc::Rc;
use core::cell::Cell;

use thiserror::Error;

use crate::memory::{MemoryError, SharedMemory};

/// Why something cannot be kept.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum KeepError {
    /// The region is too small.
    #[error(
        "{wanted} bytes do not fit into the {left} that are left of the keep region; give the domain a larger `keep` in the manifest"
    )]
    Full {
        /// What was asked for.
        wanted: usize,
        /// What is left.
        left: usize,
    },
    /// The record is too small.
    #[error("{length} bytes do not fit into a record of {capacity}")]
    TooLong {
        /// What was to be stored.
        length: usize,
        /// What fits.
        capacity: usize,
    },
    /// The memory did not serve an access.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// A domain's keep region. Clones hand out parts of the same one.
#[derive(Clone, Debug)]
pub struct Keep {
    memory: Option<SharedMemory>,
    taken: Rc<Cell<usize>>,
}

/// Areas begin on multiples of this.
const ALIGN: usize = 64;

impl Keep {
    /// The region that the hypervisor gave the domain; none is an empty one.
    pub fn new(memory: Option<SharedMemory>) -> Self {
        Self {
            memory,
            taken: Rc::default(),
        }
    }

    /// A region of so many pages of the heap, for tests: its next life is [`Keep::next_life`].
    #[cfg(not(target_os = "none"))]
    pub fn fake(pages: usize) -> Self {
        Self::new(SharedMemory::allocate(pages).ok())
    }

    /// The region as the domain's next life finds it.
    #[cfg(not(target_os = "none"))]
    pub fn next_life(&self) -> Self {
        Self::new(self.memory.clone())
    }

    /// Bytes that it has.
    pub fn len(&self) -> usize {
        self.memory.as_ref().map_or(0, SharedMemory::len)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that are not handed out yet.
    pub fn left(&self) -> usize {
        self.len() - self.taken.get().min(self.len())
    }

    /// The next `length` bytes.
    pub fn area(&self, length: usize) -> Result<SharedMemory, KeepError> {
        let full = KeepError::Full {
            wanted: length,
            left: self.left(),
        };
        let memory = self.memory.as_ref().ok_or(full)?;
        if length > self.left() {
            return Err(full);
        }
        let start = self.taken.get();
        self.taken.set((start + length).next_multiple_of(ALIGN));
        Ok(memory.part(start, length)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_are_the_same_in_every_life_and_do_not_meet() {
        let keep = Keep::fake(1);
        let first = keep.area(10).unwrap();
        let second = keep.clone().area(100).unwrap();
        first.copy_in(0, &[1; 10]).unwrap();
        second.copy_in(0, &[2; 100]).unwrap();
        let again = keep.next_life();
        let mut bytes = [0; 10];
        again.area(10).unwrap().copy_out(0, &mut bytes).unwrap();
        assert_eq!(bytes, [1; 10]);
        assert_eq!(again.area(100).unwrap().read::<u8>(99), Ok(2));
        assert_eq!(again.left(), 4096 - 192);
        assert!(again.area(4096 - 192).is_ok());
        assert_eq!(again.area(1).err(), Some(KeepError::Full { wanted: 1, left: 0 }));
        assert_eq!(
            Keep::new(None).area(1).err(),
            Some(KeepError::Full { wanted: 1, left: 0 })
        );
    }
}
