//! Frames on their way through netdom: where their bytes lie, and what work on them is still owed.

use heapless::Vec;

use crate::pool::{Page, Pool};

/// Pages that a frame can span: 64 KiB of segmentable payload and its headers, at any alignment.
pub const MOST_PIECES: usize = 18;

/// A run of bytes in one page of the pool.
#[derive(Debug, PartialEq, Eq)]
pub struct Piece {
    /// The page, owned by the frame.
    pub page: Page,
    /// Where the bytes start in it.
    pub offset: u16,
    /// How many there are.
    pub length: u16,
}

/// What is still owed to a frame, in the terms of netif.h.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// The transport checksum holds only the sum of the pseudo-header; whoever puts the frame on a wire completes it.
    pub checksum_blank: bool,
    /// The transport checksum is known to be right (or is blank between two domains of one machine).
    pub checksum_validated: bool,
    /// The frame is to be cut into segments of this payload size.
    pub segment: Option<Segmentation>,
}

/// A large TCP frame that stands for several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segmentation {
    /// Payload bytes of each segment.
    pub size: u16,
    /// Over IPv6 rather than IPv4.
    pub ipv6: bool,
}

/// An Ethernet frame without its check sequence. It owns pages of a [`Pool`] and must be given back by [`Frame::release`].
#[derive(Debug, Default)]
#[must_use]
pub struct Frame {
    /// Its bytes, in order. The first piece holds at least the Ethernet header.
    pub pieces: Vec<Piece, MOST_PIECES>,
    /// What is still owed.
    pub offload: Offload,
}

impl Frame {
    /// Length in bytes.
    pub fn length(&self) -> usize {
        self.pieces.iter().map(|piece| usize::from(piece.length)).sum()
    }

    /// Copies up to `into.len()` bytes from the frame's start, across pieces; answers how many.
    pub fn copy_out(&self, pool: &Pool, into: &mut [u8]) -> usize {
        let mut done = 0;
        for piece in &self.pieces {
            let length = usize::from(piece.length).min(into.len() - done);
            pool.read(&piece.page, piece.offset.into(), &mut into[done..done + length]);
            done += length;
        }
        done
    }

    /// Overwrites bytes at `offset` of the first piece. Bytes beyond that piece are left alone.
    pub fn patch(&self, pool: &Pool, offset: usize, bytes: &[u8]) {
        if let Some(piece) = self
            .pieces
            .first()
            .filter(|piece| offset + bytes.len() <= usize::from(piece.length))
        {
            pool.write(&piece.page, usize::from(piece.offset) + offset, bytes);
        }
    }

    /// Gives its pages back.
    pub fn release(self, pool: &mut Pool) {
        self.pieces.into_iter().for_each(|piece| pool.free(piece.page));
    }
}
