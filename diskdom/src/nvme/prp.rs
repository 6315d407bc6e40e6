//! Page lists: how a command names its memory. Each command identifier has a list of its own in a pool, so that none is ever
//! looked for.

use unikernel_rt::dma::DmaBuffer;
use unikernel_rt::memory::MemoryError;

use super::command::DatasetRange;
use crate::device::Segment;

/// Entries of a list. Four lists make a page, so none crosses one.
const ENTRIES: usize = 128;
/// Bytes of a list.
const BYTES: usize = ENTRIES * 8;

/// Pieces of memory that a command can name: one in the command itself, the others in its list.
pub const MAX_PIECES: usize = ENTRIES + 1;
/// Bytes that a command can name wherever in a page its memory begins.
pub const MAX_BYTES: u32 = (ENTRIES * 4096) as u32;

/// The lists of all command identifiers of a queue.
#[derive(Debug)]
pub struct PrpPool {
    lists: DmaBuffer,
}

impl PrpPool {
    /// Allocates as many lists.
    pub fn allocate(commands: u16) -> Result<Self, MemoryError> {
        Ok(Self {
            lists: DmaBuffer::allocate(usize::from(commands) * BYTES)?,
        })
    }

    /// Lists pieces of memory for a command; answers its two pointers.
    pub fn list(&self, command: u16, pieces: &[Segment]) -> Result<(u64, u64), MemoryError> {
        let address = |index: usize| pieces.get(index).map_or(0, |piece| piece.address);
        if pieces.len() <= 2 {
            return Ok((address(0), address(1)));
        }
        let offset = usize::from(command) * BYTES;
        for (index, piece) in pieces[1..].iter().enumerate() {
            // A list that is too long would run into the next command's.
            if index >= ENTRIES {
                return Err(MemoryError::OutOfBounds {
                    offset,
                    length: index * 8,
                    size: BYTES,
                });
            }
            self.lists.memory().write(offset + index * 8, &piece.address)?;
        }
        Ok((address(0), self.lists.bus_address() + offset as u64))
    }

    /// Puts a range of Dataset Management where a command's list would be; answers its address.
    pub fn range(&self, command: u16, range: &DatasetRange) -> Result<u64, MemoryError> {
        let offset = usize::from(command) * BYTES;
        self.lists.memory().write(offset, range)?;
        Ok(self.lists.bus_address() + offset as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn lists_name_every_piece_and_stay_in_their_page(count in 1usize..=MAX_PIECES, command in 0u16..8) {
            let pool = PrpPool::allocate(8).unwrap();
            let pieces: Vec<Segment> =
                (1..=count as u64).map(|page| Segment { address: page << 12, length: 4096 }).collect();
            let (first, second) = pool.list(command, &pieces).unwrap();
            prop_assert_eq!(first, 1 << 12);
            match count {
                1 => prop_assert_eq!(second, 0),
                2 => prop_assert_eq!(second, 2 << 12),
                _ => {
                    let last = second + (count as u64 - 2) * 8;
                    prop_assert_eq!(second >> 12, last >> 12);
                    for (index, piece) in pieces[1..].iter().enumerate() {
                        let offset = (second - pool.lists.bus_address()) as usize + index * 8;
                        prop_assert_eq!(pool.lists.memory().read::<u64>(offset).unwrap(), piece.address);
                    }
                }
            }
        }
    }

    #[test]
    fn a_list_that_is_too_long_is_refused() {
        let pool = PrpPool::allocate(1).unwrap();
        let pieces = [Segment {
            address: 0,
            length: 4096,
        }; MAX_PIECES + 1];
        assert!(pool.list(0, &pieces).is_err());
    }
}
