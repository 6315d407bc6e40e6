//! The kernel image: an ELF64 file with the PVH note.

use alloc::vec::Vec;
use core::ops::Range;

use crate::memory::GuestAddress;

/// Why an image cannot be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// Not an ELF64 executable for x86-64, or damaged.
    #[error("the kernel is not an ELF64 executable for x86-64, or is damaged")]
    NotElf,
    /// A bzImage.
    #[error("the kernel is a bzImage whose payload is compressed: the image builder has to unpack it")]
    Compressed,
    /// No PVH note.
    #[error("the kernel has no PVH entry point (ELF note Xen, type 18)")]
    NoEntry,
    /// A segment or the entry lies outside the guest's memory, or segments overlap.
    #[error("a segment of the kernel does not fit into the guest's memory")]
    OutsideMemory,
}

/// A part of the image to load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where to.
    pub address: GuestAddress,
    /// Bytes of the file, within its bounds.
    pub file: Range<usize>,
    /// Bytes in memory; what the file lacks is zero.
    pub memory_size: u64,
}

/// A kernel that can be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// 32-bit entry point.
    pub entry: GuestAddress,
    /// What to load, by rising address.
    pub segments: Vec<Segment>,
}

impl Kernel {
    /// Reads the headers of `image`; everything it says is checked against the image's length and against `memory`, bytes of guest RAM from 0.
    pub fn parse(image: &[u8], memory: u64) -> Result<Self, ImageError> {
        let _ = (image, memory);
        todo!()
    }

    /// The first address behind all segments.
    pub fn end(&self) -> GuestAddress {
        todo!()
    }
}
