//! The console ring, of `io/console.h`: two byte streams in one page. [`crate::io::ring`] has the arithmetic.

use core::mem::offset_of;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The console page. Producers and consumers only ever grow; a mask by the length gives the place.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct XenconsInterface {
    /// Bytes to the guest.
    pub r#in: [u8; 1024],
    /// Bytes from the guest.
    pub out: [u8; 2048],
    /// How far the guest has read.
    pub in_cons: u32,
    /// How far the backend has written.
    pub in_prod: u32,
    /// How far the backend has read.
    pub out_cons: u32,
    /// How far the guest has written.
    pub out_prod: u32,
}

zeroed_default!(XenconsInterface);

impl XenconsInterface {
    /// Length of `in`.
    pub const IN_SIZE: u32 = 1024;
    /// Length of `out`.
    pub const OUT_SIZE: u32 = 2048;
    /// Byte offset of `in` in the page.
    pub const IN_OFFSET: usize = offset_of!(Self, r#in);
    /// Byte offset of `out` in the page.
    pub const OUT_OFFSET: usize = offset_of!(Self, out);
    /// Byte offset of `in_cons` in the page.
    pub const IN_CONS_OFFSET: usize = offset_of!(Self, in_cons);
    /// Byte offset of `in_prod` in the page.
    pub const IN_PROD_OFFSET: usize = offset_of!(Self, in_prod);
    /// Byte offset of `out_cons` in the page.
    pub const OUT_CONS_OFFSET: usize = offset_of!(Self, out_cons);
    /// Byte offset of `out_prod` in the page.
    pub const OUT_PROD_OFFSET: usize = offset_of!(Self, out_prod);
}
