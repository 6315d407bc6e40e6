//! What a request asks for: the copy out of the ring, checked by itself and against the volume, before anything is mapped.

use alloc::vec::Vec;

use thiserror::Error;
use xen_abi::io::blkif::{
    BLKIF_DISCARD_SECURE, BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST, BLKIF_MAX_SEGMENTS_PER_REQUEST,
    BLKIF_OP_DISCARD, BLKIF_OP_FLUSH_DISKCACHE, BLKIF_OP_INDIRECT, BLKIF_OP_READ, BLKIF_OP_WRITE,
    BLKIF_OP_WRITE_BARRIER, BLKIF_RSP_EOPNOTSUPP, BLKIF_RSP_ERROR, BLKIF_SEGMENTS_PER_INDIRECT_PAGE,
    BlkifRequest, BlkifRequestSegment,
};

use crate::device::{IoError, Operation, Properties};

/// Segments of an indirect request: 1 MiB of whole pages.
pub const MAX_INDIRECT_SEGMENTS: u16 = 256;
/// Sectors in a page.
const PAGE_SECTORS: u8 = 8;

/// Why a request is answered with an error.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Refusal {
    /// An operation that we do not know.
    #[error("operation {0} is not known")]
    Operation(u8),
    /// An indirect request that neither reads nor writes.
    #[error("operation {0} cannot be indirect")]
    Indirect(u8),
    /// Too many segments, or none.
    #[error("{0} segments are none or too many")]
    SegmentCount(u16),
    /// A segment that is no part of a page.
    #[error("sectors {first} to {last} are no part of a page")]
    Segment {
        /// Its first sector.
        first: u8,
        /// Its last sector.
        last: u8,
    },
    /// Data is to be destroyed for good.
    #[error("secure discard is not offered")]
    Secure,
    /// A page cannot be used.
    #[error(transparent)]
    Grant(#[from] unikernel_rt::grant::GrantError),
    /// A page has no bus address: the hypervisor did not make it known to devices.
    #[error("a granted page cannot be reached by the disk")]
    Unreachable,
    /// The volume does not do it, or the disk failed.
    #[error(transparent)]
    Io(#[from] IoError),
}

impl Refusal {
    /// The status of the response.
    pub fn status(&self) -> i16 {
        match self {
            Self::Operation(_) | Self::Secure | Self::Io(IoError::Unsupported) => BLKIF_RSP_EOPNOTSUPP,
            _ => BLKIF_RSP_ERROR,
        }
    }
}

/// What to do with data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Read.
    Read,
    /// Write.
    Write,
    /// Write, after everything before and before everything after, and durably.
    Barrier,
    /// Make durable what was completed, then write if there is data.
    Flush,
}

impl Kind {
    /// The operations on the disk, one after the other.
    pub fn steps(self, data: bool, cache: bool) -> &'static [Operation] {
        use Operation::{Flush, Read, Write};
        match (self, data, cache) {
            (Self::Read, _, _) => &[Read],
            (Self::Write, _, _) => &[Write],
            (Self::Barrier, true, true) => &[Flush, Write, Flush],
            (Self::Flush, true, true) => &[Flush, Write],
            (Self::Barrier | Self::Flush, true, false) => &[Write],
            (Self::Barrier | Self::Flush, false, true) => &[Flush],
            // What was completed is durable already.
            (Self::Barrier | Self::Flush, false, false) => &[],
        }
    }
}

/// Where the segments of a request are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segments {
    /// In the request.
    Direct {
        /// How many.
        count: u8,
        /// They, and some more.
        list: [BlkifRequestSegment; BLKIF_MAX_SEGMENTS_PER_REQUEST],
    },
    /// In granted pages.
    Indirect {
        /// How many.
        count: u16,
        /// The pages, and some more.
        pages: [u32; BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST],
    },
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Data to be moved, or a flush.
    Data {
        /// What to do.
        kind: Kind,
        /// The first sector.
        sector: u64,
        /// The data.
        segments: Segments,
    },
    /// Sectors to be discarded.
    Discard {
        /// The first sector.
        sector: u64,
        /// How many.
        sectors: u64,
    },
}

/// A request, understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// The frontend's own; goes back with the response.
    pub id: u64,
    /// The operation that the response names: of an indirect request, the one inside.
    pub operation: u8,
    /// What is asked for.
    pub work: Result<Work, Refusal>,
}

/// Understands the copy of a slot.
pub fn decode(slot: &BlkifRequest) -> Decoded {
    match slot.operation {
        BLKIF_OP_DISCARD => {
            let request = slot.as_discard();
            let work = if request.flag & BLKIF_DISCARD_SECURE != 0 {
                Err(Refusal::Secure)
            } else {
                Ok(Work::Discard {
                    sector: request.sector_number,
                    sectors: request.nr_sectors,
                })
            };
            Decoded {
                id: request.id,
                operation: BLKIF_OP_DISCARD,
                work,
            }
        }
        BLKIF_OP_INDIRECT => {
            let request = slot.as_indirect();
            let count = request.nr_segments;
            let work = match request.indirect_op {
                BLKIF_OP_READ => Ok(Kind::Read),
                BLKIF_OP_WRITE => Ok(Kind::Write),
                other => Err(Refusal::Indirect(other)),
            };
            let work = work.and_then(|kind| {
                if count == 0 || count > MAX_INDIRECT_SEGMENTS {
                    return Err(Refusal::SegmentCount(count));
                }
                let segments = Segments::Indirect {
                    count,
                    pages: request.indirect_grefs,
                };
                Ok(Work::Data {
                    kind,
                    sector: request.sector_number,
                    segments,
                })
            });
            Decoded {
                id: request.id,
                operation: request.indirect_op,
                work,
            }
        }
        operation => {
            let kind = match operation {
                BLKIF_OP_READ => Ok(Kind::Read),
                BLKIF_OP_WRITE => Ok(Kind::Write),
                BLKIF_OP_WRITE_BARRIER => Ok(Kind::Barrier),
                BLKIF_OP_FLUSH_DISKCACHE => Ok(Kind::Flush),
                other => Err(Refusal::Operation(other)),
            };
            let work = kind.and_then(|kind| {
                let count = slot.nr_segments;
                let needed = matches!(kind, Kind::Read | Kind::Write);
                if usize::from(count) > BLKIF_MAX_SEGMENTS_PER_REQUEST || (needed && count == 0) {
                    return Err(Refusal::SegmentCount(count.into()));
                }
                let segments = Segments::Direct {
                    count,
                    list: slot.seg,
                };
                Ok(Work::Data {
                    kind,
                    sector: slot.sector_number,
                    segments,
                })
            });
            Decoded {
                id: slot.id,
                operation,
                work,
            }
        }
    }
}

/// The pages that hold `count` indirect segments.
pub fn indirect_pages(count: u16, pages: &[u32; BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST]) -> &[u32] {
    let needed = usize::from(count).div_ceil(BLKIF_SEGMENTS_PER_INDIRECT_PAGE);
    &pages[..needed.min(pages.len())]
}

/// Checks segments by themselves; answers how many sectors they are.
pub fn count_sectors(segments: &[BlkifRequestSegment]) -> Result<u64, Refusal> {
    let mut sectors = 0;
    for segment in segments {
        let (first, last) = (segment.first_sect, segment.last_sect);
        if first > last || last >= PAGE_SECTORS {
            return Err(Refusal::Segment { first, last });
        }
        sectors += u64::from(last - first) + 1;
    }
    Ok(sectors)
}

/// Checks a range against the volume, for every operation that will be tried.
pub fn check(volume: &Properties, steps: &[Operation], sector: u64, sectors: u64) -> Result<(), Refusal> {
    Ok(steps
        .iter()
        .try_for_each(|&step| volume.check_range(step, sector, sectors))?)
}

/// Reads segments out of the copy of an indirect page, up to `left` of them.
pub fn parse_page(bytes: &[u8], left: usize, segments: &mut Vec<BlkifRequestSegment>) {
    use zerocopy::FromBytes;
    let entries = bytes.chunks_exact(size_of::<BlkifRequestSegment>()).take(left);
    segments.extend(entries.filter_map(|entry| BlkifRequestSegment::read_from_bytes(entry).ok()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use xen_abi::io::blkif::{BlkifRequestDiscard, BlkifRequestIndirect};
    use zerocopy::FromBytes;

    #[test]
    fn requests_are_refused_by_what_is_wrong() {
        let refused = |operation, nr_segments| {
            decode(&BlkifRequest {
                operation,
                nr_segments,
                id: 5,
                ..Default::default()
            })
            .work
            .unwrap_err()
        };
        assert_eq!(refused(BLKIF_OP_READ, 0), Refusal::SegmentCount(0));
        assert_eq!(refused(BLKIF_OP_WRITE, 12), Refusal::SegmentCount(12));
        assert_eq!(refused(4, 1), Refusal::Operation(4));
        assert_eq!(refused(4, 1).status(), BLKIF_RSP_EOPNOTSUPP);
        let indirect = |indirect_op, nr_segments| {
            let request = BlkifRequestIndirect {
                operation: BLKIF_OP_INDIRECT,
                indirect_op,
                nr_segments,
                id: 9,
                ..Default::default()
            };
            decode(&request.into())
        };
        assert_eq!(
            indirect(BLKIF_OP_WRITE, 257).work,
            Err(Refusal::SegmentCount(257))
        );
        assert_eq!(indirect(BLKIF_OP_WRITE, 0).work, Err(Refusal::SegmentCount(0)));
        assert_eq!(
            indirect(BLKIF_OP_FLUSH_DISKCACHE, 1).work,
            Err(Refusal::Indirect(3))
        );
        // The response must name the operation inside, or Linux takes the backend for broken.
        assert_eq!(
            (
                indirect(BLKIF_OP_WRITE, 1).operation,
                indirect(BLKIF_OP_WRITE, 1).id
            ),
            (BLKIF_OP_WRITE, 9)
        );
        let discard = BlkifRequestDiscard {
            operation: BLKIF_OP_DISCARD,
            flag: BLKIF_DISCARD_SECURE,
            id: 3,
            ..Default::default()
        };
        assert_eq!(decode(&discard.into()).work, Err(Refusal::Secure));
    }

    #[test]
    fn segments_are_parts_of_pages() {
        let segment = |first_sect, last_sect| BlkifRequestSegment {
            first_sect,
            last_sect,
            ..Default::default()
        };
        assert_eq!(count_sectors(&[segment(0, 7), segment(3, 3)]), Ok(9));
        for (first, last) in [(1, 0), (0, 8), (8, 8), (255, 255)] {
            assert_eq!(
                count_sectors(&[segment(first, last)]),
                Err(Refusal::Segment { first, last })
            );
        }
    }

    proptest! {
        #[test]
        fn any_slot_is_understood_or_refused(bytes in prop::collection::vec(any::<u8>(), size_of::<BlkifRequest>())) {
            let slot = BlkifRequest::read_from_bytes(&bytes).unwrap();
            if let Ok(Work::Data { segments, kind, .. }) = decode(&slot).work {
                match segments {
                    Segments::Direct { count, list } => prop_assert!(usize::from(count) <= list.len()),
                    Segments::Indirect { count, pages } => {
                        prop_assert!((1..=256).contains(&count) && matches!(kind, Kind::Read | Kind::Write));
                        prop_assert_eq!(indirect_pages(count, &pages).len(), 1);
                    }
                }
            }
        }
    }
}
