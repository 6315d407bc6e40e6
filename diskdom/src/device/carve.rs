//! Cutting a request into what single commands of a device can carry.
//!
//! Segments come from frontends: any multiple of 512 bytes, anywhere in a page, in any number. A device takes so many bytes and
//! so many pieces in one command, and one that is told of memory by page lists wants every piece but the first to begin a page
//! and every piece but the last to end one. [`carve`] takes as much as fits each time; it never tears a block of the device.

use alloc::vec::Vec;

use super::{IoError, Segment};

/// Bytes of a page in a page list.
pub const PAGE: u32 = 4096;

/// What one command carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes in all: a multiple of `block`.
    pub bytes: u32,
    /// Pieces of memory.
    pub pieces: usize,
    /// Bytes in a piece.
    pub piece_bytes: u32,
    /// Pieces are pages of a list.
    pub page_list: bool,
    /// Bytes of the device's block: a command carries whole ones.
    pub block: u32,
    /// Sectors that one command discards.
    pub discard_sectors: u64,
}

/// Sectors that one command discards where the device sets no bound: few enough that it ends soon.
pub const DISCARD_SECTORS: u64 = 1 << 23;

/// How far a list of segments has been carved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    segment: usize,
    offset: u32,
}

impl Cursor {
    fn advance(&mut self, segments: &[Segment], mut bytes: u32) {
        while bytes > 0
            && let Some(segment) = segments.get(self.segment)
        {
            let step = bytes.min(segment.length - self.offset);
            self.offset += step;
            bytes -= step;
            if self.offset == segment.length {
                *self = Self {
                    segment: self.segment + 1,
                    offset: 0,
                };
            }
        }
    }
}

/// Fills `pieces` with the memory of the next command, moves the cursor behind it, and answers its length in bytes.
pub fn carve(
    segments: &[Segment],
    cursor: &mut Cursor,
    limits: &Limits,
    pieces: &mut Vec<Segment>,
) -> Result<u32, IoError> {
    pieces.clear();
    let mut total = 0;
    let mut at = *cursor;
    // Where the last piece ended: a page list goes on only from the end of a page to the beginning of one.
    let mut end = 0u64;
    while total < limits.bytes
        && pieces.len() < limits.pieces
        && let Some(segment) = segments.get(at.segment)
    {
        let address = segment.address.wrapping_add(at.offset.into());
        let mut length = (segment.length - at.offset)
            .min(limits.piece_bytes)
            .min(limits.bytes - total);
        if limits.page_list {
            let in_page = (address % u64::from(PAGE)) as u32;
            if !pieces.is_empty() && (in_page != 0 || !end.is_multiple_of(PAGE.into())) {
                break;
            }
            length = length.min(PAGE - in_page);
        }
        pieces.push(Segment { address, length });
        total += length;
        end = address.wrapping_add(length.into());
        at.advance(segments, length);
    }
    trim(pieces, total % limits.block);
    total -= total % limits.block;
    if total == 0 {
        return Err(IoError::Scattered { block: limits.block });
    }
    cursor.advance(segments, total);
    Ok(total)
}

/// Takes bytes off the end.
fn trim(pieces: &mut Vec<Segment>, mut excess: u32) {
    while excess > 0
        && let Some(last) = pieces.last_mut()
    {
        if last.length > excess {
            last.length -= excess;
            return;
        }
        excess -= last.length;
        pieces.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(segments: &[Segment], limits: &Limits) -> Result<Vec<Vec<Segment>>, IoError> {
        let total: u64 = segments.iter().map(|segment| u64::from(segment.length)).sum();
        let (mut cursor, mut done, mut commands) = (Cursor::default(), 0, Vec::new());
        while done < total {
            let mut pieces = Vec::new();
            done += u64::from(carve(segments, &mut cursor, limits, &mut pieces)?);
            commands.push(pieces);
        }
        Ok(commands)
    }

    const PAGES: Limits = Limits {
        bytes: 16384,
        pieces: 5,
        piece_bytes: PAGE,
        page_list: true,
        block: 512,
        discard_sectors: 64,
    };

    #[test]
    fn a_long_request_becomes_several_commands() {
        let commands = all(
            &[Segment {
                address: 0x10_0e00,
                length: 32768,
            }],
            &PAGES,
        )
        .unwrap();
        // 512 bytes to the end of the page, then pages, then what is left of the command.
        let lengths: Vec<Vec<u32>> = commands
            .iter()
            .map(|pieces| pieces.iter().map(|piece| piece.length).collect())
            .collect();
        assert_eq!(
            lengths,
            [
                vec![512, 4096, 4096, 4096, 3584],
                vec![512, 4096, 4096, 4096, 3584]
            ]
        );
    }

    #[test]
    fn a_torn_page_ends_a_command() {
        let segments = [(0x1000, 4096), (0x5200, 512), (0x9000, 4096)]
            .map(|(address, length)| Segment { address, length });
        assert_eq!(all(&segments, &PAGES).unwrap().len(), 3);
        // With blocks of 4096 bytes the half kilobyte cannot be a command.
        assert_eq!(
            all(&segments, &Limits { block: 4096, ..PAGES }),
            Err(IoError::Scattered { block: 4096 })
        );
        // A device that takes scattered memory needs one.
        assert_eq!(
            all(
                &segments,
                &Limits {
                    page_list: false,
                    ..PAGES
                }
            )
            .unwrap()
            .len(),
            1
        );
    }

    #[test]
    fn a_block_across_two_pages_is_one_command() {
        let segments = [(0x1200, 3584), (0x7000, 512)].map(|(address, length)| Segment { address, length });
        assert_eq!(
            all(&segments, &Limits { block: 4096, ..PAGES }).unwrap(),
            [segments.to_vec()]
        );
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_every_rule_is_kept(
            parts in prop::collection::vec((0u64..64, 0u64..8, 1u32..40), 1..40),
            bytes in 1u32..64, pieces in 1usize..10, page_list: bool, big: bool,
        ) {
            let segments: Vec<Segment> = parts
                .iter()
                .map(|&(page, sector, length)| Segment { address: page << 12 | sector << 9, length: length * 512 })
                .collect();
            let limits = Limits {
                bytes: bytes * 4096,
                pieces,
                piece_bytes: if page_list { PAGE } else { 8192 },
                page_list,
                block: if big { 4096 } else { 512 },
                discard_sectors: 64,
            };
            let mut cursor = Cursor::default();
            let mut seen = Vec::new();
            let total: u32 = segments.iter().map(|segment| segment.length).sum();
            let mut done = 0;
            while done < total {
                let mut pieces = Vec::new();
                match carve(&segments, &mut cursor, &limits, &mut pieces) {
                    Err(error) => {
                        prop_assert_eq!(error, IoError::Scattered { block: limits.block });
                        // Sectors can always be carved.
                        prop_assert!(big);
                        return Ok(());
                    }
                    Ok(length) => {
                        prop_assert!(length > 0 && length <= limits.bytes && length % limits.block == 0);
                        prop_assert!(pieces.len() <= limits.pieces);
                        prop_assert_eq!(pieces.iter().map(|piece| piece.length).sum::<u32>(), length);
                        for (number, piece) in pieces.iter().enumerate() {
                            prop_assert!(piece.length > 0 && piece.length <= limits.piece_bytes);
                            if page_list {
                                prop_assert!(number == 0 || piece.address % 4096 == 0);
                                let end = piece.address + u64::from(piece.length);
                                prop_assert!(number + 1 == pieces.len() || end % 4096 == 0);
                            }
                        }
                        seen.extend(pieces.iter().flat_map(|piece| {
                            (0..u64::from(piece.length) / 512).map(|sector| piece.address + sector * 512)
                        }));
                        done += length;
                    }
                }
            }
            let wanted: Vec<u64> = segments
                .iter()
                .flat_map(|part| (0..u64::from(part.length) / 512).map(|sector| part.address + sector * 512))
                .collect();
            prop_assert_eq!(seen, wanted);
        }
    }
}
