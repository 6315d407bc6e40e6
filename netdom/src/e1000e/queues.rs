//! The two descriptor rings. Each keeps the pages that the card has in a table of its own, so nothing that the card writes decides which page is
//! whose.

use alloc::vec::Vec;

use unikernel_rt::memory::SharedMemory;

use super::{
    RING,
    descriptor::{self, Places, Receive, Transmit},
};
use crate::{
    frame::{Frame, MOST_PIECES, Offload, Piece},
    headers::{self, Headers},
    pool::{Page, Pool},
};

/// Bytes that the card may write for one frame (RCTL.BSIZE).
const BUFFER: u16 = 2048;

/// Frames to the card.
pub(super) struct TransmitQueue {
    ring: SharedMemory,
    /// The frame whose last descriptor is at this place.
    frames: Vec<Option<Frame>>,
    /// Where the next descriptor goes, and the oldest one that the card has; equal when it has none.
    next: usize,
    oldest: usize,
    kicked: usize,
}

impl TransmitQueue {
    pub(super) fn new(ring: SharedMemory) -> Self {
        Self {
            ring,
            frames: (0..RING).map(|_| None).collect(),
            next: 0,
            oldest: 0,
            kicked: 0,
        }
    }

    /// Descriptors that the card has, or has had.
    pub(super) fn held(&self) -> usize {
        (self.next + RING - self.oldest) % RING
    }

    fn free(&self) -> usize {
        // One stays empty, or a full ring would look empty.
        RING - 1 - self.held()
    }

    pub(super) fn has_room(&self, frame: &Frame) -> bool {
        self.free() > frame.pieces.len()
    }

    pub(super) fn push(&mut self, frame: Frame, pool: &Pool) -> Result<(), Frame> {
        if !self.has_room(&frame) || frame.pieces.is_empty() {
            return Err(frame);
        }
        let places = if frame.offload.checksum_blank || frame.offload.segment.is_some() {
            prepare(&frame, pool)
        } else {
            None
        };
        if let Some(places) = &places {
            let segment = frame.offload.segment.map(|segment| segment.size);
            self.put(Transmit::context(places, segment, frame.length()));
        }
        let last = frame.pieces.len() - 1;
        let mut at = self.next;
        for (index, piece) in frame.pieces.iter().enumerate() {
            let address = pool.bus(&piece.page) + u64::from(piece.offset);
            at = self.put(Transmit::data(
                address,
                piece.length,
                index == last,
                &frame,
                places.as_ref(),
            ));
        }
        self.frames[at] = Some(frame);
        Ok(())
    }

    fn put(&mut self, descriptor: Transmit) -> usize {
        let at = self.next;
        let written = self.ring.write(at * descriptor::SIZE, &descriptor);
        debug_assert!(written.is_ok());
        self.next = (at + 1) % RING;
        at
    }

    /// The new tail, if frames were queued since the last call.
    pub(super) fn take_tail(&mut self) -> Option<u32> {
        (core::mem::replace(&mut self.kicked, self.next) != self.next).then_some(self.next as u32)
    }

    pub(super) fn reclaim(&mut self, pool: &mut Pool) {
        let mut at = self.oldest;
        for _ in 0..self.held() {
            if self.frames[at].is_some() {
                let done = self
                    .ring
                    .read::<Transmit>(at * descriptor::SIZE)
                    .is_ok_and(|descriptor| descriptor.second & descriptor::TRANSMITTED != 0);
                if !done {
                    return;
                }
                if let Some(frame) = self.frames[at].take() {
                    frame.release(pool);
                }
                self.oldest = (at + 1) % RING;
            }
            at = (at + 1) % RING;
        }
    }
}

/// Finds the places for a context descriptor and prepares the headers as the card wants them: to cut a frame it starts from a pseudo-header sum without
/// the length, and from length and checksum fields of zero in an IPv4 header (datasheet section 7.2.6).
fn prepare(frame: &Frame, pool: &Pool) -> Option<Places> {
    let mut start = [0; headers::ENOUGH];
    let length = frame.copy_out(pool, &mut start);
    let found = Headers::find(&start[..length])?;
    if frame.offload.segment.is_some() {
        let sum = headers::pseudo_header(&start, &found, 0);
        frame.patch(
            pool,
            found.checksum,
            &(headers::add(sum, &[], false) as u16).to_be_bytes(),
        );
        if found.ipv4 {
            frame.patch(pool, found.network + 2, &[0, 0]);
            frame.patch(pool, found.network + 10, &[0, 0]);
        } else {
            frame.patch(pool, found.network + 4, &[0, 0]);
        }
    }
    Some(Places {
        network: u8::try_from(found.network).ok()?,
        transport: u8::try_from(found.transport).ok()?,
        payload: u8::try_from(found.payload).ok()?,
        checksum: u8::try_from(found.checksum).ok()?,
        ipv4: found.ipv4,
        tcp: found.tcp,
    })
}

/// Frames from the card.
pub(super) struct ReceiveQueue {
    ring: SharedMemory,
    /// The page that the descriptor at this place names.
    pages: Vec<Option<Page>>,
    /// The next descriptor that the card completes, and the next that we give it.
    oldest: usize,
    next: usize,
    /// A frame that is longer than one buffer is dropped piece by piece.
    dropping: bool,
}

impl ReceiveQueue {
    pub(super) fn new(ring: SharedMemory) -> Self {
        Self {
            ring,
            pages: (0..RING).map(|_| None).collect(),
            oldest: 0,
            next: 0,
            dropping: false,
        }
    }

    /// Gives the card pages; the new tail, if there is one.
    pub(super) fn refill(&mut self, pool: &mut Pool) -> Option<u32> {
        let before = self.next;
        // Half of the pool stays for frames to the card.
        while (self.next + 1) % RING != self.oldest && pool.available() > RING {
            let Some(page) = pool.allocate() else { break };
            let descriptor = Receive {
                address: pool.bus(&page),
                ..Default::default()
            };
            let written = self.ring.write(self.next * descriptor::SIZE, &descriptor);
            debug_assert!(written.is_ok());
            self.pages[self.next] = Some(page);
            self.next = (self.next + 1) % RING;
        }
        (self.next != before).then_some(self.next as u32)
    }

    pub(super) fn pop(&mut self, pool: &mut Pool) -> Option<Frame> {
        while self.oldest != self.next {
            let descriptor = self.ring.read::<Receive>(self.oldest * descriptor::SIZE).ok()?;
            if descriptor.status & descriptor::DONE == 0 {
                return None;
            }
            let page = self.pages[self.oldest].take()?;
            self.oldest = (self.oldest + 1) % RING;
            let ends = descriptor.status & descriptor::RECEIVED_END != 0;
            let dropping = core::mem::replace(&mut self.dropping, !ends);
            let whole = ends && !dropping;
            let sound = descriptor.errors & descriptor::ERROR_FRAME == 0;
            if !whole || !sound || descriptor.length > BUFFER || descriptor.length < 14 {
                pool.free(page);
                continue;
            }
            let checked = descriptor.status & descriptor::RECEIVED_UNCHECKED == 0
                && descriptor.status & descriptor::RECEIVED_TRANSPORT_CHECKED != 0;
            let right = descriptor.errors & descriptor::ERROR_TRANSPORT == 0;
            let offload = Offload {
                checksum_validated: checked && right,
                ..Default::default()
            };
            let mut pieces = heapless::Vec::<Piece, MOST_PIECES>::new();
            if let Err(piece) = pieces.push(Piece {
                page,
                offset: 0,
                length: descriptor.length,
            }) {
                pool.free(piece.page);
                continue;
            }
            return Some(Frame { pieces, offload });
        }
        None
    }
}
