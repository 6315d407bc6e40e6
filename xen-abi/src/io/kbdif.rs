//! The keyboard and pointer protocol, of `io/kbdif.h`: one shared page with two event rings, of which only the one to the
//! frontend carries anything.

use core::mem::offset_of;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

consts! {
    u8, "Type of an event." {
        XENKBD_TYPE_MOTION = 1,
        XENKBD_TYPE_RESERVED = 2,
        XENKBD_TYPE_KEY = 3,
        XENKBD_TYPE_POS = 4,
        XENKBD_TYPE_MTOUCH = 5,
    }

    u8, "[`XenkbdMtouch::event_type`]." {
        XENKBD_MT_EV_DOWN = 0,
        XENKBD_MT_EV_UP = 1,
        XENKBD_MT_EV_MOTION = 2,
        XENKBD_MT_EV_SYN = 3,
        XENKBD_MT_EV_SHAPE = 4,
        XENKBD_MT_EV_ORIENT = 5,
    }

    usize, "Geometry of the event rings in the shared page." {
        /// Bytes in an event to the frontend.
        XENKBD_IN_EVENT_SIZE = 40,
        /// Bytes in an event to the backend.
        XENKBD_OUT_EVENT_SIZE = 40,
        /// Bytes in the ring to the frontend.
        XENKBD_IN_RING_SIZE = 2048,
        /// Events in the ring to the frontend.
        XENKBD_IN_RING_LEN = XENKBD_IN_RING_SIZE / XENKBD_IN_EVENT_SIZE,
        /// Offset of the ring to the frontend.
        XENKBD_IN_RING_OFFS = 1024,
        /// Bytes in the ring to the backend.
        XENKBD_OUT_RING_SIZE = 1024,
        /// Events in the ring to the backend.
        XENKBD_OUT_RING_LEN = XENKBD_OUT_RING_SIZE / XENKBD_OUT_EVENT_SIZE,
        /// Offset of the ring to the backend.
        XENKBD_OUT_RING_OFFS = XENKBD_IN_RING_OFFS + XENKBD_IN_RING_SIZE,
    }
}

strings! {
    "Name of the device or of a node in xenstore." {
        XENKBD_DRIVER_NAME = "vkbd",
        XENKBD_FIELD_FEAT_DSBL_KEYBRD = "feature-disable-keyboard",
        XENKBD_FIELD_FEAT_DSBL_POINTER = "feature-disable-pointer",
        XENKBD_FIELD_FEAT_ABS_POINTER = "feature-abs-pointer",
        XENKBD_FIELD_FEAT_RAW_POINTER = "feature-raw-pointer",
        XENKBD_FIELD_FEAT_MTOUCH = "feature-multi-touch",
        XENKBD_FIELD_REQ_ABS_POINTER = "request-abs-pointer",
        XENKBD_FIELD_REQ_RAW_POINTER = "request-raw-pointer",
        XENKBD_FIELD_REQ_MTOUCH = "request-multi-touch",
        XENKBD_FIELD_RING_GREF = "page-gref",
        XENKBD_FIELD_EVT_CHANNEL = "event-channel",
        XENKBD_FIELD_WIDTH = "width",
        XENKBD_FIELD_HEIGHT = "height",
        XENKBD_FIELD_MT_WIDTH = "multi-touch-width",
        XENKBD_FIELD_MT_HEIGHT = "multi-touch-height",
        XENKBD_FIELD_MT_NUM_CONTACTS = "multi-touch-num-contacts",
        XENKBD_FIELD_UNIQUE_ID = "unique-id",
        XENKBD_FIELD_RING_REF = "page-ref",
    }
}

/// The pointer moved by so much.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct XenkbdMotion {
    /// [`XENKBD_TYPE_MOTION`].
    pub r#type: u8,
    /// Padding.
    pub _pad0: [u8; 3],
    /// To the right.
    pub rel_x: i32,
    /// Downwards.
    pub rel_y: i32,
    /// The wheel.
    pub rel_z: i32,
}

/// A key or button went down or up.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct XenkbdKey {
    /// [`XENKBD_TYPE_KEY`].
    pub r#type: u8,
    /// 1 down, 0 up.
    pub pressed: u8,
    /// Padding.
    pub _pad0: [u8; 2],
    /// Linux's `KEY_*` or `BTN_*`.
    pub keycode: u32,
}

/// The pointer is there now.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct XenkbdPosition {
    /// [`XENKBD_TYPE_POS`].
    pub r#type: u8,
    /// Padding.
    pub _pad0: [u8; 3],
    /// In pixels, or in raw units if the frontend asked for them.
    pub abs_x: i32,
    /// The same, downwards.
    pub abs_y: i32,
    /// The wheel.
    pub rel_z: i32,
}

/// Something happened to a finger.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct XenkbdMtouch {
    /// [`XENKBD_TYPE_MTOUCH`].
    pub r#type: u8,
    /// `XENKBD_MT_EV_*`.
    pub event_type: u8,
    /// Which finger.
    pub contact_id: u8,
    /// Zero.
    pub reserved: [u8; 5],
    /// A union that `event_type` selects; see the methods.
    pub u: [i32; 2],
}

impl XenkbdMtouch {
    /// Where the finger is: x, y.
    pub const fn pos(&self) -> (i32, i32) {
        (self.u[0], self.u[1])
    }

    /// The axes of its contact ellipse: major, minor.
    pub const fn shape(&self) -> (u32, u32) {
        (self.u[0] as u32, self.u[1] as u32)
    }

    /// The angle of its contact ellipse in degrees.
    pub const fn orientation(&self) -> i16 {
        self.u[0] as i16
    }
}

/// A slot of the ring to the frontend.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct XenkbdInEvent {
    /// Says which event it is.
    pub r#type: u8,
    /// Padding.
    pub _pad0: [u8; 3],
    /// The rest of a [`XenkbdMotion`], [`XenkbdKey`], [`XenkbdPosition`] or [`XenkbdMtouch`].
    pub body: [u32; 9],
}

zeroed_default!(XenkbdInEvent);

/// A slot of the ring to the backend; no event is defined for it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct XenkbdOutEvent {
    /// Says which event it is.
    pub r#type: u8,
    /// The rest.
    pub body: [u8; 39],
}

zeroed_default!(XenkbdOutEvent);

event_variants!(XenkbdInEvent {
    /// The slot as a motion.
    motion: XenkbdMotion,
    /// The slot as a key.
    key: XenkbdKey,
    /// The slot as a position.
    pos: XenkbdPosition,
    /// The slot as a touch.
    mtouch: XenkbdMtouch,
});

/// The head of the shared page.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct XenkbdPage {
    /// How far the frontend has read.
    pub in_cons: u32,
    /// How far the backend has written.
    pub in_prod: u32,
    /// How far the backend has read.
    pub out_cons: u32,
    /// How far the frontend has written.
    pub out_prod: u32,
}

impl XenkbdPage {
    /// Byte offset of `in_cons` in the page.
    pub const IN_CONS_OFFSET: usize = offset_of!(Self, in_cons);
    /// Byte offset of `in_prod` in the page.
    pub const IN_PROD_OFFSET: usize = offset_of!(Self, in_prod);
    /// Byte offset of `out_cons` in the page.
    pub const OUT_CONS_OFFSET: usize = offset_of!(Self, out_cons);
    /// Byte offset of `out_prod` in the page.
    pub const OUT_PROD_OFFSET: usize = offset_of!(Self, out_prod);
}

/// Byte offset in the page of the event to the frontend with a free-running index.
pub const fn in_event_offset(index: u32) -> usize {
    XENKBD_IN_RING_OFFS + index as usize % XENKBD_IN_RING_LEN * XENKBD_IN_EVENT_SIZE
}

/// Byte offset in the page of the event to the backend with a free-running index.
pub const fn out_event_offset(index: u32) -> usize {
    XENKBD_OUT_RING_OFFS + index as usize % XENKBD_OUT_RING_LEN * XENKBD_OUT_EVENT_SIZE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_survive_the_slot() {
        let key = XenkbdKey {
            r#type: XENKBD_TYPE_KEY,
            pressed: 1,
            keycode: 30,
            ..Default::default()
        };
        let slot = XenkbdInEvent::from(key);
        assert_eq!(slot.r#type, XENKBD_TYPE_KEY);
        assert_eq!(slot.key(), key);
        let touch = XenkbdMtouch {
            r#type: XENKBD_TYPE_MTOUCH,
            u: [-3, 4],
            ..Default::default()
        };
        assert_eq!(XenkbdInEvent::from(touch).mtouch().pos(), (-3, 4));
    }

    #[test]
    fn event_offsets_stay_in_their_ring() {
        assert_eq!(in_event_offset(51), 1024);
        assert_eq!(in_event_offset(50) + XENKBD_IN_EVENT_SIZE, 1024 + 2040);
        assert_eq!(out_event_offset(25), 3072);
    }
}
