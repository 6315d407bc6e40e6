//! Work that a frame still owes, done here when its receiver cannot: completing checksums, and cutting large TCP frames.

use alloc::vec::Vec;

use crate::{
    frame::{Frame, Offload, Piece},
    headers::{self, Headers},
    pool::Pool,
};
use unikernel_rt::memory::PAGE_SIZE;

/// TCP flags that only the last segment carries: FIN and PSH.
const LAST_FLAGS: u8 = 0x09;
/// The TCP flag that only the first segment carries: CWR.
const FIRST_FLAGS: u8 = 0x80;

/// Completes a blank transport checksum. A frame whose headers are not understood keeps what it has; its receiver drops it.
pub fn complete_checksum(frame: &mut Frame, pool: &Pool) {
    if !core::mem::take(&mut frame.offload.checksum_blank) {
        return;
    }
    let mut start = [0; headers::ENOUGH];
    let length = frame.copy_out(pool, &mut start);
    let Some(found) = Headers::find(&start[..length]) else {
        return;
    };
    let mut sum = headers::pseudo_header(&start, &found, (frame.length() - found.transport) as u32);
    // The field itself counts as zero.
    sum = headers::add(sum, &(!field(&start, found.checksum)).to_be_bytes(), false);
    sum = add_frame(sum, frame, pool, found.transport);
    let checksum = match headers::finish(sum) {
        // UDP says "no checksum" by zero, and zero by all ones.
        0 if !found.tcp => 0xffff,
        checksum => checksum,
    };
    frame.patch(pool, found.checksum, &checksum.to_be_bytes());
    frame.offload.checksum_validated = true;
}

fn field(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Adds the frame's bytes from `skip` on.
fn add_frame(mut sum: u32, frame: &Frame, pool: &Pool, skip: usize) -> u32 {
    let (mut at, mut odd) = (0, false);
    let mut buffer = [0; 512];
    for piece in &frame.pieces {
        let length = usize::from(piece.length);
        let mut done = skip.saturating_sub(at).min(length);
        while done < length {
            let chunk = (length - done).min(buffer.len());
            pool.read(
                &piece.page,
                usize::from(piece.offset) + done,
                &mut buffer[..chunk],
            );
            sum = headers::add(sum, &buffer[..chunk], odd);
            odd ^= chunk % 2 == 1;
            done += chunk;
        }
        at += length;
    }
    sum
}

/// The shortest segments that a card is asked to make: what any TCP sends.
const SHORTEST_SEGMENT: usize = 64;

/// Whether a card can be given a frame as it is: one that is to be cut must be understood, have something to cut, and become frames
/// that the network takes.
pub fn is_sound(frame: &Frame, pool: &Pool, longest: usize) -> bool {
    let Some(segmentation) = frame.offload.segment else {
        return true;
    };
    let mut start = [0; headers::ENOUGH];
    let length = frame.copy_out(pool, &mut start);
    let size = usize::from(segmentation.size);
    Headers::find(&start[..length]).is_some_and(|found| {
        found.tcp
            && found.ipv4 != segmentation.ipv6
            && frame.length() > found.payload
            && size >= SHORTEST_SEGMENT
            && found.payload + size <= longest
    })
}

/// Cuts a large TCP frame into segments with complete checksums. Nothing comes out if its headers are not understood; when the pool runs dry the rest is
/// lost, as on a full wire.
pub fn segment(frame: Frame, pool: &mut Pool) -> Vec<Frame> {
    let mut segments = Vec::new();
    let Some(segmentation) = frame.offload.segment else {
        segments.push(frame);
        return segments;
    };
    let mut start = [0; headers::ENOUGH];
    let length = frame.copy_out(pool, &mut start);
    let size = usize::from(segmentation.size);
    if let Some(found) = Headers::find(&start[..length]).filter(|found| found.tcp && size > 0) {
        let payload = frame.length() - found.payload;
        let mut done = 0;
        while done < payload.max(1) {
            let chunk = (payload - done).min(size);
            let Some(mut segment) = copy_part(&frame, &found, done, chunk, pool) else {
                break;
            };
            write_headers(
                &mut segment,
                &start,
                &found,
                done,
                chunk,
                done + chunk >= payload,
                size,
                pool,
            );
            complete_checksum(&mut segment, pool);
            segments.push(segment);
            done += chunk.max(1);
        }
    }
    frame.release(pool);
    segments
}

/// A frame of the headers' length and a part of the payload; the headers are left to the caller.
fn copy_part(frame: &Frame, found: &Headers, from: usize, length: usize, pool: &mut Pool) -> Option<Frame> {
    let mut part = Frame {
        offload: Offload {
            checksum_blank: true,
            ..Default::default()
        },
        ..Default::default()
    };
    let (mut source, total) = (found.payload + from, found.payload + length);
    let mut buffer = [0; 512];
    let mut at = 0;
    while at < total {
        let room = (total - at).min(PAGE_SIZE);
        let Some(page) = pool.allocate() else {
            part.release(pool);
            return None;
        };
        let mut filled = if at == 0 { found.payload } else { 0 };
        while filled < room {
            let chunk = (room - filled).min(buffer.len());
            read_at(frame, pool, source, &mut buffer[..chunk]);
            pool.write(&page, filled, &buffer[..chunk]);
            filled += chunk;
            source += chunk;
        }
        if let Err(piece) = part.pieces.push(Piece {
            page,
            offset: 0,
            length: room as u16,
        }) {
            pool.free(piece.page);
            part.release(pool);
            return None;
        }
        at += room;
    }
    Some(part)
}

/// Copies bytes from `from` on, across pieces.
fn read_at(frame: &Frame, pool: &Pool, from: usize, into: &mut [u8]) {
    let (mut at, mut done) = (0, 0);
    for piece in &frame.pieces {
        let length = usize::from(piece.length);
        let skip = (from + done).saturating_sub(at).min(length);
        let chunk = (length - skip).min(into.len() - done);
        pool.read(
            &piece.page,
            usize::from(piece.offset) + skip,
            &mut into[done..done + chunk],
        );
        done += chunk;
        at += length;
    }
}

#[allow(clippy::too_many_arguments)] // One call; the arguments are what a header is made of.
fn write_headers(
    segment: &mut Frame,
    original: &[u8],
    found: &Headers,
    from: usize,
    length: usize,
    last: bool,
    size: usize,
    pool: &Pool,
) {
    let mut bytes = [0; headers::ENOUGH];
    let bytes = &mut bytes[..found.payload];
    bytes.copy_from_slice(&original[..found.payload]);
    let transport_length = found.payload - found.transport + length;
    if found.ipv4 {
        let total = (found.transport - found.network + transport_length) as u16;
        let identification = field(bytes, found.network + 4).wrapping_add((from / size) as u16);
        bytes[found.network + 2..][..2].copy_from_slice(&total.to_be_bytes());
        bytes[found.network + 4..][..2].copy_from_slice(&identification.to_be_bytes());
        bytes[found.network + 10..][..2].copy_from_slice(&[0, 0]);
        let sum = headers::finish(headers::add(0, &bytes[found.network..found.transport], false));
        bytes[found.network + 10..][..2].copy_from_slice(&sum.to_be_bytes());
    } else {
        bytes[found.network + 4..][..2].copy_from_slice(&(transport_length as u16).to_be_bytes());
    }
    let sequence = &mut bytes[found.transport + 4..][..4];
    let number = u32::from_be_bytes([sequence[0], sequence[1], sequence[2], sequence[3]]);
    sequence.copy_from_slice(&number.wrapping_add(from as u32).to_be_bytes());
    let flags = &mut bytes[found.transport + 13];
    *flags &= if last { 0xff } else { !LAST_FLAGS };
    *flags &= if from == 0 { 0xff } else { !FIRST_FLAGS };
    segment.patch(pool, 0, bytes);
}

#[cfg(test)]
mod tests {
    use unikernel_rt::memory::SharedMemory;

    use super::*;
    use crate::{frame::Segmentation, headers::tests::tcp_frame};

    fn pool() -> Pool {
        Pool::new(SharedMemory::allocate(256).unwrap(), 0)
    }

    /// Lays bytes out over pieces of `piece` bytes.
    fn lay_out(bytes: &[u8], piece: usize, pool: &mut Pool) -> Frame {
        let mut frame = Frame::default();
        for chunk in bytes.chunks(piece) {
            let page = pool.allocate().unwrap();
            pool.write(&page, 7, chunk);
            frame
                .pieces
                .push(Piece {
                    page,
                    offset: 7,
                    length: chunk.len() as u16,
                })
                .unwrap();
        }
        frame
    }

    fn bytes(frame: &Frame, pool: &Pool) -> Vec<u8> {
        let mut bytes = vec![0; frame.length()];
        frame.copy_out(pool, &mut bytes);
        bytes
    }

    fn is_right(bytes: &[u8]) -> bool {
        let found = Headers::find(bytes).unwrap();
        let sum = headers::pseudo_header(bytes, &found, (bytes.len() - found.transport) as u32);
        headers::finish(headers::add(sum, &bytes[found.transport..], false)) == 0
            && headers::finish(headers::add(0, &bytes[found.network..found.transport], false)) == 0
    }

    #[test]
    fn completes_what_is_blank() {
        let mut pool = pool();
        let right = tcp_frame(b"some payload of odd length!");
        let found = Headers::find(&right).unwrap();
        let mut blank = right.clone();
        let pseudo = headers::pseudo_header(&right, &found, (right.len() - found.transport) as u32) as u16;
        blank[found.checksum..][..2].copy_from_slice(&pseudo.to_be_bytes());
        let mut frame = lay_out(&blank, 61, &mut pool);
        frame.offload.checksum_blank = true;
        complete_checksum(&mut frame, &pool);
        assert_eq!(bytes(&frame, &pool), right);
        frame.release(&mut pool);
    }

    #[test]
    fn segments_are_whole_frames_of_the_same_stream() {
        let mut pool = pool();
        let payload: Vec<u8> = (0..20_000u32).map(|index| (index % 251) as u8).collect();
        let mut large = tcp_frame(&payload);
        large[14] = 0x45;
        large[14 + 20 + 13] = 0x19;
        large[24..26].copy_from_slice(&[0, 0]);
        let mut frame = lay_out(&large, 3000, &mut pool);
        let before = pool.available() + frame.pieces.len();
        frame.offload = Offload {
            checksum_blank: true,
            segment: Some(Segmentation {
                size: 1448,
                ipv6: false,
            }),
            ..Default::default()
        };
        let segments = segment(frame, &mut pool);
        assert_eq!(segments.len(), 20_000usize.div_ceil(1448));
        let mut stream = Vec::new();
        for (index, segment) in segments.into_iter().enumerate() {
            let bytes = bytes(&segment, &pool);
            assert!(is_right(&bytes), "segment {index}");
            assert_eq!(bytes[38..42], (1 + stream.len() as u32).to_be_bytes());
            assert_eq!(
                bytes[47] & LAST_FLAGS,
                if stream.len() + 1448 >= 20_000 { 0x09 } else { 0 }
            );
            stream.extend_from_slice(&bytes[54..]);
            segment.release(&mut pool);
        }
        assert_eq!(stream, payload);
        assert_eq!(pool.available(), before);
    }

    #[test]
    fn an_empty_pool_loses_the_rest_and_no_page() {
        let mut pool = Pool::new(SharedMemory::allocate(10).unwrap(), 0);
        let mut frame = lay_out(&tcp_frame(&[1; 16_000]), 4000, &mut pool);
        frame.offload.segment = Some(Segmentation {
            size: 1000,
            ipv6: false,
        });
        let segments = segment(frame, &mut pool);
        assert_eq!(segments.len(), 5);
        segments
            .into_iter()
            .for_each(|segment| segment.release(&mut pool));
        assert_eq!(pool.available(), 10);
    }
}
