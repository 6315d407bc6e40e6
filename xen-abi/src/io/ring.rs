//! Arithmetic of shared rings, of `io/ring.h`, as pure functions on indices; whoever owns the memory does the accesses and
//! the barriers.
//!
//! Indices run freely and wrap at 2^32; the low bits select the slot, so the number of slots is a power of two. Requests
//! flow from the frontend, and a response takes the slot of an earlier request. The functions that take an index of the
//! other end give a bounded answer whatever it says, and the `*_overflow` ones tell whether it lies.
//!
//! [`byte_ring`] has the same for the rings of plain bytes that xenstore and the console use.

use core::mem::offset_of;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The head of a shared ring; the slots follow.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct SringHeader {
    /// Requests produced so far, by the frontend.
    pub req_prod: u32,
    /// The backend wants a notification when `req_prod` passes it.
    pub req_event: u32,
    /// Responses produced so far, by the backend.
    pub rsp_prod: u32,
    /// The frontend wants a notification when `rsp_prod` passes it.
    pub rsp_event: u32,
    /// Private to a protocol.
    pub pvt: [u8; 4],
    /// Padding.
    pub _pad0: [u8; 44],
}

zeroed_default!(SringHeader);

impl SringHeader {
    /// Byte offset of `req_prod` in the ring.
    pub const REQ_PROD_OFFSET: usize = offset_of!(Self, req_prod);
    /// Byte offset of `req_event` in the ring.
    pub const REQ_EVENT_OFFSET: usize = offset_of!(Self, req_event);
    /// Byte offset of `rsp_prod` in the ring.
    pub const RSP_PROD_OFFSET: usize = offset_of!(Self, rsp_prod);
    /// Byte offset of `rsp_event` in the ring.
    pub const RSP_EVENT_OFFSET: usize = offset_of!(Self, rsp_event);

    /// The head that a frontend writes before it offers the ring.
    pub fn initial() -> Self {
        Self {
            req_event: 1,
            rsp_event: 1,
            ..Self::default()
        }
    }
}

/// Bytes before the first slot.
pub const RING_HEADER_SIZE: usize = size_of::<SringHeader>();

/// Number of slots in a ring of `bytes` bytes with slots of `slot_size` bytes: what fits, rounded down to a power of two.
/// 0 if nothing fits.
pub const fn ring_size(bytes: usize, slot_size: usize) -> u32 {
    let room = bytes.saturating_sub(RING_HEADER_SIZE);
    let Some(slots) = room.checked_div(slot_size) else {
        return 0;
    };
    match slots {
        0 => 0,
        1..0x8000_0000 => 1 << slots.ilog2(),
        _ => 1 << 31,
    }
}

/// Byte offset in the ring of the slot that an index selects. `size` is a power of two.
pub const fn slot_offset(size: u32, slot_size: usize, index: u32) -> usize {
    RING_HEADER_SIZE + (index & size.wrapping_sub(1)) as usize * slot_size
}

/// Requests that the frontend may still produce.
pub const fn free_requests(size: u32, req_prod_pvt: u32, rsp_cons: u32) -> u32 {
    size.saturating_sub(req_prod_pvt.wrapping_sub(rsp_cons))
}

/// Whether the frontend must wait for a response before it produces another request.
pub const fn is_full(size: u32, req_prod_pvt: u32, rsp_cons: u32) -> bool {
    free_requests(size, req_prod_pvt, rsp_cons) == 0
}

/// Responses that the frontend has not consumed. More than the ring's size if the backend lies: check by
/// [`response_prod_overflow`].
pub const fn unconsumed_responses(rsp_prod: u32, rsp_cons: u32) -> u32 {
    rsp_prod.wrapping_sub(rsp_cons)
}

/// Requests that the backend has not consumed; never more than it has room to answer.
pub const fn unconsumed_requests(size: u32, req_prod: u32, req_cons: u32, rsp_prod_pvt: u32) -> u32 {
    let requests = req_prod.wrapping_sub(req_cons);
    let room = size.saturating_sub(req_cons.wrapping_sub(rsp_prod_pvt));
    if requests < room { requests } else { room }
}

/// Whether consuming the request `req_cons` would leave no room for its response.
pub const fn request_cons_overflow(size: u32, req_cons: u32, rsp_prod_pvt: u32) -> bool {
    req_cons.wrapping_sub(rsp_prod_pvt) >= size
}

/// Whether the frontend's `req_prod` claims more requests than the ring can hold.
pub const fn request_prod_overflow(size: u32, req_prod: u32, rsp_prod_pvt: u32) -> bool {
    req_prod.wrapping_sub(rsp_prod_pvt) > size
}

/// Whether the backend's `rsp_prod` claims more responses than the ring can hold.
pub const fn response_prod_overflow(size: u32, rsp_prod: u32, rsp_cons: u32) -> bool {
    rsp_prod.wrapping_sub(rsp_cons) > size
}

/// Whether moving a producer from `old` to `new` passes the `event` index at which the other end wants a notification. Read
/// `event` after a full barrier behind the write of `new`.
pub const fn needs_notify(old: u32, new: u32, event: u32) -> bool {
    new.wrapping_sub(event) < new.wrapping_sub(old)
}

/// The event index that asks for a notification of the very next entry behind `cons`. After writing it and a full
/// barrier, look once more for entries before going to sleep.
pub const fn next_event(cons: u32) -> u32 {
    cons.wrapping_add(1)
}

pub mod byte_ring {
    //! Arithmetic of rings of bytes, with free-running indices and a length that is a power of two.

    use core::ops::Range;

    /// Bytes that wait between two indices; `None` if they are further apart than the ring is long, so that one is a lie.
    pub const fn queued(size: u32, prod: u32, cons: u32) -> Option<u32> {
        let bytes = prod.wrapping_sub(cons);
        if bytes <= size { Some(bytes) } else { None }
    }

    /// Bytes that may still be written; `None` as for [`queued`].
    pub const fn free(size: u32, prod: u32, cons: u32) -> Option<u32> {
        match queued(size, prod, cons) {
            Some(bytes) => Some(size - bytes),
            None => None,
        }
    }

    /// The places in the ring of the `len` bytes from `index` on: up to the ring's end, and from its start on. `len` is at
    /// most `size`.
    pub fn places(size: u32, index: u32, len: u32) -> (Range<usize>, Range<usize>) {
        let start = index & size.wrapping_sub(1);
        let len = len.min(size);
        let first = len.min(size - start);
        (
            start as usize..(start + first) as usize,
            0..(len - first) as usize,
        )
    }
}

#[cfg(test)]
mod tests;
