//! Disks, as the drivers offer them: [`BlockDevice`] takes requests whose data lies at bus addresses, and tells later how
//! each ended.
//!
//! The promise to who submits: a request is either refused at once, or completed exactly once under its tag; from the
//! completion on (and not before) the device no longer touches its memory. Requests complete in any order. Sectors are of 512 bytes
//! everywhere above the drivers, whatever the device's own block is.

pub mod carve;
pub mod immediate;
pub mod transfer;

use alloc::vec::Vec;
use core::time::Duration;

use thiserror::Error;
use unikernel_rt::time::{Clock, Instant};

/// Bytes in a sector.
pub const SECTOR: u64 = 512;

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// From the disk into memory.
    Read,
    /// From memory onto the disk.
    Write,
    /// What was completed before becomes durable. Neither sectors nor memory.
    Flush,
    /// The content of the sectors is no longer needed. No memory.
    Discard,
}

/// Memory as the device sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The bus address.
    pub address: u64,
    /// The length in bytes, not 0.
    pub length: u32,
}

/// A request to a disk.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// What to do.
    pub operation: Operation,
    /// The first sector.
    pub first: u64,
    /// How many sectors.
    pub sectors: u64,
    /// Where the data is, in the order of the sectors.
    pub segments: &'a [Segment],
}

/// The submitter's own name of a request; comes back with the completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(pub u64);

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// Which request.
    pub tag: Tag,
    /// How.
    pub result: Result<(), IoError>,
}

/// Why a request failed, or cannot be tried.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum IoError {
    /// The sectors do not lie on the disk.
    #[error("sectors {first}+{sectors} do not lie on a disk of {capacity}")]
    OutOfRange {
        /// The first sector.
        first: u64,
        /// How many.
        sectors: u64,
        /// How many the disk has.
        capacity: u64,
    },
    /// The sectors are no whole blocks.
    #[error("sectors {first}+{sectors} are no whole blocks of {block} bytes")]
    Misaligned {
        /// The first sector.
        first: u64,
        /// How many.
        sectors: u64,
        /// The bytes of a block.
        block: u32,
    },
    /// The memory has another length than the sectors.
    #[error("{bytes} bytes of memory were given for {sectors} sectors")]
    Length {
        /// Bytes of all segments.
        bytes: u64,
        /// Sectors of the request.
        sectors: u64,
    },
    /// A block's memory is torn in a way that the device cannot follow.
    #[error("a block of {block} bytes is scattered over memory in a way that the device cannot follow")]
    Scattered {
        /// The bytes of a block.
        block: u32,
    },
    /// The disk does not do this.
    #[error("the disk does not support the operation")]
    Unsupported,
    /// The disk cannot be written.
    #[error("the disk is read-only")]
    ReadOnly,
    /// The medium failed.
    #[error("the medium failed")]
    Media,
    /// The device failed the request for another reason.
    #[error("the device failed the request")]
    Device,
    /// The device does not answer any more.
    #[error("the device is out of order")]
    Gone,
}

/// Why a request was not accepted.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum SubmitError {
    /// Try again after a completion.
    #[error("the queue is full")]
    Full,
    /// It would fail.
    #[error(transparent)]
    Refused(#[from] IoError),
}

/// What a disk discards well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiscardLimits {
    /// Bytes of the smallest extent that the device gives up.
    pub granularity: u32,
    /// Byte at which the first such extent begins.
    pub alignment: u32,
}

/// What a disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Properties {
    /// How many sectors it has.
    pub sectors: u64,
    /// Bytes of the smallest block that can be addressed: a power of two, at least 512.
    pub logical_block: u32,
    /// Bytes of the block that can be written without reading: a multiple of the logical block.
    pub physical_block: u32,
    /// Whether writes may be in a volatile cache when they complete, so that a flush is of use.
    pub volatile_cache: bool,
    /// Whether and how sectors can be discarded.
    pub discard: Option<DiscardLimits>,
    /// Bytes that one command carries; longer requests are split by the driver.
    pub max_transfer: u32,
    /// Whether writes are refused.
    pub read_only: bool,
}

impl Properties {
    /// Whether a request can be tried: the checks that are the same for every device.
    pub fn check(&self, request: &Request<'_>) -> Result<(), IoError> {
        let Request {
            operation,
            first,
            sectors,
            segments,
        } = *request;
        self.check_range(operation, first, sectors)?;
        if matches!(operation, Operation::Read | Operation::Write) {
            let bytes: u64 = segments.iter().map(|segment| u64::from(segment.length)).sum();
            let empty = segments.iter().any(|segment| segment.length == 0);
            if empty || sectors.checked_mul(SECTOR) != Some(bytes) {
                return Err(IoError::Length { bytes, sectors });
            }
        }
        Ok(())
    }

    /// Whether an operation can be tried on a range of sectors, wherever its memory is.
    pub fn check_range(&self, operation: Operation, first: u64, sectors: u64) -> Result<(), IoError> {
        if operation == Operation::Flush {
            return Ok(());
        }
        if matches!(operation, Operation::Write | Operation::Discard) && self.read_only {
            return Err(IoError::ReadOnly);
        }
        if operation == Operation::Discard && self.discard.is_none() {
            return Err(IoError::Unsupported);
        }
        if sectors == 0 || first.checked_add(sectors).is_none_or(|end| end > self.sectors) {
            return Err(IoError::OutOfRange {
                first,
                sectors,
                capacity: self.sectors,
            });
        }
        let block_sectors = u64::from(self.logical_block) / SECTOR;
        if !first.is_multiple_of(block_sectors) || !sectors.is_multiple_of(block_sectors) {
            return Err(IoError::Misaligned {
                first,
                sectors,
                block: self.logical_block,
            });
        }
        Ok(())
    }
}

/// A disk.
pub trait BlockDevice {
    /// What the disk is.
    fn properties(&self) -> &Properties;

    /// Accepts or refuses a request. What was accepted is begun by the next [`kick`](Self::kick) at the latest.
    fn submit(&mut self, request: &Request<'_>, tag: Tag, now: Instant) -> Result<(), SubmitError>;

    /// Tells the device of what was submitted. Apart from [`submit`](Self::submit) because it is slow, and once is enough for many.
    fn kick(&mut self);

    /// Appends what has completed. Also looks after the device: one that hangs or fails is reset here, so this must be called now and
    /// then while requests are outstanding, interrupt or not.
    fn poll(&mut self, now: Instant, completions: &mut Vec<Completion>);

    /// How many requests were accepted and not completed.
    fn outstanding(&self) -> usize;
}

/// A clock that can let time pass. Only for starting and resetting devices, and for draining: nothing waits while it serves.
pub trait Pause: Clock {
    /// Lets the processor go for about so long.
    fn pause(&self, length: Duration);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties() -> Properties {
        Properties {
            sectors: 80,
            logical_block: 4096,
            physical_block: 4096,
            volatile_cache: true,
            discard: None,
            max_transfer: 1 << 16,
            read_only: false,
        }
    }

    fn check(operation: Operation, first: u64, sectors: u64, lengths: &[u32]) -> Result<(), IoError> {
        let segments: Vec<Segment> = lengths
            .iter()
            .map(|&length| Segment {
                address: 0x1000,
                length,
            })
            .collect();
        properties().check(&Request {
            operation,
            first,
            sectors,
            segments: &segments,
        })
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_its_reason() {
        use Operation::*;
        assert_eq!(check(Read, 72, 8, &[4096]), Ok(()));
        assert_eq!(check(Flush, 999, 999, &[]), Ok(()));
        assert_eq!(
            check(Read, 80, 8, &[4096]),
            Err(IoError::OutOfRange {
                first: 80,
                sectors: 8,
                capacity: 80
            })
        );
        assert_eq!(
            check(Write, u64::MAX, 8, &[4096]),
            Err(IoError::OutOfRange {
                first: u64::MAX,
                sectors: 8,
                capacity: 80
            })
        );
        assert_eq!(
            check(Read, 1, 8, &[4096]),
            Err(IoError::Misaligned {
                first: 1,
                sectors: 8,
                block: 4096
            })
        );
        assert_eq!(
            check(Read, 0, 8, &[2048]),
            Err(IoError::Length {
                bytes: 2048,
                sectors: 8
            })
        );
        assert_eq!(
            check(Read, 0, 8, &[4096, 0]),
            Err(IoError::Length {
                bytes: 4096,
                sectors: 8
            })
        );
        assert_eq!(check(Discard, 0, 8, &[]), Err(IoError::Unsupported));
    }
}
