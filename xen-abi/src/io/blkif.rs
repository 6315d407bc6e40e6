//! The block device protocol, of `io/blkif.h`.
//!
//! A slot of the ring is as large as [`BlkifRequest`]; the other requests and the response lie at its start. Which request
//! it is follows from `operation`, the first byte of all of them.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

consts! {
    u8, "Operation of a request." {
        BLKIF_OP_READ = 0,
        BLKIF_OP_WRITE = 1,
        BLKIF_OP_WRITE_BARRIER = 2,
        BLKIF_OP_FLUSH_DISKCACHE = 3,
        BLKIF_OP_RESERVED_1 = 4,
        /// The slot holds a [`BlkifRequestDiscard`].
        BLKIF_OP_DISCARD = 5,
        /// The slot holds a [`BlkifRequestIndirect`].
        BLKIF_OP_INDIRECT = 6,
    }

    usize, "Most segments or pages of one request." {
        /// Segments in a [`BlkifRequest`].
        BLKIF_MAX_SEGMENTS_PER_REQUEST = 11,
        /// Pages of segments of a [`BlkifRequestIndirect`].
        BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST = 8,
    }

    u8, "Bit of [`BlkifRequestDiscard::flag`]: the data must be gone for good." {
        BLKIF_DISCARD_SECURE = 1 << 0,
    }

    i16, "[`BlkifResponse::status`]." {
        /// The backend does not know the operation.
        BLKIF_RSP_EOPNOTSUPP = -2,
        /// It failed.
        BLKIF_RSP_ERROR = -1,
        /// It succeeded.
        BLKIF_RSP_OKAY = 0,
    }

    u32, "Bit of the backend's `info` node." {
        VDISK_CDROM = 1,
        VDISK_REMOVABLE = 2,
        VDISK_READONLY = 4,
    }
}

/// Bytes in a slot of the ring.
pub const BLKIF_RING_SLOT_SIZE: usize = size_of::<BlkifRequest>();
/// Unit of [`BlkifRequest::sector_number`] and of a segment's sectors, whatever the device's own sector size is.
pub const BLKIF_SECTOR_SIZE: usize = 512;
/// Segments that one indirect page holds.
pub const BLKIF_SEGMENTS_PER_INDIRECT_PAGE: usize = crate::xen::PAGE_SIZE / size_of::<BlkifRequestSegment>();

/// A part of a granted page that takes part in a request.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct BlkifRequestSegment {
    /// The page.
    pub gref: u32,
    /// First 512-byte sector in the page.
    pub first_sect: u8,
    /// Last one, inclusive.
    pub last_sect: u8,
    /// Padding.
    pub _pad0: [u8; 2],
}

/// A read, write, barrier or flush.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct BlkifRequest {
    /// `BLKIF_OP_*`.
    pub operation: u8,
    /// How many of `seg` count.
    pub nr_segments: u8,
    /// The frontend's number of the device.
    pub handle: u16,
    /// Padding.
    pub _pad0: [u8; 4],
    /// The frontend's own; comes back with the response.
    pub id: u64,
    /// First sector on the device.
    pub sector_number: u64,
    /// Where the data is.
    pub seg: [BlkifRequestSegment; BLKIF_MAX_SEGMENTS_PER_REQUEST],
}

impl BlkifRequest {
    /// The slot as a [`BlkifRequestDiscard`].
    pub fn as_discard(&self) -> BlkifRequestDiscard {
        prefix(self)
    }

    /// The slot as a [`BlkifRequestIndirect`].
    pub fn as_indirect(&self) -> BlkifRequestIndirect {
        prefix(self)
    }
}

/// Reads a smaller structure from the start of a slot.
fn prefix<T: FromBytes + Default>(slot: &BlkifRequest) -> T {
    const { assert!(size_of::<T>() <= BLKIF_RING_SLOT_SIZE) };
    T::read_from_prefix(slot.as_bytes())
        .map(|(value, _)| value)
        .unwrap_or_default()
}

impl From<BlkifRequestDiscard> for BlkifRequest {
    fn from(request: BlkifRequestDiscard) -> Self {
        let mut slot = Self::default();
        slot.as_mut_bytes()[..size_of_val(&request)].copy_from_slice(request.as_bytes());
        slot
    }
}

impl From<BlkifRequestIndirect> for BlkifRequest {
    fn from(request: BlkifRequestIndirect) -> Self {
        let mut slot = Self::default();
        slot.as_mut_bytes()[..size_of_val(&request)].copy_from_slice(request.as_bytes());
        slot
    }
}

/// Tells that a range of sectors is no longer needed.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct BlkifRequestDiscard {
    /// [`BLKIF_OP_DISCARD`].
    pub operation: u8,
    /// [`BLKIF_DISCARD_SECURE`] or 0.
    pub flag: u8,
    /// The frontend's number of the device.
    pub handle: u16,
    /// Padding.
    pub _pad0: [u8; 4],
    /// The frontend's own; comes back with the response.
    pub id: u64,
    /// First sector on the device.
    pub sector_number: u64,
    /// Number of sectors.
    pub nr_sectors: u64,
}

/// A read or write whose segments are listed in granted pages.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct BlkifRequestIndirect {
    /// [`BLKIF_OP_INDIRECT`].
    pub operation: u8,
    /// [`BLKIF_OP_READ`] or [`BLKIF_OP_WRITE`].
    pub indirect_op: u8,
    /// Number of segments.
    pub nr_segments: u16,
    /// Padding.
    pub _pad0: [u8; 4],
    /// The frontend's own; comes back with the response.
    pub id: u64,
    /// First sector on the device.
    pub sector_number: u64,
    /// The frontend's number of the device.
    pub handle: u16,
    /// Padding.
    pub _pad1: [u8; 2],
    /// Pages full of [`BlkifRequestSegment`].
    pub indirect_grefs: [u32; BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST],
    /// Padding.
    pub _pad2: [u8; 4],
}

/// The answer to any request.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct BlkifResponse {
    /// The request's.
    pub id: u64,
    /// The request's.
    pub operation: u8,
    /// Padding.
    pub _pad0: u8,
    /// `BLKIF_RSP_*`.
    pub status: i16,
    /// Padding.
    pub _pad1: [u8; 4],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variant_survives_the_slot() {
        let discard = BlkifRequestDiscard {
            operation: BLKIF_OP_DISCARD,
            id: u64::MAX - 1,
            sector_number: 8,
            nr_sectors: 1 << 40,
            ..Default::default()
        };
        let slot = BlkifRequest::from(discard);
        assert_eq!(slot.operation, BLKIF_OP_DISCARD);
        assert_eq!(slot.as_discard(), discard);

        let indirect = BlkifRequestIndirect {
            operation: BLKIF_OP_INDIRECT,
            indirect_op: BLKIF_OP_WRITE,
            nr_segments: 256,
            indirect_grefs: [1, 2, 3, 4, 5, 6, 7, 8],
            ..Default::default()
        };
        assert_eq!(BlkifRequest::from(indirect).as_indirect(), indirect);
    }

    #[test]
    fn a_page_holds_the_usual_numbers() {
        assert_eq!(crate::io::ring::ring_size(4096, BLKIF_RING_SLOT_SIZE), 32);
        assert_eq!(BLKIF_SEGMENTS_PER_INDIRECT_PAGE, 512);
    }
}
