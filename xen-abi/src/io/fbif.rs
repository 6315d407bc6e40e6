//! The framebuffer protocol, of `io/fbif.h`: one shared page with the geometry, a table of frames and two event rings.
//!
//! "In" is towards the frontend, "out" towards the backend. Indices only ever grow and are taken modulo the ring's
//! length, which is not a power of two.

use core::mem::offset_of;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

consts! {
    u8, "Type of an event to the frontend." {
        XENFB_TYPE_REFRESH_PERIOD = 1,
    }

    u8, "Type of an event to the backend." {
        XENFB_TYPE_UPDATE = 2,
        XENFB_TYPE_RESIZE = 3,
    }

    u32, "[`XenfbRefreshPeriod::period`]: the backend needs no updates at all." {
        XENFB_NO_REFRESH = 0,
    }

    usize, "Geometry of the event rings in the shared page." {
        /// Bytes in an event to the backend.
        XENFB_OUT_EVENT_SIZE = 40,
        /// Bytes in an event to the frontend.
        XENFB_IN_EVENT_SIZE = 40,
        /// Bytes in the ring to the frontend.
        XENFB_IN_RING_SIZE = 1024,
        /// Events in the ring to the frontend.
        XENFB_IN_RING_LEN = XENFB_IN_RING_SIZE / XENFB_IN_EVENT_SIZE,
        /// Offset of the ring to the frontend.
        XENFB_IN_RING_OFFS = 1024,
        /// Bytes in the ring to the backend.
        XENFB_OUT_RING_SIZE = 2048,
        /// Events in the ring to the backend.
        XENFB_OUT_RING_LEN = XENFB_OUT_RING_SIZE / XENFB_OUT_EVENT_SIZE,
        /// Offset of the ring to the backend.
        XENFB_OUT_RING_OFFS = XENFB_IN_RING_OFFS + XENFB_IN_RING_SIZE,
    }
}

/// Entries of [`XenfbPage::pd`]. The table overlaps the event rings, which is why it is in use up to the first ring only.
pub const XENFB_PD_LEN: usize = 256;

/// To the backend: a rectangle has changed.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct XenfbUpdate {
    /// [`XENFB_TYPE_UPDATE`].
    pub r#type: u8,
    /// Padding.
    pub _pad0: [u8; 3],
    /// Left edge.
    pub x: i32,
    /// Top edge.
    pub y: i32,
    /// Width.
    pub width: i32,
    /// Height.
    pub height: i32,
}

/// To the backend: the picture has a new geometry.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct XenfbResize {
    /// [`XENFB_TYPE_RESIZE`].
    pub r#type: u8,
    /// Padding.
    pub _pad0: [u8; 3],
    /// Width in pixels.
    pub width: i32,
    /// Height in pixels.
    pub height: i32,
    /// Bytes in a line.
    pub stride: i32,
    /// Bits in a pixel.
    pub depth: i32,
    /// Where the picture starts in the framebuffer, in bytes.
    pub offset: i32,
}

/// To the frontend: how often the backend shows the picture.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct XenfbRefreshPeriod {
    /// [`XENFB_TYPE_REFRESH_PERIOD`].
    pub r#type: u8,
    /// Padding.
    pub _pad0: [u8; 3],
    /// Milliseconds, or [`XENFB_NO_REFRESH`].
    pub period: u32,
}

/// A slot of the ring to the backend.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct XenfbOutEvent {
    /// Says which event it is.
    pub r#type: u8,
    /// Padding.
    pub _pad0: [u8; 3],
    /// The rest of a [`XenfbUpdate`] or [`XenfbResize`].
    pub body: [u32; 9],
}

zeroed_default!(XenfbOutEvent);

/// A slot of the ring to the frontend.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct XenfbInEvent {
    /// Says which event it is.
    pub r#type: u8,
    /// Padding.
    pub _pad0: [u8; 3],
    /// The rest of a [`XenfbRefreshPeriod`].
    pub body: [u32; 9],
}

zeroed_default!(XenfbInEvent);

event_variants!(XenfbOutEvent {
    /// The slot as an update.
    update: XenfbUpdate,
    /// The slot as a resize.
    resize: XenfbResize,
});

event_variants!(XenfbInEvent {
    /// The slot as a refresh period.
    refresh_period: XenfbRefreshPeriod,
});

/// The head of the shared page.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct XenfbPage {
    /// How far the frontend has read.
    pub in_cons: u32,
    /// How far the backend has written.
    pub in_prod: u32,
    /// How far the backend has read.
    pub out_cons: u32,
    /// How far the frontend has written.
    pub out_prod: u32,
    /// Width in pixels.
    pub width: i32,
    /// Height in pixels.
    pub height: i32,
    /// Bytes in a line.
    pub line_length: u32,
    /// Bytes in the framebuffer.
    pub mem_length: u32,
    /// Bits in a pixel.
    pub depth: u8,
    /// Padding.
    pub _pad0: [u8; 7],
    /// Frames that hold the frames of the framebuffer.
    pub pd: [u64; XENFB_PD_LEN],
}

zeroed_default!(XenfbPage);

impl XenfbPage {
    /// Byte offset of `in_cons` in the page.
    pub const IN_CONS_OFFSET: usize = offset_of!(Self, in_cons);
    /// Byte offset of `in_prod` in the page.
    pub const IN_PROD_OFFSET: usize = offset_of!(Self, in_prod);
    /// Byte offset of `out_cons` in the page.
    pub const OUT_CONS_OFFSET: usize = offset_of!(Self, out_cons);
    /// Byte offset of `out_prod` in the page.
    pub const OUT_PROD_OFFSET: usize = offset_of!(Self, out_prod);
    /// Byte offset of `width` in the page.
    pub const WIDTH_OFFSET: usize = offset_of!(Self, width);
    /// Byte offset of `height` in the page.
    pub const HEIGHT_OFFSET: usize = offset_of!(Self, height);
    /// Byte offset of `line_length` in the page.
    pub const LINE_LENGTH_OFFSET: usize = offset_of!(Self, line_length);
    /// Byte offset of `mem_length` in the page.
    pub const MEM_LENGTH_OFFSET: usize = offset_of!(Self, mem_length);
    /// Byte offset of `depth` in the page.
    pub const DEPTH_OFFSET: usize = offset_of!(Self, depth);
    /// Byte offset of `pd` in the page.
    pub const PD_OFFSET: usize = offset_of!(Self, pd);
}

/// Byte offset in the page of the event to the frontend with a free-running index.
pub const fn in_event_offset(index: u32) -> usize {
    XENFB_IN_RING_OFFS + index as usize % XENFB_IN_RING_LEN * XENFB_IN_EVENT_SIZE
}

/// Byte offset in the page of the event to the backend with a free-running index.
pub const fn out_event_offset(index: u32) -> usize {
    XENFB_OUT_RING_OFFS + index as usize % XENFB_OUT_RING_LEN * XENFB_OUT_EVENT_SIZE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_survive_the_slot() {
        let resize = XenfbResize {
            r#type: XENFB_TYPE_RESIZE,
            width: 1024,
            offset: -1,
            ..Default::default()
        };
        let slot = XenfbOutEvent::from(resize);
        assert_eq!(slot.r#type, XENFB_TYPE_RESIZE);
        assert_eq!(slot.resize(), resize);
        let refresh = XenfbRefreshPeriod {
            r#type: 1,
            period: 40,
            ..Default::default()
        };
        assert_eq!(XenfbInEvent::from(refresh).refresh_period(), refresh);
    }

    #[test]
    fn event_offsets_stay_in_their_ring() {
        assert_eq!(in_event_offset(0), 1024);
        assert_eq!(in_event_offset(25), 1024);
        assert_eq!(in_event_offset(24) + XENFB_IN_EVENT_SIZE, 1024 + 1000);
        assert_eq!(out_event_offset(51), 2048);
        assert_eq!(out_event_offset(50) + XENFB_OUT_EVENT_SIZE, 2048 + 2040);
    }
}
