//! The header of a table.

use super::{GptError, MAX_ENTRY_BYTES};
use crate::volume::crc32;

const SIGNATURE: &[u8; 8] = b"EFI PART";
/// Revision 1.0, the only one there is. A later one of the same major version may add fields behind.
const REVISION: u32 = 0x1_0000;
/// Bytes of the fields that the specification defines.
const LENGTH: u32 = 92;

/// A header whose checksum and bounds are right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The block of the other copy's header.
    pub alternate: u64,
    /// The first block that a partition may use.
    pub first_usable: u64,
    /// The last one.
    pub last_usable: u64,
    /// The first block of the entries.
    pub entries: u64,
    /// How many entries there are.
    pub entry_count: u32,
    /// Bytes of one.
    pub entry_size: u32,
    /// Their checksum.
    pub entries_checksum: u32,
}

impl Header {
    /// Reads the header that lies in block `place` of a disk of `blocks`.
    pub fn parse(block: &[u8], place: u64, blocks: u64) -> Result<Self, GptError> {
        if block.len() < LENGTH as usize || &block[..8] != SIGNATURE {
            return Err(GptError::Signature(place));
        }
        let revision = word(block, 8);
        if revision >> 16 != REVISION >> 16 {
            return Err(GptError::Revision(revision));
        }
        let length = word(block, 12);
        if length < LENGTH || length as usize > block.len() {
            return Err(GptError::HeaderLength(length));
        }
        // The checksum is taken with its own field as zero.
        let mut bytes = block[..length as usize].to_vec();
        bytes[16..20].fill(0);
        if crc32::checksum(&bytes) != word(block, 16) {
            return Err(GptError::HeaderChecksum(place));
        }
        let claimed = long(block, 24);
        if claimed != place {
            return Err(GptError::Misplaced {
                found: place,
                claimed,
            });
        }
        let header = Self {
            alternate: long(block, 32),
            first_usable: long(block, 40),
            last_usable: long(block, 48),
            entries: long(block, 72),
            entry_count: word(block, 80),
            entry_size: word(block, 84),
            entries_checksum: word(block, 88),
        };
        let (first, last) = (header.first_usable, header.last_usable);
        if first < 2 || last >= blocks || first > last.saturating_add(1) {
            return Err(GptError::Usable { first, last, blocks });
        }
        let (count, size) = (header.entry_count, header.entry_size);
        if size < 128 || !size.is_power_of_two() || header.entries_bytes() > MAX_ENTRY_BYTES {
            return Err(GptError::EntrySize { count, size });
        }
        Ok(header)
    }

    /// Bytes of all entries.
    pub fn entries_bytes(&self) -> u64 {
        u64::from(self.entry_count) * u64::from(self.entry_size)
    }

    /// Whether the entries lie on the disk, and not where a partition may.
    pub fn check_entries_place(&self, entry_blocks: u64, blocks: u64) -> Result<(), GptError> {
        let error = GptError::EntriesPlace(self.entries);
        let end = self.entries.checked_add(entry_blocks).ok_or(error)?;
        let outside = end <= self.first_usable || self.entries > self.last_usable;
        if self.entries < 2 || end > blocks || !outside {
            Err(error)
        } else {
            Ok(())
        }
    }
}

/// Four bytes of a block. The callers know that it is long enough.
fn word(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes([
        bytes[offset],
        bytes[offset + 1],
        bytes[offset + 2],
        bytes[offset + 3],
    ])
}

/// Eight bytes.
pub(super) fn long(bytes: &[u8], offset: usize) -> u64 {
    u64::from(word(bytes, offset)) | u64::from(word(bytes, offset + 4)) << 32
}
