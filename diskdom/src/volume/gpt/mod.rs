//! GUID partition tables (UEFI specification 2.10, chapter 5.3).
//!
//! What is on a disk is an allegation. A table is believed if its header and entries have the right checksums, lie where they say,
//! and name partitions that lie in the usable blocks and do not overlap. Where the table at the beginning of the disk
//! is not to be believed, the one at its end is asked; the caller hears which one it was.

mod header;
#[cfg(test)]
mod tests;

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use thiserror::Error;

use crate::device::IoError;

pub use header::Header;

/// Bytes of all entries together that this parser reads: eight times what is usual.
const MAX_ENTRY_BYTES: u64 = 128 << 10;
/// Bytes of the name in an entry.
const NAME_BYTES: usize = 72;

/// Why there is no usable table.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum GptError {
    /// The disk is too small for one.
    #[error("{0} blocks are too few for one")]
    TooSmall(u64),
    /// No header.
    #[error("block {0} holds no header")]
    Signature(u64),
    /// An unknown revision.
    #[error("its revision {0:#x} is not known")]
    Revision(u32),
    /// A header of impossible length.
    #[error("its header of {0} bytes has an impossible length")]
    HeaderLength(u32),
    /// A damaged header.
    #[error("the header in block {0} is damaged (its checksum is wrong)")]
    HeaderChecksum(u64),
    /// The header belongs elsewhere.
    #[error("the header in block {found} says that it lies in block {claimed}")]
    Misplaced {
        /// Where it is.
        found: u64,
        /// Where it says that it is.
        claimed: u64,
    },
    /// The usable blocks are not on the disk.
    #[error("its usable blocks {first} to {last} do not lie on the disk of {blocks} blocks")]
    Usable {
        /// The first one.
        first: u64,
        /// The last one.
        last: u64,
        /// The disk's size.
        blocks: u64,
    },
    /// Entries of impossible number or size.
    #[error("its {count} entries of {size} bytes are more than this parser reads, or of impossible size")]
    EntrySize {
        /// How many.
        count: u32,
        /// Bytes of one.
        size: u32,
    },
    /// The entries are not on the disk, or lie where partitions may.
    #[error("its entries at block {0} do not lie outside of the usable blocks on the disk")]
    EntriesPlace(u64),
    /// Damaged entries.
    #[error("its entries are damaged (their checksum is wrong)")]
    EntriesChecksum,
    /// A partition outside of the usable blocks.
    #[error("partition {number} (blocks {first} to {last}) does not lie in the usable blocks")]
    Bounds {
        /// Which one.
        number: u32,
        /// Its first block.
        first: u64,
        /// Its last block.
        last: u64,
    },
    /// Two partitions share blocks.
    #[error("partitions {0} and {1} overlap")]
    Overlap(u32, u32),
    /// The disk failed.
    #[error("block {block} cannot be read: {error}")]
    Read {
        /// Which block.
        block: u64,
        /// Why.
        error: IoError,
    },
}

/// A disk as the parser sees it.
pub trait Blocks {
    /// Bytes of a block: a power of two from 512 on.
    fn block_size(&self) -> usize;
    /// How many blocks there are.
    fn count(&self) -> u64;
    /// Reads as many whole blocks as the target holds.
    fn read(&mut self, first: u64, target: &mut [u8]) -> Result<(), IoError>;
}

/// A partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its number: its place in the table, from 1 up.
    pub number: u32,
    /// Its name.
    pub name: String,
    /// Its first block.
    pub first: u64,
    /// Its last block.
    pub last: u64,
}

/// A table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// The partitions, by number.
    pub partitions: Vec<Partition>,
    /// What is wrong with the other copy, or with this one if the backup had to be used.
    pub damage: Option<Damage>,
}

/// A copy of the table that should be repaired.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Damage {
    /// The first one; the backup is in use.
    #[error("the table at its beginning cannot be used, and the backup is taken: {0}")]
    Primary(GptError),
    /// The backup.
    #[error("the backup of its table cannot be used: {0}")]
    Backup(GptError),
}

/// Reads a disk's table. If neither copy can be used, the error is that of the first.
pub fn read(disk: &mut dyn Blocks) -> Result<Table, GptError> {
    let blocks = disk.count();
    // A protective record, two headers, and a block of entries each.
    if blocks < 5 {
        return Err(GptError::TooSmall(blocks));
    }
    match read_copy(disk, 1) {
        Ok((header, partitions)) => {
            // The disk may have grown since: the first copy knows where its backup is.
            let backup = read_copy(disk, header.alternate.min(blocks - 1));
            let damage = backup.err().map(Damage::Backup);
            Ok(Table { partitions, damage })
        }
        Err(error) => match read_copy(disk, blocks - 1) {
            Ok((_, partitions)) => Ok(Table {
                partitions,
                damage: Some(Damage::Primary(error)),
            }),
            Err(_) => Err(error),
        },
    }
}

/// Reads the copy whose header lies in a block.
fn read_copy(disk: &mut dyn Blocks, place: u64) -> Result<(Header, Vec<Partition>), GptError> {
    let block_size = disk.block_size();
    let mut block = vec![0; block_size];
    disk.read(place, &mut block)
        .map_err(|error| GptError::Read { block: place, error })?;
    let header = Header::parse(&block, place, disk.count())?;
    let bytes = header.entries_bytes();
    let entry_blocks = bytes.div_ceil(block_size as u64);
    header.check_entries_place(entry_blocks, disk.count())?;
    // `Header::parse` bounds the bytes.
    let mut entries = vec![0; entry_blocks as usize * block_size];
    disk.read(header.entries, &mut entries)
        .map_err(|error| GptError::Read {
            block: header.entries,
            error,
        })?;
    entries.truncate(bytes as usize);
    if super::crc32::checksum(&entries) != header.entries_checksum {
        return Err(GptError::EntriesChecksum);
    }
    let partitions = partitions(&header, &entries)?;
    Ok((header, partitions))
}

/// Takes the entries in use, and checks them against each other.
fn partitions(header: &Header, entries: &[u8]) -> Result<Vec<Partition>, GptError> {
    let mut found = Vec::new();
    for (index, entry) in entries.chunks_exact(header.entry_size as usize).enumerate() {
        // An entry without a type is not in use.
        if entry[..16].iter().all(|&byte| byte == 0) {
            continue;
        }
        let number = index as u32 + 1;
        let (first, last) = (header::long(entry, 32), header::long(entry, 40));
        if first < header.first_usable || last > header.last_usable || first > last {
            return Err(GptError::Bounds { number, first, last });
        }
        let name = entry.get(56..56 + NAME_BYTES).unwrap_or(&[]);
        found.push(Partition {
            number,
            name: name_of(name),
            first,
            last,
        });
    }
    let mut by_place: Vec<&Partition> = found.iter().collect();
    by_place.sort_by_key(|partition| partition.first);
    for pair in by_place.windows(2) {
        if pair[1].first <= pair[0].last {
            let (one, other) = (
                pair[0].number.min(pair[1].number),
                pair[0].number.max(pair[1].number),
            );
            return Err(GptError::Overlap(one, other));
        }
    }
    Ok(found)
}

/// UTF-16 up to the first NUL; what is none becomes a replacement character.
fn name_of(bytes: &[u8]) -> String {
    let units = bytes
        .chunks_exact(2)
        .map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    char::decode_utf16(units.take_while(|&unit| unit != 0))
        .map(|character| character.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect()
}
