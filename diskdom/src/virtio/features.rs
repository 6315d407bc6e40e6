//! Feature bits and the configuration space of a block device.

use bitflags::bitflags;
use virtio_drivers::transport::Transport;

use super::VirtioError;
use crate::device::carve::DISCARD_SECTORS;
use crate::device::{DiscardLimits, Properties, SECTOR};

bitflags! {
    /// The features that this driver understands.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Features: u64 {
        /// `size_max` bounds a segment.
        const SIZE_MAX = 1 << 1;
        /// `seg_max` bounds the number of segments.
        const SEG_MAX = 1 << 2;
        /// The device is read-only.
        const READ_ONLY = 1 << 5;
        /// `blk_size` is there.
        const BLOCK_SIZE = 1 << 6;
        /// There is a write cache, and a command to flush it.
        const FLUSH = 1 << 9;
        /// The topology is there.
        const TOPOLOGY = 1 << 10;
        /// There is a command to discard.
        const DISCARD = 1 << 13;
        /// Descriptors may lie in tables of their own.
        const INDIRECT = 1 << 28;
        /// The device is not one of the time before the standard.
        const VERSION_1 = 1 << 32;
        /// The device uses bus addresses as other devices do, through an IOMMU too. Ours are never anything else.
        const ACCESS_PLATFORM = 1 << 33;
    }
}

/// Most bytes of one request.
const MAX_BYTES: u32 = 1 << 20;
/// The byte of the status and the header take a descriptor each.
const OVERHEAD: usize = 2;

/// What the configuration space says, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// What the disk is.
    pub properties: Properties,
    /// Pieces of memory of one request.
    pub pieces: usize,
    /// Bytes of a piece.
    pub piece_bytes: u32,
    /// Sectors that one command discards.
    pub discard_sectors: u64,
}

impl Config {
    /// Reads it, for a queue in which chains of `chain` descriptors have room.
    pub fn read<T: Transport>(transport: &T, features: Features, chain: usize) -> Result<Self, VirtioError> {
        let word = |feature: Features, offset: usize, without: u32| -> Result<u32, VirtioError> {
            if features.contains(feature) {
                Ok(transport.read_config_space(offset)?)
            } else {
                Ok(without)
            }
        };
        let always = Features::empty();
        let sectors = u64::from(word(always, 4, 0)?) << 32 | u64::from(word(always, 0, 0)?);
        let block = word(Features::BLOCK_SIZE, 20, SECTOR as u32)?;
        if !block.is_power_of_two() || !(512..=4096).contains(&block) {
            return Err(VirtioError::BlockSize(block));
        }
        let block_sectors = u64::from(block) / SECTOR;
        if sectors < block_sectors || sectors > i64::MAX as u64 / SECTOR {
            return Err(VirtioError::Capacity(sectors));
        }
        let exponent = word(Features::TOPOLOGY, 24, 0)? & 0xff;
        let physical_block = block
            .checked_shl(exponent)
            .filter(|&size| size >= block && size <= 1 << 20)
            .unwrap_or(block);
        // The device may say 0 for "no bound".
        let bound = |value: u32, without: u32| if value == 0 { without } else { value };
        let seg_max = bound(word(Features::SEG_MAX, 12, 1)?, 1) as usize;
        let pieces = seg_max.min(chain.saturating_sub(OVERHEAD)).max(1);
        let piece_bytes = bound(word(Features::SIZE_MAX, 8, 0)?, MAX_BYTES);
        // A block must fit whatever the pieces.
        if piece_bytes < block {
            return Err(VirtioError::SegmentSize(piece_bytes));
        }
        let discard_sectors = u64::from(word(Features::DISCARD, 36, 0)?).min(DISCARD_SECTORS);
        let discard_sectors = discard_sectors - discard_sectors % block_sectors;
        let alignment = u64::from(word(Features::DISCARD, 44, 1)?.max(1)) * SECTOR;
        let granularity = u32::try_from(alignment).unwrap_or(block).max(block);
        let properties = Properties {
            sectors: sectors - sectors % block_sectors,
            logical_block: block,
            physical_block,
            volatile_cache: features.contains(Features::FLUSH),
            discard: (discard_sectors > 0).then_some(DiscardLimits {
                granularity,
                alignment: 0,
            }),
            max_transfer: MAX_BYTES,
            read_only: features.contains(Features::READ_ONLY),
        };
        Ok(Self {
            properties,
            pieces,
            piece_bytes,
            discard_sectors,
        })
    }
}
