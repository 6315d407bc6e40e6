//! What Identify returns: the controller, its namespaces, and whether we can use them.

use alloc::string::String;
use alloc::vec::Vec;

use thiserror::Error;

use crate::device::{DiscardLimits, Properties, SECTOR};

/// Bytes that Identify returns.
pub const LENGTH: usize = 4096;
/// Most namespaces that this driver looks at.
pub const MAX_NAMESPACES: u32 = 1024;

/// What Identify says of the controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControllerInfo {
    /// Serial number.
    pub serial: String,
    /// Model.
    pub model: String,
    /// Firmware revision.
    pub firmware: String,
    /// Bytes of the longest transfer; `None` is without bound.
    pub max_transfer: Option<u32>,
    /// The number of namespaces.
    pub namespaces: u32,
    /// Dataset Management is there.
    pub dataset_management: bool,
    /// There is a volatile write cache.
    pub volatile_cache: bool,
}

impl ControllerInfo {
    /// Reads the structure.
    pub fn parse(data: &[u8; LENGTH]) -> Self {
        let shift = data[77];
        Self {
            serial: text(&data[4..24]),
            model: text(&data[24..64]),
            firmware: text(&data[64..72]),
            // In units of the smallest page, which bring-up made sure is 4 KiB.
            max_transfer: (shift != 0)
                .then(|| {
                    4096u32
                        .checked_shl(shift.into())
                        .filter(|&bytes| bytes >> shift == 4096)
                })
                .flatten(),
            namespaces: word(data, 516),
            dataset_management: half(data, 520) & 1 << 2 != 0,
            volatile_cache: data[525] & 1 != 0,
        }
    }
}

/// Why a namespace cannot be a disk.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum NamespaceError {
    /// It does not exist or is empty.
    #[error("it has no blocks")]
    Empty,
    /// The block is not of 512 bytes to 4 KiB.
    #[error("its blocks have 2^{0} bytes, and this driver knows 512 to 4096")]
    BlockSize(u8),
    /// Blocks carry metadata.
    #[error("its blocks carry {0} bytes of metadata")]
    Metadata(u16),
    /// Protection information is on.
    #[error("it is formatted with protection information")]
    Protection,
    /// The size does not fit.
    #[error("its {0} blocks are more than can be counted in sectors")]
    TooLarge(u64),
}

/// Reads the structure of a namespace.
pub fn namespace(
    data: &[u8; LENGTH],
    controller: &ControllerInfo,
    max_transfer: u32,
) -> Result<Properties, NamespaceError> {
    let blocks = long(data, 0);
    if blocks == 0 {
        return Err(NamespaceError::Empty);
    }
    let features = data[24];
    // The format in use: its low four bits, and, where there are more than 16 formats, two more.
    let format = usize::from(data[26] & 0xf)
        | if data[25] > 16 {
            usize::from(data[26] >> 5 & 3) << 4
        } else {
            0
        };
    let format = word(data, 128 + 4 * format);
    let (metadata, shift) = (format as u16, (format >> 16) as u8);
    if metadata != 0 {
        return Err(NamespaceError::Metadata(metadata));
    }
    if data[29] & 7 != 0 {
        return Err(NamespaceError::Protection);
    }
    if !(9..=12).contains(&shift) {
        return Err(NamespaceError::BlockSize(shift));
    }
    let block = 1u32 << shift;
    let sectors = blocks
        .checked_mul(u64::from(block) / SECTOR)
        .filter(|&sectors| sectors <= i64::MAX as u64 / SECTOR)
        .ok_or(NamespaceError::TooLarge(blocks))?;
    // Preferred sizes count from 0, and mean something if the namespace says so.
    let preferred = |offset| {
        let size = if features & 1 << 4 != 0 {
            (u32::from(half(data, offset)) + 1).saturating_mul(block)
        } else {
            block
        };
        if size.is_power_of_two() {
            size.min(1 << 20)
        } else {
            block
        }
    };
    Ok(Properties {
        sectors,
        logical_block: block,
        physical_block: preferred(64),
        volatile_cache: controller.volatile_cache,
        discard: controller.dataset_management.then(|| DiscardLimits {
            granularity: preferred(68),
            alignment: 0,
        }),
        max_transfer,
        read_only: data[99] & 1 != 0,
    })
}

/// The numbers of a list of active namespaces.
pub fn active_namespaces(data: &[u8; LENGTH]) -> Vec<u32> {
    data.chunks_exact(4)
        .map(|entry| u32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]]))
        .take_while(|&number| number != 0)
        .take(MAX_NAMESPACES as usize)
        .collect()
}

/// ASCII, padded with spaces; anything else is not shown.
fn text(bytes: &[u8]) -> String {
    let text: String = bytes
        .iter()
        .map(|&byte| {
            if (0x20..0x7f).contains(&byte) {
                byte as char
            } else {
                ' '
            }
        })
        .collect();
    text.trim().into()
}

fn half(data: &[u8; LENGTH], offset: usize) -> u16 {
    u16::from_le_bytes([data[offset], data[offset + 1]])
}

fn word(data: &[u8; LENGTH], offset: usize) -> u32 {
    u32::from(half(data, offset)) | u32::from(half(data, offset + 2)) << 16
}

fn long(data: &[u8; LENGTH], offset: usize) -> u64 {
    u64::from(word(data, offset)) | u64::from(word(data, offset + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn controller() -> ControllerInfo {
        ControllerInfo::parse(&[0; LENGTH])
    }

    fn formatted(shift: u8) -> [u8; LENGTH] {
        let mut data = [0; LENGTH];
        data[..8].copy_from_slice(&1000u64.to_le_bytes());
        data[128 + 2] = shift;
        data
    }

    #[test]
    fn formats_are_taken_or_refused_by_name() {
        let found = namespace(&formatted(12), &controller(), 1 << 19).unwrap();
        assert_eq!(
            (found.sectors, found.logical_block, found.physical_block),
            (8000, 4096, 4096)
        );
        assert_eq!(
            namespace(&formatted(13), &controller(), 0),
            Err(NamespaceError::BlockSize(13))
        );
        assert_eq!(
            namespace(&[0; LENGTH], &controller(), 0),
            Err(NamespaceError::Empty)
        );
        let mut metadata = formatted(9);
        metadata[128] = 8;
        assert_eq!(
            namespace(&metadata, &controller(), 0),
            Err(NamespaceError::Metadata(8))
        );
        let mut huge = formatted(12);
        huge[..8].fill(0xff);
        assert_eq!(
            namespace(&huge, &controller(), 0),
            Err(NamespaceError::TooLarge(u64::MAX))
        );
    }

    #[test]
    fn transfer_sizes_that_overflow_are_no_bound() {
        let mut data = [0; LENGTH];
        for (shift, expected) in [
            (0, None),
            (7, Some(512 << 10)),
            (19, Some(1 << 31)),
            (20, None),
            (255, None),
        ] {
            data[77] = shift;
            assert_eq!(ControllerInfo::parse(&data).max_transfer, expected);
        }
    }

    proptest! {
        #[test]
        fn anything_can_be_parsed(bytes in prop::collection::vec(any::<u8>(), 256)) {
            let mut data = [0; LENGTH];
            data.chunks_mut(256).for_each(|chunk| chunk.copy_from_slice(&bytes));
            let controller = ControllerInfo::parse(&data);
            let _ = namespace(&data, &controller, 4096);
            let _ = active_namespaces(&data);
        }
    }
}
