//! Volumes: what a name of the manifest stands for. `nvme0` is a whole disk, `nvme0:2` its second GPT partition, `nvme0:data`
//! the partition of that name; disks are numbered in the order in which they were found, each kind by itself.
//!
//! [`Disks`] owns every disk; a [`Volume`] is a disk's number and a range of its sectors. Requests go through
//! [`Volume::translate`], so that none can leave the range.

pub use unikernel_rt::crc32;
mod disks;
pub mod gpt;
mod name;

pub use disks::{Disk, DiskId, Disks};
pub use name::{NameError, Selector, VolumeName};

use alloc::string::String;

use thiserror::Error;

use crate::device::{IoError, Properties};

/// Why a volume is not there.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum VolumeError {
    /// The name says nothing.
    #[error(transparent)]
    Name(#[from] NameError),
    /// There is no such disk.
    #[error("there is no disk {disk}; {present}")]
    NoDisk {
        /// The disk asked for.
        disk: String,
        /// What there is, in words.
        present: String,
    },
    /// The disk has no partitions to choose from.
    #[error("{disk} has no usable partition table: {cause}")]
    NoTable {
        /// The disk.
        disk: String,
        /// Why not.
        cause: gpt::GptError,
    },
    /// There is no such partition.
    #[error("{disk} has no partition {partition}; {present}")]
    NoPartition {
        /// The disk.
        disk: String,
        /// The number or name asked for.
        partition: String,
        /// What there is, in words.
        present: String,
    },
    /// Several partitions have the name.
    #[error("{disk} has {count} partitions named {partition:?}; choose one by its number")]
    Ambiguous {
        /// The disk.
        disk: String,
        /// The name.
        partition: String,
        /// How many have it.
        count: usize,
    },
}

/// A disk or a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// The disk.
    pub disk: DiskId,
    /// Where it begins on the disk.
    pub first: u64,
    /// What it is: the disk's properties with its own size.
    pub properties: Properties,
}

impl Volume {
    /// The place on the disk of a range of the volume's sectors; an error if it does not lie in the volume.
    pub fn translate(&self, first: u64, sectors: u64) -> Result<u64, IoError> {
        let capacity = self.properties.sectors;
        match first.checked_add(sectors) {
            Some(end) if end <= capacity => Ok(self.first + first),
            _ => Err(IoError::OutOfRange {
                first,
                sectors,
                capacity,
            }),
        }
    }
}
